"""A small data set without faults, in which tests plant one fault at a time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.strict_yaml import dump_yaml

HEIGHT, WIDTH = 72, 112
FAULTY_NAMES = ("car", "b<u>s", "自行车")
COLOURS = ((200, 60, 40), (40, 180, 60), (60, 70, 210))
SIZES = {"train": 16, "val": 12}


class FaultySet:
    """A clean set in `folder`: every image shows each class once, on a background of its own."""

    def __init__(self, folder: Path, *, sizes: dict[str, int] = SIZES) -> None:
        self.folder = folder
        self.yaml = folder / "data.yaml"
        rng = np.random.default_rng(5)
        for split, count in sizes.items():
            for index in range(count):
                pixels, rows = drawn_image(rng)
                self.write(split, index, pixels, rows)
        self.write_yaml()

    def write_yaml(self, **changes: object) -> None:
        """Write the data yaml with some keys changed."""
        names = changes.pop("names", list(FAULTY_NAMES))
        content = {"path": ".", "train": "images/train", "val": "images/val", "names": names, **changes}
        dump_yaml(self.yaml, {key: value for key, value in content.items() if value})

    def write(self, split: str, name: object, pixels: np.ndarray, rows: list[list[float]] | str) -> Path:
        """Write an image with its label rows, and return its path."""
        path = self.image(split, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels[..., ::-1])
        self.write_rows(split, name, rows)
        return path

    def write_rows(self, split: str, name: object, rows: list[list[float]] | str) -> None:
        """Write a label file."""
        path = self.label(split, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            rows if isinstance(rows, str) else "".join(f"{' '.join(f'{v:.6g}' for v in r)}\n" for r in rows)
        )

    def rows(self, split: str, name: object) -> list[list[float]]:
        """Return the rows of a label file."""
        return [[float(v) for v in line.split()] for line in self.label(split, name).read_text().splitlines()]

    def rewrite(self, split: str, change) -> None:
        """Replace every row of a split by `change(row)`."""
        for label in (self.folder / "labels" / split).glob("*.txt"):
            self.write_rows(split, label.stem, [change(row) for row in self.rows(split, label.stem)])

    def image(self, split: str, name: object) -> Path:
        return self.folder / "images" / split / f"{name}.png"

    def label(self, split: str, name: object) -> Path:
        return self.folder / "labels" / split / f"{name}.txt"


def drawn_image(rng: np.random.Generator) -> tuple[np.ndarray, list[list[float]]]:
    """Return an (HEIGHT, WIDTH, 3) image of three flat rectangles, wider than high, and their rows."""
    coarse = rng.integers(90, 170, (4, 6, 3), np.uint8)
    pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    rows = []
    for class_id, colour in enumerate(COLOURS):
        w, h = int(rng.integers(22, 32)), int(rng.integers(12, 18))
        x = int(rng.integers(class_id * 37, class_id * 37 + 37 - w + 1))
        y = int(rng.integers(0, HEIGHT - h))
        pixels[y : y + h, x : x + w] = colour
        rows.append([class_id, (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT])
    return pixels, rows

"""How many planted near-duplicates are found, and which original images are taken for duplicates of each other.

    python -m tests.studies.near_duplicates FOLDER [--fraction 0.3] [--sheet pairs.png]

For each kind of change a random part of the images below FOLDER gets one changed copy, with random strength, in a
folder of its own. A copy counts as found if it is paired with its source. False positives are pairs of originals, and
of a copy with another source, of different scenes; since real sets contain duplicates of their own, the flagged pairs
of originals are drawn side by side, to look at. With labels beside the images (images/ and labels/), a pair of
originals is also counted as different if fewer than 80 % of its objects are of the same class at the same place.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from utils.datasets.images import IMAGE_SUFFIXES, has_suffix, read_image
from utils.datasets.labels import label_path
from utils.datasets.near_duplicates import DuplicatePair, compute_signatures, find_duplicates

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def rescaled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Scale by 0.3 to 1.6, as a rule not by a whole number."""
    factor = rng.uniform(0.3, 1.6)
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=interpolation)


def stretched(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Make it square, as Roboflow does."""
    return cv2.resize(image, (416, 416), interpolation=cv2.INTER_AREA)


def brightness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Multiply by 0.6 to 0.85 or 1.15 to 1.4, add -15 to 15, and clip."""
    factor = rng.choice([rng.uniform(0.6, 0.85), rng.uniform(1.15, 1.4)])
    return np.clip(image * factor + rng.uniform(-15, 15), 0, 255).astype(np.uint8)


def mirrored(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Flip horizontally."""
    return image[:, ::-1]


def cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut 5 % of the width and of the height off, at random sides."""
    height, width = image.shape[:2]
    dy, dx = round(height * 0.05), round(width * 0.05)
    y, x = rng.integers(0, dy + 1), rng.integers(0, dx + 1)
    return image[y : height - dy + y, x : width - dx + x]


def cropped_all_round(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Cut 5 % off each of the four sides."""
    height, width = image.shape[:2]
    dy, dx = round(height * 0.05), round(width * 0.05)
    return image[dy : height - dy, dx : width - dx]


def mirrored_and_cropped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Both, in half the size."""
    return cv2.resize(cropped(mirrored(image, rng), rng), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (rescaled, stretched, brightness, mirrored, cropped, cropped_all_round, mirrored_and_cropped)
}
CHANGES["recompressed"] = lambda image, _: image


def plant(
    paths: list[str], folder: Path, *, fraction: float, rng: np.random.Generator
) -> dict[str, list[tuple[int, str]]]:
    """Write the changed copies as JPEG of quality 90, recompressed ones 20 to 80; return their sources and paths."""
    planted: dict[str, list[tuple[int, str]]] = {}
    for kind, change in CHANGES.items():
        chosen = rng.choice(len(paths), max(1, round(fraction * len(paths))), replace=False)
        for source in sorted(chosen.tolist()):
            quality = int(rng.integers(20, 80)) if kind == "recompressed" else 90
            image = cv2.cvtColor(np.ascontiguousarray(change(read_image(paths[source]), rng)), cv2.COLOR_RGB2BGR)
            path = folder / f"{kind}_{source}.jpg"
            path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
            planted.setdefault(kind, []).append((source, str(path)))
    return planted


def shared_objects(first: str, second: str) -> float | None:
    """Return the fraction of objects that both images have at about the same place; None without labels."""
    files = [Path(label_path(path)) for path in (first, second)]
    if not all(file.is_file() for file in files):
        return None
    ours, theirs = ([[float(v) for v in line.split()[:5]] for line in file.read_text().splitlines()] for file in files)
    matched = sum(
        any(a[0] == b[0] and abs(a[1] - b[1]) < a[3] / 2 and abs(a[2] - b[2]) < a[4] / 2 for b in theirs) for a in ours
    )
    return matched / max(len(ours), len(theirs), 1)


def draw_sheet(pairs: list[DuplicatePair], paths: list[str], file: Path) -> None:
    """Draw up to 60 pairs side by side."""
    tiles = [
        np.pad(
            np.hstack([cv2.resize(read_image(paths[i]), (200, 150)) for i in (pair.first, pair.second)]),
            [(4,), (6,), (0,)],
        )
        for pair in pairs[:60]
    ]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    rows = [np.hstack(tiles[i : i + 3]) for i in range(0, len(tiles), 3)]
    cv2.imwrite(str(file), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def main() -> None:
    """Plant, search, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fraction", type=float, default=0.3, help="of the images, for each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="where to draw the flagged pairs of originals")
    options = parser.parse_args()
    paths = sorted(str(path) for path in options.folder.rglob("*") if has_suffix(path, IMAGE_SUFFIXES))
    originals = len(paths)
    with tempfile.TemporaryDirectory() as folder:
        planted = plant(paths, Path(folder), fraction=options.fraction, rng=np.random.default_rng(options.seed))
        for copies in planted.values():
            paths += [path for _, path in copies]
        pairs = find_duplicates(compute_signatures(paths))
    source_of = dict(enumerate(range(originals)))
    source_of |= {originals + i: s for i, (s, _) in enumerate(copy for copies in planted.values() for copy in copies)}
    found = {(pair.first, pair.second) for pair in pairs}
    start, total = originals, 0
    for kind, copies in planted.items():
        hits = sum((source, start + i) in found for i, (source, _) in enumerate(copies))
        print(f"{kind:22} {hits:4} of {len(copies):4} found ({hits / len(copies):.1%})")
        start, total = start + len(copies), total + hits
    count = start - originals
    print(f"{'all':22} {total:4} of {count:4} found ({total / count:.1%})")
    flagged = [pair for pair in pairs if pair.second < originals]
    shared = [shared_objects(paths[pair.first], paths[pair.second]) for pair in flagged]
    different = [
        pair for pair, fraction in zip(flagged, shared, strict=True) if fraction is not None and fraction < 0.8
    ]
    images = {index for pair in different for index in (pair.first, pair.second)}
    print(
        f"{originals} originals: {len(flagged)} pairs of them flagged, {len(different)} of these with other objects "
        f"({len(images)} images, {len(images) / originals:.1%})"
    )
    crossed = [pair for pair in pairs if pair.second >= originals and source_of[pair.first] != source_of[pair.second]]
    wrong = [
        pair
        for pair in crossed
        if (shared_objects(*(paths[source_of[i]] for i in (pair.first, pair.second))) or 0) < 0.8
    ]
    print(f"copies paired with another source: {len(crossed)} pairs, {len(wrong)} of these with other objects")
    print(f"wrong of all pairs: {len(different) + len(wrong)} of {len(pairs)}")
    if options.sheet and flagged:
        draw_sheet(different + [pair for pair in flagged if pair not in different], paths, options.sheet)


if __name__ == "__main__":
    main()

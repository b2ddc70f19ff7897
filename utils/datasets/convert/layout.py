"""What all converters write: label rows as text, a data yaml, and what was left out, in words."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from PIL import Image

from utils.errors import DataError

Entry = tuple[str, bytes]
Row = tuple[int, Sequence[float]]


class Tally(Counter[str]):
    """What a conversion met, in words, and how often."""

    def __str__(self) -> str:
        """Return one line."""
        return ", ".join(f"{count} {what}" for what, count in self.items() if count)


def box_row(label: int, box_xyxy: Sequence[float], size_wh: tuple[float, float]) -> Row | None:
    """Return the row of a box in pixels, cut at the picture's borders; None if nothing is left."""
    width, height = size_wh
    x1, x2 = (min(max(v / width, 0.0), 1.0) for v in box_xyxy[::2])
    y1, y2 = (min(max(v / height, 0.0), 1.0) for v in box_xyxy[1::2])
    if not (x2 > x1 and y2 > y1):  # NaN too
        return None
    return label, ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def label_text(rows: Iterable[Row]) -> bytes:
    """Return the content of a label file, `class` and shares of the picture in each line."""
    return "".join(f"{label} {' '.join(f'{value:.6g}' for value in values)}\n" for label, values in rows).encode()


def picture_size(data: bytes, where: str) -> tuple[int, int]:
    """Return the width and height that a picture's header tells.

    Raises:
        DataError: it is no picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as header:
            return header.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(where, f"is no picture ({error})", fix="replace the file") from error


def with_data_yaml(entries: Iterable[Entry], names: Sequence[str]) -> Iterator[Entry]:
    """Yield the entries, and after them a data yaml: folders of pictures named train..., val..., test... as splits."""
    folders: dict[str, None] = {}
    for name, content in entries:
        folder = name.rpartition("/")[0]
        if "images" in folder.split("/"):
            folders[folder] = None
        yield name, content
    splits = {split: [f for f in folders if _split_of(f) == split] for split in ("train", "val", "test")}
    splits["val"] = splits["val"] or splits["test"] or splits["train"]
    lines = ["path: .", *(f"{split}: {json.dumps(found)}" for split, found in splits.items() if found), "names:"]
    lines += [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names)]
    yield "data.yaml", ("\n".join(lines) + "\n").encode()


def _split_of(folder: str) -> str:
    """Tell which split a folder of pictures belongs to, by its name."""
    words = folder.lower()
    return next((split for split in ("test", "val") if split in words), "train")

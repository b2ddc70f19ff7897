"""One pass over the images and label files of a split, in flat arrays: the input of every check."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.datasets.images import (
    ORIENTATION_TAG,
    decode_image,
    map_in_threads,
    open_header,
    read_image_file,
    suppress_pillow_warnings,
)
from utils.datasets.labels import LabelRow, label_path, read_label_content, read_rows
from utils.datasets.scan import MIN_IMAGE_SIZE
from utils.errors import DataError
from utils.preparation.readings import NAMES, NO_EVIDENCE, Evidence, boxes_of, measure, normalized

MAX_ASPECT = 10.0  # longer side / shorter side of an odd image
# Suffixes that name each format, as Pillow calls it.
SUFFIXES = {
    **{"JPEG": ("jpg", "jpeg", "jfif", "mpo"), "MPO": ("jpg", "jpeg", "mpo"), "PNG": ("png",), "BMP": ("bmp",)},
    **{"DIB": ("bmp",), "WEBP": ("webp",), "TIFF": ("tif", "tiff", "dng"), "GIF": ("gif",), "AVIF": ("avif",)},
    **{"PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"), "JPEG2000": ("jp2", "j2k", "jpx")},
}
MODES = {"1": "black and white", "L": "grey", "LA": "grey with transparency", "RGBA": "with transparency"}
MODES |= {"P": "with a palette", "PA": "with a palette", "CMYK": "CMYK", "YCCK": "CMYK"}


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What one image and its label file are."""

    size_hw: tuple[int, int]  # after EXIF orientation; zeros if the image cannot be decoded
    remarks: tuple[tuple[str, str], ...]  # kind of finding and words
    has_label: bool  # whether there is a label file
    table: np.ndarray  # (k, 7) float64, of the label rows: see `_table`
    evidence: Evidence


@dataclass(frozen=True, kw_only=True)
class SplitSurvey:
    """All images of one split, n images with m rows; coordinates are as in the files."""

    name: str
    paths: Sequence[str]  # n
    sizes_hw: np.ndarray  # (n, 2) int32, zeros if the image cannot be decoded
    has_label: np.ndarray  # (n,) bool
    rows: np.ndarray  # (m, 5) float64, image by image: class, then four numbers; polygons are their bounding boxes
    beyond_range: np.ndarray  # (m,) float64, by how much a value, of a polygon too, is below 0 or above 1; else <= 0
    lines: np.ndarray  # (m,) int32, line in the label file
    starts: np.ndarray  # (n + 1,) int64: image i has rows starts[i] to starts[i + 1]
    inside: np.ndarray  # (n, readings) float32, see `Evidence`
    contrast: np.ndarray  # (n, readings) float32
    remarks: dict[str, list[tuple[int, str]]]  # by kind: index of the image and words

    @property
    def counts(self) -> np.ndarray:
        """(n,) number of rows of each image."""
        return np.diff(self.starts)

    @property
    def image_of_row(self) -> np.ndarray:
        """(m,) index of the image of each row."""
        return np.repeat(np.arange(len(self.paths)), self.counts)

    @property
    def decoded(self) -> np.ndarray:
        """(n,) bool, whether the image can be decoded."""
        return self.sizes_hw[:, 0] > 0

    def rows_of(self, index: int) -> np.ndarray:
        """Return the (k, 5) rows of one image."""
        return self.rows[self.starts[index] : self.starts[index + 1]]

    def boxes(self, index: int) -> np.ndarray:
        """Return (k, 4) normalized corners of one image, not clipped."""
        height, width = (int(side) for side in self.sizes_hw[index])
        if not height:
            return np.zeros((self.counts[index], 4))
        return boxes_of(normalized(self.rows_of(index), (height, width)), NAMES[0], (height, width))

    def sides_wh(self) -> np.ndarray:
        """Return (m, 2) width and height of every row in pixels of its image file, of normalized rows."""
        return self.rows[:, 3:] * self.sizes_hw[self.image_of_row][:, ::-1]


def survey_split(name: str, paths: Sequence[str]) -> SplitSurvey:
    """Decode every image of a split and read its label file; show a progress bar."""
    tables, starts = [_table([])], [0]
    sizes, has_label, inside, contrast = [], [], [], []
    remarks: dict[str, list[tuple[int, str]]] = {}
    for index, facts in enumerate(map_in_threads(survey_image, paths, f"Checking {name}")):
        sizes.append(facts.size_hw)
        has_label.append(facts.has_label)
        tables.append(facts.table)
        starts.append(starts[-1] + len(facts.table))
        inside.append(facts.evidence.inside)
        contrast.append(facts.evidence.contrast)
        for kind, words in facts.remarks:
            remarks.setdefault(kind, []).append((index, words))
    table = np.concatenate(tables)
    return SplitSurvey(
        name=name,
        paths=paths,
        sizes_hw=np.array(sizes, np.int32).reshape(-1, 2),
        has_label=np.array(has_label, bool),
        rows=table[:, :5],
        beyond_range=table[:, 5],
        lines=table[:, 6].astype(np.int32),
        starts=np.array(starts, np.int64),
        inside=np.array(inside, np.float32).reshape(-1, len(NAMES)),
        contrast=np.array(contrast, np.float32).reshape(-1, len(NAMES)),
        remarks=remarks,
    )


def survey_image(path: str) -> ImageFacts:
    """Return the facts of one image. No content raises an error; it becomes a remark."""
    remarks: list[tuple[str, str]] = []
    image = None
    try:
        data = read_image_file(path)
        image = decode_image(data, name=path)
        remarks += _oddities(path, data, (image.shape[0], image.shape[1]))
    except DataError as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        remarks.append(("image-missing", "does not exist") if is_missing else ("image-damaged", error.what))
    content = read_label_content(path)
    label = os.path.basename(label_path(path))
    rows: list[LabelRow] = []
    if isinstance(content, DataError):
        remarks.append(("label-unreadable", f"{label} {content.what}"))
    elif content is not None:
        lines = read_rows(content)
        rows = [row for row in lines if row.problem is None]
        if problems := [row.problem for row in lines if row.problem]:
            remarks.append(("label-unreadable", f"{label}: line {problems[0].line} {problems[0].what}"))
    table = _table(rows)
    return ImageFacts(
        size_hw=(0, 0) if image is None else (image.shape[0], image.shape[1]),
        remarks=tuple(remarks),
        has_label=content is not None,
        table=table,
        evidence=NO_EVIDENCE if image is None else measure(image, table[:, :5]),
    )


def _table(rows: Sequence[LabelRow]) -> np.ndarray:
    """Return (k, 7) float64: class and four numbers of each row, by how much it is out of range, and its line."""
    columns = [(*row.box, max(-min(row.values[1:]), max(row.values[1:]) - 1), row.line) for row in rows]
    return np.array(columns, np.float64).reshape(-1, 7)


def _oddities(path: str, data: bytes, size_hw: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Yield kind and words of what is unusual about an image that can be decoded."""
    height, width = size_hw
    if min(size_hw) < MIN_IMAGE_SIZE:
        yield "image-tiny", f"is {width}x{height} pixels"
    elif max(size_hw) > MAX_ASPECT * min(size_hw):
        yield "image-extreme-aspect", f"is {width}x{height} pixels, {max(size_hw) / min(size_hw):.0f} : 1"
    header = open_header(data)
    if header is None:
        return
    with header, suppress_pillow_warnings():
        orientation = header.getexif().get(ORIENTATION_TAG, 1)
        if orientation in range(2, 9):
            yield "image-exif-rotated", f"has EXIF orientation {orientation}; read as {width}x{height} pixels"
        bits = 16 if header.mode[0] in "IF" or (header.format == "PNG" and data[24] == 16) else 8
        mode = "more than 8 bits" if bits > 8 else MODES.get(header.mode, "")
        if mode:
            yield "image-mode", mode
        if header.format in ("GIF", "WEBP", "PNG", "TIFF") and getattr(header, "n_frames", 1) > 1:
            yield "image-animated", f"has {header.n_frames} frames; the first is read"  # type: ignore[attr-defined]
        suffix = Path(path).suffix[1:].lower()
        expected = SUFFIXES.get(header.format or "", ())
        if expected and suffix not in expected:
            yield "image-wrong-suffix", f"is a {header.format} file named .{suffix}"

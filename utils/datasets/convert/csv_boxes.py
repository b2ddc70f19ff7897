"""Tables of boxes: one csv for all images, one row per box, columns recognised by their names."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Objects
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import Source, image_size, relative_name, split_of_file, split_of_folders
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix
from utils.errors import DataError

# Names of columns, in lower case without anything but letters and digits; the first that a table has counts.
IMAGE = "filename imagefilename imagename imageid imagepath filepath image img path file name id".split()
CLASS = "classname labelname label class category categoryname name object classid categoryid".split()
WIDTH = "imagewidth imgwidth imgw width".split()
HEIGHT = "imageheight imgheight imgh height".split()
CORNERS = (
    "xmin ymin xmax ymax".split(),
    "x1 y1 x2 y2".split(),
    "left top right bottom".split(),
    "bboxxmin bboxymin bboxxmax bboxymax".split(),
    "startx starty endx endy".split(),
    "x0 y0 x1 y1".split(),
)
SIZES = (  # x and y of the top-left corner, width, height
    "x y w h".split(),
    "bboxx bboxy bboxwidth bboxheight".split(),
    "xmin ymin w h".split(),
    "left top width height".split(),
    "x y width height".split(),
)
CENTRES = ("xcenter ycenter width height".split(), "cx cy w h".split(), "xcentre ycentre width height".split())
LISTS = ("bbox", "box", "boundingbox")  # a column with "[x, y, w, h]"
DEFAULT_CLASS = "object"


class Table:
    """How the columns of a table are used."""

    def __init__(self, header: Sequence[str]) -> None:
        """Find the columns; ValueError if these are not those of a table of boxes."""
        keys = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header]
        if len(header) == 6 and has_suffix(header[0], IMAGE_SUFFIXES) and _is_number(header[1]):
            keys = ["path", "x1", "y1", "x2", "y2", "class"]  # without a header, as RetinaNet reads them
            header = keys
            self.has_header = False
        else:
            self.has_header = True
        column = {key: index for index, key in reversed([*enumerate(keys)])}
        self.box, self.kind = next(
            ((tuple(column[key] for key in group), kind)
             for groups, kind in ((CORNERS, "corners"), (CENTRES, "centre and size"), (SIZES, "corner and size"),
                                  (([name] for name in LISTS), "list of corner and size"))
             for group in groups if all(key in column for key in group)),
            ((), ""),
        )  # fmt: skip
        used = set(self.box)
        self.image = self._first(IMAGE, column, used)
        used.add(self.image)
        self.label = self._first(CLASS, column, used)
        used.add(self.label)
        self.size = (self._first(WIDTH, column, used), self._first(HEIGHT, column, used))
        if not self.box or self.image < 0:
            raise ValueError("it has no columns of an image and a box")
        names = [header[index] for index in (self.image, *self.box, *([self.label] if self.label >= 0 else []))]
        self.words = f"{', '.join(names)}: {self.kind}"

    @staticmethod
    def _first(names: Sequence[str], column: Mapping[str, int], used: set[int]) -> int:
        return next((column[name] for name in names if name in column and column[name] not in used), -1)

    def values(self, row: Sequence[str]) -> list[float]:
        """Return the four numbers of a row's box; none if it has no box; ValueError if they are invalid."""
        texts = [row[index].strip() for index in self.box]
        if len(texts) == 1:
            texts = [text for text in re.split(r"[\s,;]+", texts[0].strip("[](){} ")) if text]
        if all(text.lower() in ("", "nan", "none", "null") for text in texts):
            return []
        values = [float(text) for text in texts]
        if len(values) != 4 or not all(map(math.isfinite, values)):
            raise ValueError(f"{' '.join(texts)[:40]!r} is not a box")
        return values

    def corners(self, values: Sequence[float]) -> tuple[float, float, float, float]:
        """Return the corners of a box."""
        a, b, c, d = values
        if self.kind == "corners":
            return a, b, c, d
        if self.kind == "centre and size":
            return a - c / 2, b - d / 2, a + c / 2, b + d / 2
        return a, b, a + c, b + d


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", text) is not None


def _table_of(source: Source, name: str) -> Table | None:
    lines = source.head(name).decode("utf-8-sig", "replace").splitlines()
    try:
        return Table(next(csv.reader(lines[:1], delimiter=_delimiter(lines[0])))) if lines else None
    except (ValueError, StopIteration, csv.Error):
        return None


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def find_csv(source: Source) -> list[str]:
    """Return the names of all csv files with columns of an image and a box."""
    return [name for name in source.with_suffix("csv", "tsv") if _table_of(source, name) is not None]


def read_csv(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read every csv with columns of an image and a box.

    Columns are found by name, as of Roboflow, TensorFlow, Open Images and Kaggle. Coordinates are normalized if none
    is above 1. The image size is that of the image file where the table has none. A row without a box is an image
    without objects. Without a column of classes there is one class, "object".

    Raises:
        DataError: a row is invalid, or an image that it names is ambiguous.
    """
    del polygons
    found = AnnotatedSet(images=[])
    descriptions = _descriptions(source)
    without_suffix: dict[str, str] = {}
    ambiguous = set()  # images of which another one differs in the suffix only
    for image in source.images:
        first = without_suffix.setdefault(PurePosixPath(image).with_suffix("").as_posix(), image)
        if first != image:
            ambiguous.add(first)
    for name in find_csv(source):
        table = _table_of(source, name)
        if table is None:
            continue
        rows_of: dict[str, list[tuple[list[float], str, list[str]]]] = {}
        for line, row in _rows(source, name, table):
            try:
                image = relative_name(row[table.image].strip())
                label = row[table.label].strip() if table.label >= 0 else DEFAULT_CLASS
                rows_of.setdefault(image, []).append((table.values(row), descriptions.get(label, label), row))
            except (ValueError, IndexError) as error:
                raise DataError(f"{name}:{line}", f"is not a valid row ({error})", fix="correct it") from error
        values = [value for rows in rows_of.values() for box, _, _ in rows for value in box]
        normalized = bool(values) and max(values) <= 1
        found.report[f"csv read by its columns {table.words}{', normalized' if normalized else ''}"] += 1
        bare = not any(has_suffix(image, IMAGE_SUFFIXES) for image in rows_of)
        split = split_of_file(name)
        file_of = ImageFiles(without_suffix if bare else source.images).match(rows_of, annotations=name, split=split)
        for image, rows in rows_of.items():
            file = file_of.get(image, "")
            file = without_suffix.get(file, file) if bare else file
            if bare and file in ambiguous:
                raise DataError(name, f"{image!r} matches several images, such as {file!r}", fix="rename one of them")
            size_wh = _size(table, rows[0][2]) or (image_size(source.files, file) if file else None)
            entry = AnnotatedImage(file=file, source=name, split=split or split_of_folders(file), size_wh=size_wh)
            if size_wh is not None and file:
                objects = Objects((1, 1) if normalized else size_wh, found.report, polygons=False)
                for box, label, _ in rows:
                    if box:
                        objects.add_box(label, table.corners(box))
                entry = replace(entry, labels=objects.labels)
            found.images.append(entry)
    return found


def _size(table: Table, row: Sequence[str]) -> tuple[float, float] | None:
    """Return the image size that a row states."""
    if min(table.size) < 0 or not all(_is_number(row[index]) for index in table.size):
        return None
    width, height = (float(row[index]) for index in table.size)
    return (width, height) if 1 < min(width, height) and max(width, height) < math.inf else None


def _rows(source: Source, name: str, table: Table) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and rows of a table, without its header and empty lines."""
    text = source.text(name)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0]))
    try:
        for number, row in enumerate(reader):
            if row and not (number == 0 and table.has_header):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}", f"is not csv ({error})", fix="correct it") from error


def _descriptions(source: Source) -> dict[str, str]:
    """Return the names of Open Images' labels, such as `/m/0199g`, from a csv of two columns."""
    found: dict[str, str] = {}
    for name in source.with_suffix("csv"):
        if "class-descriptions" in PurePosixPath(name).name:
            pairs = (line.partition(",") for line in source.text(name).splitlines())
            found |= {label.strip(): text.strip().strip('"') for label, _, text in pairs if text}
    return found

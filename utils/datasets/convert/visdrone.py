"""VisDrone's detection txt -> YOLO: rows `left,top,width,height,score,category,truncation,occlusion` in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from utils.datasets.convert.files import Files
from utils.datasets.convert.layout import ConversionReport, FileEntry, Row, box_row, image_size, label_text
from utils.errors import DataError

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"),
)  # categories 1 to 10; 0 is a region to ignore, 11 is "others"
COLUMNS = 8


def convert_visdrone(
    files: Files, *, labels_only: bool = False, tally: ConversionReport | None = None
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set: `labels` beside each `images`, folders named as they were published.

    Rows with score 0, which mark what is to be ignored, are left out, as are other categories than 1 to 10, which
    become classes 0 to 9.

    Args:
        files: the set as it was published, `VisDrone2019-DET-train/{images,annotations}` and so on.
        labels_only: yield no images.
        tally: counts what was met.

    Raises:
        DataError: no annotations, an image that is none, or a row that cannot be read.
    """
    tally = ConversionReport() if tally is None else tally
    known = set(files.names)
    found = False
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix != ".txt" or path.parent.name != "annotations":
            continue
        found = True
        root = path.parent.parent
        image = (root / "images" / path.with_suffix(".jpg").name).as_posix()
        if image not in known:
            tally["annotations without an image left out"] += 1
            continue
        data = files.read(image)
        rows = _rows(files.read(name), name, image_size(data, image), tally)
        tally["images"] += 1
        if not labels_only:
            yield image, data
        yield (root / "labels" / path.name).as_posix(), label_text(rows)
    if not found:
        raise DataError("visdrone", "has no annotations/*.txt", fix="pass the folder that holds VisDrone2019-DET-train")


def _rows(data: bytes, where: str, size_wh: tuple[int, int], tally: ConversionReport) -> list[Row]:
    rows = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        fields = [field.strip() for field in line.strip().rstrip(",").split(",")]
        if fields == [""]:
            continue
        try:
            left, top, width, height, score = (float(field) for field in fields[:5])
            category = int(fields[5])
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{where}:{number}", f"is no row of {COLUMNS} numbers ({line[:40]!r})", fix="correct it"
            ) from error
        if score == 0:
            tally["rows to ignore left out"] += 1
        elif not 1 <= category <= len(NAMES):
            tally["rows of other categories left out"] += 1
        else:
            row = box_row(category - 1, (left, top, left + width, top + height), size_wh)
            tally["objects" if row else "boxes without area left out"] += 1
            rows += [row] if row else []
    return rows

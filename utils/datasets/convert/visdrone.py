"""VisDrone's detection txt to YOLO: rows `left,top,width,height,score,category,truncation,occlusion` in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from utils.datasets.convert.layout import ConversionReport, FileEntry, Files, Row, box_row, image_size, label_text
from utils.errors import DataError

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"),
)  # categories 1 to 10; 0 is a region to ignore, 11 is "others"
COLUMNS = 8


def convert_visdrone(
    files: Files, *, labels_only: bool = False, report: ConversionReport | None = None
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set: folders as published, with `labels` next to each `images`.

    Categories 1 to 10 become classes 0 to 9; other categories are skipped, and rows with score 0, which mark regions
    to ignore.

    Raises:
        DataError: there are no annotations, or an image or a row cannot be read.
    """
    report = ConversionReport() if report is None else report
    annotations = [path for path in map(PurePosixPath, files) if path.match("annotations/*.txt")]
    if not annotations:
        raise DataError("visdrone", "has no annotations/*.txt", fix="pass the folder that holds VisDrone2019-DET-train")
    for path in annotations:
        root = path.parent.parent
        image = (root / "images" / path.with_suffix(".jpg").name).as_posix()
        if image not in files:
            report["annotations without an image skipped"] += 1
            continue
        data, name = files[image](), path.as_posix()
        rows = _rows(files[name](), name, image_size(data, image), report)
        report["images"] += 1
        if not labels_only:
            yield image, data
        yield (root / "labels" / path.name).as_posix(), label_text(rows)


def _rows(data: bytes, where: str, size_wh: tuple[int, int], report: ConversionReport) -> list[Row]:
    rows = []
    for line_number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        fields = [field.strip() for field in line.strip().rstrip(",").split(",")]
        if fields == [""]:
            continue
        try:
            left, top, width, height, score = (float(field) for field in fields[:5])
            category = int(fields[5])
        except (ValueError, IndexError) as error:
            what = f"is not a row of {COLUMNS} numbers ({line[:40]!r})"
            raise DataError(f"{where}:{line_number}", what, fix="correct it") from error
        if score == 0:
            report["rows to ignore skipped"] += 1
        elif not 1 <= category <= len(NAMES):
            report["rows of other categories skipped"] += 1
        else:
            row = box_row(category - 1, (left, top, left + width, top + height), size_wh)
            report["objects" if row else "boxes without area skipped"] += 1
            rows += [row] if row else []
    return rows

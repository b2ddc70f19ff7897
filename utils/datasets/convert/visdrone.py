"""VisDrone's detection txt: rows `left,top,width,height,score,category,truncation,occlusion` in pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Objects
from utils.datasets.convert.images import ImagesByStem
from utils.datasets.convert.layout import (
    ConversionReport,
    FileEntry,
    Files,
    Source,
    image_size,
    label_text,
    split_of_folders,
)
from utils.errors import DataError

NAMES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor"),
)  # categories 1 to 10; 0 is a region to ignore, 11 is "others"
COLUMNS = 8


def find_visdrone(source: Source) -> list[str]:
    """Return the names of the txt files with rows of VisDrone."""
    return [name for name in source.with_suffix("txt") if source.txt_kind(name) == "visdrone"]


def read_visdrone(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read every txt in a folder `annotations`; rows with score 0 and of categories other than 1 to 10 are skipped.

    Raises:
        DataError: an image or a row cannot be read.
    """
    del polygons
    found = AnnotatedSet(images=[], names=NAMES, names_from="VisDrone's ten classes", names_fixed=True)
    images = ImagesByStem(source.images)
    for name in source.with_suffix("txt"):
        if PurePosixPath(name).parent.name != "annotations" and source.txt_kind(name) != "visdrone":
            continue
        file = images.find(name)
        if not file:
            found.images.append(AnnotatedImage(file="", source=name))
            continue
        size_wh = image_size(source.files, file)
        objects = Objects(size_wh, found.report, polygons=False)
        for number, line in enumerate(source.text(name).splitlines(), start=1):
            _add(objects, line, f"{name}:{number}", found.report)
        found.images.append(
            AnnotatedImage(file=file, source=name, labels=objects.labels, split=split_of_folders(name), size_wh=size_wh)
        )
    return found


def _add(objects: Objects, line: str, where: str, report: ConversionReport) -> None:
    """Add the object of one row."""
    fields = [field.strip() for field in line.strip().rstrip(",").split(",")]
    if fields == [""]:
        return
    try:
        left, top, width, height, score = (float(field) for field in fields[:5])
        category = int(fields[5])
    except (ValueError, IndexError) as error:
        what = f"is not a row of {COLUMNS} numbers ({line[:40]!r})"
        raise DataError(where, what, fix="correct it") from error
    if score == 0:
        report["rows to ignore skipped"] += 1
    elif not 1 <= category <= len(NAMES):
        report["rows of other categories skipped"] += 1
    else:
        objects.add_box(NAMES[category - 1], (left, top, left + width, top + height))


def convert_visdrone(
    files: Files, *, labels_only: bool = False, report: ConversionReport | None = None
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set: folders as published, with `labels` next to each `images`.

    Categories 1 to 10 become classes 0 to 9.

    Raises:
        DataError: there are no annotations, or an image or a row cannot be read.
    """
    report = ConversionReport() if report is None else report
    source = Source(files)
    if not any(PurePosixPath(name).match("annotations/*.txt") for name in files):
        raise DataError("visdrone", "has no annotations/*.txt", fix="pass the folder that holds VisDrone2019-DET-train")
    found = read_visdrone(source)
    report.update(found.report)
    for image in found.images:
        if not image.file:
            report["annotations without an image skipped"] += 1
            continue
        report["images"] += 1
        path = PurePosixPath(image.source)
        if not labels_only:
            yield image.file, files[image.file]()
        rows = [(NAMES.index(name), values) for name, values in image.labels]
        yield (path.parent.parent / "labels" / path.name).as_posix(), label_text(rows)

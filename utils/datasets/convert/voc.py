"""Pascal VOC's XML: one file per image, boxes in pixels counted from 1, as VOCdevkit and LabelImg arrange them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Label, Objects
from utils.datasets.convert.images import ImagesByStem
from utils.datasets.convert.layout import (
    ConversionReport,
    FileEntry,
    Files,
    Source,
    image_size,
    split_of_folders,
)
from utils.datasets.convert.write import converted
from utils.datasets.convert.xml_tree import read_xml
from utils.errors import DataError

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
MAX_XML_BYTES = 10_000_000
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _Annotation(NamedTuple):
    """The content of one XML."""

    file_name: str  # of the image, as the XML states it
    size_wh: tuple[float, float]  # zeros if it has none
    objects: list[tuple[str, tuple[float, ...]]]  # class name and corners as written
    difficult: int  # number of further objects, which are marked difficult


def find_voc(source: Source) -> list[str]:
    """Return the names of all XML files whose root is `annotation`, or cannot be seen."""
    return [name for name in source.with_suffix("xml") if source.xml_root(name) in ("annotation", "")]


def read_voc(source: Source, *, polygons: bool = False, first_pixel: int | None = None) -> AnnotatedSet:
    """Read every XML with the root `annotation`, in whatever folder it is.

    The image is the one of the same name, wherever it is and whatever its suffix. `ImageSets/Main/train.txt` and so
    on beside the folder of the annotations give the splits, otherwise names of folders do. Objects marked difficult
    are skipped.

    Args:
        source: the files.
        polygons: accepted as all readers do; VOC has boxes.
        first_pixel: number of the first pixel. None: 0 if a box begins there, else 1, as VOC counts.

    Raises:
        DataError: an annotation cannot be read, or matches several images.
    """
    del polygons
    found = AnnotatedSet(images=[])
    content = {name: _content(source.files, name) for name in source.track(find_voc(source), "Reading")}
    if first_pixel is None:
        begins_at_0 = any(0 in corners[:2] for annotation in content.values() for _, corners in annotation.objects)
        first_pixel = 0 if begins_at_0 else 1
    images = ImagesByStem(source.images)
    for name, split in _with_splits(source, [*content], found.report):
        file_name, size_wh, boxes, difficult = content[name]
        file = images.find(name, file_name)
        found.report["difficult objects skipped"] += difficult
        is_stated = all(0 < side < math.inf for side in size_wh)
        if not is_stated and file:
            size_wh = image_size(source.files, file)
        labels: Sequence[Label] = ()
        if is_stated or file:
            objects = Objects(size_wh, found.report, polygons=False)
            for class_name, corners in boxes:
                objects.add_box(class_name, [value - first_pixel for value in corners])
            labels = objects.labels
        found.images.append(AnnotatedImage(file=file, source=name, split=split, labels=labels, size_wh=size_wh))
    return found


def _content(files: Files, name: str) -> _Annotation:
    data = files[name]()
    if len(data) > MAX_XML_BYTES:
        raise DataError(name, f"is too large for an annotation ({len(data)} bytes)", fix="remove it")
    tree = read_xml(data, name)
    objects, difficult = [], 0
    try:
        width, height = (float(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        for item in tree.iter("object"):
            if (item.findtext("difficult") or "0").strip() == "1":
                difficult += 1
                continue
            corners = tuple(float(item.findtext(f"bndbox/{key}") or "nan") for key in CORNERS)
            objects.append(((item.findtext("name") or "").strip(), corners))
    except ValueError as error:
        raise DataError(name, f"is not a valid annotation ({error})", fix="correct or remove it") from error
    return _Annotation((tree.findtext("filename") or "").strip(), (width, height), objects, difficult)


def _with_splits(source: Source, annotations: Sequence[str], report: ConversionReport) -> Iterator[tuple[str, str]]:
    """Yield the names of the annotations, each with the name of its split; one without any in a set with lists goes."""
    by_folder: dict[str, dict[str, str]] = {}
    for name in annotations:
        path = PurePosixPath(name)
        by_folder.setdefault(path.parent.as_posix(), {})[path.stem] = name
    lower = {name.lower(): name for name in source.files}
    for folder, name_of in by_folder.items():
        root = PurePosixPath(folder).parent
        lists = _lists(lower, root)
        year = re.search(r"VOC(\d{4})$", root.as_posix())
        listed: dict[str, None] = {}
        for split, list_file in lists.items():
            lines = source.text(list_file).splitlines()
            stems = dict.fromkeys(_stem_in(line.strip(), name_of) for line in lines if line.strip())
            for stem in stems:
                if stem in name_of:
                    yield name_of[stem], split + (year[1] if year else "")
                else:
                    report["lines of lists without an annotation skipped"] += 1
            listed |= stems
        for stem, name in name_of.items():
            if not lists:
                yield name, split_of_folders(name)
            else:
                report["annotations in no list skipped"] += stem not in listed


def _lists(lower: Mapping[str, str], root: PurePosixPath) -> dict[str, str]:
    """Return the list files of the splits beside a folder of annotations."""
    found: dict[str, str] = {}
    for split in ("train", "val", "test", "trainval"):
        for place in ("ImageSets/Main", "ImageSets"):
            key = (root / place / f"{split}.txt").as_posix().lower()
            if key in lower:
                found.setdefault(split, lower[key])
    if found.keys() & {"train", "val"}:
        found.pop("trainval", None)  # the union of these two
    return found


def _stem_in(line: str, stems: Collection[str]) -> str:
    """Return the stem of a line `stem`, `stem -1|0|1` or `folder/stem.suffix`; a stem may have spaces and dots."""
    for text in (line, re.sub(r"\s+[-+]?[01]$", "", line)):
        for candidate in (text, PurePosixPath(text).stem):
            if candidate in stems and "/" not in candidate:
                return candidate
    return re.sub(r"\s+[-+]?[01]$", "", line)


def convert_voc(
    files: Files, *, names: Sequence[str] = NAMES, labels_only: bool = False, report: ConversionReport | None = None
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set.

    Lists such as `ImageSets/Main/train.txt` of a folder `VOC2007` become `images/train2007` and so on, with `labels`
    next to `images`. Without lists, the folders' names decide, or else all images are in `images/train`. Objects of
    classes that are not in `names` are skipped, and those marked difficult. An empty list of names is filled: with
    VOC's 20 if one of them occurs, otherwise with the names in the order of appearance.

    Raises:
        DataError: there are no annotations, one cannot be read, or two images of a split have the same name.
    """
    report = ConversionReport() if report is None else report
    source = Source(files)
    if not find_voc(source):
        raise DataError("voc", "has no XML with annotations", fix="pass the folder that holds images and XML files")
    found = read_voc(source, first_pixel=1)
    found.report.pop("objects", None)
    report.update(found.report)
    if isinstance(names, list) and not names:
        appearing = dict.fromkeys(label.name for image in found.images for label in image.labels)
        names[:] = NAMES if not appearing or appearing.keys() & {*NAMES} else appearing
    class_ids = {name: class_id for class_id, name in enumerate(names)}
    yield from converted(
        files,
        found,
        class_ids,
        lambda image: f"{image.split or 'train'}/{PurePosixPath(image.file or image.source).name}",
        labels_only=labels_only,
        report=report,
        missing="annotations without an image skipped",
    )

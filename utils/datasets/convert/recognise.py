"""Recognises in which format a folder is annotated, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from utils.datasets.convert.annotated import AnnotatedSet
from utils.datasets.convert.coco import find_coco, read_coco
from utils.datasets.convert.csv_boxes import find_csv, read_csv
from utils.datasets.convert.cvat import find_cvat, read_cvat
from utils.datasets.convert.keras_txt import find_keras_txt, read_keras_txt
from utils.datasets.convert.labelme import find_labelme, read_labelme
from utils.datasets.convert.layout import Source
from utils.datasets.convert.visdrone import find_visdrone, read_visdrone
from utils.datasets.convert.voc import find_voc, read_voc
from utils.datasets.convert.yolo import find_yolo, read_yolo
from utils.datasets.paths import suffix_counts
from utils.errors import DataError


class Reader(Protocol):
    """Reads all annotations of one format."""

    def __call__(self, source: Source, *, polygons: bool = False) -> AnnotatedSet:
        """Return the images with their labels; with `polygons`, polygons in place of their boxes."""


@dataclass(frozen=True)
class Format:
    """One format of annotations."""

    words: str  # what its files are
    find: Callable[[Source], list[str]]  # names of the files that are of this format
    read: Reader


FORMATS: Mapping[str, Format] = {
    "yolo": Format("YOLO label files", find_yolo, read_yolo),
    "voc": Format("VOC XML files", find_voc, read_voc),
    "coco": Format("COCO JSON files", find_coco, read_coco),
    "cvat": Format("CVAT XML files", find_cvat, read_cvat),
    "labelme": Format("LabelMe JSON files", find_labelme, read_labelme),
    "csv": Format("csv tables of boxes", find_csv, read_csv),
    "keras": Format("lists of images with boxes", find_keras_txt, read_keras_txt),
    "visdrone": Format("VisDrone txt files", find_visdrone, read_visdrone),
}


def recognise(source: Source, where: str, chosen: str = "") -> tuple[str, str]:
    """Return the format of the annotations, and the evidence for it in words.

    Args:
        source: the files.
        where: the folder, for messages.
        chosen: the format to take, if the files allow it.

    Raises:
        DataError: no format fits, or several and none is chosen.
    """
    if not source.images:
        raise DataError(where, "has no images", fix="pass the folder with images and annotations")
    evidence: dict[str, str] = {}
    for key, form in FORMATS.items():
        if names := form.find(source):
            evidence[key] = f"{len(names)} {form.words}, such as {names[0]}"
    if chosen:
        if chosen not in evidence:
            what = f"has no {FORMATS[chosen].words} ({_described(evidence) or _others(source)})"
            raise DataError(where, what, fix=f"choose --format {' or '.join(evidence) or 'of another kind'}")
        return chosen, evidence[chosen]
    if not evidence:
        what = f"has {len(source.images)} images, but no annotations in a known format ({_others(source)})"
        raise DataError(where, what, fix=f"convert them to one of {', '.join(FORMATS)}")
    if len(evidence) > 1:
        fix = f"choose --format {' or --format '.join(evidence)}"
        raise DataError(where, f"is annotated in several formats: {_described(evidence)}", fix=fix)
    return next(iter(evidence.items()))


def _described(evidence: Mapping[str, str]) -> str:
    return "; ".join(f"{key}: {words}" for key, words in evidence.items())


def _others(source: Source) -> str:
    """Return what other files there are, by suffix."""
    return suffix_counts(source.files.keys() - set(source.images)) or "no other files"

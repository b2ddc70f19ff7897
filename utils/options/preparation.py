"""Options of prepare.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.cli import option
from utils.options.base import IMAGE_SIZES, MAX_SEED, Options, require

MAX_FOLDS = 100
FORMATS = ("yolo", "voc", "coco", "cvat", "labelme", "csv", "keras", "visdrone")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(Options):
    """The folder to prepare, and how; or the data yaml to check."""

    source: str = option("", "folder of images and annotations; with --check a data yaml", positional=True)
    out: str = option("", "folder to create; default: datasets/ and the name of the source")
    format: str = option("", "format of the annotations, if several fit; default: recognised", choices=FORMATS)
    split: tuple[float, ...] = option(
        (8.0, 1.0, 1.0), "fractions of train, val and test, if the source has no splits, or in place of its splits"
    )
    seed: int = option(0, "seed of the splits", within=(0, MAX_SEED))
    folds: int = option(0, "write data_fold0.yaml ... for K-fold cross-validation instead of one val split")
    sort_names: bool = option(False, "number the classes in alphabetical order")
    names: tuple[str, ...] = option((), "class names in order, or a txt or yaml file of them")
    ignore_class: tuple[str, ...] = option((), "classes whose objects are left out")
    copy: bool = option(False, "copy the images instead of linking them")
    in_place_lists: bool = option(False, "leave the images where they are: write labels, lists, and links to them")
    polygons: bool = option(False, "write polygons where the annotations have them, instead of their boxes")
    check: bool = option(False, "check a prepared data set: leaks, duplicates, wrong boxes, rare classes")
    weights: str = option("", "with --check: trained model, whose confident errors point at wrong labels")
    imgsz: int = option(0, "with --check and --weights: image size; 0: the size the checkpoint was trained at")
    device: str = option("cpu", "with --check and --weights: cpu, or a CUDA device index")
    project: str = option("runs/check", "with --check: folder of all reports")
    name: str = option("exp", "with --check: folder of this report")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.source), "SOURCE", "a folder or, with --check, a data yaml", "nothing")
        require(len(self.split) in (2, 3), "--split", "two or three fractions: train, val and test", self.split)
        valid = all(0 <= part < math.inf for part in self.split) and min(self.split[:2]) > 0
        require(valid, "--split", "fractions above 0 of train and val, such as 8 1 1", self.split)
        require(self.folds == 0 or 2 <= self.folds <= MAX_FOLDS, "--folds", f"from 2 to {MAX_FOLDS}", self.folds)
        require(
            self.imgsz == 0 or IMAGE_SIZES[0] <= self.imgsz <= IMAGE_SIZES[1],
            "--imgsz",
            "0 or an image size",
            self.imgsz,
        )
        require(not (self.copy and self.in_place_lists), "--copy", "without --in-place-lists", "both")

"""Labels and detections of any data set as COCO JSON, and COCO's figures made from exactly what stands there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.datasets.index import DatasetIndex
from utils.metrics.average_precision import PrecisionRecall
from utils.metrics.coco import ABSENT, CocoDetections, CocoLabels
from utils.metrics.evaluated_set import ImageEvaluation

# COCO numbers its 80 classes up to 90, leaving these out.
COCO_GAPS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
COCO_CLASSES = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush".split(",")
)
WHY_THEY_DIFFER = (
    "COCO's figures differ from the table's: COCO takes at most 100 boxes of an image and class, lets a box whose "
    "best label is taken have the next one, and reads precision at 101 recalls in steps; the table takes --max-det "
    "boxes, gives each its best label only, and joins the points by lines. Compare like with like. Areas are those of "
    "the labels' boxes, and no label is a crowd: COCO's own files have areas of outlines, and crowds."
)


def category_ids(names: Sequence[str]) -> list[int]:
    """Return the number of each class in COCO files: its own, but COCO's for COCO's 80 classes."""
    if tuple(names) == COCO_CLASSES:
        return [number for number in range(1, 91) if number not in COCO_GAPS]
    return list(range(len(names)))


def image_ids(paths: Sequence[str]) -> list[int] | list[str]:
    """Return each image's identifier in COCO files.

    Its stem; as a number if all stems are different numbers; with the folders that tell them apart where stems repeat.
    """
    stems = [Path(path).stem for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    if len(set(stems)) == len(stems):
        return stems
    parts = [Path(path).parts for path in paths]
    depth = 1
    while len({own[-depth:] for own in parts}) < len(parts):
        depth += 1
    return ["/".join(own[-depth:]) for own in parts]


def file_names(paths: Sequence[str]) -> list[str]:
    """Return each image's name in COCO files: that of its file, below the folder they share where names repeat."""
    names = [Path(path).name for path in paths]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([Path(path).parent for path in paths])
    return [Path(path).relative_to(shared).as_posix() for path in paths]


def coco_truth(evaluations: Sequence[ImageEvaluation], index: DatasetIndex, names: Sequence[str]) -> dict[str, Any]:
    """Return the labels as a COCO instances file, so that other programs can judge the same predictions."""
    paths = [str(path) for path in index.paths]
    ids, categories, files = image_ids(paths), category_ids(names), file_names(paths)
    annotations: list[dict[str, Any]] = []
    for evaluation in evaluations:
        for (x1, y1, x2, y2), label in zip(evaluation.label_boxes.tolist(), evaluation.label_classes, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ids[evaluation.image_id],
                    "category_id": categories[int(label)],
                    "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 3),
                    "iscrowd": 0,
                }
            )
    images = [
        {
            "id": ids[evaluation.image_id],
            "file_name": files[evaluation.image_id],
            "height": evaluation.original_hw[0],
            "width": evaluation.original_hw[1],
        }
        for evaluation in evaluations
    ]
    classes = [{"id": number, "name": name} for number, name in zip(categories, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": classes}


def coco_predictions(
    evaluations: Sequence[ImageEvaluation], index: DatasetIndex, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return all detections as COCO's results list: boxes x, y, w, h in pixels of the file."""
    ids, categories = image_ids([str(path) for path in index.paths]), category_ids(names)
    return [
        {
            "image_id": ids[evaluation.image_id],
            "category_id": categories[int(label)],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(score), 5),
        }
        for evaluation in evaluations
        for (x1, y1, x2, y2), score, label in zip(
            evaluation.boxes.tolist(), evaluation.confidences, evaluation.classes, strict=True
        )
    ]


def coco_arrays(
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> tuple[CocoLabels, CocoDetections]:
    """Return the content of a COCO instances file and a results list as arrays.

    Detections of images that the file does not list are left out.
    """
    place = {name: number for number, name in enumerate(sorted(image["id"] for image in truth["images"]))}
    labels = [label for label in truth["annotations"] if label["image_id"] in place]
    found = [box for box in predictions if box["image_id"] in place]
    return (
        CocoLabels(
            image_ids=np.array([place[label["image_id"]] for label in labels], np.int64),
            classes=np.array([label["category_id"] for label in labels], np.int64),
            boxes=np.array([label["bbox"] for label in labels], np.float64).reshape(-1, 4),
            areas=np.array([label["area"] for label in labels], np.float64),
            crowd=np.array([bool(label.get("iscrowd", 0)) for label in labels], bool),
        ),
        CocoDetections(
            image_ids=np.array([place[box["image_id"]] for box in found], np.int64),
            classes=np.array([box["category_id"] for box in found], np.int64),
            boxes=np.array([box["bbox"] for box in found], np.float64).reshape(-1, 4),
            confidences=np.array([box["score"] for box in found], np.float64),
        ),
    )


def coco_table(figures: Mapping[str, float], metrics: PrecisionRecall, *, max_detections: int) -> str:
    """Return COCO's twelve figures as text, those that the main table has too beside its columns."""
    ours = {
        "AP": ("mAP50-95", metrics.map50_95),
        "AP50": ("mAP50", metrics.map50),
        "AP75": ("mAP75", metrics.map75),
    }
    lines = [f"{'COCO':>10}{'overlap':>12}{'area':>9}{'boxes':>7}{'value':>9}    table (up to {max_detections} boxes)"]
    for name, value in figures.items():
        kind, _, detail = name.partition("_")
        overlap = {"AP50": "0.50", "AP75": "0.75"}.get(kind, "0.50:0.95")
        area, boxes = ("all", detail) if detail.isdigit() else (detail or "all", "100")
        shown = "none" if value == ABSENT else f"{value:.3f}"
        beside = f"    {ours[name][0]} {ours[name][1]:.3f}" if name in ours else ""
        lines.append(f"{name[:2]:>10}{overlap:>12}{area:>9}{boxes:>7}{shown:>9}{beside}")
    return "\n".join([*lines, WHY_THEY_DIFFER])

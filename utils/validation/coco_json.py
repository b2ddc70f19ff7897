"""Labels and detections of any data set as COCO JSON, and the input of COCO's metrics from that JSON."""

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

# COCO's 80 classes have ids up to 90, without these.
COCO_GAPS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
COCO_CLASSES = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush".split(",")
)
DIFFERENCES = (
    "COCO's metrics differ from the table's. COCO counts at most 100 detections per image and class, lets a detection "
    "whose best label is taken match the next one, and samples precision at 101 recalls as a step function; the table "
    "counts --max-det detections, matches each with its best label only, and interpolates. Areas are those of the "
    "labels' boxes, and no label is a crowd; COCO's own files have areas of polygons, and crowds."
)


def category_ids(names: Sequence[str]) -> list[int]:
    """Return the id of each class in COCO files: COCO's own for its 80 classes, else the class id."""
    if tuple(names) == COCO_CLASSES:
        return [category_id for category_id in range(1, 91) if category_id not in COCO_GAPS]
    return list(range(len(names)))


def image_ids(paths: Sequence[str]) -> list[int] | list[str]:
    """Return each image's id in COCO files.

    Its stem, as an integer if all stems are distinct integers; if stems repeat, its path as far as needed.
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
    while len({path[-depth:] for path in parts}) < len(parts):
        depth += 1
    return ["/".join(path[-depth:]) for path in parts]


def file_names(paths: Sequence[str]) -> list[str]:
    """Return each image's file name in COCO files; if names repeat, its path below the common folder."""
    names = [Path(path).name for path in paths]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath([Path(path).parent for path in paths])
    return [Path(path).relative_to(common).as_posix() for path in paths]


def _xywh(box_xyxy: Sequence[float]) -> list[float]:
    x1, y1, x2, y2 = box_xyxy
    return [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)]


def _rectangle(box_xyxy: Sequence[float]) -> list[list[float]]:
    """Return the box as a polygon."""
    x1, y1, x2, y2 = (round(v, 3) for v in box_xyxy)
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def coco_truth(evaluations: Sequence[ImageEvaluation], index: DatasetIndex, names: Sequence[str]) -> dict[str, Any]:
    """Return the labels as a COCO instances file, so that other programs can evaluate the same predictions.

    Some of these programs, such as tidecv, require a `segmentation`; it is the box.
    """
    paths = [str(path) for path in index.paths]
    ids, categories, files = image_ids(paths), category_ids(names), file_names(paths)
    labels = [
        (evaluation.image_id, box, int(class_id))
        for evaluation in evaluations
        for box, class_id in zip(evaluation.label_boxes.tolist(), evaluation.label_classes, strict=True)
    ]
    annotations = [
        {
            "id": number,
            "image_id": ids[image_id],
            "category_id": categories[class_id],
            "bbox": _xywh(box),
            "segmentation": _rectangle(box),
            "area": round((box[2] - box[0]) * (box[3] - box[1]), 3),
            "iscrowd": 0,
        }
        for number, (image_id, box, class_id) in enumerate(labels, 1)
    ]
    images = [
        {"id": ids[i.image_id], "file_name": files[i.image_id], "height": i.original_hw[0], "width": i.original_hw[1]}
        for i in evaluations
    ]
    classes = [{"id": category_id, "name": name} for category_id, name in zip(categories, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": classes}


def coco_predictions(
    evaluations: Sequence[ImageEvaluation], index: DatasetIndex, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return all detections as COCO's results list, with boxes in pixels of the image file."""
    ids, categories = image_ids([str(path) for path in index.paths]), category_ids(names)
    return [
        {
            "image_id": ids[evaluation.image_id],
            "category_id": categories[int(class_id)],
            "bbox": _xywh(box),
            "score": round(float(confidence), 5),
        }
        for evaluation in evaluations
        for box, confidence, class_id in zip(
            evaluation.boxes.tolist(), evaluation.confidences, evaluation.classes, strict=True
        )
    ]


def coco_arrays(
    truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> tuple[CocoLabels, CocoDetections]:
    """Return a COCO instances file and a results list as arrays, without detections of images not in the file."""
    positions = {image_id: i for i, image_id in enumerate(sorted(image["id"] for image in truth["images"]))}
    labels, detections = (
        [row for row in rows if row["image_id"] in positions] for rows in (truth["annotations"], predictions)
    )

    def boxes(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        return {
            "image_ids": np.array([positions[row["image_id"]] for row in rows], np.int64),
            "classes": np.array([row["category_id"] for row in rows], np.int64),
            "boxes": np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4),
        }

    areas = np.array([label["area"] for label in labels], np.float64)
    crowd = np.array([bool(label.get("iscrowd", 0)) for label in labels], bool)
    confidences = np.array([detection["score"] for detection in detections], np.float64)
    coco_labels = CocoLabels(**boxes(labels), areas=areas, crowd=crowd)
    return coco_labels, CocoDetections(**boxes(detections), confidences=confidences)


def coco_table(figures: Mapping[str, float], metrics: PrecisionRecall, *, max_detections: int) -> str:
    """Return COCO's twelve metrics as text, beside those that the table has too."""
    ours = {"AP": ("mAP50-95", metrics.map50_95), "AP50": ("mAP50", metrics.map50), "AP75": ("mAP75", metrics.map75)}
    lines = [f"{'COCO':>10}{'IoU':>12}{'area':>9}{'boxes':>7}{'value':>9}    table (up to {max_detections} boxes)"]
    for name, value in figures.items():
        kind, _, detail = name.partition("_")
        iou = {"AP50": "0.50", "AP75": "0.75"}.get(kind, "0.50:0.95")
        area, boxes = ("all", detail) if detail.isdigit() else (detail or "all", "100")
        shown = "none" if value == ABSENT else f"{value:.3f}"
        beside = f"    {ours[name][0]} {ours[name][1]:.3f}" if name in ours else ""
        lines.append(f"{name[:2]:>10}{iou:>12}{area:>9}{boxes:>7}{shown:>9}{beside}")
    return "\n".join([*lines, DIFFERENCES])

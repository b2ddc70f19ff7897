"""val.py's work: judge a checkpoint on a split, print the table, and write what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.boxes import xyxy_to_cxcywh
from utils.datasets.index import DatasetIndex, build_index
from utils.engine.assemble import class_names, evaluation_loader, open_data, round_image_size
from utils.engine.checkpoint import load_checkpoint, load_model
from utils.engine.options import ValOptions
from utils.engine.pictures import plot_detected_batch, plot_labelled_batch
from utils.engine.plugins import load_plugins
from utils.engine.postprocess import NmsSettings
from utils.engine.runtime import place, select_device
from utils.engine.validator import Evaluation, PictureResult, evaluate, metrics_table
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, make_run_dir
from utils.log import LOGGER
from utils.plots.curves import plot_confidence_curve, plot_precision_recall
from utils.plots.matrices import plot_confusion
from utils.structures import Batch, Detections

USUAL_CONFIDENCE = 0.001
DRAWN_BATCHES = 3


def run_evaluation(options: ValOptions) -> Evaluation:
    """Judge a checkpoint as the options say.

    Raises:
        DetectorError: something in the input is wrong.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    content = load_checkpoint(options.weights)
    model, names = load_model(options.weights, content=content)
    stored = content.get("options", {})
    data = options.data or stored.get("data", "")
    config = open_data(data)
    single_class = options.single_cls or bool(stored.get("single_cls"))
    if len(class_names(config, single_class=single_class)) != len(names):
        raise ConfigError(
            config.file, f"has {config.num_classes} classes, but the model tells {len(names)}", fix="pass its --data"
        )
    if options.conf_thres > USUAL_CONFIDENCE:
        LOGGER.warning(f"--conf-thres {options.conf_thres} is above {USUAL_CONFIDENCE}: mAP will be too low")
    if options.half and device.type != "cuda":
        LOGGER.warning("--half needs CUDA; full precision is used")
    image_size = round_image_size(options.imgsz or content.get("image_size", 640), model.max_stride)
    index = build_index(config, options.task, use_cache=not options.no_label_cache, strict=options.strict)
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    loader = evaluation_loader(
        index,
        batch_size=options.batch_size,
        image_size=image_size,
        stride=model.max_stride,
        workers=options.workers,
        single_class=single_class,
    )
    evaluation = judge(
        place(model, device),
        loader,
        index=index,
        names=names,
        nms=NmsSettings(
            confidence=options.conf_thres,
            overlap=options.iou_thres,
            max_detections=options.max_det,
            multi_label=True,
        ),
        device=device,
        half=options.half and device.type == "cuda",
        run_dir=None if options.noplots else run_dir,
        verbose=options.verbose,
    )
    if options.save_txt:
        for picture in evaluation.pictures:
            _write_txt(run_dir, Path(str(index.paths[picture.index])).stem, picture, with_score=options.save_conf)
    if options.save_json:
        stem = Path(options.weights).stem
        dump_json(run_dir / f"{stem}_predictions.json", coco_predictions(evaluation.pictures, index))
        dump_json(run_dir / "ground_truth.json", coco_ground_truth(evaluation.pictures, index, names))
    LOGGER.info(f"Results: {run_dir}")
    return evaluation


def judge(
    model: DetectionModel,
    batches: Iterable[Batch],
    *,
    index: DatasetIndex,
    names: Sequence[str],
    nms: NmsSettings,
    device: torch.device,
    half: bool = False,
    run_dir: Path | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Judge a model and present it: the table, the time of each phase, and with `run_dir` pictures and curves."""

    def draw(number: int, batch: Batch, detections: Sequence[Detections]) -> None:
        if run_dir is not None and number < DRAWN_BATCHES:
            captions = [Path(str(index.paths[i])).name for i in batch.indices]
            plot_labelled_batch(batch, names, run_dir / f"val_batch{number}_labels.jpg", captions)
            plot_detected_batch(batch, detections, names, run_dir / f"val_batch{number}_pred.jpg", captions)

    evaluation = evaluate(model, batches, nms=nms, device=device, half=half, on_batch=draw)
    pictures = len(evaluation.pictures)
    LOGGER.info(metrics_table(evaluation.metrics, names, pictures=pictures, verbose=verbose))
    spent = evaluation.milliseconds
    LOGGER.info(
        f"Speed: {spent['pre']:.1f} ms preparing, {spent['inference']:.1f} ms inference, "
        f"{spent['nms']:.1f} ms NMS per image"
    )
    if run_dir is not None:
        _draw_curves(evaluation, names, run_dir)
    return evaluation


def _draw_curves(evaluation: Evaluation, names: Sequence[str], run_dir: Path) -> None:
    """Draw P, R and F1 over confidence, precision over recall, and the confusion matrix."""
    metrics = evaluation.metrics
    plot_confusion(
        evaluation.confusion.counts, evaluation.confusion.normalised(), names, run_dir / "confusion_matrix.png"
    )
    if not len(metrics.classes):
        return
    present = [names[int(number)] for number in metrics.classes]
    p, r = metrics.precision_curve, metrics.recall_curve
    curves = {"P": ("precision", p), "R": ("recall", r), "F1": ("F1", 2 * p * r / (p + r + 1e-16))}
    for name, (label, values) in curves.items():
        plot_confidence_curve(
            metrics.confidences,
            values,
            present,
            label=label,
            best=metrics.best_confidence,
            path=run_dir / f"{name}_curve.png",
        )
    plot_precision_recall(metrics.precision_over_recall, metrics.ap[:, 0], present, run_dir / "PR_curve.png")


def _write_txt(run_dir: Path, stem: str, picture: PictureResult, *, with_score: bool) -> None:
    """Write one picture's detections: class cx cy w h as shares, and perhaps the confidence."""
    height, width = picture.size_hw
    shares = xyxy_to_cxcywh(picture.boxes) / np.array((width, height, width, height))
    lines = []
    for label, box, score in zip(picture.classes, shares, picture.scores, strict=True):
        numbers = [*box, score] if with_score else [*box]
        lines.append(" ".join([str(int(label)), *(f"{value:.6g}" for value in numbers)]))
    atomic_write(run_dir / "labels" / f"{stem}.txt", "".join(line + "\n" for line in lines))


def image_id(index: DatasetIndex, number: int) -> int | str:
    """Return a picture's name in COCO files: its stem, as a number where it is one."""
    stem = Path(str(index.paths[number])).stem
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def coco_predictions(pictures: Sequence[PictureResult], index: DatasetIndex) -> list[dict[str, Any]]:
    """Return all detections as COCO's results list: boxes x, y, w, h in pixels of the file."""
    return [
        {
            "image_id": image_id(index, picture.index),
            "category_id": int(label),
            "bbox": [round(float(v), 3) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": round(float(score), 5),
        }
        for picture in pictures
        for box, score, label in zip(picture.boxes, picture.scores, picture.classes, strict=True)
    ]


def coco_ground_truth(pictures: Sequence[PictureResult], index: DatasetIndex, names: Sequence[str]) -> dict[str, Any]:
    """Return the labels as a COCO instances file, so that other programs can judge the same predictions."""
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        for (x1, y1, x2, y2), label in zip(picture.label_boxes.tolist(), picture.label_classes, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id(index, picture.index),
                    "category_id": int(label),
                    "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 3),
                    "iscrowd": 0,
                }
            )
    images = [
        {
            "id": image_id(index, picture.index),
            "file_name": Path(str(index.paths[picture.index])).name,
            "height": picture.size_hw[0],
            "width": picture.size_hw[1],
        }
        for picture in pictures
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}

"""val.py's work: judge checkpoints on a split, print the tables, and write what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import class_names, evaluation_loader, open_data, round_image_size
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, make_run_dir, unique_name
from utils.inference.class_mapping import class_name_mismatch
from utils.inference.detector import Detector
from utils.inference.ensemble import SingleClassWrapper
from utils.inference.exported_model import ModelMetadata
from utils.inference.model_loading import open_ensemble
from utils.inference.nms import NmsSettings
from utils.inference.tta import TtaModel
from utils.log import LOGGER, optional
from utils.metrics.coco import coco_figures
from utils.metrics.evaluated_set import ImageEvaluation
from utils.options import ValOptions
from utils.plots.curves import plot_confidence_curve, plot_precision_recall
from utils.plots.fonts import printable
from utils.plots.matrices import plot_confusion
from utils.plugins import load_plugins
from utils.runtime import select_device, to_device
from utils.structures import Batch, Detections
from utils.validation.coco_json import coco_arrays, coco_predictions, coco_table, coco_truth
from utils.validation.evaluate import Evaluation, evaluate, metrics_table
from utils.validation.plots import plot_detected_batch, plot_labelled_batch, plot_mistakes

USUAL_CONFIDENCE = 0.001
SPEED_CONFIDENCE, SPEED_OVERLAP = 0.25, 0.45
DRAWN_BATCHES = 3


def run_evaluation(options: ValOptions) -> Evaluation:
    """Judge checkpoints as the options say.

    Raises:
        DetectorError: something in the input is wrong.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    opened, metadata = open_ensemble(options.weights, device, trust=options.trust_torchscript)
    config = open_data(options.data or metadata.data)
    single_class = options.single_cls or metadata.single_class
    names = _agreed_names(config, metadata, single_class=single_class)
    speed = options.task == "speed"
    confidence = SPEED_CONFIDENCE if speed else options.conf_thres
    if confidence > USUAL_CONFIDENCE:
        source = "--task speed keeps boxes" if speed else "--conf-thres keeps boxes"
        LOGGER.warning(
            f"{source} above {confidence} only: mAP and COCO's figures cannot be compared with those at "
            f"{USUAL_CONFIDENCE}, and may be lower or higher"
        )
    if options.save_conf and not options.save_txt:
        LOGGER.warning("--save-conf adds confidences to the files of --save-txt, which was not given")
    if options.half and device.type != "cuda":
        LOGGER.warning("--half needs CUDA; full precision is used")
    stride = opened.max_stride
    image_size = round_image_size(options.imgsz or metadata.image_size, stride)
    split = "val" if speed else options.task
    index = build_index(config, split, use_cache=not options.no_label_cache, strict=options.strict)
    if not len(index.labels):
        LOGGER.warning(f"{config.file}: '{split}' has no objects in its {len(index)} images; all figures are 0")
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    loader = evaluation_loader(
        index,
        batch_size=options.batch_size,
        image_size=image_size,
        stride=stride,
        workers=options.workers,
        single_class=single_class,
    )
    model: Detector = to_device(opened, device)
    if single_class and model.num_classes > 1:
        model = SingleClassWrapper(model)
    if options.augment:
        model = TtaModel(model)
    evaluation = judge(
        model,
        loader,
        index=index,
        names=names,
        nms=NmsSettings(
            conf_threshold=confidence,
            iou_threshold=SPEED_OVERLAP if speed else options.iou_thres,
            max_detections=options.max_det,
            multi_label=True,
        ),
        device=device,
        half=options.half and device.type == "cuda",
        run_dir=None if options.noplots or speed else run_dir,
        verbose=options.verbose,
    )
    if options.save_txt:
        _write_labels(run_dir / "labels", evaluation.images, index, with_score=options.save_conf)
    _coco(options, config, evaluation, index=index, names=names, run_dir=run_dir)
    if speed:
        settings = {"device": str(device), "image_size": image_size, "batch_size": options.batch_size}
        dump_json(run_dir / "speed.json", {**settings, "milliseconds_per_image": evaluation.milliseconds})
    LOGGER.info(f"Results: {run_dir}")
    return evaluation


def _agreed_names(config: DataConfig, metadata: ModelMetadata, *, single_class: bool) -> tuple[str, ...]:
    """Return the class names to print: the model's, or the one that stands for all; warn if the data set's are others.

    Raises:
        ConfigError: data set and model tell different numbers of classes.
    """
    names = class_names(config, single_class=single_class)
    if single_class:
        return names if len(names) == 1 else ("object",)
    if len(names) != len(metadata.names):
        raise ConfigError(
            config.file,
            f"has {config.num_classes} classes, but the model tells {len(metadata.names)}",
            fix="pass its --data",
        )
    difference = class_name_mismatch(names, metadata.names)
    if difference:
        LOGGER.warning(f"{config.file}: {difference}")
    return metadata.names


def judge(
    model: Detector,
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
    """Judge a model and present it: the table, the time of each phase, and with `run_dir` images and curves.

    An image that cannot be written is a warning: the figures do not hang on it.
    """

    def draw(number: int, batch: Batch, detections: Sequence[Detections]) -> None:
        if run_dir is not None and number < DRAWN_BATCHES:
            captions = [Path(str(index.paths[i])).name for i in batch.indices]
            with optional():
                plot_labelled_batch(batch, names, run_dir / f"val_batch{number}_labels.jpg", captions)
                plot_detected_batch(batch, detections, names, run_dir / f"val_batch{number}_pred.jpg", captions)

    evaluation = evaluate(model, batches, nms=nms, device=device, half=half, on_batch=draw)
    images = len(evaluation.images)
    LOGGER.info(metrics_table(evaluation.metrics, names, images=images, verbose=verbose))
    LOGGER.info(speed_line(evaluation.milliseconds))
    if run_dir is not None:
        with optional():
            _draw_curves(evaluation, names, run_dir)
        with optional():
            plot_mistakes(evaluation.images, [str(path) for path in index.paths], names, run_dir)
    return evaluation


def speed_line(spent: Mapping[str, float]) -> str:
    """Say how long each phase took, and the share of NMS and matching in all of it, from milliseconds per image."""
    share = (spent["nms"] + spent["matching"]) / max(sum(spent.values()), 1e-9)
    return (
        f"Speed: {spent['pre']:.1f} ms preparing, {spent['inference']:.1f} ms inference, {spent['nms']:.1f} ms NMS, "
        f"{spent['matching']:.1f} ms matching per image, {spent['loading']:.1f} ms waiting for it "
        f"(NMS and matching {share:.0%})"
    )


def _draw_curves(evaluation: Evaluation, names: Sequence[str], run_dir: Path) -> None:
    """Draw P, R and F1 over confidence, precision over recall, and the confusion matrix."""
    metrics, confusion = evaluation.metrics, evaluation.confusion
    empty = sum(not len(image.label_classes) for image in evaluation.images)
    note = (
        f"{len(evaluation.images)} images, {empty} of them background without any object; boxes above confidence "
        f"{confusion.conf_threshold}, pairs above overlap {confusion.iou_threshold}"
    )
    _write_counts(confusion.counts, names, run_dir / "confusion_matrix.csv")
    plot_confusion(confusion.counts, confusion.normalized(), names, run_dir / "confusion_matrix.png", note=note)
    if not len(metrics.class_ids):
        return
    present = [printable(names[int(number)], int(number)) for number in metrics.class_ids]
    p, r = metrics.precision_curve, metrics.recall_curve
    curves = {"P": ("precision", p), "R": ("recall", r), "F1": ("F1", metrics.f1_curve)}
    for name, (label, values) in curves.items():
        plot_confidence_curve(
            metrics.confidences,
            values,
            present,
            label=label,
            best=metrics.best_confidence,
            path=run_dir / f"{name}_curve.png",
        )
    best = (metrics.recall, metrics.precision, metrics.best_confidence)
    plot_precision_recall(metrics.precision_by_recall, metrics.ap[:, 0], present, run_dir / "PR_curve.png", best=best)


def _write_counts(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Write the raw counts, which the image has no room for where classes are many; rows predicted, columns true."""
    labels = [*names, "background"]
    table = pd.DataFrame(counts, index=pd.Index(labels, name="predicted \\ true"), columns=labels)
    atomic_write(path, table.to_csv(lineterminator="\n"))


def _coco(
    options: ValOptions,
    config: DataConfig,
    evaluation: Evaluation,
    *,
    index: DatasetIndex,
    names: Sequence[str],
    run_dir: Path,
) -> None:
    """Write COCO JSON and print COCO's figures, if asked for; for COCO itself unasked, as users expect."""
    save = options.save_json or Path(config.file).stem == "coco"
    if not save and not options.coco_eval:
        return
    truth = coco_truth(evaluation.images, index, names)
    predictions = coco_predictions(evaluation.images, index, names)
    if save:
        dump_json(run_dir / f"{Path(options.weights[0]).stem}_predictions.json", predictions)
        dump_json(run_dir / "ground_truth.json", truth)
    figures = coco_figures(*coco_arrays(truth, predictions))
    if save:
        dump_json(run_dir / "coco.json", figures)
    LOGGER.info(coco_table(figures, evaluation.metrics, max_detections=options.max_det))


def _write_labels(folder: Path, images: Sequence[ImageEvaluation], index: DatasetIndex, *, with_score: bool) -> None:
    """Write each image's detections: class cx cy w h as shares, and perhaps the confidence.

    Images of one name in several folders get a number.
    """
    taken: set[str] = set()
    for image in images:
        name = unique_name(Path(str(index.paths[image.image_id])).stem, taken)
        taken.add(name)
        height, width = image.original_hw
        shares = xyxy_to_cxcywh(image.boxes) / np.array((width, height, width, height))
        lines = []
        for label, box, score in zip(image.classes, shares, image.confidences, strict=True):
            numbers = [*box, score] if with_score else [*box]
            lines.append(" ".join([str(int(label)), *(f"{value:.6g}" for value in numbers)]))
        atomic_write(folder / f"{name}.txt", "".join(line + "\n" for line in lines))

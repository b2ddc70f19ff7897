"""val.py's work: evaluate checkpoints on a split, print the tables, and write the requested files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.config import EMBEDDED, DataConfig
from utils.datasets.dataset import DetectionDataset
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.letterbox import round_image_size
from utils.datasets.split_checks import split_warnings
from utils.datasets.splits import class_names, evaluation_plan, open_data
from utils.datasets.threaded_loader import ThreadedLoader
from utils.errors import ConfigError
from utils.files import atomic_write, dump_json, make_run_dir
from utils.inference.annotations import label_rows
from utils.inference.class_mapping import class_name_mismatch
from utils.inference.engine import open_onnx_network
from utils.inference.metadata import ModelMetadata, require_fixed_size
from utils.inference.network import Network
from utils.inference.nms import NmsSettings
from utils.log import LOGGER, optional
from utils.metrics.coco import coco_figures
from utils.metrics.evaluated_set import ImageEvaluation
from utils.options import ValOptions
from utils.options.inference import ONNXRUNTIME, TORCH
from utils.output_names import OutputNames
from utils.plugins import load_plugins
from utils.structures import Detections
from utils.thresholds import CONF_THRESHOLD, EVAL_CONF_THRESHOLD, IOU_THRESHOLD
from utils.validation.coco_json import coco_arrays, coco_predictions, coco_table, coco_truth
from utils.validation.evaluate import AnyBatch, Evaluation, evaluate_network, metrics_table
from utils.validation.plots import plot_batch, plot_curves, plot_detection_errors

if TYPE_CHECKING:
    from utils.inference.detector import TorchNetwork

PLOTTED_BATCHES = 3


def run_evaluation(options: ValOptions) -> Evaluation:
    """Evaluate checkpoints with the given options; DetectorError if an input is invalid."""
    load_plugins(options.plugins)
    flags = {"--augment": options.augment, "--half": options.half, "--single-cls": options.single_cls}
    torch_only = next((flag for flag, given in flags.items() if given), "")
    opened = open_onnx_network(options.weights, engine=options.engine, device=options.device, torch_only=torch_only)
    network, metadata = opened or _open_in_torch(options)
    config = open_data(options.data or _own_data(metadata))
    single_class = options.single_cls or metadata.single_class
    names = _common_names(config, metadata, single_class=single_class)
    speed = options.task == "speed"
    nms = NmsSettings(
        conf_threshold=CONF_THRESHOLD if speed else options.conf_thres,
        iou_threshold=IOU_THRESHOLD if speed else options.iou_thres,
        max_detections=options.max_det,
        multi_label=True,
    )
    _warn_about_options(options, conf_threshold=nms.conf_threshold)
    stride = network.max_stride
    if metadata.fixed_hw:
        image_size = max(metadata.fixed_hw)
        given = () if options.imgsz in (0, image_size) else (options.imgsz,)
        require_fixed_size(metadata.fixed_hw, given, options.weights[0])
    else:
        image_size = round_image_size(options.imgsz or metadata.image_size, stride)
    split = "val" if speed else options.task
    index = build_index(config, split, use_cache=not options.no_label_cache, strict=options.strict)
    for warning in split_warnings(config, index, split, max_detections=nms.max_detections):
        LOGGER.warning(warning)
    run_dir = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    dataset = DetectionDataset(index, image_size=image_size, single_class=single_class)
    plan = evaluation_plan(
        index, batch_size=options.batch_size, image_size=image_size, stride=stride, fixed_hw=metadata.fixed_hw
    )
    evaluation = evaluate_and_report(
        network,
        ThreadedLoader(dataset=dataset, plan=plan, workers=options.workers),
        index=index,
        names=names,
        nms=nms,
        run_dir=None if options.noplots or speed else run_dir,
        verbose=options.verbose,
    )
    if options.save_txt:
        _write_labels(run_dir / "labels", evaluation.images, index, with_confidence=options.save_conf)
    save_json = options.save_json or Path(config.file).stem == "coco"  # always for COCO itself, as YOLOv5 does
    if save_json or options.coco_eval:
        _report_coco(options, evaluation, index=index, names=names, run_dir=run_dir if save_json else None)
    if speed:
        settings = {
            "engine": TORCH if opened is None else ONNXRUNTIME,
            "device": str(network.device),
            "image_size": image_size,
            "batch_size": options.batch_size,
        }
        dump_json(run_dir / "speed.json", {**settings, "milliseconds_per_image": evaluation.milliseconds})
    LOGGER.info(f"Results: {run_dir}")
    return evaluation


def _open_in_torch(options: ValOptions) -> tuple[TorchNetwork, ModelMetadata]:
    """Open the weights in torch, with the wrappers that the options ask for."""
    from utils.inference.ensemble import SingleClassWrapper
    from utils.inference.model_loading import open_torch_network
    from utils.inference.tta import augmented
    from utils.runtime import select_device

    device = select_device(options.device)
    half = options.half and device.type == "cuda"
    if options.half and not half:
        LOGGER.warning("--half needs CUDA; using full precision")
    network, metadata = open_torch_network(options.weights, device, trust=options.trust_torchscript, half=half)
    if options.augment:
        network = replace(network, detector=augmented(network.detector))
    if (options.single_cls or metadata.single_class) and network.num_classes > 1:
        network = replace(network, detector=SingleClassWrapper(network.detector))
    return network, metadata


def _own_data(metadata: ModelMetadata) -> str:
    """Return the data yaml that a model was trained on, or the embedded set if it does not say, and log which."""
    known = "on which the model was trained" if metadata.data else "since the model does not say what it was trained on"
    data = metadata.data or EMBEDDED
    LOGGER.info(f"--data is not given: using {data}, {known}")
    return data


def _warn_about_options(options: ValOptions, *, conf_threshold: float) -> None:
    """Warn about options that change what the metrics mean or that have no effect."""
    if conf_threshold > EVAL_CONF_THRESHOLD:
        flag = "--task speed" if options.task == "speed" else "--conf-thres"
        LOGGER.warning(
            f"{flag}: only detections above confidence {conf_threshold} count; mAP and COCO's metrics are not "
            f"comparable with those at {EVAL_CONF_THRESHOLD}"
        )
    if options.save_conf and not options.save_txt:
        LOGGER.warning("--save-conf has no effect without --save-txt")


def _common_names(config: DataConfig, metadata: ModelMetadata, *, single_class: bool) -> tuple[str, ...]:
    """Return the model's class names, or one for all; warn if the data set's differ, fail if their number does."""
    names = class_names(config, single_class=single_class)
    if single_class:
        return names if len(names) == 1 else ("object",)
    if len(names) != len(metadata.names):
        reason = f"has {config.num_classes} classes, but the model has {len(metadata.names)}"
        raise ConfigError(config.file, reason, fix="pass its --data")
    difference = class_name_mismatch(names, metadata.names)
    if difference:
        LOGGER.warning(f"{config.file}: {difference}")
    return metadata.names


def evaluate_and_report(
    network: Network,
    batches: Iterable[AnyBatch],
    *,
    index: DatasetIndex,
    names: Sequence[str],
    nms: NmsSettings,
    run_dir: Path | None = None,
    verbose: bool = False,
) -> Evaluation:
    """Evaluate a network, print the table and the time of each phase, and write plots into `run_dir` if there is one.

    A plot that cannot be written causes a warning only.
    """

    def plot(batch_index: int, batch: AnyBatch, detections: Sequence[Detections]) -> None:
        if run_dir is not None and batch_index < PLOTTED_BATCHES:
            captions = [Path(str(index.paths[i])).name for i in batch.indices]
            with optional():
                plot_batch(batch, names, run_dir / f"val_batch{batch_index}_labels.jpg", captions)
                plot_batch(batch, names, run_dir / f"val_batch{batch_index}_pred.jpg", captions, detections)

    evaluation = evaluate_network(network, batches, nms=nms, on_batch=plot)
    LOGGER.info(metrics_table(evaluation.metrics, names, images=len(evaluation.images), verbose=verbose))
    LOGGER.info(speed_line(evaluation.milliseconds))
    if run_dir is not None:
        with optional():
            plot_curves(evaluation, names, run_dir)
        with optional():
            plot_detection_errors(evaluation.images, [str(path) for path in index.paths], names, run_dir)
    return evaluation


def speed_line(milliseconds: Mapping[str, float]) -> str:
    """Return two lines: milliseconds per image of each phase, and the fraction of NMS and matching."""
    fraction = (milliseconds["nms"] + milliseconds["matching"]) / max(sum(milliseconds.values()), 1e-9)
    return (
        f"Speed: {milliseconds['pre']:.1f} ms pre-process, {milliseconds['inference']:.1f} ms inference, "
        f"{milliseconds['nms']:.1f} ms NMS per image,\n       {milliseconds['matching']:.1f} ms matching, "
        f"{milliseconds['loading']:.1f} ms data wait (NMS and matching {fraction:.0%})"
    )


def _report_coco(
    options: ValOptions, evaluation: Evaluation, *, index: DatasetIndex, names: Sequence[str], run_dir: Path | None
) -> None:
    """Print COCO's metrics, and write the JSON files into `run_dir` if there is one."""
    truth = coco_truth(evaluation.images, index, names)
    predictions = coco_predictions(evaluation.images, index, names)
    figures = coco_figures(*coco_arrays(truth, predictions))
    if run_dir is not None:
        dump_json(run_dir / f"{Path(options.weights[0]).stem}_predictions.json", predictions)
        dump_json(run_dir / "ground_truth.json", truth)
        dump_json(run_dir / "coco.json", figures)
    LOGGER.info(coco_table(figures, evaluation.metrics, max_detections=options.max_det))


def _write_labels(
    folder: Path, images: Sequence[ImageEvaluation], index: DatasetIndex, *, with_confidence: bool
) -> None:
    """Write each image's detections as normalized class cx cy w h, optionally with the confidence.

    Images with the same name in different folders get numbered names.
    """
    taken = OutputNames()
    for image in images:
        name = taken.claim(Path(str(index.paths[image.image_id])).stem)
        height, width = image.original_hw
        normalized = xyxy_to_cxcywh(image.boxes) / np.array((width, height, width, height))
        columns = image.classes.tolist(), normalized.tolist(), image.confidences.tolist()
        atomic_write(folder / f"{name}.txt", label_rows(*columns, with_confidence=with_confidence))

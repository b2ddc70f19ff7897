"""Options of val.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.errors import ConfigError
from utils.options.base import IMAGE_SIZES, DatasetOptions, InferenceOptions, check_thresholds, require
from utils.thresholds import EVAL_CONF_THRESHOLD, EVAL_IOU_THRESHOLD, EVAL_MAX_DETECTIONS

TASKS = ("train", "val", "test", "speed")


@dataclass(frozen=True, kw_only=True)
class ValOptions(InferenceOptions, DatasetOptions):
    """The checkpoints to evaluate, and how."""

    REFUSED: ClassVar[dict[str, str]] = {
        "--save-hybrid": "labels among the predictions make mAP meaningless",
        "--dnn": "exported models run in ONNX Runtime",
    }

    weights: tuple[str, ...] = option((), "checkpoint(s); several form an ensemble")
    data: str = option("", "data yaml; default: the one the checkpoint was trained on")
    batch_size: int = option(32, "images per batch", within=(1, math.inf))
    imgsz: int = option(0, "image size in pixels (longer side); 0: the checkpoint's")
    conf_thres: float = option(EVAL_CONF_THRESHOLD, "confidence threshold")
    iou_thres: float = option(EVAL_IOU_THRESHOLD, "NMS IoU threshold")
    max_det: int = option(EVAL_MAX_DETECTIONS, "maximum detections per image")
    task: str = option("val", "split to evaluate: train, val or test; speed: timings at confidence 0.25, IoU 0.45")
    workers: int = option(8, "data loader workers, at most one per CPU core", within=(0, math.inf))
    verbose: bool = option(False, "per-class metrics")
    save_txt: bool = option(False, "write labels/<image>.txt: class cx cy w h, normalized")
    save_json: bool = option(False, "write predictions and ground truth as COCO JSON, and print COCO's metrics")
    coco_eval: bool = option(False, "print COCO's metrics: AP by object size, AR")
    noplots: bool = option(False, "write no plots")
    project: str = option("runs/val", "folder of all runs")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.weights), "--weights", "given", "nothing")
        if self.task == "study":
            raise ConfigError("--task", "study is not supported", fix="run --task speed once for each --imgsz")
        require(self.task in TASKS, "--task", f"one of {', '.join(TASKS)}", self.task)
        low, high = IMAGE_SIZES
        require(self.imgsz == 0 or low <= self.imgsz <= high, "--imgsz", f"from {low} to {high}", self.imgsz)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)

"""Options of val.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.errors import ConfigError
from utils.options.checks import check_thresholds, require
from utils.thresholds import EVAL_CONF_THRESHOLD, EVAL_IOU_THRESHOLD, EVAL_MAX_DETECTIONS

VAL_TASKS = ("train", "val", "test", "speed")


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of val.py."""

    REFUSED: ClassVar[dict[str, str]] = {
        "--save-hybrid": "labels among the predictions make mAP meaningless",
        "--dnn": "exported models run in ONNX Runtime",
    }

    weights: tuple[str, ...] = option((), "checkpoint(s); several form an ensemble", kind=str, many=True)
    data: str = option("", "data yaml; default: the one the checkpoint was trained on")
    batch_size: int = option(32, "images per batch", flags=("--batch",))
    imgsz: int = option(0, "image size in pixels (longer side); 0: the checkpoint's", flags=("--img", "--img-size"))
    conf_thres: float = option(EVAL_CONF_THRESHOLD, "confidence threshold")
    iou_thres: float = option(EVAL_IOU_THRESHOLD, "NMS IoU threshold")
    max_det: int = option(EVAL_MAX_DETECTIONS, "maximum detections per image")
    task: str = option("val", "split to evaluate: train, val or test; speed: timings at confidence 0.25, IoU 0.45")
    device: str = option("", "cpu, mps, or a CUDA device index")
    workers: int = option(8, "data loader workers, at most one per CPU core")
    single_cls: bool = option(False, "treat all classes as one")
    augment: bool = option(False, "test-time augmentation: three scales and a flip")
    verbose: bool = option(False, "per-class metrics")
    save_txt: bool = option(False, "write labels/<image>.txt: class cx cy w h, normalized")
    save_conf: bool = option(False, "append the confidence to the rows of --save-txt")
    save_json: bool = option(False, "write predictions and ground truth as COCO JSON, and print COCO's metrics")
    coco_eval: bool = option(False, "print COCO's metrics: AP by object size, AR")
    half: bool = option(False, "half precision (CUDA only)")
    noplots: bool = option(False, "write no plots")
    project: str = option("runs/val", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    trust_torchscript: bool = option(
        False, "run a TorchScript file, which is a program, that was not exported here", aliases=("--trust",)
    )
    plugins: tuple[str, ...] = option((), "Python files with @register modules", kind=str, many=True)
    strict: bool = option(False, "stop at an invalid image or label instead of skipping it")
    no_label_cache: bool = option(False, "ignore the label cache")

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        if self.task == "study":
            raise ConfigError("--task", "study is not supported", fix="run --task speed once for each --imgsz")
        require(self.task in VAL_TASKS, "--task", f"one of {', '.join(VAL_TASKS)}", self.task)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(self.workers >= 0, "--workers", "at least 0", self.workers)
        require(self.imgsz == 0 or 32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)

"""Options of val.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.errors import ConfigError
from utils.options.checks import check_thresholds, require

VAL_TASKS = ("train", "val", "test", "speed")


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of val.py."""

    REFUSED: ClassVar[dict[str, str]] = {
        "--save-hybrid": "labels among the predictions make mAP meaningless",
        "--dnn": "exported models run in ONNX Runtime",
    }

    weights: tuple[str, ...] = option((), "checkpoint to judge; several are judged as one", kind=str, many=True)
    data: str = option("", "data yaml; by default the one the checkpoint was trained on")
    batch_size: int = option(32, "images per batch", flags=("--batch",))
    imgsz: int = option(0, "longer side in pixels; 0 takes the checkpoint's", flags=("--img", "--img-size"))
    conf_thres: float = option(0.001, "confidence above which a box counts")
    iou_thres: float = option(0.6, "overlap above which the worse box goes")
    max_det: int = option(300, "boxes per image at most")
    task: str = option("val", "split to judge on: train, val or test; speed measures time at conf 0.25, iou 0.45")
    device: str = option("", "cpu, mps, or a CUDA device's number")
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    single_cls: bool = option(False, "treat all classes as one")
    augment: bool = option(False, "look at three sizes, once mirrored: slower, often surer")
    verbose: bool = option(False, "a row for every class")
    save_txt: bool = option(False, "write labels/<image>.txt: class cx cy w h")
    save_conf: bool = option(False, "with the confidence as last column of --save-txt")
    save_json: bool = option(False, "write predictions and ground truth as COCO JSON, and print COCO's figures")
    coco_eval: bool = option(False, "print COCO's figures: AP by size of object, AR")
    half: bool = option(False, "half precision, on CUDA")
    noplots: bool = option(False, "write no images")
    project: str = option("runs/val", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    trust_torchscript: bool = option(
        False, "run a TorchScript file, which is a program, that was not exported here", aliases=("--trust",)
    )
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)
    strict: bool = option(False, "stop at a bad image or label instead of skipping it")
    no_label_cache: bool = option(False, "scan the data set anew")

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

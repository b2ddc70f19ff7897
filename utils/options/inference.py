"""Options of val.py and detect.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils import thresholds
from utils.cli import option
from utils.errors import ConfigError
from utils.options.base import IMAGE_SIZES, DatasetOptions, PluginOptions, check_thresholds, require

AUTO, TORCH, ONNXRUNTIME = ENGINES = ("auto", "torch", "onnxruntime")
TASKS = ("train", "val", "test", "speed")
MAX_POSITIONS = 36  # more could not be distinguished in one image


@dataclass(frozen=True, kw_only=True)
class InferenceOptions(PluginOptions):
    """How val.py and detect.py run a checkpoint or exported file, and where their output goes."""

    device: str = option("", "cpu, mps, or a CUDA device index")
    engine: str = option(
        AUTO, "what runs a checkpoint on a CPU; auto: ONNX Runtime if installed, as fast as an export", choices=ENGINES
    )
    augment: bool = option(False, "test-time augmentation: three scales and a flip")
    half: bool = option(False, "half precision (CUDA only)")
    save_conf: bool = option(False, "append the confidence to the rows of --save-txt")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    trust_torchscript: bool = option(
        False, "run a TorchScript file, which is a program, that was not exported here", aliases=("--trust",)
    )


@dataclass(frozen=True, kw_only=True)
class ValOptions(InferenceOptions, DatasetOptions):
    """The checkpoints to evaluate, and how."""

    REFUSED: ClassVar[dict[str, tuple[str, str]]] = {
        "--save-hybrid": ("labels among the predictions make mAP meaningless", "leave it out"),
        "--dnn": ("exported models run in ONNX Runtime", "leave it out"),
    }

    weights: tuple[str, ...] = option((), "checkpoint(s); several form an ensemble")
    data: str = option("", "data yaml; default: the one the checkpoint was trained on")
    batch_size: int = option(32, "images per batch", within=(1, math.inf))
    imgsz: int = option(0, "image size in pixels (longer side); 0: the checkpoint's")
    conf_thres: float = option(thresholds.EVAL_CONF_THRESHOLD, "confidence threshold")
    iou_thres: float = option(thresholds.EVAL_IOU_THRESHOLD, "NMS IoU threshold")
    max_det: int = option(thresholds.EVAL_MAX_DETECTIONS, "maximum detections per image")
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
        require(any(self.weights), "--weights", "given", "nothing")
        if self.task == "study":
            raise ConfigError("--task", "study is not supported", fix="run --task speed once for each --imgsz")
        require(self.task in TASKS, "--task", f"one of {', '.join(TASKS)}", self.task)
        low, high = IMAGE_SIZES
        require(self.imgsz == 0 or low <= self.imgsz <= high, "--imgsz", f"from {low} to {high}", self.imgsz)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)


def image_position(text: str) -> tuple[float, float]:
    """Parse `x,y` in pixels of an image; raise a ConfigError for any other text."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    valid = all(0 <= value < math.inf for value in (x, y))
    require(valid, "--visualize-at", "x,y in pixels of the image, both at least 0, such as 320,96", repr(text))
    return x, y


@dataclass(frozen=True, kw_only=True)
class DetectOptions(InferenceOptions):
    """The images to detect objects in, and what to write."""

    IGNORED: ClassVar[dict[str, str]] = {"--dnn": "exported models run in ONNX Runtime"}
    REFUSED: ClassVar[dict[str, tuple[str, str]]] = {
        "--update": ("it rewrites your weights file", "leave it out"),
        "--output": ("a run writes into its own folder", "use --project and --name"),
    }

    weights: tuple[str, ...] = option((), "checkpoint(s) or exported file(s); several form an ensemble")
    source: str = option("data/images", "image, folder, glob, video, list, webcam index, stream URL, or screen")
    data: str = option("", "data yaml for class names; default: the checkpoint's names")
    imgsz: tuple[int, ...] = option(
        (), "image size: longer side, or height and width; default: the checkpoint's", kind=int, within=IMAGE_SIZES
    )
    batch_size: int = option(4, "images per batch, if similar in shape", within=(1, math.inf))
    conf_thres: float = option(thresholds.CONF_THRESHOLD, "confidence threshold")
    iou_thres: float = option(thresholds.IOU_THRESHOLD, "NMS IoU threshold")
    max_det: int = option(thresholds.MAX_DETECTIONS, "maximum detections per image")
    view_img: bool = option(False, "show results in a window")
    save_txt: bool = option(False, "write labels/<image>.txt")
    save_format: int = option(0, "coordinates of --save-txt: normalized cxcywh (0) or xyxy (1)", within=(0, 1))
    save_csv: bool = option(False, "write predictions.csv")
    save_crop: bool = option(False, "write each detection's crop to crops/<class>/<image>.jpg")
    nosave: bool = option(False, "write no annotated images or videos")
    classes: tuple[int, ...] = option((), "filter by class id", kind=int)
    agnostic_nms: bool = option(False, "class-agnostic NMS")
    project: str = option("runs/detect", "folder of all runs")
    line_thickness: int = option(3, "bounding box line width in pixels", within=(1, math.inf))
    hide_labels: bool = option(False, "draw boxes without class names")
    hide_conf: bool = option(False, "draw class names without confidences")
    vid_stride: int = option(1, "use every n-th frame of a video", within=(1, math.inf))
    visualize: bool = option(False, "draw the sampling points of AKConv layers for the first 8 images to sampling/")
    visualize_layers: tuple[str, ...] = option(
        (), "layers to draw: 3, model.5, model.17.m.0.cv2; default: the first of each stride"
    )
    visualize_at: tuple[tuple[float, float], ...] = option(
        (),
        "positions to draw, x,y in pixels of the image: 320,96 12.5,40; default: the best detections",
        kind=image_position,
    )
    stream_timeout: float = option(30.0, "seconds without a frame after which a stream is given up")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(any(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) <= 2, "--imgsz", "one or two numbers", self.imgsz)
        require(0 < self.stream_timeout < 1e9, "--stream-timeout", "above 0", self.stream_timeout)
        models = len(self.weights)
        require(not self.draws_sampling or models == 1, "--visualize", "used with a single model", models)
        count = len(self.visualize_at)
        require(count <= MAX_POSITIONS, "--visualize-at", f"at most {MAX_POSITIONS} positions", count)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)

    @property
    def draws_sampling(self) -> bool:
        """Whether plots of sampling points are requested, by any of the flags about them."""
        return self.visualize or bool(self.visualize_layers) or bool(self.visualize_at)

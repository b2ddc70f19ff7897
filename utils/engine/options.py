"""The options of each command, one dataclass each: flags, help text and types in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from utils.cli import option
from utils.errors import ConfigError

OPTIMIZERS = ("SGD", "Adam", "AdamW")


def require(condition: bool, flag: str, rule: str, got: Any) -> None:  # noqa: ANN401
    """Check an option.

    Raises:
        ConfigError: the condition does not hold.
    """
    if not condition:
        raise ConfigError(flag, f"must be {rule} (got {got})", fix=f"correct {flag}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of train.py."""

    weights: str = option("", "checkpoint to start from; none starts from scratch")
    cfg: str = option("", "model yaml, by path or bare name; before the one inside --weights")
    data: str = option("shapes.yaml", "data yaml; the embedded set by default")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml")
    epochs: int = option(100, "epochs to train")
    batch_size: int = option(16, "pictures per batch", flags=("--batch",))
    imgsz: int = option(640, "picture side in pixels", flags=("--img", "--img-size"))
    rect: bool = option(False, "rectangular batches of like shapes, without mosaic")
    resume: str = option("", "go on with an interrupted run: its last.pt, or the newest", bare="newest")
    nosave: bool = option(False, "write only the last checkpoint")
    noval: bool = option(False, "validate only after the last epoch")
    noautoanchor: bool = option(False, "keep the model's anchors whatever the data")
    noplots: bool = option(False, "write no pictures")
    cache: str = option("", "keep decoded pictures in memory: ram", bare="ram", choices=("ram", ""))
    device: str = option("", "cpu, mps, or a CUDA device's number; the best there is by default")
    multi_scale: bool = option(False, "picture side drawn anew for each batch, 0.5 to 1.5 times --imgsz")
    single_cls: bool = option(False, "treat all classes as one")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    project: str = option("runs/train", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    label_smoothing: float = option(0.0, "share of the class target given to all classes")
    patience: int = option(100, "stop after so many epochs without a better fitness; 0 never")
    freeze: tuple[int, ...] = option((0,), "layers to freeze: 10 for the first ten, or a list", kind=int, many=True)
    save_period: int = option(-1, "also keep every n-th epoch's checkpoint")
    seed: int = option(0, "seed of all randomness")
    no_amp: bool = option(False, "no mixed precision on CUDA")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)
    strict: bool = option(False, "stop at a bad picture or label instead of skipping it")
    no_label_cache: bool = option(False, "scan the data set anew")

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.workers >= 0, "--workers", "at least 0", self.workers)
        require(self.seed >= 0, "--seed", "at least 0", self.seed)
        require(0 <= self.label_smoothing < 1, "--label-smoothing", "in [0, 1)", self.label_smoothing)
        require(self.patience >= 0, "--patience", "at least 0", self.patience)


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of val.py."""

    weights: str = option("", "checkpoint to judge")
    data: str = option("", "data yaml; by default the one the checkpoint was trained on")
    batch_size: int = option(32, "pictures per batch", flags=("--batch",))
    imgsz: int = option(0, "longer side in pixels; 0 takes the checkpoint's", flags=("--img", "--img-size"))
    conf_thres: float = option(0.001, "confidence above which a box counts")
    iou_thres: float = option(0.6, "overlap above which the worse box goes")
    max_det: int = option(300, "boxes per picture at most")
    task: str = option("val", "split to judge on", choices=("train", "val", "test"))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    single_cls: bool = option(False, "treat all classes as one")
    verbose: bool = option(False, "a row for every class")
    save_txt: bool = option(False, "write labels/<picture>.txt: class cx cy w h")
    save_conf: bool = option(False, "with the confidence as last column of --save-txt")
    save_json: bool = option(False, "write predictions and ground truth as COCO JSON")
    half: bool = option(False, "half precision, on CUDA")
    noplots: bool = option(False, "write no pictures")
    project: str = option("runs/val", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)
    strict: bool = option(False, "stop at a bad picture or label instead of skipping it")
    no_label_cache: bool = option(False, "scan the data set anew")

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(self.imgsz == 0 or 32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Options of detect.py."""

    weights: str = option("", "checkpoint to use")
    source: str = option("data/images", "picture, folder, glob, video, txt list, or camera number")
    data: str = option("", "data yaml for class names; the checkpoint holds its own")
    imgsz: tuple[int, ...] = option(
        (640,), "longer side in pixels, or height and width", kind=int, many=True, flags=("--img", "--img-size")
    )
    conf_thres: float = option(0.25, "confidence above which a box counts")
    iou_thres: float = option(0.45, "overlap above which the worse box goes")
    max_det: int = option(1000, "boxes per picture at most")
    device: str = option("", "cpu, mps, or a CUDA device's number")
    view_img: bool = option(False, "show each result in a window")
    save_txt: bool = option(False, "write labels/<picture>.txt")
    save_format: int = option(0, "coordinates of --save-txt as shares: 0 cx cy w h, 1 x1 y1 x2 y2")
    save_csv: bool = option(False, "write predictions.csv")
    save_conf: bool = option(False, "with the confidence as last column of --save-txt")
    save_crop: bool = option(False, "write each box as a picture, crops/<class>/<picture>.jpg")
    nosave: bool = option(False, "write no annotated pictures or videos")
    classes: tuple[int, ...] = option((), "keep these class numbers only", kind=int, many=True)
    agnostic_nms: bool = option(False, "let boxes of different classes suppress each other")
    augment: bool = option(False, "look at three sizes, once mirrored: slower, often surer")
    project: str = option("runs/detect", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    line_thickness: int = option(3, "width of drawn boxes in pixels")
    hide_labels: bool = option(False, "draw boxes without names")
    hide_conf: bool = option(False, "draw names without confidences")
    half: bool = option(False, "half precision, on CUDA")
    vid_stride: int = option(1, "take every n-th frame of a video")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(all(32 <= side <= 8192 for side in self.imgsz), "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.vid_stride >= 1, "--vid-stride", "at least 1", self.vid_stride)
        require(self.save_format in (0, 1), "--save-format", "0 or 1", self.save_format)
        require(self.line_thickness >= 1, "--line-thickness", "at least 1", self.line_thickness)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of compare.py: which models, and how all of them are trained."""

    cfg: tuple[str, ...] = option((), "two or more model yamls; the first is the baseline", kind=str, many=True)
    data: str = option("shapes.yaml", "data yaml; the embedded set by default")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml")
    epochs: int = option(100, "epochs to train each")
    batch_size: int = option(16, "pictures per batch", flags=("--batch",))
    imgsz: int = option(640, "picture side in pixels", flags=("--img", "--img-size"))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    seed: int = option(0, "seed of all randomness, the same for all")
    no_amp: bool = option(False, "no mixed precision on CUDA")
    project: str = option("runs/compare", "folder of all comparisons")
    name: str = option("exp", "folder of this comparison; finished runs in it are not repeated")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check that there is something to compare.

        Raises:
            ConfigError: names the flag.
        """
        require(len(self.cfg) >= 2, "--cfg", "two or more model yamls", len(self.cfg))


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of benchmarks.py."""

    part: str = option("all", "what to measure", choices=("all", "layers", "models"))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    imgsz: int = option(640, "picture side in pixels of whole models", flags=("--img", "--img-size"))
    batch_size: int = option(4, "pictures per batch of whole models, beside batch 1", flags=("--batch",))
    layer_batch: int = option(8, "pictures per batch of single layers")
    rounds: int = option(15, "how often each variant takes its turn")
    amp: bool = option(False, "mixed precision in training steps, on CUDA")
    project: str = option("runs/benchmark", "folder of all runs")
    name: str = option("exp", "folder of this run")

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: names the flag.
        """
        require(32 <= self.imgsz <= 4096 and self.imgsz % 32 == 0, "--imgsz", "a multiple of 32", self.imgsz)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(self.rounds >= 1, "--rounds", "at least 1", self.rounds)


def check_thresholds(confidence: float, overlap: float, max_detections: int) -> None:
    """Check what val.py and detect.py share.

    Raises:
        ConfigError: names the flag.
    """
    require(0 <= confidence < 1, "--conf-thres", "in [0, 1)", confidence)
    require(0 < overlap <= 1, "--iou-thres", "in (0, 1]", overlap)
    require(max_detections >= 1, "--max-det", "at least 1", max_detections)

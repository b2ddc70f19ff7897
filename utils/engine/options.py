"""The options of each command, one dataclass each: flags, help text and types in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from utils.cli import option
from utils.errors import ConfigError

OPTIMIZERS = ("SGD", "Adam", "AdamW")
MAX_SEED = 2**53  # beyond it a number does not survive every file
VAL_TASKS = ("train", "val", "test", "speed")
COMPARED_SPLITS = ("val", "test")
MOST_CHOSEN_POSITIONS = 36  # more could not be told apart in one picture


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

    IGNORED: ClassVar[dict[str, str]] = {
        "--local-rank": "torchrun tells it",
        "--entity": "Weights & Biases; see --plugins for loggers of your own",
        "--upload-dataset": "Weights & Biases",
        "--bbox-interval": "Weights & Biases",
        "--artifact-alias": "Weights & Biases",
        "--bucket": "nothing is uploaded",
        "--evolve-population": "the search keeps its own table",
        "--resume-evolve": "the search goes on by itself in the folder of --name with --exist-ok",
    }
    REFUSED: ClassVar[dict[str, str]] = {"--quad": "it changes the scale of the loss"}

    weights: str = option("", "checkpoint to start from; none starts from scratch")
    cfg: str = option("", "model yaml, by path or bare name; before the one inside --weights")
    data: str = option("shapes.yaml", "data yaml; the embedded set by default")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml")
    epochs: int = option(100, "epochs to train")
    batch_size: int = option(16, "pictures per batch, over all processes; -1 fits it to the GPU", flags=("--batch",))
    imgsz: int = option(640, "picture side in pixels", flags=("--img", "--img-size"))
    rect: bool = option(False, "rectangular batches of like shapes, without mosaic")
    resume: str = option("", "go on with an interrupted run: its last.pt, or the newest", bare="newest")
    nosave: bool = option(False, "write only the last checkpoint")
    noval: bool = option(False, "validate only after the last epoch")
    noautoanchor: bool = option(False, "keep the model's anchors whatever the data")
    noplots: bool = option(False, "write no pictures")
    cache: str = option("", "keep decoded pictures: ram, or disk (in the user's cache folder)", bare="ram")
    image_weights: bool = option(False, "draw pictures of classes with a low mAP more often")
    evolve: int = option(0, "search hyperparameters in so many short trainings", bare=300)
    device: str = option("", "cpu, mps, or a CUDA device's number; the best there is by default")
    sync_bn: bool = option(False, "batch norm over all processes of torchrun")
    tensorboard: bool = option(False, "also write results for TensorBoard")
    download: bool = option(False, "fetch the data set if it is missing")
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
        fits = self.batch_size >= 1 or self.batch_size == -1
        require(fits, "--batch-size", "at least 1, or -1", self.batch_size)
        require(32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.cache in ("", "ram", "disk"), "--cache", "ram or disk", self.cache)
        require(self.evolve >= 0, "--evolve", "at least 1", self.evolve)
        require(not (self.image_weights and self.rect), "--image-weights", "without --rect", "both")
        require(self.workers >= 0, "--workers", "at least 0", self.workers)
        require(0 <= self.seed <= MAX_SEED, "--seed", f"from 0 to {MAX_SEED}", self.seed)
        require(0 <= self.label_smoothing < 1, "--label-smoothing", "in [0, 1)", self.label_smoothing)
        require(self.patience >= 0, "--patience", "at least 0", self.patience)


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of val.py."""

    REFUSED: ClassVar[dict[str, str]] = {
        "--save-hybrid": "labels among the predictions make mAP meaningless",
        "--dnn": "exported models run in ONNX Runtime",
    }

    weights: tuple[str, ...] = option((), "checkpoint to judge; several are judged as one", kind=str, many=True)
    data: str = option("", "data yaml; by default the one the checkpoint was trained on")
    batch_size: int = option(32, "pictures per batch", flags=("--batch",))
    imgsz: int = option(0, "longer side in pixels; 0 takes the checkpoint's", flags=("--img", "--img-size"))
    conf_thres: float = option(0.001, "confidence above which a box counts")
    iou_thres: float = option(0.6, "overlap above which the worse box goes")
    max_det: int = option(300, "boxes per picture at most")
    task: str = option("val", "split to judge on: train, val or test; speed measures time at conf 0.25, iou 0.45")
    device: str = option("", "cpu, mps, or a CUDA device's number")
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    single_cls: bool = option(False, "treat all classes as one")
    augment: bool = option(False, "look at three sizes, once mirrored: slower, often surer")
    verbose: bool = option(False, "a row for every class")
    save_txt: bool = option(False, "write labels/<picture>.txt: class cx cy w h")
    save_conf: bool = option(False, "with the confidence as last column of --save-txt")
    save_json: bool = option(False, "write predictions and ground truth as COCO JSON, and print COCO's figures")
    coco_eval: bool = option(False, "print COCO's figures: AP by size of object, AR")
    half: bool = option(False, "half precision, on CUDA")
    noplots: bool = option(False, "write no pictures")
    project: str = option("runs/val", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    trust: bool = option(False, "run a TorchScript file, which is a program, that was not exported here")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)
    strict: bool = option(False, "stop at a bad picture or label instead of skipping it")
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


def picture_position(text: str) -> tuple[float, float]:
    """Return the x and y of a word `x,y`, in pixels of a picture.

    Raises:
        ConfigError: it is no such word; names --visualize-at.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    good = all(0 <= value < math.inf for value in (x, y))
    require(good, "--visualize-at", "x,y in pixels of the picture, both from 0, as 320,96", repr(text))
    return x, y


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Options of detect.py."""

    IGNORED: ClassVar[dict[str, str]] = {"--dnn": "exported models run in ONNX Runtime"}
    REFUSED: ClassVar[dict[str, str]] = {"--update": "it rewrites your weights file"}

    weights: str = option("", "checkpoint to use")
    source: str = option("data/images", "picture, folder, glob, video, list, camera number, stream, or screen")
    data: str = option("", "data yaml for class names; the checkpoint holds its own")
    imgsz: tuple[int, ...] = option(
        (640,), "longer side in pixels, or height and width", kind=int, many=True, flags=("--img", "--img-size")
    )
    batch_size: int = option(4, "pictures of like shape to look at together", flags=("--batch",))
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
    visualize: bool = option(False, "draw where AKConv layers sample, of the first 8 pictures, into sampling/")
    visualize_layers: tuple[str, ...] = option(
        (), "layers to draw: 3, model.5, model.17.m.0.cv2; by default the first of each stride", kind=str, many=True
    )
    visualize_at: tuple[tuple[float, float], ...] = option(
        (),
        "positions to draw, x,y in pixels of the picture: 320,96 12.5,40; by default the best boxes",
        kind=picture_position,
        many=True,
    )
    stream_timeout: float = option(30.0, "seconds without a frame after which a stream is given up")
    trust: bool = option(False, "run a TorchScript file, which is a program, that was not exported here")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(all(32 <= side <= 8192 for side in self.imgsz), "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(0 < self.stream_timeout < 1e9, "--stream-timeout", "above 0", self.stream_timeout)
        require(self.vid_stride >= 1, "--vid-stride", "at least 1", self.vid_stride)
        require(self.save_format in (0, 1), "--save-format", "0 or 1", self.save_format)
        require(self.line_thickness >= 1, "--line-thickness", "at least 1", self.line_thickness)
        chosen = len(self.visualize_at)
        require(chosen <= MOST_CHOSEN_POSITIONS, "--visualize-at", f"at most {MOST_CHOSEN_POSITIONS} positions", chosen)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)

    @property
    def draws_sampling(self) -> bool:
        """Whether pictures of sampling points are asked for: each flag about them does."""
        return self.visualize or bool(self.visualize_layers) or bool(self.visualize_at)


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of compare.py: which models, and how all of them are trained."""

    cfg: tuple[str, ...] = option((), "model yamls to train; the first is the baseline", kind=str, many=True)
    weights: tuple[str, ...] = option(
        (), "finished checkpoints or folders of runs, beside or instead of --cfg", kind=str, many=True
    )
    sweep: tuple[str, ...] = option(
        (), "vary the last model: AKConv.num_param 3 5 9, or hyp.offset_lr 0.1 1.0", kind=str, many=True
    )
    data: str = option("shapes.yaml", "data yaml; the embedded set by default")
    task: str = option("val", "split to judge on; best.pt was chosen on val", choices=COMPARED_SPLITS)
    hyp: tuple[str, ...] = option(
        ("hyp.scratch-low.yaml",), "hyperparameter yaml; of several, each for every --cfg", kind=str, many=True
    )
    epochs: int = option(100, "epochs to train each")
    batch_size: int = option(16, "pictures per batch", flags=("--batch",))
    imgsz: int = option(640, "picture side in pixels", flags=("--img", "--img-size"))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    seed: int = option(0, "seed of all randomness, the same for all")
    seeds: tuple[int, ...] = option((), "several seeds, each for all models; three tell luck", kind=int, many=True)
    jobs: int = option(1, "trainings side by side, each with its share of the threads")
    no_amp: bool = option(False, "no mixed precision on CUDA")
    project: str = option("runs/compare", "folder of all comparisons")
    name: str = option("exp", "folder of this comparison; finished runs in it are not repeated")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check that there is something to compare.

        Raises:
            ConfigError: names the flag.
        """
        patterns = sum(any(letter in word for letter in "*?[") for word in self.weights)
        count = len(self.cfg) * len(self.hyp) + len(self.weights) + patterns
        if self.sweep:
            require(len(self.cfg) >= 1, "--cfg", "a model yaml to vary with --sweep", "none")
        else:
            require(count >= 2, "--cfg", "two or more model yamls, --weights counted", count)
        fits = all(0 <= seed <= MAX_SEED for seed in self.all_seeds)
        require(fits, "--seeds", f"from 0 to {MAX_SEED}", self.all_seeds)
        require(len(set(self.all_seeds)) == len(self.all_seeds), "--seeds", "different numbers", self.all_seeds)
        require(self.jobs >= 1, "--jobs", "at least 1", self.jobs)
        require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.workers >= 0, "--workers", "at least 0", self.workers)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of --seeds, or else the one of --seed."""
        return self.seeds or (self.seed,)


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of benchmarks.py."""

    part: str = option("all", "what to measure", choices=("all", "models", "layers", "points"))
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


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of export.py."""

    IGNORED: ClassVar[dict[str, str]] = {
        "--inplace": "nothing is computed in place",
        "--optimize": "for phones, by a tool that is no more",
        "--workspace": "TensorRT; see trtexec",
        "--cache": "TensorRT; see trtexec",
        "--keras": "TensorFlow",
        "--per-tensor": "TensorFlow",
        "--mlmodel": "CoreML",
    }
    REFUSED: ClassVar[dict[str, str]] = {"--int8": "quantise the ONNX file with onnxruntime.quantization"}
    FORMATS: ClassVar[tuple[str, ...]] = ("torchscript", "onnx", "openvino")
    ELSEWHERE: ClassVar[dict[str, str]] = {
        "engine": "export onnx, then trtexec --onnx=best.onnx --saveEngine=best.engine on the GPU",
        "coreml": "export torchscript, then coremltools.convert",
        "saved_model": "export onnx, then onnx2tf",
        "pb": "export onnx, then onnx2tf",
        "tflite": "export onnx, then onnx2tf",
        "edgetpu": "export onnx, then onnx2tf and edgetpu_compiler",
        "tfjs": "export onnx, and run it in the browser with ONNX Runtime Web",
        "paddle": "export onnx, then x2paddle",
    }

    data: str = option("", "data yaml for --benchmark; by default the one the checkpoint was trained on")
    weights: str = option("", "checkpoint to export; files are written beside it")
    imgsz: tuple[int, ...] = option(
        (640, 640),
        "height and width that users of the file take by default; not given, the checkpoint's. All sizes work",
        kind=int,
        many=True,
        flags=("--img", "--img-size"),
    )
    batch_size: int = option(1, "pictures per batch, also checked. All batches work", flags=("--batch",))
    device: str = option("cpu", "device a TorchScript file is for: cpu, or a CUDA device's number")
    half: bool = option(False, "half precision inside; boxes stay in full")
    dynamic: bool = option(False, "batch, height and width open: always so")
    simplify: bool = option(False, "run onnxslim over the ONNX graph")
    opset: int = option(0, "version of ONNX's operators, 12 to 20; 0: 17, or 19 for models with AKConv")
    verbose: bool = option(False, "tell the difference to PyTorch for each size")
    nms: bool = option(False, "suppression inside the ONNX graph")
    agnostic_nms: bool = option(False, "with --nms, let boxes of different classes suppress each other")
    topk_per_class: int = option(100, "with --nms, boxes of a class at most")
    topk_all: int = option(100, "with --nms, boxes of a picture at most")
    iou_thres: float = option(0.45, "with --nms, overlap above which the worse box goes")
    conf_thres: float = option(0.25, "with --nms, confidence above which a box counts")
    include: tuple[str, ...] = option(("torchscript",), "formats: torchscript onnx openvino", kind=str, many=True)
    benchmark: bool = option(False, "then compare the formats: size, mAP on --data, milliseconds")
    rounds: int = option(15, "with --benchmark, how often each format takes its turn")
    project: str = option("runs/export", "folder of all tables of --benchmark")
    name: str = option("exp", "folder of this table")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check what needs no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(all(32 <= side <= 8192 for side in self.imgsz), "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(self.opset == 0 or 12 <= self.opset <= 20, "--opset", "from 12 to 20", self.opset)
        require(self.rounds >= 1, "--rounds", "at least 1", self.rounds)
        for name in self.include:
            if name in self.ELSEWHERE:
                raise ConfigError("--include", f"{name} is not made here", fix=self.ELSEWHERE[name])
            require(name in self.FORMATS, "--include", f"among {', '.join(self.FORMATS)}", name)
        if self.nms:
            require("onnx" in self.include, "--nms", "with --include onnx", self.include)
            require(self.opset != 12, "--opset", "at least 13 with --nms", self.opset)
            require(self.topk_per_class >= 1, "--topk-per-class", "at least 1", self.topk_per_class)
            check_thresholds(self.conf_thres, self.iou_thres, self.topk_all)

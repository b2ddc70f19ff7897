"""Options of train.py and compare.py."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from utils.cli import option
from utils.options.ablation import DESIGNS, parse_switches
from utils.options.base import IMAGE_SIZES, MAX_SEED, DatasetOptions, PluginOptions, require

OPTIMIZERS = ("SGD", "Adam", "AdamW")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(PluginOptions, DatasetOptions):
    """How train.py and compare.py train."""

    epochs: int = option(100, "training epochs", within=(1, math.inf))
    imgsz: int = option(640, "image size", within=IMAGE_SIZES)
    device: str = option("", "cpu, mps, or a CUDA device index; default: the first GPU, else the CPU")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "data loader workers, at most one per CPU core", within=(0, math.inf))
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    patience: int = option(
        100, "early stopping: epochs without improvement of the fitness; 0 disables it", within=(0, math.inf)
    )
    cache: str = option(
        "",
        "cache decoded training images: ram, or disk (in the user's cache folder)",
        bare="ram",
        aliases=("--cache-images",),
    )
    noplots: bool = option(False, "write no plots")
    seed: int = option(0, "seed of all randomness", within=(0, MAX_SEED))
    no_amp: bool = option(False, "no mixed precision on CUDA")
    fraction: float = option(1.0, "fraction of the training images to train on, drawn by the seed")
    rect: bool = option(False, "rectangular batches of images of similar shape, without mosaic")
    multi_scale: bool = option(False, "random image size for each batch, 0.5 to 1.5 times --imgsz")
    image_weights: bool = option(False, "sample images of classes with a low mAP more often")
    label_smoothing: float = option(0.0, "label-smoothing epsilon")
    freeze: tuple[int, ...] = option((0,), "layers to freeze: 10 for the first ten, or a list")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.fraction <= 1, "--fraction", "in (0, 1]", self.fraction)
        require(not (self.image_weights and self.rect), "--image-weights", "without --rect", "both")
        require(0 <= self.label_smoothing < 1, "--label-smoothing", "in [0, 1)", self.label_smoothing)
        require(self.cache in ("", "ram", "disk"), "--cache", "ram or disk", self.cache)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """A training run."""

    IGNORED: ClassVar[dict[str, str]] = {
        "--local-rank": "torchrun passes it in the environment",
        "--entity": "Weights & Biases; see --plugins for other loggers",
        "--upload-dataset": "Weights & Biases",
        "--bbox-interval": "Weights & Biases",
        "--artifact-alias": "Weights & Biases",
        "--bucket": "nothing is uploaded",
        "--evolve-population": "evolve.csv is the population",
        "--resume-evolve": "--name with --exist-ok resumes an evolution",
        "--linear-lr": "it is the default",
        "--ndjson-console": "results.csv has the values",
        "--ndjson-file": "results.csv has the values",
    }
    REFUSED: ClassVar[dict[str, tuple[str, str]]] = {
        "--quad": ("it changes the scale of the loss", "leave it out"),
        "--adam": ("it is a kind of optimizer", "use --optimizer Adam"),
    }

    data: str = option("shapes.yaml", "data yaml; by default the generated set")
    weights: str = option("", "checkpoint to initialize the weights from; default: random weights")
    cfg: str = option("", "model yaml, by path or bare name; default: the one in --weights, else yolov5n.yaml")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml")
    batch_size: int = option(16, "images per batch over all processes; -1: as many as fit the GPU")
    resume: str = option("", "resume an interrupted run: its last.pt, or the most recent run", bare="newest")
    nosave: bool = option(False, "save only the final checkpoint")
    noval: bool = option(False, "validate only after the last epoch", aliases=("--notest",))
    noautoanchor: bool = option(False, "keep the model's anchors whatever the data")
    evolve: int = option(0, "evolve hyperparameters for N generations", bare=300, within=(0, math.inf))
    sync_bn: bool = option(False, "synchronized batch norm over all processes of torchrun")
    dist_timeout: int = option(
        60, "under torchrun: seconds without a sign of life of another process until this one ends; 0: wait"
    )
    tensorboard: bool = option(False, "also write results for TensorBoard")
    download: bool = option(False, "download the data set if it is missing")
    project: str = option("runs/train", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    save_period: int = option(-1, "also save a checkpoint every N epochs")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch_size >= 1 or self.batch_size == -1, "--batch-size", "at least 1, or -1", self.batch_size)
        require(
            self.dist_timeout == 0 or self.dist_timeout >= 5, "--dist-timeout", "0 or at least 5", self.dist_timeout
        )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TrainingOptions):
    """The models to compare, and the settings with which all of them are trained."""

    cfg: tuple[str, ...] = option((), "model yamls to train; the first is the baseline")
    data: tuple[str, ...] = option(
        ("shapes.yaml",), "data yaml, by default the generated set; of several, each is trained and evaluated by itself"
    )
    weights: tuple[str, ...] = option((), "finished checkpoints or folders of runs, in addition to or instead of --cfg")
    names: tuple[str, ...] = option((), "labels of all models in the report, in the order --cfg, variants, --weights")
    pretrained: str = option("", "checkpoint that the models of --cfg and --sweep start from; default: random weights")
    sweep: tuple[str, ...] = option((), "vary the last model: AKConv.num_param 3 5 9, or hyp.offset_lr 0.1 1.0")
    ablation: tuple[str, ...] = option(
        (),
        "combine switches on the last model: zeros:AKConv.padding=zeros slow:hyp.offset_lr=0.01 neck:my-neck.yaml; "
        "with --weights alone, their names: zeros slow for runs named model+zeros+slow",
    )
    design: str = option(
        "factorial",
        "of --ablation: all combinations; each switch alone and all together; or one added after the other",
        choices=DESIGNS,
    )
    task: str = option("val", "split to evaluate on; best.pt is selected on val", choices=("val", "test"))
    hyp: tuple[str, ...] = option(("hyp.scratch-low.yaml",), "hyperparameter yamls, each combined with every --cfg")
    batch_size: int = option(16, "images per batch", within=(1, math.inf))
    seeds: tuple[int, ...] = option(
        (),
        "several seeds, each for all models; at least three to estimate seed variance",
        kind=int,
        within=(0, MAX_SEED),
    )
    browse: bool = option(False, "write pages of all images with each model's detections and errors")
    jobs: int = option(1, "parallel jobs, which divide the threads of the processor", within=(1, math.inf))
    tiny: bool = option(False, "also list tiny objects, below 16 x 16 pixels, which then do not count as small")
    figures: tuple[str, ...] = option(
        ("svg",), "formats of figures in `figures/`, besides PNG with 300 dpi", choices=("svg", "pdf")
    )
    paper: str = option("", "also write tables, figures and the text of a methods section for print into this folder")
    lang: str = option("en", "language of the words in figures and of --paper", choices=("en", "zh"))
    project: str = option("runs/compare", "folder of all comparisons")
    name: str = option("exp", "folder of this comparison; finished runs in it are reused")

    def __post_init__(self) -> None:
        super().__post_init__()
        patterns = sum(any(character in word for character in "*?[") for word in self.weights)
        count = len(self.cfg) * len(self.hyp) + len(self.weights) + patterns
        parse_switches(self.ablation, need_settings=bool(self.cfg))
        require(not (self.sweep and self.ablation), "--ablation", "without --sweep", "both")
        if self.sweep:
            require(len(self.cfg) >= 1, "--cfg", "a model yaml to vary with --sweep", "none")
        elif self.ablation:
            require(bool(self.cfg) or count >= 2, "--cfg", "a model yaml to vary, or several --weights", "none")
        else:
            require(count >= 2, "--cfg", "two or more model yamls or --weights", count)
        require(len(set(self.seeds)) == len(self.seeds), "--seeds", "unique", self.seeds)
        require(len(self.data) >= 1, "--data", "a data yaml", "none")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of --seeds, or else the one of --seed."""
        return self.seeds or (self.seed,)

    @property
    def figure_formats(self) -> tuple[str, ...]:
        """Formats of figures besides PNG; LaTeX, for --paper, needs PDF."""
        return (*self.figures, "pdf") if self.paper and "pdf" not in self.figures else self.figures

    def of_data_set(self, name: str, label: str) -> CompareOptions:
        """Return the options of the comparison on one of the data sets, with a folder of its own in that of --paper."""
        paper = str(Path(self.paper, label)) if self.paper and len(self.data) > 1 else self.paper
        return replace(self, data=(name,), paper=paper)

    def as_json(self) -> dict[str, Any]:
        """Return the options as files hold them, a single data set as text."""
        return {**asdict(self), "data": self.data[0] if len(self.data) == 1 else self.data}

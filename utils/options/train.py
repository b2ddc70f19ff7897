"""Options of train.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.options.checks import MAX_SEED, OPTIMIZERS, require


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
    batch_size: int = option(16, "images per batch, over all processes; -1 fits it to the GPU", flags=("--batch",))
    imgsz: int = option(640, "image side in pixels", flags=("--img", "--img-size"))
    rect: bool = option(False, "rectangular batches of like shapes, without mosaic")
    resume: str = option("", "go on with an interrupted run: its last.pt, or the newest", bare="newest")
    nosave: bool = option(False, "write only the last checkpoint")
    noval: bool = option(False, "validate only after the last epoch")
    noautoanchor: bool = option(False, "keep the model's anchors whatever the data")
    noplots: bool = option(False, "write no images")
    cache: str = option("", "keep decoded images: ram, or disk (in the user's cache folder)", bare="ram")
    image_weights: bool = option(False, "draw images of classes with a low mAP more often")
    evolve: int = option(0, "search hyperparameters in so many short trainings", bare=300)
    device: str = option("", "cpu, mps, or a CUDA device's number; the best there is by default")
    sync_bn: bool = option(False, "batch norm over all processes of torchrun")
    tensorboard: bool = option(False, "also write results for TensorBoard")
    download: bool = option(False, "fetch the data set if it is missing")
    multi_scale: bool = option(False, "image side drawn anew for each batch, 0.5 to 1.5 times --imgsz")
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
    strict: bool = option(False, "stop at a bad image or label instead of skipping it")
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

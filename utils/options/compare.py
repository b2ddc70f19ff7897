"""Options of compare.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli import option
from utils.options.checks import MAX_SEED, OPTIMIZERS, require

COMPARED_SPLITS = ("val", "test")


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
    batch_size: int = option(16, "images per batch", flags=("--batch",))
    imgsz: int = option(640, "image side in pixels", flags=("--img", "--img-size"))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "processes that prepare batches, at most one for each core")
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    patience: int = option(100, "end a training after so many epochs without a better fitness; 0 never")
    cache: str = option("", "keep decoded training images: ram or disk", bare="ram")
    noplots: bool = option(False, "trainings write no images of their own")
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
        require(self.patience >= 0, "--patience", "at least 0", self.patience)
        require(self.cache in ("", "ram", "disk"), "--cache", "ram or disk", self.cache)
        require(self.epochs >= 1, "--epochs", "at least 1", self.epochs)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(32 <= self.imgsz <= 8192, "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.workers >= 0, "--workers", "at least 0", self.workers)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of --seeds, or else the one of --seed."""
        return self.seeds or (self.seed,)

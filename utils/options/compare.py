"""Options of compare.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli import option
from utils.options.checks import MAX_SEED, OPTIMIZERS, require

COMPARED_SPLITS = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of compare.py: the models, and the settings with which all of them are trained."""

    cfg: tuple[str, ...] = option((), "model yamls to train; the first is the baseline", kind=str, many=True)
    weights: tuple[str, ...] = option(
        (), "finished checkpoints or folders of runs, in addition to or instead of --cfg", kind=str, many=True
    )
    sweep: tuple[str, ...] = option(
        (), "vary the last model: AKConv.num_param 3 5 9, or hyp.offset_lr 0.1 1.0", kind=str, many=True
    )
    data: str = option("shapes.yaml", "data yaml; by default the generated set")
    task: str = option("val", "split to evaluate on; best.pt is selected on val", choices=COMPARED_SPLITS)
    hyp: tuple[str, ...] = option(
        ("hyp.scratch-low.yaml",), "hyperparameter yamls, each combined with every --cfg", kind=str, many=True
    )
    epochs: int = option(100, "training epochs")
    batch_size: int = option(16, "images per batch", flags=("--batch",))
    imgsz: int = option(640, "image size", flags=("--img", "--img-size"))
    device: str = option("", "cpu, mps, or a CUDA device index")
    optimizer: str = option("SGD", "optimizer", choices=OPTIMIZERS)
    workers: int = option(8, "data loader processes, at most one per core")
    cos_lr: bool = option(False, "cosine instead of linear learning-rate schedule")
    patience: int = option(100, "early stopping: epochs without improvement of the fitness; 0 disables it")
    cache: str = option("", "cache decoded training images: ram or disk", bare="ram")
    noplots: bool = option(False, "write no plots of the trainings")
    seed: int = option(0, "seed of all randomness, the same for all models")
    seeds: tuple[int, ...] = option(
        (), "several seeds, each for all models; at least three to estimate seed variance", kind=int, many=True
    )
    jobs: int = option(1, "parallel jobs, which divide the threads of the processor")
    no_amp: bool = option(False, "no mixed precision on CUDA")
    project: str = option("runs/compare", "folder of all comparisons")
    name: str = option("exp", "folder of this comparison; finished runs in it are reused")
    plugins: tuple[str, ...] = option((), "Python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check ranges, and that there is something to compare.

        Raises:
            ConfigError: names the flag.
        """
        patterns = sum(any(character in word for character in "*?[") for word in self.weights)
        count = len(self.cfg) * len(self.hyp) + len(self.weights) + patterns
        if self.sweep:
            require(len(self.cfg) >= 1, "--cfg", "a model yaml to vary with --sweep", "none")
        else:
            require(count >= 2, "--cfg", "two or more model yamls or --weights", count)
        in_range = all(0 <= seed <= MAX_SEED for seed in self.all_seeds)
        require(in_range, "--seeds", f"from 0 to {MAX_SEED}", self.all_seeds)
        require(len(set(self.all_seeds)) == len(self.all_seeds), "--seeds", "unique", self.all_seeds)
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

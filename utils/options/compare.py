"""Options of compare.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.cli import option
from utils.options.base import MAX_SEED, TrainingOptions, require


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TrainingOptions):
    """The models to compare, and the settings with which all of them are trained."""

    cfg: tuple[str, ...] = option((), "model yamls to train; the first is the baseline")
    weights: tuple[str, ...] = option((), "finished checkpoints or folders of runs, in addition to or instead of --cfg")
    sweep: tuple[str, ...] = option((), "vary the last model: AKConv.num_param 3 5 9, or hyp.offset_lr 0.1 1.0")
    task: str = option("val", "split to evaluate on; best.pt is selected on val", choices=("val", "test"))
    hyp: tuple[str, ...] = option(("hyp.scratch-low.yaml",), "hyperparameter yamls, each combined with every --cfg")
    batch_size: int = option(16, "images per batch", within=(1, math.inf))
    seeds: tuple[int, ...] = option(
        (),
        "several seeds, each for all models; at least three to estimate seed variance",
        kind=int,
        within=(0, MAX_SEED),
    )
    jobs: int = option(1, "parallel jobs, which divide the threads of the processor", within=(1, math.inf))
    project: str = option("runs/compare", "folder of all comparisons")
    name: str = option("exp", "folder of this comparison; finished runs in it are reused")

    def __post_init__(self) -> None:
        super().__post_init__()
        patterns = sum(any(character in word for character in "*?[") for word in self.weights)
        count = len(self.cfg) * len(self.hyp) + len(self.weights) + patterns
        if self.sweep:
            require(len(self.cfg) >= 1, "--cfg", "a model yaml to vary with --sweep", "none")
        else:
            require(count >= 2, "--cfg", "two or more model yamls or --weights", count)
        require(len(set(self.seeds)) == len(self.seeds), "--seeds", "unique", self.seeds)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of --seeds, or else the one of --seed."""
        return self.seeds or (self.seed,)

"""Options of train.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.options.base import DatasetOptions, TrainingOptions, require


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions, DatasetOptions):
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
    }
    REFUSED: ClassVar[dict[str, str]] = {"--quad": "it changes the scale of the loss"}

    weights: str = option("", "checkpoint to initialize the weights from; default: random weights")
    cfg: str = option("", "model yaml, by path or bare name; default: the one in --weights")
    hyp: str = option("hyp.scratch-low.yaml", "hyperparameter yaml")
    batch_size: int = option(16, "images per batch over all processes; -1: as many as fit the GPU")
    rect: bool = option(False, "rectangular batches of images of similar shape, without mosaic")
    resume: str = option("", "resume an interrupted run: its last.pt, or the most recent run", bare="newest")
    nosave: bool = option(False, "save only the final checkpoint")
    noval: bool = option(False, "validate only after the last epoch")
    noautoanchor: bool = option(False, "keep the model's anchors whatever the data")
    image_weights: bool = option(False, "sample images of classes with a low mAP more often")
    evolve: int = option(0, "evolve hyperparameters for N generations", bare=300, within=(0, math.inf))
    sync_bn: bool = option(False, "synchronized batch norm over all processes of torchrun")
    tensorboard: bool = option(False, "also write results for TensorBoard")
    download: bool = option(False, "download the data set if it is missing")
    multi_scale: bool = option(False, "random image size for each batch, 0.5 to 1.5 times --imgsz")
    project: str = option("runs/train", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    label_smoothing: float = option(0.0, "label-smoothing epsilon")
    freeze: tuple[int, ...] = option((0,), "layers to freeze: 10 for the first ten, or a list")
    save_period: int = option(-1, "also save a checkpoint every N epochs")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch_size >= 1 or self.batch_size == -1, "--batch-size", "at least 1, or -1", self.batch_size)
        require(not (self.image_weights and self.rect), "--image-weights", "without --rect", "both")
        require(0 <= self.label_smoothing < 1, "--label-smoothing", "in [0, 1)", self.label_smoothing)

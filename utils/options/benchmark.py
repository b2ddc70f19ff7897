"""Options of benchmarks.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.options.base import Options, require

# YOLOv5's benchmarks.py compares the formats of a checkpoint.
FORMATS = ("benchmarks.py times layers and models", "run export.py --weights best.pt --include onnx --benchmark")
SUITES = ("all", "models", "layers", "points", "inference")


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(Options):
    """What to measure."""

    REFUSED: ClassVar[dict[str, tuple[str, str]]] = dict.fromkeys(
        ("--weights", "--data", "--half", "--test", "--pt-only", "--hard-fail"), FORMATS
    )

    suite: str = option("all", "what to measure; all leaves out inference", choices=SUITES, aliases=("--part",))
    device: str = option("", "cpu, mps, or a CUDA device index")
    imgsz: int = option(640, "image size of whole models", within=(32, 4096))
    batch_size: int = option(4, "second batch size of whole models, after 1", within=(1, math.inf))
    layer_batch: int = option(8, "images per batch of single layers", within=(1, math.inf))
    repeats: int = option(15, "timing repeats per variant", aliases=("--rounds",), within=(1, math.inf))
    amp: bool = option(False, "mixed precision in training steps (CUDA only)")
    project: str = option("runs/benchmark", "folder of all runs")
    name: str = option("exp", "folder of this run")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.imgsz % 32 == 0, "--imgsz", "a multiple of 32", self.imgsz)

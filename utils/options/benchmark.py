"""Options of benchmarks.py."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli import option
from utils.options.checks import require


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of benchmarks.py."""

    suite: str = option("all", "what to measure", choices=("all", "models", "layers", "points"), aliases=("--part",))
    device: str = option("", "cpu, mps, or a CUDA device's number")
    imgsz: int = option(640, "image side in pixels of whole models", flags=("--img", "--img-size"))
    batch_size: int = option(4, "images per batch of whole models, beside batch 1", flags=("--batch",))
    layer_batch: int = option(8, "images per batch of single layers")
    repeats: int = option(15, "timing repeats per variant", aliases=("--rounds",))
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
        require(self.repeats >= 1, "--repeats", "at least 1", self.repeats)

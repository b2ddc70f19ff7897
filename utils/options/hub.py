"""Options of hubconf.py, run as a script."""

from __future__ import annotations

from dataclasses import dataclass

from utils.cli import option
from utils.options.base import Options


@dataclass(frozen=True, kw_only=True)
class HubOptions(Options):
    """The model to build and try."""

    model: str = option("yolov5s", "model to build, by the name that torch.hub.load takes")
    weights: str = option("", "checkpoint whose matching weights are loaded; default: random weights")
    device: str = option("", "cpu, mps, or a CUDA device index")

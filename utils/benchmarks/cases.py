"""What benchmarks.py measures: layers and whole models, each built alike in any process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.common import Conv
from models.config import ModelConfig, load_model_config
from models.modules.akconv import AKConv
from models.sampling.dispatch import VARIABLE
from models.yolo import DetectionModel
from utils.runtime import memory_format, to_device

PLAIN, OURS, GATHERS = "plain", "AKConv", "four gathers"
PAPER_POINTS = (3, 5, 9)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A place in a model: channels in and out, side of the map in pixels, stride, points of an AKConv there."""

    channels: int
    out: int
    side: int
    stride: int
    points: int

    def __str__(self) -> str:
        """Name the place as in a table."""
        return f"{self.channels} -> {self.out}, {self.side} px, stride {self.stride}, N {self.points}"


# At 640 px, where yolov5n-AKConv uses AKConv.
LAYERS = tuple(
    Layer(channels=channels, out=out, side=side, stride=stride, points=points)
    for channels, out, side, stride, points in (
        (16, 32, 160, 2, 3),
        (32, 64, 80, 2, 3),
        (64, 128, 40, 2, 3),
        (128, 256, 20, 2, 3),
        (64, 64, 40, 1, 3),
        (256, 128, 10, 1, 1),
    )
)
SWEPT = tuple(Layer(channels=64, out=128, side=40, stride=2, points=points) for points in (1, 2, 3, 5, 7, 9, 11, 13))


@dataclass(frozen=True, kw_only=True)
class BenchmarkCase:
    """One thing to measure.

    Attributes:
        case: what it is, the same for those that are compared.
        variant: plain, AKConv, or four gathers.
        layer: a single layer; None for a whole model.
        cfg: model yaml of a whole model.
        points: of every AKConv row of a whole model, where they are not those of the yaml.
    """

    case: str
    variant: str
    layer: Layer | None = None
    cfg: str = ""
    points: int | None = None

    def module(self, device: torch.device) -> nn.Module:
        """Build it with random weights; offsets have some spread, as after training."""
        torch.manual_seed(0)
        module: nn.Module
        if self.layer is None:
            config = load_model_config(self.cfg)
            module = DetectionModel(config if self.points is None else _with_points(config, self.points))
        elif self.variant == PLAIN:
            kernel = 3 if self.layer.points > 1 or self.layer.stride > 1 else 1
            module = Conv(self.layer.channels, self.layer.out, kernel, self.layer.stride)
        else:
            module = AKConv(self.layer.channels, self.layer.out, self.layer.points, self.layer.stride)
        for part in module.modules():
            if isinstance(part, AKConv):
                nn.init.normal_(part.p_conv.weight, std=0.05)
        return to_device(module, device)

    def image(self, batch: int, size: int, device: torch.device) -> Tensor:
        """Return something to look at: (batch, channels, side, side), `size` being the side for a whole model."""
        shape: Sequence[int] = (batch, 3, size, size)
        if self.layer is not None:
            shape = (batch, self.layer.channels, self.layer.side, self.layer.side)
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
        return image.contiguous(memory_format=memory_format(device)).requires_grad_(self.layer is not None)

    @contextmanager
    def implementation(self) -> Iterator[None]:
        """Let AKConv run by four gathers for the yardstick, and by what it chooses itself otherwise."""
        before = os.environ.get(VARIABLE)
        if self.variant == GATHERS:
            os.environ[VARIABLE] = "gather"
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)
            if before is not None:
                os.environ[VARIABLE] = before


def _with_points(config: ModelConfig, points: int) -> ModelConfig:
    """Return a config with another number of points in every AKConv row."""
    layers = tuple(
        replace(layer, args=(layer.args[0], points, *layer.args[2:])) if layer.module == "AKConv" else layer
        for layer in config.layers
    )
    return replace(config, layers=layers)


def layer_cases() -> list[list[BenchmarkCase]]:
    """Return the layers of yolov5n-AKConv, each with the convolution it replaces and four gathers."""
    return [
        [BenchmarkCase(case=str(place), variant=v, layer=place) for v in (PLAIN, OURS, GATHERS)] for place in LAYERS
    ]


def point_cases() -> list[list[BenchmarkCase]]:
    """Return one layer as a convolution and with all numbers of points."""
    plain = BenchmarkCase(case="3x3 convolution", variant=PLAIN, layer=SWEPT[0])
    return [[plain, *(BenchmarkCase(case=f"N {place.points}", variant=OURS, layer=place) for place in SWEPT)]]


def model_cases() -> list[list[BenchmarkCase]]:
    """Return the whole models: plain, the tutorial's placement, the paper's, and four gathers."""
    ours = "yolov5n-AKConv.yaml"
    paper = [
        BenchmarkCase(case=f"paper's placement, N {n}", variant=OURS, cfg="yolov5n-AKConv-paper.yaml", points=n)
        for n in PAPER_POINTS
    ]
    return [
        [
            BenchmarkCase(case="yolov5n", variant=PLAIN, cfg="yolov5n.yaml"),
            BenchmarkCase(case="yolov5n-AKConv", variant=OURS, cfg=ours),
            *paper,
            BenchmarkCase(case="yolov5n-AKConv by four gathers", variant=GATHERS, cfg=ours),
        ]
    ]

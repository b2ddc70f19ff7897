"""The layers and models that benchmarks.py measures, built identically in every process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.common import Conv
from models.config import ModelConfig, load_model_config
from models.modules.akconv import AKConv
from models.sampling.dispatch import VARIABLE
from models.sampling.offset_convolution import last_convolution
from models.yolo import DetectionModel
from utils.runtime import memory_format, to_device

PLAIN, AKCONV, FOUR_GATHERS = "plain", "AKConv", "four gathers"
PAPER_POINTS = (3, 5, 9)
INFERENCE_SIZES = (160, 192, 320, 640)


class LayerShape(NamedTuple):
    """A layer of a model: input and output channels, side of the map in pixels, stride, points of an AKConv."""

    channels: int
    out: int
    side: int
    stride: int
    points: int

    def __str__(self) -> str:
        """Return the name of the row in a table."""
        return f"{self.channels} -> {self.out}, {self.side} px, stride {self.stride}, N {self.points}"


# The AKConv layers of yolov5n-AKConv at 640 px.
LAYERS = (
    LayerShape(16, 32, 160, 2, 3),
    LayerShape(32, 64, 80, 2, 3),
    LayerShape(64, 128, 40, 2, 3),
    LayerShape(128, 256, 20, 2, 3),
    LayerShape(64, 64, 40, 1, 3),
    LayerShape(256, 128, 10, 1, 1),
)
SWEPT = tuple(LayerShape(64, 128, 40, 2, points) for points in (1, 2, 3, 5, 7, 9, 11, 13))


@dataclass(frozen=True, kw_only=True)
class BenchmarkCase:
    """A layer or model to measure."""

    name: str  # equal for variants that are compared with each other
    variant: str  # plain, AKConv, or four gathers
    layer: LayerShape | None = None  # a single layer; None for a whole model
    cfg: str = ""  # model yaml of a whole model
    points: int | None = None  # number of points in every AKConv row, overriding the yaml

    def module(self, device: torch.device) -> nn.Module:
        """Build the module with random weights; the offsets are spread as after training."""
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
                nn.init.normal_(last_convolution(part.p_conv).weight, std=0.05)
        return to_device(module, device)

    def image(self, batch: int, size: int, device: torch.device) -> Tensor:
        """Return a random input (batch, channels, side, side); `size` is the side for a whole model."""
        channels, side = (3, size) if self.layer is None else (self.layer.channels, self.layer.side)
        image = torch.rand((batch, channels, side, side), generator=torch.Generator().manual_seed(0)).to(device)
        return image.contiguous(memory_format=memory_format(device)).requires_grad_(self.layer is not None)

    @contextmanager
    def implementation(self) -> Iterator[None]:
        """Run AKConv by four gathers for that variant, otherwise by the default implementation."""
        before = os.environ.get(VARIABLE)
        if self.variant == FOUR_GATHERS:
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
    """Return the AKConv layers of yolov5n-AKConv, each with the convolution it replaces and with four gathers."""
    return [
        [BenchmarkCase(name=str(layer), variant=variant, layer=layer) for variant in (PLAIN, AKCONV, FOUR_GATHERS)]
        for layer in LAYERS
    ]


def point_cases() -> list[list[BenchmarkCase]]:
    """Return one layer as a convolution and as AKConv with several numbers of points."""
    plain = BenchmarkCase(name="3x3 convolution", variant=PLAIN, layer=SWEPT[0])
    return [[plain, *(BenchmarkCase(name=f"N {layer.points}", variant=AKCONV, layer=layer) for layer in SWEPT)]]


def model_cases() -> list[list[BenchmarkCase]]:
    """Return whole models: plain, the tutorial's placement, the paper's placement, and four gathers."""
    tutorial = "yolov5n-AKConv.yaml"
    paper = [
        BenchmarkCase(name=f"paper's placement, N {n}", variant=AKCONV, cfg="yolov5n-AKConv-paper.yaml", points=n)
        for n in PAPER_POINTS
    ]
    plain = BenchmarkCase(name="yolov5n", variant=PLAIN, cfg="yolov5n.yaml")
    akconv = BenchmarkCase(name="yolov5n-AKConv", variant=AKCONV, cfg=tutorial)
    return [[plain, akconv, *paper, replace(akconv, name=f"{akconv.name} by four gathers", variant=FOUR_GATHERS)]]


def inference_cases() -> list[BenchmarkCase]:
    """Return the shipped nano models with AKConv, and plain."""
    forms = ("", "-paper", "-paper9", "-light", "-modulated", "-modulated4")
    names = ("yolov5n", *(f"yolov5n-AKConv{form}" for form in forms))
    return [
        BenchmarkCase(name=name, variant=AKCONV if "AKConv" in name else PLAIN, cfg=f"{name}.yaml") for name in names
    ]

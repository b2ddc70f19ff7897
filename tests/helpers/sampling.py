"""AKConv models and layers with offsets, for tests of sampling points."""

import torch

from models.modules.akconv import AKConv
from models.yolo import DetectionModel
from tests.helpers.random_model import random_model
from utils.inference.sampling_points import LayerSampling, akconv_layers

NAMES = ("ring", "cross", "star")


def model_with_offsets(cfg: str = "yolov5n-AKConv.yaml", scale: float = 0.03) -> DetectionModel:
    """Return a random model whose offsets vary over the image."""
    model = random_model(cfg, len(NAMES))
    generator = torch.Generator().manual_seed(2)
    for layer in akconv_layers(model).values():
        layer.p_conv.weight.data = scale * torch.randn(layer.p_conv.weight.shape, generator=generator)
    return model


def random_sampling(size_hw: tuple[int, int], *, points: int = 5, stride: int = 2, std: float = 1.5) -> LayerSampling:
    """Return the sampling of a layer with normally distributed offsets on a map of this size."""
    height, width = ((side - 1) // stride + 1 for side in size_hw)
    layer = AKConv(4, 4, points, stride)
    return LayerSampling(
        name="model.3",
        offset=std * torch.randn(1, 2 * points, height, width),
        points=layer.points,
        stride=stride,
        size_hw=size_hw,
    )

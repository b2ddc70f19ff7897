"""A small AKConv model, what its exported files state of it, and random inputs for them."""

import torch
from torch import Tensor

from tests.helpers.small_model import SMALL_NAMES
from utils.inference.detector import Detector
from utils.inference.metadata import ModelMetadata

METADATA = ModelMetadata(names=SMALL_NAMES, stride=32, image_size=96, data="tiny.yaml")
UNTRACED_SHAPES = ((1, 3, 64, 160), (3, 3, 128, 96))


def random_input_and_output(network: Detector, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return random images of a shape and the network's predictions."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, network(images)[0]

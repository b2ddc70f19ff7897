"""A model without training that still tells images apart: for tests of all that stands around a model."""

import torch
from torch import nn

from models.yolo import DetectionModel


def lively_model(cfg: str, classes: int, *, objectness: float = -2) -> DetectionModel:
    """Return a fresh model in evaluation mode that finds some tens of unlike boxes in an image.

    Fresh weights let the signal fade from layer to layer; batch norms that have seen a batch keep it up. The lower
    `objectness`, the fewer boxes.
    """
    torch.manual_seed(1)
    model = DetectionModel(cfg, nc=classes).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    coarse = torch.rand(4, 3, 8, 12)
    with torch.no_grad():
        model(nn.functional.interpolate(coarse, size=(128, 192), mode="bicubic").clamp(0, 1))
        for conv in model.head.m:
            conv.weight.mul_(2)
            bias = conv.get_parameter("bias").view(model.head.num_anchors, -1)
            bias.zero_()
            bias[:, 4] = objectness
    return model.eval()

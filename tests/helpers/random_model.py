"""An untrained model whose predictions depend on the image: for tests of everything around a model."""

import torch
from torch import nn

from models.yolo import DetectionModel


def random_model(cfg: str, classes: int, *, objectness: float = -2) -> DetectionModel:
    """Return a fresh model in evaluation mode that detects some tens of different boxes in an image.

    With fresh weights the signal fades from layer to layer; batch-norm statistics of one batch amplify it. The lower
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

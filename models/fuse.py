"""Fold batch norm into the convolution before it, for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common import Conv
from models.modules.akconv import AKConv

Module = TypeVar("Module", bound=nn.Module)
VECTOR = 8  # channels


def fused(model: Module) -> Module:
    """Return a copy in evaluation mode whose Conv and AKConv layers have no batch norm of their own any more.

    Predictions agree with the original but for rounding. The copy cannot be trained.
    """
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()
            elif isinstance(module, AKConv):
                columns, norm, act = module.conv
                if isinstance(columns, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module.conv = nn.Sequential(fuse_conv_bn_eval(columns, norm), nn.Identity(), act)
    return model.requires_grad_(False)


def widen_offsets(model: nn.Module) -> None:
    """Give AKConv's offset convolutions channels of zeros after their own, up to a multiple of 8; AKConv ignores those.

    Runtimes lay channels out in blocks of 8: ONNX Runtime converts maps there and back for a convolution to 6.
    """
    for module in model.modules():
        if isinstance(module, AKConv):
            conv = module.p_conv
            extra = -conv.out_channels % VECTOR
            wide = nn.Conv2d(conv.in_channels, conv.out_channels + extra, 3, conv.stride[0], 1)
            wide.weight = nn.Parameter(F.pad(conv.weight.detach(), (0, 0, 0, 0, 0, 0, 0, extra)), requires_grad=False)
            if conv.bias is not None:
                wide.bias = nn.Parameter(F.pad(conv.bias.detach(), (0, extra)), requires_grad=False)
            module.p_conv = wide

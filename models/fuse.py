"""Batch-norm folding and channel padding for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common import Conv
from models.modules.akconv import AKConv
from models.sampling.offset_convolution import last_convolution

Module = TypeVar("Module", bound=nn.Module)
VECTOR = 8  # channels


def fused(model: Module) -> Module:
    """Return a copy in evaluation mode with the batch norms of Conv and AKConv layers folded into their convolutions.

    Its predictions equal the original's up to rounding. It cannot be trained.
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
    """Pad AKConv's offset convolutions with zero channels to a multiple of 8, in place; AKConv ignores the padding.

    Runtimes store channels in blocks of 8: ONNX Runtime converts the layout twice for a convolution to 6 channels.
    """
    for module in model.modules():
        if isinstance(module, AKConv):
            conv = last_convolution(module.p_conv)
            extra = -conv.out_channels % VECTOR
            conv.out_channels += extra
            conv.weight = nn.Parameter(F.pad(conv.weight.detach(), (0, 0, 0, 0, 0, 0, 0, extra)), requires_grad=False)
            if conv.bias is not None:
                conv.bias = nn.Parameter(F.pad(conv.bias.detach(), (0, extra)), requires_grad=False)

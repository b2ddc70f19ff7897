"""Batch-norm folding for inference."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.common import Conv
from models.modules.akconv import AKConv

Module = TypeVar("Module", bound=nn.Module)


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

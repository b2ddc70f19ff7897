"""The detection head: maps to raw logits (`Detect`), raw logits to boxes (`decode`, a pure function).

Letters: B batch, A anchors per level, (H, W) a level's size, K = 5 + classes: x, y, w, h, objectness, classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from utils.errors import ConfigError

HALF = (torch.float16, torch.bfloat16)


def decode(raw: Tensor, anchors: Tensor, stride: int) -> Tensor:
    """Turn one level's logits into predictions in pixels of the network's input.

    Args:
        raw: (B, A, H, W, K) logits.
        anchors: (A, 2) width and height in units of the stride.
        stride: pixels per cell.

    Returns:
        (B, A H W, K): cx, cy, w, h in pixels, then objectness and class probabilities in [0, 1]. Half precision is
        decoded in float32, and stays that: from 512 pixels on its own steps are half a pixel.

    Source: a centre up to half a cell outside its cell, as in arXiv 2011.08036, sec. 4; a size up to four times the
    anchor by the squared sigmoid, the family's own.
    """
    batch, _, height, width, numbers = raw.shape
    if raw.dtype in HALF:
        raw = raw.float()
    probability = raw.sigmoid()
    columns = torch.arange(width, device=raw.device, dtype=raw.dtype)
    rows = torch.arange(height, device=raw.device, dtype=raw.dtype)
    cell = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)), -1)  # (H, W, 2)
    centre = (probability[..., 0:2] * 2 - 0.5 + cell) * stride
    size = (probability[..., 2:4] * 2) ** 2 * (anchors.to(raw.dtype) * stride)[:, None, None]
    return torch.cat((centre, size, probability[..., 4:]), -1).view(batch, -1, numbers)


class Detect(nn.Module):
    """One 1x1 convolution per level to A (5 + classes) channels.

    In training mode it returns the raw maps, [(B, A, H, W, K), ...]; in evaluation mode the decoded predictions
    (B, all, K) and those maps.

    Attributes:
        anchors: (levels, A, 2), in units of each level's stride once `set_strides` was called, else in pixels.
        strides: pixels per cell, one for each level.
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        """Make the head.

        Args:
            nc: number of classes.
            anchors: per level w, h, w, h, ... in pixels.
            ch: channels of each level's map.

        Raises:
            ValueError: not as many levels of anchors as maps.
        """
        super().__init__()
        if len(anchors) != len(ch):
            raise ValueError(f"reads {len(ch)} maps, but anchors are given for {len(anchors)} levels")
        self.nc = nc
        self.num_anchors = len(anchors[0]) // 2
        self.strides: tuple[int, ...] = ()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(len(ch), -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(channels, self.num_anchors * (5 + nc), 1) for channels in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Map [(B, C_i, H_i, W_i), ...] to raw maps, and in evaluation mode to predictions before them."""
        raw = []
        for conv, level in zip(self.m, x, strict=True):
            y = conv(level)
            batch, _, height, width = y.shape
            y = y.view(batch, self.num_anchors, 5 + self.nc, height, width)
            raw.append(y.permute(0, 1, 3, 4, 2).contiguous())  # (B, A, H, W, K)
        if self.training:
            return raw
        return self.decode(raw), raw

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Turn the raw maps of all levels into predictions (B, all, K) in pixels, finest level first."""
        levels = zip(raw, self.anchors, self.strides, strict=True)
        return torch.cat([decode(level, anchors, stride) for level, anchors, stride in levels], 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Detect:
        """Move or cast, but keep the anchors at full precision, as `half()` would round them."""
        anchors = self.anchors
        super()._apply(fn, recurse)
        if self.anchors.dtype in HALF:
            self.anchors = anchors.to(self.anchors.device)
        return self

    def set_strides(self, strides: Sequence[int], *, where: str) -> None:
        """Fix each level's stride, bring anchors from pixels to units of it, and start the biases.

        Raises:
            ConfigError: strides and anchors do not both grow from level to level.
        """
        self.strides = tuple(strides)
        self.anchors /= torch.tensor(strides, dtype=torch.float32, device=self.anchors.device).view(-1, 1, 1)
        area = (self.anchors.prod(-1).mean(1) * torch.tensor(strides).square()).tolist()
        if list(strides) != sorted(strides) or area != sorted(area):
            raise ConfigError(
                where, f"strides {list(strides)} and anchors must grow from level to level", fix="reorder them"
            )
        self._start_biases()

    def _start_biases(self) -> None:
        """Start so that about 8 objects of a 640-pixel image are expected, and classes are rare and alike.

        Source: prior probabilities of the final layer, arXiv 1708.02002, sec. 4.1.
        """
        with torch.no_grad():
            for conv, stride in zip(self.m, self.strides, strict=True):
                bias = conv.get_parameter("bias").view(self.num_anchors, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (self.nc - 0.99999))

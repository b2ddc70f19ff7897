"""The detection head: `Detect` maps features to logits; `decode`, a pure function, maps logits to boxes.

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
    """Decode one level's logits (B, A, H, W, K) to predictions (B, A H W, K) in pixels of the network's input.

    A prediction is cx, cy, w, h in pixels, objectness and class probabilities in [0, 1]. `anchors` (A, 2) are widths
    and heights in units of `stride`, the pixels per cell. Half precision is decoded and returned in float32: beyond 512
    pixels its resolution is half a pixel.

    Source: centres up to half a cell outside their cell: arXiv 2011.08036, sec. 4; sizes up to four times the anchor by
    the squared sigmoid: YOLOv5.
    """
    batch, _, height, width, channels = raw.shape
    if raw.dtype in HALF:
        raw = raw.float()
    probability = raw.sigmoid()
    columns = torch.arange(width, device=raw.device, dtype=raw.dtype)
    rows = torch.arange(height, device=raw.device, dtype=raw.dtype)
    cell = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)), -1)  # (H, W, 2)
    centre = (probability[..., 0:2] * 2 - 0.5 + cell) * stride
    size = (probability[..., 2:4] * 2) ** 2 * (anchors.to(raw.dtype) * stride)[:, None, None]
    return torch.cat((centre, size, probability[..., 4:]), -1).view(batch, -1, channels)


class Detect(nn.Module):
    """One 1x1 convolution per level to A (5 + classes) channels.

    In training mode it returns the raw maps, [(B, A, H, W, K), ...]; in evaluation mode the decoded predictions
    (B, all, K) and those maps; if `undecoded`, in either mode the convolutions' outputs, [(B, A K, H, W), ...].
    `strides` are the pixels per cell of each level; `anchors` (levels, A, 2) are widths and heights, in pixels until
    `set_strides`, then in units of each level's stride.
    """

    def __init__(self, nc: int, anchors: Sequence[Sequence[float]], ch: Sequence[int]) -> None:
        """Build the head from the number of classes, anchors (per level w, h, ... in pixels) and input channels.

        Raises:
            ValueError: the numbers of levels of `anchors` and `ch` differ.
        """
        super().__init__()
        if len(anchors) != len(ch):
            raise ValueError(f"reads {len(ch)} maps, but anchors are given for {len(anchors)} levels")
        self.nc = nc
        self.num_anchors = len(anchors[0]) // 2
        self.strides: tuple[int, ...] = ()
        self.undecoded = False
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32).view(len(ch), -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(channels, self.num_anchors * (5 + nc), 1) for channels in ch)

    def forward(self, x: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Map [(B, C_i, H_i, W_i), ...] to raw maps, or in evaluation mode to (predictions, raw maps)."""
        maps = [conv(level) for conv, level in zip(self.m, x, strict=True)]
        if self.undecoded:
            return maps
        raw = []
        for y in maps:
            batch, _, height, width = y.shape
            y = y.view(batch, self.num_anchors, 5 + self.nc, height, width)
            raw.append(y.permute(0, 1, 3, 4, 2).contiguous())  # (B, A, H, W, K)
        return raw if self.training else (self.decode(raw), raw)

    def decode(self, raw: Sequence[Tensor]) -> Tensor:
        """Decode the raw maps of all levels to predictions (B, all, K) in pixels, level after level."""
        levels = zip(raw, self.anchors, self.strides, strict=True)
        return torch.cat([decode(level, anchors, stride) for level, anchors, stride in levels], 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Detect:
        """Move or cast the module, but keep the anchors in full precision, which `half()` would round."""
        anchors = self.anchors
        super()._apply(fn, recurse)
        if self.anchors.dtype in HALF:
            self.anchors = anchors.to(self.anchors.device)
        return self

    def set_strides(self, strides: Sequence[int], *, where: str) -> None:
        """Set each level's stride, convert the anchors from pixels to units of it, and initialise the biases.

        Anchors in the opposite order of the strides, such as from large to small in a head from fine to coarse, are
        turned round.

        Raises:
            ConfigError: the strides neither increase nor decrease from level to level.
        """
        ascending = sorted(strides)
        if list(strides) not in (ascending, ascending[::-1]):
            what = f"the strides {list(strides)} neither increase nor decrease from level to level"
            raise ConfigError(where, what, fix="reorder the inputs of Detect")
        area = self.anchors.prod(-1).mean(1)
        if (area[-1] - area[0]) * (strides[-1] - strides[0]) < 0:
            self.anchors.copy_(self.anchors.flip(0))
        self.strides = tuple(strides)
        self.anchors /= torch.tensor(strides, dtype=torch.float32, device=self.anchors.device).view(-1, 1, 1)
        self._init_biases()

    def _init_biases(self) -> None:
        """Initialise for about 8 objects per 640-pixel image and rare, equally likely classes.

        Source: prior probabilities of the final layer, arXiv 1708.02002, sec. 4.1.
        """
        with torch.no_grad():
            for conv, stride in zip(self.m, self.strides, strict=True):
                bias = conv.get_parameter("bias").view(self.num_anchors, -1)
                bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                bias[:, 5:] += math.log(0.6 / (self.nc - 0.99999))

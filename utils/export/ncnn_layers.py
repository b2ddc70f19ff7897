"""AKConv and the head's decoding in layers that ncnn has, for images of any height and width.

ncnn has no batches: B is 1. Other letters: N points, (h, w) output size, A anchors, K = 5 + classes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from models.modules.akconv import AKConv
from models.sampling.offset_convolution import last_convolution
from models.yolo import DetectionModel
from utils.inference.onnx_conversion import ExportWrapper

FORMS = ("grid", "deform")  # the first is the default


def cells_of(y: Tensor) -> Tensor:
    """Return column and row of each pixel of a map, (1, 2, h, w), by running sums: ncnn has no arange."""
    ones = y[:, :1].clamp(0, 0) + 1
    return torch.cat((torch.cumsum(ones, 3), torch.cumsum(ones, 2)), 1) - 1


class NcnnAKConv(nn.Module):
    """AKConv with folded batch norm, whose offsets are x and y, or y and x, of each point in turn.

    Its map's sides must be multiples of the stride, as those of a model's maps are.
    """

    def __init__(self, layer: AKConv, axes: tuple[int, int], start: Tensor) -> None:
        """Copy a layer; `axes` are those of each pair (0 row, 1 column), and `start` (N, 2) is added to them."""
        super().__init__()
        copied = copy.deepcopy(layer.conv)
        columns, self.finish = cast(nn.Conv2d, copied[0]), copied[1:]  # the norm is folded
        self.weight: Tensor = columns.weight.squeeze(3)  # (O, C, N)
        self.bias = cast(nn.Parameter | None, columns.bias)
        self.count, self.stride, self.padding = layer.num_param, layer.stride, layer.padding
        self.modulated = layer.modulated
        self.p_conv = copy.deepcopy(layer.p_conv)
        last, pairs = last_convolution(self.p_conv), 2 * self.count
        order = [axis * self.count + n for n in range(self.count) for axis in axes]
        order += range(pairs, last.out_channels)
        bias = torch.zeros(last.out_channels) if last.bias is None else last.bias[order].clone()
        bias[:pairs] += start.flatten()
        last.weight = nn.Parameter(last.weight[order], requires_grad=False)
        last.bias = nn.Parameter(bias, requires_grad=False)

    def moves(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the points' positions relative to their output pixel, (1, 2N, h, w), and their factors."""
        predicted = self.p_conv(x)
        if not self.modulated:
            return predicted, None
        return predicted[:, : 2 * self.count], predicted[:, 2 * self.count :].sigmoid() * 2


class GridAKConv(NcnnAKConv):
    """AKConv as a GridSample for each point, and a 1x1 convolution over all samples."""

    def __init__(self, layer: AKConv) -> None:
        super().__init__(layer, (1, 0), layer.points.flip(1))
        outputs, channels, count = self.weight.shape
        self.product = nn.Conv2d(count * channels, outputs, 1, bias=self.bias is not None)
        self.product.weight = nn.Parameter(self.weight.transpose(1, 2).reshape(outputs, -1, 1, 1), requires_grad=False)
        self.product.bias = self.bias
        del self.bias  # pnnx converts no layer whose parameter another has too

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, O, h, w)."""
        moves, factors = self.moves(x)
        pixels = cells_of(moves) * self.stride
        inverse = 1 / (torch.amax(pixels, (2, 3), keepdim=True) + self.stride)  # of width and height
        scale = inverse * 2
        start = pixels * scale + (inverse - 1)  # grid_sample's -1 and 1 are the outer edges of the map
        samples = []
        for n in range(self.count):
            position = moves[:, 2 * n : 2 * n + 2] * scale + start
            grid = position.permute(0, 2, 3, 1)
            sample = F.grid_sample(x, grid, padding_mode=self.padding, align_corners=False)
            samples.append(sample if factors is None else sample * factors[:, n : n + 1])
        return self.finish(self.product(torch.cat(samples, 1) if self.count > 1 else samples[0]))


class DeformAKConv(NcnnAKConv):
    """AKConv as DeformableConv2D with an N x 1 kernel, whose offsets start from regular positions."""

    def __init__(self, layer: AKConv) -> None:
        count, stride = layer.num_param, layer.stride
        # Rows of padding above and below with which the output has its size; for an even N only if the stride is 2.
        above = (count - 1) // 2
        self.below = 0 if count % 2 or stride == 2 else count - 1
        above = 0 if self.below else above
        regular = torch.tensor([(n - above, 0) for n in range(count)], dtype=torch.float32)
        super().__init__(layer, (0, 1), layer.points - regular)
        self.regular = regular.view(1, -1, 1, 1)
        outputs, channels, _ = self.weight.shape
        has_bias = self.bias is not None
        self.product = DeformConv2d(channels, outputs, (count, 1), stride, (above, 0), bias=has_bias)
        self.product.weight = nn.Parameter(self.weight.unsqueeze(3), requires_grad=False)
        self.product.bias = self.bias
        del self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, C, H, W) to (1, O, h, w)."""
        moves, factors = self.moves(x)
        if self.padding == "border":
            pixels = cells_of(moves).flip(1) * self.stride
            last = torch.amax(pixels, (2, 3), keepdim=True) + (self.stride - 1)
            grid = torch.cat([pixels] * self.count, 1) + self.regular
            position = torch.maximum(moves + grid, torch.zeros(1))
            moves = torch.minimum(position, torch.cat([last] * self.count, 1)) - grid
        x = F.pad(x, (0, 0, 0, self.below)) if self.below else x
        return self.finish(self.product(x, moves) if factors is None else self.product(x, moves, factors))


class NcnnWrapper(ExportWrapper):
    """The traced module: an image (1, 3, H, W) float32 in [0, 1] to predictions (1, n, K) float32."""

    def __init__(self, model: DetectionModel, form: str) -> None:
        """Copy a float32 model with its batch norms folded and its AKConv layers in one of FORMS."""
        super().__init__(model, half=False)
        self.network.head.undecoded = True
        _replace(self.network, DeformAKConv if form == "deform" else GridAKConv)
        self.sizes = [
            (4 * anchors * stride).view(1, -1, 2, 1) for anchors, stride in zip(self.anchors, self.strides, strict=True)
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Map an image to predictions."""
        return torch.cat([self._decoded(y, level) for level, y in enumerate(self.network(images))], 1)

    def _decoded(self, y: Tensor, level: int) -> Tensor:
        """Decode one level's logits (1, A K, h, w) as `models.head.decode` does."""
        anchors, outputs = self.network.head.num_anchors, y.shape[1] // self.network.head.num_anchors
        cells = cells_of(y).reshape(1, 1, 2, -1)
        probability = y.sigmoid().reshape(1, anchors, outputs, -1)
        centre, size, others = probability.split((2, 2, outputs - 4), 2)
        centre = (centre * 2 + (cells - 0.5)) * self.strides[level]
        rows = torch.cat((centre, size * size * self.sizes[level], others), 2)
        return rows.permute(0, 1, 3, 2).reshape(1, -1, outputs)

    def examples(self) -> Sequence[Tensor]:
        """Return images of two sizes: what differs between them is traced as variable."""
        step = self.network.max_stride
        return [torch.rand(1, self.network.in_channels, h * step, w * step) for h, w in ((3, 5), (5, 7))]


def _replace(module: nn.Module, form: type[GridAKConv] | type[DeformAKConv]) -> None:
    """Replace all AKConv layers in a module."""
    for name, child in module.named_children():
        if isinstance(child, AKConv):
            setattr(module, name, form(child))
        else:
            _replace(child, form)

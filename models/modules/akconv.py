"""AKConv, the alterable kernel convolution: N sampling points of any initial shape, moved by learned offsets.

Source: Zhang et al., arXiv 2311.11587; called LDConv in the journal version. Defined in docs/akconv.md.
Letters: B batch, C input channels, O output channels, (H, W) input size, (h, w) output size, N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.common import Activation, batch_norm, make_activation
from models.registry import register
from models.sampling.layer_kernel import LayerKernel
from models.sampling.offset_convolution import Offsets, last_convolution, offset_convolution
from models.sampling.operator import ak_layer2d
from models.sampling.sampling_grid import Gradient, Padding, SamplingGrid

Point = tuple[float, float]
MAX_POINTS = 1024
MAX_COORDINATE = 10_000


def base_points(num_points: int) -> list[tuple[int, int]]:
    """Return the initial sampling points (row, column) of a kernel, with the origin at the top left.

    Rows of round(sqrt(N)) points and a shorter last row: 5 gives (0,0) (0,1) (1,0) (1,1) (2,0). N must be an integer
    from 1 to 1024 (ValueError).

    Source: arXiv 2311.11587, Algorithm 1.
    """
    if isinstance(num_points, bool) or not isinstance(num_points, int) or not 1 <= num_points <= MAX_POINTS:
        raise ValueError(f"the number of points must be an integer from 1 to {MAX_POINTS}, got {num_points!r}")
    base = round(math.sqrt(num_points))
    return [divmod(n, base) for n in range(num_points)]


def initial_points(num_points: int, shape: str | Sequence[Sequence[float]] | None) -> list[Point]:
    """Return the N initial points for a shape: None or "top_left", "centered", or a list of N points.

    "centered" shifts `base_points` so that the centre of their bounding box, rounded down, is the output pixel.

    Raises:
        ValueError: the list has another length, or an entry is not a pair of numbers within 10,000 pixels.
    """
    base = base_points(num_points)
    if shape is None or shape in ("top_left", "centered"):
        top, left = (max(axis) // 2 if shape == "centered" else 0 for axis in zip(*base, strict=True))
        return [(float(row - top), float(column - left)) for row, column in base]
    if isinstance(shape, str):
        raise ValueError(f"points must be top_left, centered, or a list of (row, column), got {shape!r}")
    points = [tuple(point) if isinstance(point, Sequence) else (point,) for point in shape]
    if len(points) != num_points:
        raise ValueError(f"points must list {num_points} pairs, got {len(points)}")
    for point in points:
        valid = all(isinstance(v, (int, float)) and abs(v) <= MAX_COORDINATE for v in point)
        if len(point) != 2 or not valid:
            raise ValueError(f"a point must be a pair (row, column) of numbers, got {point!r}")
    return [(float(row), float(column)) for row, column in points]


@register("in_out", aliases=("LDConv",))
class AKConv(nn.Module):
    """Alterable kernel convolution, batch norm, SiLU: (B, inc, H, W) -> (B, outc, (H - 1) // s + 1, (W - 1) // s + 1).

        y[b, o, i, j] = act(bn(sum over n, c of W[o, c, n] x[b, c]((i s, j s) + points[n] + p_conv(x)[b, n, i, j])))

    with x read bilinearly. `p_conv` predicts the offsets; its weights start at zero, so that training begins with the
    initial shape. If modulated, it also predicts a factor for each sample, which starts at 1.
    """

    def __init__(
        self,
        inc: int,
        outc: int,
        num_param: int,
        stride: int = 1,
        bias: bool | None = None,
        *,
        points: str | Sequence[Sequence[float]] | None = None,
        padding: Padding = "border",
        offsets: Offsets = "conv",
        modulated: bool = False,
        gradient: Gradient = "one_sided",
        jitter: float = 0.0,
        act: Activation = True,
    ) -> None:
        """Build the layer.

        Args:
            inc: input channels.
            outc: output channels.
            num_param: number of sampling points N, from 1.
            stride: distance of neighbouring output pixels in input pixels.
            bias: whether the column convolution has a bias; by default not, since batch norm follows.
            points: initial shape: "top_left" (default), "centered", or N pairs (row, column) in pixels.
            padding: what is read outside the map: "border" (clamped) or "zeros".
            offsets: what predicts the offsets: a 3x3 convolution ("conv"), or a depthwise 3x3 and a 1x1 convolution
                ("depthwise").
            modulated: whether each sample is multiplied by a predicted factor from 0 to 2.
            gradient: of a position that is an integer: "one_sided", towards the next pixel, or "symmetric".
            jitter: largest absolute value in pixels of the random offsets at which the points start, from 0 to 1.
            act: True for SiLU, False for none, or a module to copy.

        Raises:
            ValueError: an argument is out of range.
        """
        super().__init__()
        if isinstance(stride, bool) or not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride must be a positive integer, got {stride!r}")
        if not isinstance(modulated, bool):
            raise ValueError(f"modulated must be true or false, got {modulated!r}")
        if isinstance(jitter, bool) or not isinstance(jitter, (int, float)) or not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be a number from 0 to 1, got {jitter!r}")
        grid = SamplingGrid(torch.tensor(initial_points(num_param, points)), stride, padding, modulated, gradient)
        self.num_param = num_param
        self.stride = stride
        self.padding: Padding = padding
        self.modulated = modulated
        self.gradient: Gradient = gradient
        self.conv = nn.Sequential(
            nn.Conv2d(inc, outc, (num_param, 1), (num_param, 1), bias=bool(bias)),
            batch_norm(outc),
            make_activation(act),
        )
        self.p_conv = offset_convolution(inc, grid.offset_channels, stride, offsets)
        if jitter:  # without it no random number is drawn
            start = cast(Tensor, last_convolution(self.p_conv).bias)[: 2 * num_param]
            nn.init.uniform_(start, -jitter, jitter)
        self.points: Tensor
        self.register_buffer("points", grid.points, persistent=False)
        self._kernel = LayerKernel()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inc, H, W) to (B, outc, h, w)."""
        grid = SamplingGrid(self.points, self.stride, self.padding, self.modulated, self.gradient)
        return ak_layer2d(x, self.p_conv, self.conv, grid, self._kernel)

    def convolution_flops(self, output: Tensor) -> int:
        """Return the operations of the offsets and of the column product for one output (B, O, h, w)."""
        pixels = output.numel() // output.shape[1]
        convolutions = [cast(nn.Conv2d, self.conv[0]), *(m for m in self.p_conv.modules() if isinstance(m, nn.Conv2d))]
        return 2 * pixels * sum(convolution.weight.numel() for convolution in convolutions)

    def extra_flops(self, output: Tensor) -> int:
        """Return the operations of the sampling, which are not in a convolution, for one output (B, O, h, w).

        Per sample: 4 products and 3 sums per channel; 4 sums for the position, 4 comparisons to clamp it, 2 floors,
        4 differences and 4 products for the weights. With factors, 5 products, a sum, a division and an exponential.
        """
        samples = output.numel() // output.shape[1] * self.num_param
        return samples * (7 * cast(nn.Conv2d, self.conv[0]).in_channels + (26 if self.modulated else 18))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AKConv:
        """Move or cast the module, but keep the initial points in full precision, which `half()` would round."""
        points = self.points
        super()._apply(fn, recurse)
        if self.points.dtype in (torch.float16, torch.bfloat16):
            self.points = points.to(self.points.device)
        return self


LDConv = AKConv

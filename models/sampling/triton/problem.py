"""The arguments of AKConv's Triton kernels, collected from the tensors of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WIDE_FROM = 2**30  # elements, from which int32 indices could overflow


def as_rows(image: Tensor) -> Tensor:
    """Return (B, C, H, W) as rows (B H W, C) with contiguous channels; copies unless it is channels-last."""
    batch, channels, height, width = image.shape
    rows = image.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    return rows if channels == 1 or rows.stride(1) == 1 else rows.contiguous()


def extent(tensor: Tensor) -> int:
    """Return the number of elements that a tensor spans in memory."""
    return 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


class Problem:
    """The tensors and scalars that are arguments of all three kernels."""

    def __init__(
        self,
        x: Tensor, offset: Tensor, weight: Tensor,
        points: Tensor, stride: int, border: bool, modulated: bool, deterministic: bool, *others: Tensor,
    ) -> None:  # fmt: skip
        """Collect the arguments; `others` are further tensors that a kernel indexes."""
        batch, channels, height, width = x.shape
        out_channels, num_points = weight.shape[0], points.shape[0]
        self.deterministic = deterministic
        self.pixels = as_rows(x)
        self.offset = offset
        self.points = points.to(offset.device, torch.promote_types(offset.dtype, torch.float32)).contiguous()
        self.sum_dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.num_pixels = batch * offset.shape[2] * offset.shape[3]
        largest = max(
            self.num_pixels * max(out_channels, num_points * max(channels, 4)),
            *(extent(tensor) for tensor in (self.pixels, offset, *others)),
        )
        tf32 = x.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
        self.scalars: dict[str, Any] = {
            "num_pixels": self.num_pixels,
            "height": height,
            "width": width,
            "out_height": offset.shape[2],
            "out_width": offset.shape[3],
            "channels": channels,
            "out_channels": out_channels,
            "num_points": num_points,
            "stride": stride,
            "x_stride": self.pixels.stride(0),
            **named_strides("offset", offset.stride()),
            "border": border,
            "modulated": modulated,
            "wide": largest >= WIDE_FROM,
            "double": x.dtype == torch.float64,
            "precision": "tf32" if tf32 else "ieee",
        }

    def tiles(self, meta: dict[str, int]) -> int:
        """Return the number of tiles of output pixels."""
        return count_tiles(self.num_pixels, meta["block_m"])


def named_strides(tensor: str, strides: Sequence[int]) -> dict[str, int]:
    """Return the strides of offsets (B, 2N or 3N, h, w), or of their gradient, as kernel arguments."""
    return {f"{tensor}_{axis}": step for axis, step in zip(("batch", "point", "row", "column"), strides, strict=True)}


def count_tiles(size: int, block: int) -> int:
    """Return the number of blocks that cover `size`."""
    return -(-size // block)

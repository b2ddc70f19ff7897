"""AKConv by one weighted gather (`F.embedding_bag`) over the rows of a channels-last map, and one matrix product.

An embedding bag sums a few weighted rows of a table in one pass: four pixels give a sample, without a fourfold copy of
the map. At stride 1 with O <= C the matrix product comes first, on the map itself, and a bag of 4 N rows gives an
output pixel, so that the N C columns are not written either.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from models.sampling.sampling_grid import SamplingGrid, corners


class _WeightedRowSum(torch.autograd.Function):
    """Weighted sums of rows with a custom backward pass, since that of torch sorts the indices."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:  # noqa: ANN401
        """Sum rows (P, C) by index and weight (M, N, 4 or 8) to (M, C); only the first 4 are read."""
        ctx.save_for_backward(rows, index, weight)
        read, factors = (tensor[..., :4].flatten(1).contiguous() for tensor in (index, weight))
        return F.embedding_bag(read, rows, per_sample_weights=factors, mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # noqa: ANN401
        """Return the gradients of rows and weights."""
        rows, index, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            read, factors = (tensor[..., :4].flatten(1).contiguous() for tensor in (index, weight))
            grad_rows = rows_gradient(grad, read, factors, rows.shape[0])
        if ctx.needs_input_grad[2]:
            grad_weight = weight_gradient(grad, rows, index.flatten(1)).view_as(weight)
        return grad_rows, None, grad_weight


def rows_gradient(grad: Tensor, index: Tensor, weight: Tensor, count: int) -> Tensor:
    """Scatter gradients (M, C) to the `count` rows they came from, by index and weight (M, K): (count, C).

    Sorted by row this is again a weighted sum of rows, in a fixed order: fast and bitwise reproducible.
    """
    ordered, order = index.view(-1).sort(stable=True)
    ends = torch.bincount(ordered, minlength=count).cumsum(0)
    starts = torch.cat((ends.new_zeros(1), ends[:-1]))
    sorted_weights = weight.view(-1)[order]
    return F.embedding_bag(order // index.shape[1], grad, starts, per_sample_weights=sorted_weights, mode="sum")


def weight_gradient(grad: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Return the dot products of gradients (M, C) with the rows (P, C) at index (M, K): (M, K)."""
    count, bag_size = index.shape
    # A sparse matrix cannot have more entries than a dense one, as on a map of three pixels.
    if grad.is_cpu and bag_size <= rows.shape[0] and not torch.compiler.is_compiling():
        starts = torch.arange(0, count * bag_size + 1, bag_size, dtype=index.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            entries = torch.sparse_csr_tensor(
                starts, index.view(-1), grad.new_zeros(index.numel()), (count, rows.shape[0]), check_invariants=False
            )
            return torch.sparse.sampled_addmm(entries, grad, rows.t(), beta=0.0).values().view(count, bag_size)
    return torch.stack([(rows[column] * grad).sum(1) for column in index.unbind(1)], 1)


def ak_conv2d_embedding_bag(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, grid: SamplingGrid
) -> Tensor:
    """Compute `ak_conv2d` with `torch.nn.functional.embedding_bag`."""
    batch, channels, height, width = x.shape
    out_channels, _, num_points, _ = weight.shape
    out_h, out_w = offset.shape[2:]
    rows, columns = grid.positions(offset)
    index, blend = corners(rows, columns, (height, width), grid)  # (B, h, w, N, 4 or 8)
    if grid.modulated:
        blend = blend * grid.factors(offset).unsqueeze(-1)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)  # (B H W, C), no copy of a channels-last map
    matrix = weight.squeeze(3)  # (O, C, N)
    if grid.stride == 1 and out_channels <= channels:
        table = F.linear(pixels, matrix.permute(2, 0, 1).reshape(-1, channels))  # (B H W, N O)
        point = torch.arange(num_points, device=index.device, dtype=index.dtype).view(-1, 1)
        index = index * num_points + point
        y = _WeightedRowSum.apply(
            table.view(-1, out_channels).to(blend.dtype), index.flatten(0, 2), blend.flatten(0, 2)
        )
        y = y.to(x.dtype) if bias is None else (y + bias).to(x.dtype)
    else:
        bags = (tensor.flatten(0, 3).unsqueeze(1) for tensor in (index, blend))
        samples = _WeightedRowSum.apply(pixels.to(blend.dtype), *bags).to(x.dtype)
        flat = samples.view(batch * out_h * out_w, num_points * channels)
        y = F.linear(flat, matrix.transpose(1, 2).reshape(out_channels, -1), bias)
    return y.view(batch, out_h, out_w, out_channels).permute(0, 3, 1, 2)

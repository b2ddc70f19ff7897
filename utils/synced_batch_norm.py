"""Batch norm over the whole batch of several processes: with it, they compute the same as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.distributed import all_reduce


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each process's loss depends on all values, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401
        return all_reduce(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        return all_reduce(gradients[0])


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm with mean and variance of the whole batch, on any device; torch's own requires CUDA."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = all_reduce(x.new_tensor(x.numel() / x.shape[1]))
        mean = _Sum.apply(x.sum((0, 2, 3))) / count
        centred = x - mean.view(1, -1, 1, 1)
        variance = _Sum.apply((centred * centred).sum((0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            if self.running_mean is not None and self.running_var is not None:
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)


def sync_batch_norms(model: nn.Module) -> None:
    """Turn every batch norm of a model, in place, into a `SyncedBatchNorm` with the same parameters and statistics."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm

"""Distributed data-parallel training: torchrun starts several processes, and each computes a part of every batch.

Gradients are summed once before each optimizer step, and every mean in the loss is over the whole batch. With
`--sync-bn`, batch norm also uses the whole batch, so that two processes equal one except for the order of summation.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import ConfigError
from utils.log import LOGGER

RENDEZVOUS_TIMEOUT = timedelta(minutes=2)
TIMEOUT = timedelta(hours=3)  # the other processes wait while the main process validates or downloads data
POLL_SECONDS = 0.05
LAUNCH_FILE = ".launch"  # in a run's folder: the launch that wrote it


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run."""

    rank: int = 0  # rank of this process; 0 is the main one
    size: int = 1  # world size
    launch: str = ""  # identifies the launch of torchrun, also after it has restarted its processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def add(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, with the same bits in each; with one, the tensor itself."""
        return _all_reduce(value) if self.size > 1 else value

    def broadcast(self, value: Any) -> Any:  # noqa: ANN401 - anything that pickles
        """Return the main process's value in every process."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has reached this call."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; the result is the same in all."""
        return bool(self.add(torch.tensor(float(flag))) > 0) if self.size > 1 else flag

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes, in place, in one message."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).reshape(-1) for p in trained])
        dist.all_reduce(flat)
        for parameter, part in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            gradient = torch.empty_like(parameter, requires_grad=False)  # in the memory layout of the parameter
            parameter.grad = gradient.copy_(part.view_as(parameter))

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Return the values of all processes by rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values


def init_distributed(device: torch.device) -> DistributedContext:
    """Initialize the process group if torchrun started this process: gloo on CPU, nccl on GPUs.

    Raises:
        ConfigError: torch lacks torch.distributed, or the rendezvous fails.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        return DistributedContext()
    if not dist.is_available():
        raise ConfigError("torchrun", "this torch has no distributed package", fix="start train.py with python")
    launch = ""
    if not dist.is_initialized():
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            # Everything but gradients, such as received signals, is exchanged on the CPU.
            backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
            store, rank, size = next(dist.rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
            # torchrun keeps one store over all restarts, with the addresses of dead processes, and its own prefix is a
            # count of restarts that differs between nodes.
            while isinstance(store, dist.PrefixStore):
                store = store.underlying_store
            launch = store.compare_set("launch", "", secrets.token_hex(8)).decode()
            store = dist.PrefixStore(_agree_on_start(store, rank, size), store)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=RENDEZVOUS_TIMEOUT)
            # Older versions of torch only have the private function.
            set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
            set_timeout(TIMEOUT)
        except (ValueError, RuntimeError) as error:
            what = f"rendezvous failed ({str(error).splitlines()[0]})"
            raise ConfigError("torchrun", what, fix="start with torchrun") from error
    context = DistributedContext(rank=dist.get_rank(), size=dist.get_world_size(), launch=launch)
    if not context.is_main:
        LOGGER.setLevel("ERROR")
    return context


def _agree_on_start(store: dist.Store, rank: int, size: int) -> str:
    """Return a name for this start of the processes, the same in all and different from that of any earlier start.

    Each process writes a new token. The main one publishes a name together with the tokens that it sees; a process
    confirms a name that comes with its own token, and the name counts once all have confirmed it.
    """
    token, tokens, name = secrets.token_hex(8), [""], ""
    store.set(f"token {rank}", token)
    deadline = time.monotonic() + RENDEZVOUS_TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        if rank == 0:
            if (current := [_read(store, f"token {other}") for other in range(size)]) != tokens:
                tokens, name = current, secrets.token_hex(8)
                store.set("start", json.dumps([name, *tokens]))
            if all(_read(store, f"confirmed {other}") == name for other in range(1, size)):
                store.set("agreed", name)
                return name
        else:
            name, *tokens = json.loads(_read(store, "start") or '[""]')
            if len(tokens) == size and tokens[rank] == token:
                store.set(f"confirmed {rank}", name)
                if _read(store, "agreed") == name:
                    return name
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"not all {size} processes have started")


def _read(store: dist.Store, key: str) -> str:
    """Return a key's value without waiting for it; "" if it is not set."""
    return store.get(key).decode() if store.check([key]) else ""


def lost_process(error: BaseException) -> bool:
    """Whether an error of a collective operation means that another process has ended or cannot be reached."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def destroy_distributed() -> None:
    """Destroy the process group if it is initialized."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """Return the device of this process: under torchrun with GPUs, that of its local rank."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or not torch.cuda.is_available() or name.strip().lower() in ("cpu", "mps"):
        return name
    devices = [part.strip() for part in name.split(",") if part.strip()]
    return devices[int(rank) % len(devices)] if len(devices) > 1 else rank


def _all_reduce(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without a gradient."""
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each process's loss depends on all values, so gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ANN401
        return _all_reduce(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        return _all_reduce(gradients[0])


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm with mean and variance of the whole batch, on any device; torch's own requires CUDA."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = _all_reduce(x.new_tensor(x.numel() / x.shape[1]))
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


def run_to_resume(project: str, launch: str) -> Path | None:
    """Return the folder of the run that this torchrun launch has started before; None at its first start."""
    files = Path(project).rglob(LAUNCH_FILE) if launch else ()
    return next((path.parent for path in files if path.read_text(encoding="utf-8") == launch), None)

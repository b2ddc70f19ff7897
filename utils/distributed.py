"""Distributed data-parallel training: torchrun starts several processes, and each computes a part of every batch.

Gradients are summed once before each optimizer step, and every mean in the loss is over the whole batch. With
`--sync-bn`, batch norm also uses the whole batch, so that two processes equal one except for the order of summation.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.errors import ConfigError, DetectorError, RunError
from utils.heartbeat import Heartbeat
from utils.log import LOGGER, report_error

Value = TypeVar("Value")
RENDEZVOUS_TIMEOUT = timedelta(minutes=2)
TIMEOUT = timedelta(hours=3)  # the others wait while the main process downloads data; a dead one is noticed otherwise
POLL_SECONDS = 0.05
LAUNCH_FILE = ".launch"  # in a run's folder: the launch that wrote it


@dataclass(frozen=True)
class DistributedContext:
    """The processes of a run."""

    rank: int = 0  # rank of this process; 0 is the main one
    size: int = 1  # world size
    launch: str = ""  # in the main process: identifies the launch of torchrun, also after its restarts
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    @property
    def leads_node(self) -> bool:
        """Whether this is the first process on its machine."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    def add(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, with the same bits in each; with one, the tensor itself."""
        return all_reduce(value) if self.size > 1 else value

    def broadcast(self, value: Any) -> Any:  # noqa: ANN401 - anything that pickles
        """Return the main process's value in every process."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has reached this call."""
        self.any(False)

    def agree(self, function: Callable[[], Value]) -> Value:
        """Return the function's value; if it raises a DetectorError in some process, raise one and the same in all."""
        if self.size == 1:
            return function()
        value, error = None, None
        try:
            value = function()
        except DetectorError as raised:
            error = raised
        outcomes = self.gather((socket.gethostname(), error))
        failed = [(host, each) for host, each in outcomes if each is not None]
        if failed:
            host, first = failed[0]
            hosts = {name for name, _ in outcomes} - {name for name, each in outcomes if each is None}
            if len(failed) < self.size:
                what = f"{first.what}, on {', '.join(sorted(hosts)) or host}"
                raise self._reported(type(first)(first.where, what, fix=first.fix)) from error
            raise self._reported(first)
        return value  # type: ignore[return-value]

    def from_main(self, function: Callable[[], Value]) -> Value:
        """Return, in every process, the function's value in the main one; a DetectorError there is raised in all."""
        value = self.agree(lambda: function() if self.is_main else None)
        return self.broadcast(value)

    def require_same(self, values: dict[str, Any], where: object) -> None:
        """Raise a ConfigError in all processes that names which of the values differ between them."""
        outcomes = self.gather((socket.gethostname(), values))
        for host, other in outcomes:
            names = sorted(name for name, value in values.items() if other[name] != outcomes[0][1][name])
            if names:
                what = f"{', '.join(names)} on {host} differ from those on {outcomes[0][0]}"
                raise self._reported(ConfigError(where, what, fix="use the same data, files and flags on all nodes"))

    def _reported(self, error: DetectorError) -> DetectorError:
        """Print an error that all processes raise, once a machine; when one has ended, torchrun ends all others."""
        report_error(f"error: {error}")
        self.leave_together()
        return error

    def broadcast_state(self, module: nn.Module) -> None:
        """Give a module the main process's floating-point parameters and buffers, in place, in one message."""
        if self.size == 1:
            return
        state = [value for value in module.state_dict().values() if value.is_floating_point()]
        flat = torch.cat([value.detach().float().reshape(-1) for value in state])
        dist.broadcast(flat, src=0)
        for value, part in zip(state, flat.split([value.numel() for value in state]), strict=True):
            value.copy_(part.view_as(value))

    def leave_together(self) -> None:
        """Wait until all processes are here, and none uses the store any more: it may end with the main process."""
        self.barrier()
        if self.size > 1 and self.heartbeat is not None:
            self.heartbeat.stop()
            _set_timeout(RENDEZVOUS_TIMEOUT)
            self.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

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


def init_distributed(device: str, *, timeout: float) -> DistributedContext:
    """Initialize the process group if torchrun started this process: gloo on the CPU, nccl on GPUs.

    `device` is the value of --device. This process ends once another one has been silent for `timeout` seconds; with 0
    it waits.

    Raises:
        ConfigError: torch lacks torch.distributed, or the rendezvous fails.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        return DistributedContext()
    if not dist.is_available():
        raise ConfigError("torchrun", "this torch has no distributed package", fix="start train.py with python")
    try:
        store, rank, size = next(dist.rendezvous("env://", timeout=RENDEZVOUS_TIMEOUT))
        # torchrun keeps one store over all restarts, with the addresses of dead processes, and its own prefix is a
        # count of restarts that differs between nodes.
        while isinstance(store, dist.PrefixStore):
            store = store.underlying_store
        launch = launch_name(store) if rank == 0 else ""
        name = _agree_on_start(store, rank, size)
        heartbeat = None
        if timeout:
            own = dist.PrefixStore(f"{name} heartbeat", store.clone())
            heartbeat = Heartbeat(own, rank=rank, size=size, timeout=timeout, on_lost=_leave)
        dist.init_process_group(
            process_group_backend(device),
            store=dist.PrefixStore(name, store),
            rank=rank,
            world_size=size,
            timeout=RENDEZVOUS_TIMEOUT,
        )
        _set_timeout(TIMEOUT)
        if heartbeat is not None:
            heartbeat.start()
    except (ValueError, RuntimeError) as error:
        what = f"rendezvous failed ({str(error).splitlines()[0]})"
        fix = "start with torchrun, on several nodes with GLOO_SOCKET_IFNAME set to the interface that connects them"
        raise ConfigError("torchrun", what, fix=fix) from error
    if rank:
        LOGGER.setLevel("ERROR")
    return DistributedContext(rank=rank, size=size, launch=launch, heartbeat=heartbeat)


def _set_timeout(timeout: timedelta) -> None:
    # Older versions of torch only have the private function.
    (getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout)(timeout)


def process_group_backend(device: str) -> str:
    """Return the backend for a value of --device: everything but gradients is exchanged on the CPU, also with GPUs."""
    on_cpu = device.strip().lower() in ("cpu", "mps") or not torch.cuda.is_available()
    return "gloo" if on_cpu else "cpu:gloo,cuda:nccl"


def lost_process_error(what: str) -> RunError:
    """Return the error of a process that has lost another one."""
    fix = "resume with `python train.py --resume`, under torchrun again, unless torchrun restarts the run itself"
    return RunError("torchrun", what, fix=fix)


def _leave(what: str) -> NoReturn:
    """End this process at once, and its data loader workers: its main thread may wait in an operation for hours."""
    report_error(f"error: {lost_process_error(what)}")
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(RunError.exit_code)


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


def local_device(name: str) -> str:
    """Return the device of this process: under torchrun with GPUs, that of its local rank."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or not torch.cuda.is_available() or name.strip().lower() in ("cpu", "mps"):
        return name
    devices = [part.strip() for part in name.split(",") if part.strip()]
    return devices[int(rank) % len(devices)] if len(devices) > 1 else rank


def all_reduce(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, without a gradient."""
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def launch_name(store: dist.Store) -> str:
    """Return a name of this launch of torchrun that stays when torchrun restarts its processes, and never returns.

    The name is the folder of torchrun's logs, which it creates anew at each launch, with a random name. The store would
    do only where torchrun itself holds it: elsewhere it ends with the main process.
    """
    logs = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parent.parent  # FOLDER/attempt_0/RANK/error.json
    if logs.name.startswith("attempt_"):
        return str(logs.parent)
    return store.compare_set("launch", "", secrets.token_hex(8)).decode()


def run_to_resume(project: str, launch: str) -> Path | None:
    """Return the folder of the run that this torchrun launch has started before; None at its first start."""
    files = Path(project).rglob(LAUNCH_FILE) if launch else ()
    return next((path.parent for path in files if path.read_text(encoding="utf-8") == launch), None)

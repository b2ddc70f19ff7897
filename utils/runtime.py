"""Device selection, seeding, memory, and a description of the environment."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from torch import nn

from utils.errors import ConfigError
from utils.files import PROJECT_ROOT

Module = TypeVar("Module", bound=nn.Module)
CUDA_WHEELS = "https://download.pytorch.org/whl/cu128"


def select_device(name: str) -> torch.device:
    """Return the device of `--device`: cpu, mps, a CUDA device index, or "" for the first GPU, else the CPU.

    Raises:
        ConfigError: the device does not exist or is not available.
    """
    requested = name.strip().lower().removeprefix("cuda:")
    if requested in ("", "cuda"):
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        requested = requested or "cpu"
    if requested == "cpu":
        return torch.device("cpu")
    if requested == "mps" and torch.backends.mps.is_available():
        return torch.device("mps")
    if requested.isdigit() and int(requested) < torch.cuda.device_count():
        return torch.device("cuda", int(requested))
    count = torch.cuda.device_count()
    num_devices = len([part for part in requested.split(",") if part.strip()])
    if count == 0 and torch.version.cuda is None and requested != "mps":
        what = f"{name!r} is not available: this torch is built without CUDA (torch.version.cuda is None)"
        fix = f"install torch and torchvision with --index-url {CUDA_WHEELS}, or leave --device out"
        raise ConfigError("--device", what, fix=fix)
    reason = "" if count else ": torch finds no CUDA devices"
    fix = f"use one of: {', '.join(('cpu', *map(str, range(count))))}"
    if num_devices > 1 and count and "LOCAL_RANK" not in os.environ:
        what = f"{name!r} names {num_devices} devices, but a process uses one"
        fix += f"; to train on several, start torchrun --nproc-per-node {num_devices} train.py"
        raise ConfigError("--device", what, fix=fix)
    if num_devices > 1:
        what = f"{name!r} names {num_devices} GPUs, but torch finds {count}"
        raise ConfigError("--device", what, fix=f"{fix}, or leave --device out")
    raise ConfigError("--device", f"{name!r} is not available{reason}", fix=fix)


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed the generators of initial weights, and on CUDA request deterministic kernels.

    The data does not depend on these generators: its randomness is a function of (seed, epoch, sample).
    """
    _seed_generators(seed)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the generators that modules such as dropout draw from: what a model draws in a step depends on these three.

    So a resumed run draws what the uninterrupted one would, whatever drew before: data workers, validation, plots.
    """
    _seed_generators(int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0]))


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # for custom modules that use it
    torch.manual_seed(seed)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory layout in which convolutions are fastest: channels last, except on MPS."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return versions and hardware, for `env.json`."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "git": commit_of(PROJECT_ROOT),
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
    }


def processor_name() -> str:
    """Return the model of the processor as the system names it, else its architecture."""
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_memory_gb(device: torch.device) -> float | None:
    """Return the peak memory of this process in GB: reserved on CUDA, else resident; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in kilobytes elsewhere
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def numerics_fingerprint() -> dict[str, str]:
    """Return what the last bits of a sum depend on; torch guarantees equal bits only for equal values of these."""
    return {
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def commit_of(folder: Path) -> str | None:
    """Return the commit of a git checkout, read from its files; None if the folder is not a checkout."""
    try:
        git = folder / ".git"
        if git.is_file():  # a worktree: the file names the git folder
            git = Path(git.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head
        common = git / "commondir"
        root = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
        name = head.removeprefix("ref: ")
        if (root / name).is_file():
            return (root / name).read_text(encoding="utf-8").strip()
        packed = (root / "packed-refs").read_text(encoding="utf-8").splitlines()
        return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None


def scale_pixels(images: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Move (B, 3, H, W) uint8 images to a device and scale them to [0, 1], keeping their memory layout."""
    moved = images.to(device, non_blocking=True)
    return moved.to(dtype, memory_format=torch.preserve_format).div_(255)


def to_device(model: Module, device: torch.device) -> Module:
    """Move a model to a device, in the memory layout that is fastest there."""
    return model.to(device=device, memory_format=memory_format(device))  # type: ignore[call-overload]

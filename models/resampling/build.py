"""Compile the kernel of AKConv for this machine's processor: `python -m models.resampling.build`.

It needs a C compiler (`cc`, or what CC names) and takes a second or two. Nothing is ever compiled while a model runs:
where this was not called, or no compiler is at hand, AKConv runs by operations of torch.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from utils.cli import run_script
from utils.errors import ConfigError
from utils.log import LOGGER

SOURCE = Path(__file__).with_name("native_layer.c")
INCLUDED = SOURCE.with_name("native.c")
FOLDER = SOURCE.with_name("compiled")
REALS = {torch.float32: "float", torch.float64: "double"}
# No -ffast-math: a position that is not a number must stay one.
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp")
COMPILER_SECONDS = 120


def library_path(dtype: torch.dtype) -> Path:
    """Return where the compiled kernel of a dtype lies: its name changes with the source and with the processor."""
    content = SOURCE.read_bytes() + INCLUDED.read_bytes() + repr((FLAGS, platform.machine(), _processor())).encode()
    return FOLDER / f"akconv-{REALS[dtype]}-{hashlib.sha256(content).hexdigest()[:16]}.so"


def _processor() -> str:
    """Return what the processor can do, so that no folder shared by machines serves one the code of another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def build() -> list[Path]:
    """Compile the kernel for both dtypes and check that it loads; what lay there from another source is removed.

    Raises:
        ConfigError: there is no compiler, or it fails.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ConfigError(SOURCE, "no C compiler found (cc)", fix="install gcc or clang, or name one in CC")
    FOLDER.mkdir(exist_ok=True)
    paths = [library_path(dtype) for dtype in REALS]
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        for real, path in zip(REALS.values(), paths, strict=True):
            objects, finished = Path(scratch) / f"{real}.o", Path(scratch) / path.name
            # Linked without -fopenmp: its functions are those of the library that torch has brought along.
            _run(compiler, *FLAGS, f"-DREAL={real}", "-c", str(SOURCE), "-o", str(objects))
            _run(compiler, "-shared", str(objects), "-o", str(finished))
            try:
                ctypes.CDLL(str(finished))
            except OSError as error:
                raise ConfigError(SOURCE, f"the compiled kernel does not load ({error})", fix="try gcc in CC") from None
            finished.replace(path)
    for stale in set(FOLDER.glob("*.so")) - set(paths):
        stale.unlink()
    return paths


def _run(*command: str) -> None:
    result = subprocess.run(  # noqa: S603 - a compiler found by its full path, no shell
        command, capture_output=True, text=True, timeout=COMPILER_SECONDS, check=False
    )
    if result.returncode:
        said = next((line for line in result.stderr.splitlines() if "error" in line), f"exit code {result.returncode}")
        raise ConfigError(SOURCE, f"{Path(command[0]).name} failed: {said}", fix="name another compiler in CC")


@functools.cache
def load(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled kernel of float32 or float64, or None where there is none for this machine."""
    if dtype not in REALS:
        return None
    path = library_path(dtype)
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        LOGGER.warning(f"{path}: does not load ({error}); AKConv runs by operations of torch")
        return None


def main() -> None:
    """Compile, and say what was made."""
    for path in build():
        LOGGER.info(f"compiled {path}")


if __name__ == "__main__":
    sys.exit(run_script(main))

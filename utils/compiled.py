"""Compile the project's C kernels for this machine's processor: `python -m utils.compiled`.

This needs a C compiler (`cc`, or the one in the environment variable CC) and takes a few seconds. Nothing is compiled
while a model runs: without the kernels, PyTorch and NumPy operations compute the same results.

AKCONV_CFLAGS holds further compiler flags, such as `-fsanitize=address` (`make sanitize`). Kernels compiled with them
are stored in a separate folder and load only if the variable has the same value.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from utils.cli import run_script
from utils.errors import ConfigError
from utils.files import PROJECT_ROOT, sync_file, sync_folder
from utils.log import LOGGER

EXTRA_FLAGS = tuple(shlex.split(os.environ.get("AKCONV_CFLAGS", "")))
FOLDER = PROJECT_ROOT / "compiled" / "custom" if EXTRA_FLAGS else PROJECT_ROOT / "compiled"
COMPILER_SECONDS = 120
# Not -ffast-math: NaN must stay NaN.
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fopenmp")
NATIVE = (("-march=native",),)
# One library for all processors: the program chooses when it runs.
X86_LEVELS = ((), ("-mavx2", "-mfma"), ("-mavx512f", "-mfma", "-mprefer-vector-width=512"))
LEVELS = X86_LEVELS if platform.machine() in ("x86_64", "AMD64") else ((),)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A shared library compiled from C."""

    sources: tuple[str, ...]  # the compiled file, relative to the project, and the files that it includes
    flags: tuple[str, ...] = ()  # compiler flags in addition to `FLAGS`
    levels: tuple[tuple[str, ...], ...] = NATIVE  # further flags of each object file that is linked


VECTORIZED = "-fno-trapping-math"  # comparisons may set flags that are not read
TRAINING = tuple(f"models/sampling/{name}.c" for name in ("training_kernel", "offset_kernel", "positions", "vectors"))
LAYER = ("models/sampling/layer_kernel.c", "models/sampling/vectors.c")
AKCONV_OPERATOR = "onnxruntime-operator"
KERNELS = {
    "layer": Kernel(sources=LAYER, flags=(VECTORIZED,), levels=LEVELS),
    "training-float": Kernel(sources=TRAINING, flags=("-DREAL=float", "-DBITS=32", VECTORIZED)),
    "training-double": Kernel(sources=TRAINING, flags=("-DREAL=double", "-DBITS=64", VECTORIZED)),
    # Without OpenMP: the threads are those of ONNX Runtime.
    AKCONV_OPERATOR: Kernel(
        sources=("models/sampling/onnxruntime_operator.c", *LAYER),
        flags=(VECTORIZED, "-fno-openmp", "-Wno-unknown-pragmas"),
    ),
    "nms": Kernel(sources=("utils/inference/nms.c",), flags=("-ffp-contract=off",)),
}


def library_path(name: str) -> Path:
    """Return the path of a compiled kernel; its name depends on sources, flags and, if it matters, the processor."""
    kernel = KERNELS[name]
    sources = [(PROJECT_ROOT / file).read_bytes() for file in kernel.sources]
    processor = processor_features() if kernel.levels == NATIVE else ""
    target = repr((FLAGS, (*kernel.flags, *EXTRA_FLAGS), kernel.levels, platform.machine(), processor)).encode()
    return FOLDER / f"{name}-{hashlib.sha256(b''.join(sources) + target).hexdigest()[:16]}.so"


@functools.cache
def processor_features() -> str:
    """Return the processor's features: machines that share the folder must not load each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    listed = [line for line in lines if line.startswith(("flags", "Features"))]
    return listed[0] if listed else platform.processor()  # which may start a program, `uname`


def build() -> list[Path]:
    """Compile all kernels, check that they load, and remove those of older sources; ConfigError if this fails."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        command = "python -m utils.compiled"
        raise ConfigError(command, "no C compiler found (cc)", fix="install gcc, or set CC to a compiler")
    import torch  # noqa: F401 - the kernels use its OpenMP runtime

    try:
        return _build_with(compiler)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise ConfigError(FOLDER, what, fix="make it writable, or go on without: the kernels only save time") from error


def _build_with(compiler: str) -> list[Path]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = [library_path(name) for name in KERNELS]
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        for kernel, path in zip(KERNELS.values(), paths, strict=True):
            source, finished = PROJECT_ROOT / kernel.sources[0], Path(scratch) / path.name
            objects = [str(Path(scratch) / f"{number}.o") for number in range(len(kernel.levels))]
            for level, target in zip(kernel.levels, objects, strict=True):
                flags = (*FLAGS, *level, *kernel.flags, *EXTRA_FLAGS)
                _run(compiler, *flags, "-c", str(source), "-o", target, where=source)
            # Linked without -fopenmp: the OpenMP runtime is the one that torch has loaded.
            _run(compiler, "-shared", *EXTRA_FLAGS, *objects, "-lm", "-o", str(finished), where=source)
            try:
                ctypes.CDLL(str(finished))
            except OSError as error:
                raise ConfigError(source, f"the compiled kernel does not load ({error})", fix="set CC=gcc") from None
            sync_file(finished)  # its name says that it is complete, and a torn library would end the program
            finished.replace(path)
            sync_folder(FOLDER)
    for stale in set(FOLDER.glob("*.so")) - set(paths):
        stale.unlink()
    return paths


def _run(*command: str, where: Path) -> None:
    name, fix = Path(command[0]).name, "set CC to another compiler"
    with tempfile.TemporaryFile() as output:  # not a pipe, which a process that the compiler left behind keeps open
        try:  # a compiler found by its full path, no shell
            process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as error:
            raise ConfigError(where, f"{name} cannot be started ({error.strerror or error})", fix=fix) from error
        try:
            code = process.wait(COMPILER_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ConfigError(where, f"{name} does not end within {COMPILER_SECONDS} s", fix=fix) from error
        finally:
            if process.poll() is None:
                _kill(process)
        if code:
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()
            reason = next((line for line in lines if "error" in line), f"exit code {code}")
            raise ConfigError(where, f"{name} failed: {reason}", fix=fix)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a compiler and the processes that it has started."""
    if hasattr(os, "killpg"):  # not on Windows
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def compiled_library(name: str) -> Path | None:
    """Return the path of a kernel, or None if it is not compiled for this machine."""
    path = library_path(name)
    return path if path.is_file() else None


@functools.cache
def load(name: str) -> ctypes.CDLL | None:
    """Return a compiled kernel, or None if it is not compiled for this machine. Import torch first."""
    path = library_path(name)
    try:
        return ctypes.CDLL(str(path)) if path.is_file() else None
    except OSError as error:
        LOGGER.warning(f"{path}: cannot be loaded ({error}); falling back to slower PyTorch operations")
        return None


def main() -> None:
    """Compile all kernels and log their paths."""
    for path in build():
        LOGGER.info(f"compiled {path}")


if __name__ == "__main__":
    run_script(main)

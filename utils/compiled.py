"""Compile the project's kernels in C for this machine's processor: `python -m utils.compiled`.

It needs a C compiler (`cc`, or what CC names) and takes some seconds. Nothing is ever compiled while a model
runs: where this was not called, or no compiler is at hand, operations of torch and NumPy do the same.

AKCONV_CFLAGS holds further compiler flags, such as `-fsanitize=address` (`make sanitize`). Kernels compiled with them
are stored in a folder of their own and load only where the variable has the same value.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from utils.cli import run_script
from utils.errors import ConfigError
from utils.files import PROJECT_ROOT
from utils.log import LOGGER

EXTRA_FLAGS = tuple(shlex.split(os.environ.get("AKCONV_CFLAGS", "")))
FOLDER = PROJECT_ROOT / "compiled" / "custom" if EXTRA_FLAGS else PROJECT_ROOT / "compiled"
COMPILER_SECONDS = 120
# No -ffast-math: a number that is none must stay one.
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A library that is made of C.

    Attributes:
        source: the file that is compiled, relative to the project.
        included: further files that it includes.
        flags: beside those of all.
    """

    source: str
    included: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


AKCONV = ("models/sampling/cpu_kernel_layer.c", "models/sampling/cpu_kernel.c")
KERNELS = {
    "akconv-float": Kernel(source=AKCONV[0], included=AKCONV[1:], flags=("-DREAL=float",)),
    "akconv-double": Kernel(source=AKCONV[0], included=AKCONV[1:], flags=("-DREAL=double",)),
    "nms": Kernel(source="utils/inference/nms.c", flags=("-ffp-contract=off",)),
}


def library_path(name: str) -> Path:
    """Return where a compiled kernel lies: its name changes with the sources and with the processor."""
    kernel = KERNELS[name]
    sources = [(PROJECT_ROOT / file).read_bytes() for file in (kernel.source, *kernel.included)]
    told = repr((FLAGS, (*kernel.flags, *EXTRA_FLAGS), platform.machine(), _processor())).encode()
    return FOLDER / f"{name}-{hashlib.sha256(b''.join(sources) + told).hexdigest()[:16]}.so"


@functools.cache
def _processor() -> str:
    """Return what the processor can do, so that no folder shared by machines serves one the code of another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def build() -> list[Path]:
    """Compile all kernels and check that they load; what lay there from other sources is removed.

    Raises:
        ConfigError: there is no compiler, or it fails.
    """
    import torch  # noqa: F401 - its threads are those of the kernels, which do not load without them

    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise ConfigError("python -m utils.compiled", "no C compiler found (cc)", fix="install gcc, or name one in CC")
    FOLDER.mkdir(parents=True, exist_ok=True)
    paths = [library_path(name) for name in KERNELS]
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        for kernel, path in zip(KERNELS.values(), paths, strict=True):
            source, objects, finished = PROJECT_ROOT / kernel.source, Path(scratch) / "o", Path(scratch) / path.name
            # Linked without -fopenmp: its functions are those of the library that torch has brought along.
            _run(compiler, *FLAGS, *kernel.flags, *EXTRA_FLAGS, "-c", str(source), "-o", str(objects), where=source)
            _run(compiler, "-shared", *EXTRA_FLAGS, str(objects), "-o", str(finished), where=source)
            try:
                ctypes.CDLL(str(finished))
            except OSError as error:
                raise ConfigError(
                    source, f"the compiled kernel does not load ({error})", fix="name gcc in CC"
                ) from None
            finished.replace(path)
    for stale in set(FOLDER.glob("*.so")) - set(paths):
        stale.unlink()
    return paths


def _run(*command: str, where: Path) -> None:
    result = subprocess.run(  # noqa: S603 - a compiler found by its full path, no shell
        command, capture_output=True, text=True, timeout=COMPILER_SECONDS, check=False
    )
    if result.returncode:
        said = next((line for line in result.stderr.splitlines() if "error" in line), f"exit code {result.returncode}")
        raise ConfigError(where, f"{Path(command[0]).name} failed: {said}", fix="name another compiler in CC")


@functools.cache
def load(name: str) -> ctypes.CDLL | None:
    """Return a compiled kernel, or None where there is none for this machine. Import torch before."""
    path = library_path(name)
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        LOGGER.warning(f"{path}: does not load ({error}); slower operations take its place")
        return None


def main() -> None:
    """Compile, and say what was made."""
    for path in build():
        LOGGER.info(f"compiled {path}")


if __name__ == "__main__":
    run_script(main)

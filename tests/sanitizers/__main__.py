"""Run the kernels in C, without Python, under gcc's sanitizers: `make sanitize-shapes`.

    python -m tests.sanitizers [--seed 0] [--count 20000] [--only address thread none] [--programs nms ...]

Each program includes one kernel's source. Under the address and undefined-behaviour sanitizers (`address`) it takes
`count` random shapes, all small shapes with every position that decides differently, and maps of more than 2^31
elements, of which little is in memory; under the thread sanitizer (`thread`) the random shapes again. Without a
sanitizer (`none`) it finds the neighbours of every float. Ends with 1 at the first fault, whose case it prints.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from utils.compiled import FLAGS, KERNELS, LEVELS, VECTORIZED, X86_LEVELS
from utils.files import PROJECT_ROOT

FOLDER = Path(__file__).parent
UNDEFINED = "undefined,float-cast-overflow"
SANITIZERS = {
    "address": ("-g", "-O1", f"-fsanitize=address,{UNDEFINED}", "-fno-sanitize-recover=all"),
    "thread": ("-g", "-O1", "-fsanitize=thread"),
    "none": (),
}
ENVIRONMENT = {
    # Freed memory is kept back for a while, so that a late access is seen; 16 MB hold many of these small arrays.
    "ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
CHECKS = {"address": ("random", "small", "huge"), "thread": ("random",), "none": ("positions",)}


@dataclass(frozen=True)
class Program:
    """A kernel with the compiler flags of one of its forms."""

    source: str
    flags: tuple[str, ...]
    lacks: tuple[str, ...] = ()  # checks that this form has no use for


def programs() -> dict[str, Program]:
    """Return the programs by name, with the flags that `utils.compiled` uses."""
    found = {}
    for level, name in zip(LEVELS, ("portable", "avx2", "avx512"), strict=False):
        found[f"layer-{name}"] = Program("check_layer.c", (*level, *KERNELS["layer"].flags))
    for real in ("float", "double"):
        kernel = KERNELS[f"training-{real}"]
        found[f"training-{real}"] = Program("check_training.c", (*kernel.levels[0], *kernel.flags))
    if LEVELS == X86_LEVELS:  # what a processor without AVX-512 uses
        flags = (*X86_LEVELS[1], *KERNELS["training-float"].flags)
        found["training-avx2"] = Program("check_training.c", flags, lacks=("positions",))
    flags = (*LEVELS[-1], VECTORIZED, "-Wno-unknown-pragmas")
    found["onnxruntime"] = Program("check_onnxruntime.c", flags, lacks=("small", "positions"))
    found["nms"] = Program("check_nms.c", KERNELS["nms"].flags, lacks=("positions",))
    return found


def run(name: str, sanitizer: str, seed: int, count: int) -> list[tuple[str, ...]]:
    """Compile a program and run its checks; return a row for each: program, sanitizer, check, cases and seconds."""
    program, rows = programs()[name], []
    with tempfile.TemporaryDirectory() as folder:
        built, library, start = Path(folder) / name, Path(folder) / "program.o", time.monotonic()
        flags = (*FLAGS, *program.flags, *SANITIZERS[sanitizer], f"-I{PROJECT_ROOT}", "-Wall", "-Wextra")
        subprocess.run(["gcc", *flags, "-c", str(FOLDER / program.source), "-o", str(library)], check=True)
        # Without -fopenmp: common.h has the functions of libgomp.
        linked = ["gcc", *SANITIZERS[sanitizer], str(library), "-lm", "-lpthread", "-o", str(built)]
        subprocess.run(linked, check=True)
        rows.append((name, sanitizer, "compilation", "", f"{time.monotonic() - start:.0f}"))
        for check in (check for check in CHECKS[sanitizer] if check not in program.lacks):
            start = time.monotonic()
            arguments = [check, str(seed), str(count)] if check == "random" else [check]
            result = subprocess.run([str(built), *arguments], capture_output=True, text=True, env=ENVIRONMENT)
            if result.returncode:
                raise SystemExit(f"{name} {sanitizer} {' '.join(arguments)}\n{result.stdout}{result.stderr}")
            rows.append((name, sanitizer, check, result.stdout.strip(), f"{time.monotonic() - start:.0f}"))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.sanitizers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=20_000, help="random shapes of each program and sanitizer")
    parser.add_argument("--only", nargs="+", choices=SANITIZERS, default=list(SANITIZERS))
    parser.add_argument("--programs", nargs="+", choices=programs(), default=list(programs()))
    options = parser.parse_args()
    if shutil.which("gcc") is None:
        raise SystemExit("gcc is needed: clang has other names for the functions of OpenMP")
    jobs = [
        (name, sanitizer)
        for sanitizer in options.only
        for name in options.programs
        if set(CHECKS[sanitizer]) - set(programs()[name].lacks)
    ]
    with ThreadPoolExecutor(2) as workers:
        for rows in workers.map(lambda job: run(*job, options.seed, options.count), jobs):
            for row in rows:
                sys.stdout.write("{:16} {:8} {:12} {:>14} {:>6} s\n".format(*row))
            sys.stdout.flush()


if __name__ == "__main__":
    main()

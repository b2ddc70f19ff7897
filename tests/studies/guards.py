"""Removes the guards of the program one at a time, in a copy, and reports whether the test named for each then fails.

    python -m tests.studies.guards [NAME ...]

`make guards` runs all. A guard whose test stays green is one that somebody could remove unnoticed. test_guards.py
checks in every run of the tests that each guard is still where guards.txt says.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Of one test; without a guard it may not end, or take all memory, and is then ended, and counted as failed.
CPU_SECONDS, MEMORY_BYTES, SECONDS = 30, 10 * 2**30, 1200
PRELOADED = "torch torchvision cv2 pandas onnxruntime hypothesis pytest matplotlib.pyplot".split()


@dataclass(frozen=True)
class Guard:
    """Code that prevents a failure, what it is replaced by, and the test that must then fail."""

    name: str
    file: str
    code: str  # occurs exactly once in the file
    without: str
    test: str  # file and name, or name and parameters


def guards() -> list[Guard]:
    """Return the guards of guards.txt: name, file and test, then the code after `-`, and after `+` what replaces it."""
    found = []
    for block in (ROOT / "tests/studies/guards.txt").read_text(encoding="utf-8").split("\n\n"):
        name, file, test, *lines = block.splitlines()
        code, without = ("\n".join(line[1:] for line in lines if line[0] == sign) for sign in "-+")
        found.append(Guard(name, file.strip(), code, without, test.strip()))
    return found


def copy_of_the_tree(target: Path) -> None:
    """Copy the tracked and new files, and the compiled kernels."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    if (ROOT / "compiled").is_dir():
        shutil.copytree(ROOT / "compiled", target / "compiled", dirs_exist_ok=True)


def run_test(test: str, folder: Path) -> int | None:
    """Return pytest's exit code for a test in a folder, in a fork that has torch imported; None without an end."""
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        os.chdir(folder)
        with (folder / "output.txt").open("wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "utils", "models")]:
            del sys.modules[name]
        sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        sys.dont_write_bytecode = True
        import pytest

        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", test])
        sys.stdout.flush()
        os._exit(int(code))
    deadline = time.monotonic() + SECONDS
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(pid, 9)
            os.waitpid(pid, 0)
            return None
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def main() -> None:
    """Remove each guard, or those named, and report."""
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"))
    for name in PRELOADED:
        __import__(name)
    chosen = [guard for guard in guards() if guard.name in sys.argv[1:] or not sys.argv[1:]]
    started, missed = time.monotonic(), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_of_the_tree(folder)
        for guard in chosen:
            file = folder / guard.file
            text = file.read_text(encoding="utf-8")
            assert text.count(guard.code) == 1, guard
            begun = time.monotonic()
            file.write_text(text.replace(guard.code, guard.without), encoding="utf-8")
            code = run_test(guard.test, folder)
            file.write_text(text, encoding="utf-8")
            # 1: a test failed; a negative code: the test ended the process; all others mean that no test was run.
            red = code is None or code == 1 or code < 0
            verdict = {None: "red (no end)", 0: "GREEN", 1: "red"}.get(code, "red (signal)" if red else "NOT RUN")
            print(
                f"{verdict:12} {time.monotonic() - begun:6.1f} s  {guard.name} ({guard.file}): {guard.test}", flush=True
            )
            if not red:
                missed.append(guard.name)
                print((folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-2000:])
        seconds = time.monotonic() - started
        print(f"{len(chosen) - len(missed)} of {len(chosen)} guards turn a test red when removed, {seconds:.0f} s")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()

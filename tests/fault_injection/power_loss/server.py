"""Runs the scripts in forked children of one process that has imported everything, each in a tree of its own."""

import contextlib
import importlib
import os
import resource
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import compare
import detect
import export
import prepare
import train
from tests.fault_injection.power_loss.unread import forbid_reading, is_unread
from utils.cli import run_script
from utils.comparison import cost, jobs
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index

# What the scripts import only once they need it.
PRELOADED = (
    "matplotlib.pyplot onnx onnxruntime torch._dynamo torchvision utils.comparison.run utils.detection.run "
    "utils.export.run utils.inference.engine utils.inference.exported_model utils.options.command_line "
    "utils.preparation.run utils.training.run"
).split()
SECONDS, CPU_SECONDS = 900, 60  # no command takes as long, not even on a busy machine
CRASHED, ENDLESS = 99, 98  # exit codes; the first: an unreported exception


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it printed."""

    code: int
    text: str  # of stdout and stderr

    @property
    def errors(self) -> list[str]:
        """The error lines."""
        return [line for line in self.text.splitlines() if line.startswith("error: ")]


def scan() -> None:
    """Read the labels of both splits, and print what was found: what train.py and val.py do first."""
    for split in ("train", "val"):
        print(build_index(load_data_config(sys.argv[1]), split).fingerprint())


MAINS: dict[str, Callable[[], object]] = {
    "compare.py": compare.main,
    "detect.py": detect.main,
    "export.py": export.main,
    "prepare.py": prepare.main,
    "scan": scan,
    "train.py": train.main,
}


class ForkedRun:
    """Stands in for the process that compare.py starts for a training."""

    def __init__(self, command: Sequence[str], *, stdout: Any, **_: object) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(run(["train.py", *command[2:]], stdout.fileno()))

    def poll(self) -> int | None:
        """Return the exit code once there is one."""
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.returncode = 0  # a failure leaves a run unfinished, which is what is asked
        return self.returncode

    def wait(self) -> None:
        """Wait for the end."""
        os.waitpid(self.pid, 0)


def save_data(figure: Figure, file: IO[bytes], **_: object) -> None:
    """Write what a figure shows instead of drawing it."""
    for artist in figure.findobj():
        if isinstance(artist, Line2D):
            file.write(np.ascontiguousarray(artist.get_xydata()).tobytes())
        elif isinstance(artist, Text):
            file.write(artist.get_text().encode())
        elif isinstance(artist, Rectangle):
            file.write(repr(artist.get_bbox().bounds).encode())
        elif isinstance(artist, AxesImage):
            file.write(np.ascontiguousarray(artist.get_array()).tobytes())


def run(argv: Sequence[str], output: int) -> int:
    """Run a script's main function in this process, its output going to a file handle; return the exit code."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = list(argv)
    code = CRASHED
    try:
        run_script(MAINS[argv[0]])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else CRASHED
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


class Server:
    """The folders in which commands run: `root` is the disk that loses power, `data` what is on disk for long."""

    def __init__(self, work: Path) -> None:
        self.work, self.root, self.data, self.said = work, work / "root", work / "data", work / "said"
        for folder in (self.root, self.data):
            folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {"XDG_CACHE_HOME": str(self.root / "cache"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        torch.set_num_threads(1)
        for name in PRELOADED:
            importlib.import_module(name)
        # Drawing and timing are most of a comparison, and decide nothing about its files.
        Figure.get_layout_engine, Figure.savefig = lambda _: None, save_data  # type: ignore[method-assign,assignment]
        cost.ROUNDS, cost.WARM_UP_ROUNDS = 2, 0
        jobs.subprocess = SimpleNamespace(Popen=ForkedRun, STDOUT=None, DEVNULL=None)  # type: ignore[assignment]
        jobs.POLL_SECONDS = 0.01

    def empty(self) -> None:
        """Remove everything below `root`, which stays."""
        for entry in os.scandir(self.root):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)

    def in_child(self, command: str, first: Callable[[], None] | None = None) -> int:
        """Run a command in this process, which is a child; `first` is called before. `{data}` is that folder."""
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        os.chdir(self.root)
        forbid_reading({str(path) for path in self.root.rglob("*") if path.is_file() and is_unread(path)})
        if first is not None:
            first()
        output = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        return run(command.format(data=self.data).split(), output)

    def execute(self, command: str, first: Callable[[], None] | None = None) -> Outcome:
        """Run a command in a child of its own process group."""
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os._exit(self.in_child(command, first))
        handle = os.pidfd_open(child)
        if not select.select([handle], [], [], SECONDS)[0]:
            os.killpg(child, signal.SIGKILL)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = self.said.read_text(errors="replace")
        return Outcome(ENDLESS if code in (-signal.SIGKILL, -signal.SIGXCPU) else code, text)

    def must(self, command: str, first: Callable[[], None] | None = None) -> None:
        """Run a command that must succeed, or stop at the signal that `first` arranges."""
        outcome = self.execute(command, first)
        if outcome.code != (143 if first else 0):
            raise RuntimeError(f"{command}: exit code {outcome.code}: {outcome.text[-2000:]}")


def cpu_seconds() -> float:
    """Return the processor time of this process and its children."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system

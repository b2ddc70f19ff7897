"""The scripts of one source tree, run as subprocesses on one thread."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

COMPILERS = ("utils/compiled.py", "utils/native.py")  # the module that compiles the CPU kernels, new and old name
DATA = """path: shapes
train: images/train
val: images/val
test: images/test
names: [ring, cross, arc, wave, star, spiral]
generator: {seed: 7, train: 16, val: 6, test: 3}
"""


class Tree:
    """The scripts of one tree, run in a work folder."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root, self.work = root, work
        self.environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(work / "cache")}
        self.environment.pop("PYTHONPATH", None)
        module = next(name for name in COMPILERS if (root / name).is_file())
        self._finish([sys.executable, "-m", module.removesuffix(".py").replace("/", ".")], root)
        (work / "tiny.yaml").write_text(DATA)
        recipe = (root / "data/hyps/hyp.scratch-low.yaml").read_text()
        (work / "hyp.yaml").write_text(re.sub(r"(?m)^(mixup|copy_paste): \S+", r"\1: 0.5", recipe))

    def run(self, script: str, *words: str) -> str:
        """Run a script and return what it prints."""
        return self._finish([sys.executable, str(self.root / script), *words], self.work)

    def _finish(self, command: list[str], folder: Path) -> str:
        done = subprocess.run(command, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def interrupt(self, folder: Path, script: str, *words: str) -> None:
        """Send SIGTERM after the first batch of epoch 1; repeat until the run stops in the middle of that epoch.

        Args:
            folder: what the run writes, removed before another try.
            script: the training script.
            words: its command line.
        """
        for _ in range(8):
            shutil.rmtree(folder, ignore_errors=True)
            process = subprocess.Popen(
                [sys.executable, str(self.root / script), *words],
                cwd=self.work,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            assert process.stderr is not None
            log = b""
            while (piece := process.stderr.read1()) and not re.search(rb"\b1/1 .*\b[01]/4 \[", log := log + piece):
                pass
            process.send_signal(signal.SIGTERM)
            log += process.communicate(timeout=300)[1]
            if process.returncode == 128 + signal.SIGTERM and re.search(rb"epoch 1 after [1-3] of 4", log):
                return
        raise SystemExit(f"{script}: no interruption hit the middle of epoch 1\n{log[-2000:].decode()}")

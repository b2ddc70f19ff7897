"""app.py as a process of its own, for tests that talk to it over HTTP."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from utils.files import PROJECT_ROOT

SECONDS_TO_START = 300
needs_gradio = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gradio", "gradio_client")),
    reason="gradio is not installed",
)


@dataclass
class AppServer:
    """A running server; `stop` ends it."""

    process: subprocess.Popen[str]
    url: str
    temporary: Path  # the folder in which it makes its folder of uploads
    log: Path

    def uploads(self) -> list[Path]:
        """Return all files that it keeps."""
        return [path for path in self.temporary.rglob("*") if path.is_file()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def serve(folder: Path, arguments: Sequence[str]) -> Iterator[AppServer]:
    """Start app.py on a free port, with the temporary files below a folder."""
    temporary, log = folder / "temporary", folder / "app.log"
    temporary.mkdir(parents=True)
    environment = {**os.environ, "TMPDIR": str(temporary), "MPLCONFIGDIR": str(folder / "matplotlib")}
    command = [sys.executable, "app.py", "--port", "0", *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not (found := re.search(r"^http://\S+", log.read_text(), re.M)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"app.py did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield AppServer(process=process, url=found[0].replace("localhost", "127.0.0.1"), temporary=temporary, log=log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

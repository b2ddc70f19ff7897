"""Opens files in a process whose every dangerous step is recorded: `python -m tests.helpers.tripwire FILES.json`.

The json lists paths, which go through the real command, `detect.py --weights PATH`; the first two once before the
others, unheard, so that what torch and Python load late is loaded. Prints for every file a line of json: the exit code,
what was written to stdout and stderr, and the events that no reading of a file needs.
"""

import contextlib
import io
import json
import resource
import sys
import time
from pathlib import Path

import torch

import detect
from models.yolo import DetectionModel
from utils.cli import run_script

QUIET = {"builtins.id"}
# Texts of a model yaml are parsed as literals, which compiles nothing that runs.
PARSED = ("compile", "<unknown>")


class Recorder:
    """An audit hook that can be switched on."""

    def __init__(self) -> None:
        self.on = False
        self.path = ""
        self.events: list[str] = []

    def __call__(self, event: str, args: tuple) -> None:
        if not self.on or event in QUIET or (event, args[1:2]) == (PARSED[0], (PARSED[1],)):
            return
        reading = event == "open" and str(args[0]) == self.path and args[1] in ("r", "rb")
        if not reading:
            self.events.append(f"{event} {args!r}"[:300])


def command(path: str, recorder: Recorder) -> dict[str, object]:
    """Run detect.py on a file; return its exit code, its words, and the events."""
    out, err = io.StringIO(), io.StringIO()
    recorder.path, recorder.events = path, []
    sys.argv = ["detect.py", "--weights", path, "--source", "image.png", "--device", "cpu"]
    code: object = None
    start = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        recorder.on = True
        try:
            run_script(detect.main)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:  # whatever comes is a finding
            recorder.on = False
            code = f"{type(error).__name__}: {error}"[:300]
        finally:
            recorder.on = False
    return {
        "code": code,
        "err": err.getvalue(),
        "out": out.getvalue(),
        "events": list(recorder.events),
        "seconds": time.monotonic() - start,
    }


def main() -> None:
    """Open all files of the list."""
    torch.set_num_threads(1)
    paths = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    DetectionModel("yolov5n.yaml")  # loads what torch loads late
    recorder = Recorder()
    sys.addaudithook(recorder)
    for path in paths[:2]:
        command(path, recorder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        print(json.dumps({"path": path, **command(path, recorder)}), flush=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"grown_kilobytes": grown}))


if __name__ == "__main__":
    main()

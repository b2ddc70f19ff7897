"""Opens files in a process that records every dangerous event: `python -m tests.helpers.tripwire FILES.json`.

The JSON lists paths, which are passed to the real command, `detect.py --weights PATH`. The first two are opened once
before, unrecorded, so that modules that torch and Python import late are imported. Prints a line of JSON per file: the
exit code, stdout and stderr, seconds, and all audit events but those of reading the file.
"""

import contextlib
import io
import json
import logging
import resource
import sys
import time
from pathlib import Path

import torch

import detect
from models.yolo import DetectionModel
from utils.cli import run_script
from utils.files import PROJECT_ROOT, user_cache_dir

ROOT, CACHE = PROJECT_ROOT, user_cache_dir() / "onnxruntime"
QUIET = {"builtins.id"}
# Text of a model yaml is parsed as a literal, which compiles but executes nothing.
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
        # Besides the file itself, the sources whose hash names a converted graph, and the cache of these graphs.
        path = str(args[0]) if args else ""
        ours = path == self.path or path.startswith((str(ROOT), str(CACHE)))
        reading = event == "open" and ours and args[1] in ("r", "rb")
        listing = event in ("os.scandir", "pathlib.Path.glob") and path.startswith(str(ROOT))
        if not (reading or listing or (event == "os.mkdir" and path == str(CACHE))):
            self.events.append(f"{event} {args!r}"[:300])


def command(path: str, recorder: Recorder) -> dict[str, object]:
    """Run detect.py on a file; return its exit code, output, events and seconds."""
    out, err = io.StringIO(), io.StringIO()
    recorder.path, recorder.events = path, []
    sys.argv = ["detect.py", "--weights", path, "--source", "image.png", "--device", "cpu"]
    code: object = None
    start = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        recorder.on = True
        try:
            run_script(detect.main)
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:  # any other error is a failure
            recorder.on = False
            code = f"{type(error).__name__}: {error}"[:300]
        finally:
            recorder.on = False
    return {
        "code": code,
        "err": err.getvalue(),
        "out": out.getvalue(),
        "events": list(recorder.events),
        "seconds": time.process_time() - start,
    }


def main() -> None:
    """Open all files of the list."""
    torch.set_num_threads(1)
    logging._srcfile = None  # as its HOWTO says: log lines are then not searched for their caller, which is an event
    paths = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    DetectionModel("yolov5n.yaml")  # imports what torch imports late
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

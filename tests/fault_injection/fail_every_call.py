"""Train two epochs, and let the second save fail at each of its calls that change files, each time in a child process.

`fail_every_call.py DATA FOLDER`, with the library built from fail_calls.c preloaded and named in FAIL_CALLS. Prints the
outcomes as JSON: for each kind of failure one entry per call.
"""

import contextlib
import ctypes
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from utils.errors import RunError
from utils.files import remove_leftovers
from utils.options import TrainOptions
from utils.training.run import run_training
from utils.training.state import load_last
from utils.training.trainer import Trainer

FAILURES = {"SIGKILL": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
KILLED, REFUSED = -9, 3
CALLS = ctypes.CDLL(os.environ["FAIL_CALLS"])
OUTCOMES: dict[str, list[dict[str, object]]] = {}


def in_child(action: Callable[[], None], call: int, code: int) -> tuple[int, str, int]:
    """Run an action in a child process whose n-th call fails; return exit code, message, and number of calls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        exit_code, message = 0, ""
        CALLS.arm(call, code)
        try:
            action()
        except RunError as error:
            exit_code, message = REFUSED, str(error)
        except BaseException as error:
            exit_code, message = 1, repr(error)
        calls = CALLS.counted()
        CALLS.arm(-1, 0)
        os.write(writer, json.dumps([message, calls]).encode())
        os._exit(exit_code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        message, calls = json.loads(pipe.read() or b'["", 0]')
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), message, calls


def inspect(run: Path) -> dict[str, object]:
    """Return what a failed save left behind."""
    leftovers = sorted(path.name for path in run.rglob("*.tmp"))
    remove_leftovers(run)
    with contextlib.redirect_stderr(io.StringIO()):
        content, path = load_last(run / "weights/last.pt")
    rows = (run / "results.csv").read_text().splitlines()
    return {
        "epochs": content["progress"]["epoch"],
        "from": path.name,
        "rows": len(rows) - 1,
        "leftovers": len(leftovers),
        "not_removed": len(list(run.rglob("*.tmp"))),
    }


def fail_every_call(trainer: Trainer, save: Callable[[], None]) -> None:
    """Save in child processes, each time in the same initial folder, with one failing call after the other."""
    kept = trainer.run_dir.with_name("kept")
    shutil.copytree(trainer.run_dir, kept)
    calls = in_child(save, 0, 0)[2]
    for failure, code in FAILURES.items():
        OUTCOMES[failure] = []
        for call in range(1, calls + 1):
            shutil.rmtree(trainer.run_dir)
            shutil.copytree(kept, trainer.run_dir)
            exit_code, message, _ = in_child(save, call, code)
            OUTCOMES[failure].append({"exit_code": exit_code, "message": message, **inspect(trainer.run_dir)})
    shutil.rmtree(trainer.run_dir)
    shutil.copytree(kept, trainer.run_dir)


def main() -> None:
    real = Trainer._save

    def save(self: Trainer, evaluation: object) -> None:
        if self.state.progress.epoch == 2:
            self.state.progress.best_epoch = 1  # so that best.pt is written too
            fail_every_call(self, lambda: real(self, evaluation))  # type: ignore[arg-type]
        real(self, evaluation)  # type: ignore[arg-type]

    Trainer._save = save  # type: ignore[method-assign,assignment]
    options = TrainOptions(
        cfg=sys.argv[2] + "/tiny.yaml",
        data=sys.argv[1],
        epochs=2,
        batch_size=4,
        imgsz=64,
        device="cpu",
        workers=0,
        project=sys.argv[2],
        noplots=True,
    )
    run_training(options)
    print(json.dumps(OUTCOMES))


if __name__ == "__main__":
    main()

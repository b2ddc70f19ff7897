"""Train two epochs, and break the second save at each of its calls that change files, in a child process each time.

`every_call.py DATA FOLDER`, with the library made of break_calls.c preloaded and named in BREAK_CALLS. Prints what was
found as JSON: for each way to break, one entry for every call.
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
from utils.training.run import _intact, run_training
from utils.training.trainer import Trainer

WAYS = {"SIGKILL": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
KILLED, REFUSED = -9, 3
CALLS = ctypes.CDLL(os.environ["BREAK_CALLS"])
FOUND: dict[str, list[dict[str, object]]] = {}


def in_child(act: Callable[[], None], number: int, code: int) -> tuple[int, str, int]:
    """Do something in a process of its own whose n-th call breaks; return how it ended, what it said, and its calls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        ending, said = 0, ""
        CALLS.arm(number, code)
        try:
            act()
        except RunError as error:
            ending, said = REFUSED, str(error)
        except BaseException as error:
            ending, said = 1, repr(error)
        calls = CALLS.counted()
        CALLS.arm(-1, 0)
        os.write(writer, json.dumps([said, calls]).encode())
        os._exit(ending)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        said, calls = json.loads(told.read() or b'["", 0]')
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said, calls


def look(run: Path) -> dict[str, object]:
    """Say what a broken save has left."""
    leftovers = sorted(path.name for path in run.rglob("*.tmp"))
    remove_leftovers(run)
    with contextlib.redirect_stderr(io.StringIO()):
        content, path = _intact(run / "weights/last.pt")
    rows = (run / "results.csv").read_text().splitlines()
    return {
        "epochs": content["progress"]["epoch"],
        "from": path.name,
        "rows": len(rows) - 1,
        "leftovers": len(leftovers),
        "still": len(list(run.rglob("*.tmp"))),
    }


def break_every_call(trainer: Trainer, save: Callable[[], None]) -> None:
    """Save in children, each time from the same folder, until a save goes through."""
    kept = trainer.run_dir.with_name("kept")
    shutil.copytree(trainer.run_dir, kept)
    calls = in_child(save, 0, 0)[2]
    for way, code in WAYS.items():
        FOUND[way] = []
        for number in range(1, calls + 1):
            shutil.rmtree(trainer.run_dir)
            shutil.copytree(kept, trainer.run_dir)
            ending, said, _ = in_child(save, number, code)
            FOUND[way].append({"ending": ending, "said": said, **look(trainer.run_dir)})
    shutil.rmtree(trainer.run_dir)
    shutil.copytree(kept, trainer.run_dir)


def main() -> None:
    real = Trainer._save

    def save(self: Trainer, evaluation: object) -> None:
        if self.progress.epoch == 2:
            self.progress.best_epoch = 1  # so that best.pt is written as well
            break_every_call(self, lambda: real(self, evaluation))  # type: ignore[arg-type]
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
    print(json.dumps(FOUND))


if __name__ == "__main__":
    main()

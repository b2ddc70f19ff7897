"""Ctrl-C and SIGTERM while a comparison trains: with a stand-in for train.py, which saves for a moment when asked."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from utils.cli import run_script
from utils.comparison.jobs import finish_runs
from utils.comparison.plan import PlannedRun
from utils.errors import RunStopped
from utils.options import TrainOptions
from utils.signals import GracefulShutdown

STAND_IN = """
import os, pathlib, signal, sys, time
words = sys.argv[1:]
folder = pathlib.Path(words[words.index("--project") + 1], words[words.index("--name") + 1])
signals = []
signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))
signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
(folder / "weights").mkdir(parents=True)
(folder / "started.tmp").write_text(f"{os.getpid()} {os.getsid(0)}")
(folder / "started.tmp").rename(folder / "started")
deadline = time.time() + 30
while not signals and time.time() < deadline:
    time.sleep(0.01)
until = time.time() + (30 if pathlib.Path("slow").exists() else 0.6 if folder.name == "b" else 0.3)
while time.time() < until:
    time.sleep(0.01)
(folder / "weights/last.pt").write_text(" ".join(map(str, signals)))
print("error: the disk is full" if pathlib.Path("full").exists() else "stopped: saved")
sys.exit(1 if pathlib.Path("full").exists() else 143)
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PlannedRun]]:
    """Two runs that go on until they are asked to stop, and a third that has to wait for a place."""
    (tmp_path / "train.py").write_text(STAND_IN)
    monkeypatch.setattr("utils.comparison.jobs.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("utils.comparison.jobs.POLL_SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so by those who ask first
    yield [
        PlannedRun(model=name, seed=0, options=TrainOptions(cfg="yolov5n.yaml", project="runs", name=name))
        for name in ("a", "b", "c")
    ]
    signal.signal(signal.SIGHUP, before)


def started(runs: list[PlannedRun]) -> list[tuple[int, int]]:
    """Wait until the first two run; return process and session of each."""
    deadline = time.monotonic() + 20
    while not all((run.folder / "started").is_file() for run in runs[:2]) and time.monotonic() < deadline:
        time.sleep(0.01)
    texts = [(run.folder / "started").read_text().split() for run in runs[:2]]
    return [(int(process), int(session)) for process, session in texts]


def meanwhile(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_reaches_each_training_once_and_is_waited_for(runs, number, exit_code, caplog):
    caplog.set_level("INFO")
    seen: list[tuple[int, int]] = []

    def stop() -> None:
        seen.extend(started(runs))
        send(number)
        if number == signal.SIGHUP:  # as a terminal that closes does, and then its shell
            time.sleep(0.1)
            send(number)

    thread = meanwhile(stop)
    with pytest.raises(RunStopped, match=r"0 of 3 runs finished.*Fix: go on with the same command\.") as stopped:
        finish_runs(runs, jobs=2)
    thread.join()
    assert stopped.value.exit_code == exit_code
    assert [(run.folder / "weights/last.pt").read_text() for run in runs[:2]] == [str(int(signal.SIGTERM))] * 2
    assert not runs[2].log.exists(), "nothing is started any more"
    assert all(process == session for process, session in seen), "a terminal's Ctrl-C must not reach a training"
    assert not any(is_alive(process) for process, _ in seen)
    assert "failed" not in caplog.text and "a: stopped after 0 of 100 epochs" in caplog.text


def test_a_second_signal_ends_trainings_at_once(runs, tmp_path):
    (tmp_path / "slow").touch()
    seen: list[tuple[int, int]] = []

    def stop() -> None:
        seen.extend(started(runs))
        send(signal.SIGTERM)
        time.sleep(0.3)
        send(signal.SIGTERM)

    begin = time.monotonic()
    thread = meanwhile(stop)
    with pytest.raises(RunStopped, match="last checkpoint") as stopped:
        finish_runs(runs, jobs=2)
    thread.join()
    assert stopped.value.exit_code == 143 and time.monotonic() - begin < 20
    assert len(seen) == 2 and not any(is_alive(process) for process, _ in seen)
    assert not any((run.folder / "weights/last.pt").exists() for run in runs)


def test_a_training_that_could_not_save_is_told(runs, tmp_path, caplog):
    (tmp_path / "full").touch()
    thread = meanwhile(lambda: (started(runs), send(signal.SIGTERM)))  # type: ignore[arg-type, return-value]
    with pytest.raises(RunStopped):
        finish_runs(runs, jobs=2)
    thread.join()
    assert sum("failed after" in record.getMessage() for record in caplog.records) == 2
    assert "the disk is full" in caplog.text


def test_trainings_are_saved_when_the_comparison_itself_fails(runs, monkeypatch):
    plain = subprocess.Popen
    processes = []

    def second_fails(*words: object, **settings: object) -> object:
        if processes:
            while not (runs[0].folder / "started").is_file():
                time.sleep(0.01)
            raise BlockingIOError("no more processes")
        processes.append(plain(*words, **settings))  # type: ignore[call-overload]
        return processes[0]

    monkeypatch.setattr("utils.comparison.jobs.subprocess.Popen", second_fails)
    with pytest.raises(BlockingIOError):
        finish_runs(runs, jobs=2)
    assert processes[0].poll() == 143
    assert (runs[0].folder / "weights/last.pt").read_text() == str(int(signal.SIGTERM))


def test_the_terminals_closing_is_no_wish_under_nohup_nor_where_it_is_not_asked_for():
    before = signal.getsignal(signal.SIGHUP)
    with GracefulShutdown():
        assert signal.getsignal(signal.SIGHUP) == before
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown(hang_up=True) as stop:
            send(signal.SIGHUP)
        assert stop.signal is None and stop.exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_a_script_that_is_stopped_says_so_in_one_line(runs, monkeypatch, capsys):
    monkeypatch.setattr("utils.cli.enable_console", lambda: None)  # which would keep records from other tests
    thread = meanwhile(lambda: (started(runs), send(signal.SIGTERM)))  # type: ignore[arg-type, return-value]
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: finish_runs(runs, jobs=2))  # type: ignore[arg-type, return-value]
    thread.join()
    line = "stopped: with 0 of 3 runs finished, the others saved as far as they came. Fix: go on with the same command."
    assert ended.value.code == 143 and capsys.readouterr().err.splitlines() == [line]

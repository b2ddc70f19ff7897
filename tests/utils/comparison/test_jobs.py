"""Parallel trainings of a comparison, with stand-ins for train.py in real processes."""

import io
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from utils.cli import run_script
from utils.comparison.candidates import from_configs
from utils.comparison.jobs import finish_runs, last_error
from utils.comparison.plan import PlannedRun, plan_runs
from utils.errors import RunStopped
from utils.options import CompareOptions, TrainOptions

pytestmark = pytest.mark.slow

SHORT_TRAINING = """
import os, pathlib, sys, time
words = sys.argv[1:]
with open("calls.txt", "a") as calls:
    calls.write(" ".join([os.environ.get("OMP_NUM_THREADS", "-"), *words]) + "\\n")
if "--resume" in words:
    folder = pathlib.Path(words[words.index("--resume") + 1]).parent.parent
else:
    folder = pathlib.Path(words[words.index("--project") + 1], words[words.index("--name") + 1])
(folder / "weights").mkdir(parents=True, exist_ok=True)
print("猫")  # in UTF-8, whatever the console's encoding is
(folder / "results.csv").write_text("epoch,metrics/mAP_0.5:0.95\\n0,0.1\\n1,0.25\\n")
time.sleep(0.1)
if "akconv-seed1" in folder.name and not pathlib.Path("fixed").exists():
    print("error: epoch 0: the loss is not finite. Fix: lower lr0.", file=sys.stderr)
    sys.exit(1)
(folder / "weights/best.pt").write_bytes(b"weights")
(folder / "summary.json").write_text("{}")
"""
# Lasts until it is terminated, and then takes a moment to save its state.
ENDLESS_TRAINING = """
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
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(SHORT_TRAINING)
    monkeypatch.setattr("utils.comparison.jobs.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("utils.comparison.jobs.POLL_SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def candidates():
    return from_configs(["yolov5n.yaml", "yolov5n-akconv.yaml"])


def options(**changes: object) -> CompareOptions:
    return CompareOptions(cfg=("yolov5n.yaml", "yolov5n-akconv.yaml"), seeds=(0, 1), **changes)  # type: ignore[arg-type]


def calls(workplace: Path) -> list[str]:
    return (workplace / "calls.txt").read_text().splitlines()


def test_a_failed_run_leaves_the_others_alone_and_finished_runs_are_not_repeated(
    workplace, candidates, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    runs = plan_runs(options(jobs=2), candidates, Path("runs"))
    (failure,) = finish_runs(runs, jobs=2)
    assert failure.run is runs[3] and failure.exit_code == 1
    assert failure.reason == "epoch 0: the loss is not finite. Fix: lower lr0."
    assert [run.is_finished for run in runs] == [True, True, True, False]
    assert "猫" in runs[0].log.read_text(encoding="utf-8")
    for number, run in enumerate(runs, 1):
        started, *epochs = [line for line in caplog.messages if line.startswith(f"run {number} of 4, ")]
        assert str(run.log) in started and len(epochs) == 1
        assert all(re.search(r": epoch 2/100, mAP50-95 0\.250; about [\d:]+ left", line) for line in epochs)
    (workplace / "fixed").touch()
    before = len(calls(workplace))
    assert finish_runs(runs, jobs=2) == []
    (again,) = calls(workplace)[before:]
    assert "--name yolov5n-akconv-seed1" in again


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_for_each_job_and_one_for_all(workplace, candidates, monkeypatch, caplog):
    caplog.set_level("INFO")
    (workplace / "fixed").touch()
    terminal = Terminal()
    runs = plan_runs(options(jobs=2), candidates, Path("runs"))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        patch.setattr("sys.stdout", terminal)
        assert finish_runs(runs[:3], jobs=2) == []
    frames = [frame.strip() for frame in re.split(r"[\r\n]|\x1b\[A", terminal.getvalue()) if frame.strip()]
    assert max(map(len, frames)) < 80
    order = [frame[4] for frame in frames if frame.startswith("run ")]
    assert "121" in "".join(order), "both bars move at the same time"
    for number in "123":
        assert any(re.fullmatch(rf"run {number} of 3, .* 2/100, mAP50-95 0\.250, [\d:]+ left", f) for f in frames)
    assert any(re.fullmatch(r"all 3 runs .* \d+/300, [\d:]+ left", frame) for frame in frames)
    assert not [message for message in caplog.messages if "epoch 2/100" in message]
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)  # while the output goes to a file
        finish_runs(runs[3:], jobs=1)
    assert len([message for message in caplog.messages if "epoch 2/100" in message]) == 1


def test_an_interrupted_run_is_resumed(workplace, candidates):
    run = plan_runs(options(), candidates, Path("runs"))[0]
    run.last.parent.mkdir(parents=True)
    run.last.touch()
    assert finish_runs([run], jobs=1) == []
    assert f"--resume {run.folder}/weights/last.pt" in calls(workplace)[0]


def test_jobs_divide_the_threads(workplace, candidates, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runs = plan_runs(options(jobs=4), candidates, Path("runs"))
    finish_runs(runs[:1], jobs=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    finish_runs(runs[1:2], jobs=4)
    finish_runs(runs[2:3], jobs=1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [line.split()[0] for line in calls(workplace)] == ["2", "1", "1"]


def test_the_reason_of_a_failure_is_the_last_error_or_else_the_last_line(tmp_path):
    log = tmp_path / "a.log"
    assert last_error(log) == "no output"
    for text, reason in (("one\nKilled\n\n", "Killed"), ("error: a\nerror: b\nmore", "b"), ("\n", "no output")):
        log.write_text(text)
        assert last_error(log) == reason


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PlannedRun]]:
    """Two runs that last until they are terminated, and a third that waits for a free job."""
    (tmp_path / "train.py").write_text(ENDLESS_TRAINING)
    monkeypatch.setattr("utils.comparison.jobs.PROJECT_ROOT", tmp_path)
    monkeypatch.setattr("utils.comparison.jobs.POLL_SECONDS", 0.02)
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which is ignored under nohup
    yield [
        PlannedRun(model=name, options=TrainOptions(cfg="yolov5n.yaml", project="runs", name=name))
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


def send(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_a_signal_reaches_each_training_once_and_is_waited_for(runs, signal_number, exit_code, caplog):
    caplog.set_level("INFO")
    seen: list[tuple[int, int]] = []

    def stop() -> None:
        seen.extend(started(runs))
        send(signal_number)
        if signal_number == signal.SIGHUP:  # as a terminal that closes does, and then its shell
            time.sleep(0.1)
            send(signal_number)

    thread = meanwhile(stop)
    with pytest.raises(RunStopped) as stopped:
        finish_runs(runs, jobs=2)
    thread.join()
    assert stopped.value.exit_code == exit_code and "0 of 3" in stopped.value.what
    assert [(run.folder / "weights/last.pt").read_text() for run in runs[:2]] == [str(int(signal.SIGTERM))] * 2
    assert not runs[2].log.exists(), "no other run is started"
    assert all(process == session for process, session in seen), "a terminal's Ctrl-C must not reach a training"
    assert not any(is_alive(process) for process, _ in seen)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert [message for message in caplog.messages if "a: " in message and "0 of 100" in message]


def test_a_second_signal_kills_the_trainings(runs, tmp_path):
    (tmp_path / "slow").touch()
    seen: list[tuple[int, int]] = []

    def stop() -> None:
        seen.extend(started(runs))
        send(signal.SIGTERM)
        time.sleep(0.3)
        send(signal.SIGTERM)

    begin = time.monotonic()
    thread = meanwhile(stop)
    with pytest.raises(RunStopped) as stopped:
        finish_runs(runs, jobs=2)
    thread.join()
    assert stopped.value.exit_code == 143 and time.monotonic() - begin < 20
    assert len(seen) == 2 and not any(is_alive(process) for process, _ in seen)
    assert not any((run.folder / "weights/last.pt").exists() for run in runs)


def test_a_training_that_cannot_save_its_state_is_a_warning(runs, tmp_path, caplog):
    (tmp_path / "full").touch()
    thread = meanwhile(lambda: (started(runs), send(signal.SIGTERM)))  # type: ignore[arg-type, return-value]
    with pytest.raises(RunStopped):
        finish_runs(runs, jobs=2)
    thread.join()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 2 and all("the disk is full" in warning for warning in warnings)


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


def test_an_interrupted_script_prints_one_line(runs, monkeypatch, capsys):
    monkeypatch.setattr("utils.cli.enable_console", lambda: None)  # which would keep records from other tests
    thread = meanwhile(lambda: (started(runs), send(signal.SIGTERM)))  # type: ignore[arg-type, return-value]
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: finish_runs(runs, jobs=2))  # type: ignore[arg-type, return-value]
    thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 143 and "0 of 3 runs" in line

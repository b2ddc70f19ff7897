"""Parallel trainings of a comparison, with a stand-in for train.py in real processes."""

from pathlib import Path

import pytest

from utils.comparison.candidates import from_configs
from utils.comparison.jobs import finish_runs, last_error
from utils.comparison.plan import plan_runs
from utils.options import CompareOptions

STAND_IN = """
import os, pathlib, sys, time
words = sys.argv[1:]
with open("calls.txt", "a") as calls:
    calls.write(" ".join([os.environ.get("OMP_NUM_THREADS", "-"), *words]) + "\\n")
if "--resume" in words:
    folder = pathlib.Path(words[words.index("--resume") + 1]).parent.parent
else:
    folder = pathlib.Path(words[words.index("--project") + 1], words[words.index("--name") + 1])
(folder / "weights").mkdir(parents=True, exist_ok=True)
(folder / "results.csv").write_text("epoch\\n0\\n")
if "akconv-seed1" in folder.name and not pathlib.Path("fixed").exists():
    print("error: epoch 0: the loss is not finite. Fix: lower lr0.", file=sys.stderr)
    sys.exit(1)
(folder / "weights/best.pt").write_bytes(b"weights")
(folder / "summary.json").write_text("{}")
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "train.py").write_text(STAND_IN)
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


def test_a_failed_run_leaves_the_others_alone_and_finished_runs_are_not_repeated(workplace, candidates):
    runs = plan_runs(options(jobs=2), candidates, Path("runs"))
    (failure,) = finish_runs(runs, jobs=2)
    assert failure.run is runs[3] and failure.exit_code == 1
    assert failure.reason == "epoch 0: the loss is not finite. Fix: lower lr0."
    assert [run.is_finished for run in runs] == [True, True, True, False]
    (workplace / "fixed").touch()
    before = len(calls(workplace))
    assert finish_runs(runs, jobs=2) == []
    (again,) = calls(workplace)[before:]
    assert "--name yolov5n-akconv-seed1" in again


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

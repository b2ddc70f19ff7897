"""Planning and running of a comparison's trainings, with a stand-in for train.py in real processes."""

import json
from pathlib import Path

import pytest

from models.config import load_model_config
from utils.cli import build_parser
from utils.comparison.candidates import from_configs, keep_configs
from utils.comparison.jobs import FailedRun, finish_runs
from utils.comparison.logs import epochs_done, last_error, peak_memory_gb
from utils.comparison.plan import PlannedRun, plan_runs
from utils.comparison.run import run_comparison
from utils.errors import ConfigError, RunError
from utils.options import CompareOptions, TrainOptions
from utils.options.hyperparameters import load_hyperparameters
from utils.strict_yaml import dump_yaml

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
print("       0/1      1.25G       0.1\\n       1/1      0.75G       0.1")
if "akconv-seed1" in folder.name and not pathlib.Path("mended").exists():
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


def test_a_crash_does_not_stop_the_others_and_finished_runs_are_not_repeated(workplace, candidates):
    runs = plan_runs(options(jobs=2), candidates, Path("runs"))
    assert [run.folder.name for run in runs] == [
        "yolov5n-seed0",
        "yolov5n-akconv-seed0",
        "yolov5n-seed1",
        "yolov5n-akconv-seed1",
    ]
    (failure,) = finish_runs(runs, jobs=2)
    assert failure.run is runs[3] and failure.exit_code == 1
    assert failure.reason == "epoch 0: the loss is not finite. Fix: lower lr0."
    assert [run.finished for run in runs] == [True, True, True, False]
    (workplace / "mended").touch()
    before = (workplace / "calls.txt").read_text().splitlines()
    assert finish_runs(runs, jobs=2) == []
    (again,) = (workplace / "calls.txt").read_text().splitlines()[len(before) :]
    assert "--name yolov5n-akconv-seed1" in again and peak_memory_gb(runs[0].log) == 1.25


def test_a_run_that_was_stopped_goes_on(workplace, candidates):
    run = plan_runs(options(), candidates, Path("runs"))[0]
    (run.folder / "weights").mkdir(parents=True)
    (run.folder / "weights/last.pt").write_bytes(b"")
    assert finish_runs([run], jobs=1) == []
    assert f"--resume {run.folder}/weights/last.pt" in (workplace / "calls.txt").read_text()


def test_threads_are_shared_out_among_jobs(workplace, candidates, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runs = plan_runs(options(jobs=4), candidates, Path("runs"))
    assert runs[0].options.workers == 2
    finish_runs(runs[:1], jobs=4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    finish_runs(runs[1:2], jobs=4)
    finish_runs(runs[2:3], jobs=1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    calls = [line.split()[0] for line in (workplace / "calls.txt").read_text().splitlines()]
    assert calls == ["2", "1", "1"]


def test_the_words_mean_the_same_options_to_train_py(candidates):
    given = options(imgsz=96, optimizer="AdamW", cos_lr=True, device="cpu", plugins=("a.py", "b.py"), workers=0)
    run = plan_runs(given, candidates, Path("runs/c"))[3]
    values = vars(build_parser(TrainOptions, description="").parse_args(run.words(resumed=False)))
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    assert TrainOptions(**values) == run.options
    assert run.options.seed == 1 and run.command().startswith("python train.py --cfg yolov5n-akconv.yaml")


def test_the_same_data_order_and_settings_for_all(candidates):
    runs = plan_runs(options(imgsz=96, epochs=7), candidates, Path("runs"))
    plain = [{**vars(run.options), "cfg": "", "name": "", "seed": 0} for run in runs]
    assert all(one == plain[0] for one in plain)


def test_a_folder_with_other_settings_is_refused(workplace, candidates):
    run = plan_runs(options(), candidates, Path("runs"))[0]
    stored = json.loads(json.dumps({**vars(run.options), "epochs": 5, "device": "0", "workers": 3}))
    dump_yaml(run.folder / "opt.yaml", stored)
    with pytest.raises(ConfigError, match=r"other settings \(--epochs\)"):
        plan_runs(options(), candidates, Path("runs"))
    del stored["cos_lr"]  # a run of an older version knows fewer options
    dump_yaml(run.folder / "opt.yaml", {**stored, "epochs": 100})
    assert plan_runs(options(), candidates, Path("runs"))
    dump_yaml(run.folder / "hyp.yaml", {**candidates[0].hyperparameters, "lr0": 0.5})
    with pytest.raises(ConfigError, match=r"other hyperparameters \(lr0\)"):
        plan_runs(options(), candidates, Path("runs"))
    dump_yaml(run.folder / "hyp.yaml", {"lr0": candidates[0].hyperparameters["lr0"]})
    assert plan_runs(options(), candidates, Path("runs"))


def test_a_changed_yaml_is_not_mixed_with_runs_of_the_old_one(workplace):
    source = Path(__file__).resolve().parents[3] / "models/yolov5n.yaml"
    mine = workplace / "mine.yaml"
    mine.write_text(source.read_text())
    keep_configs(workplace / "runs", from_configs([str(mine)]))
    keep_configs(workplace / "runs", from_configs([str(mine)]))
    mine.write_text(source.read_text().replace("width_multiple: 0.25", "width_multiple: 0.5"))
    with pytest.raises(ConfigError, match="has changed since"):
        keep_configs(workplace / "runs", from_configs([str(mine)]))
    (mine.parent / "hyp.yaml").write_text((source.parents[1] / "data/hyps/hyp.scratch-low.yaml").read_text())
    keep_configs(workplace / "others", from_configs(["yolov5n.yaml"], hyps=["hyp.yaml"]))
    (mine.parent / "hyp.yaml").write_text((source.parents[1] / "data/hyps/hyp.scratch-high.yaml").read_text())
    with pytest.raises(ConfigError, match=r"hyp\.yaml: has changed since"):
        keep_configs(workplace / "others", from_configs(["yolov5n.yaml"], hyps=["hyp.yaml"]))


def test_every_model_is_trained_with_every_hyperparameter_yaml(workplace):
    (workplace / "hyp.slow.yaml").write_text(
        yaml_of("hyp.scratch-low.yaml").replace("offset_lr: 0.1", "offset_lr: 0.05")
    )
    hyps = ("hyp.scratch-low.yaml", "hyp.slow.yaml", "hyp.scratch-high.yaml")
    given = CompareOptions(cfg=("yolov5n.yaml", "yolov5n-AKConv.yaml"), hyp=hyps, seeds=(0, 1))
    runs = plan_runs(given, from_configs(given.cfg, hyps=given.hyp), Path("runs"))
    assert [(run.model, run.options.hyp) for run in runs[:5]] == [
        ("yolov5n-scratch-low", "hyp.scratch-low.yaml"),
        ("yolov5n-scratch-high", "hyp.scratch-high.yaml"),  # offset_lr alone changes nothing in yolov5n
        ("yolov5n-AKConv-scratch-low", "hyp.scratch-low.yaml"),
        ("yolov5n-AKConv-slow", "hyp.slow.yaml"),
        ("yolov5n-AKConv-scratch-high", "hyp.scratch-high.yaml"),
    ]
    assert len(runs) == 10 and runs[3].folder.name == "yolov5n-AKConv-slow-seed0"
    assert "--hyp hyp.slow.yaml" in runs[3].command()


def yaml_of(name: str) -> str:
    return (Path(__file__).resolve().parents[3] / "data/hyps" / name).read_text()


def test_last_words_of_a_log(tmp_path):
    log = tmp_path / "a.log"
    assert last_error(log) == "no output" and peak_memory_gb(log) is None
    log.write_text("one\nKilled\n\n")
    assert last_error(log) == "Killed" and peak_memory_gb(log) is None
    assert epochs_done(tmp_path) == 0
    (tmp_path / "results.csv").write_text("epoch\n0\n1\n")
    assert epochs_done(tmp_path) == 2


def test_a_swept_hyperparameter_reaches_train_py_in_a_yaml_of_its_own(data, tmp_path, monkeypatch):
    seen: list[PlannedRun] = []

    def fail_all(runs: list[PlannedRun], *, jobs: int) -> list[FailedRun]:
        seen.extend(runs)
        return [FailedRun(run=run, exit_code=1, reason="not now") for run in runs]

    monkeypatch.setattr("utils.comparison.run.finish_runs", fail_all)
    words = ("hyp.offset_lr", "1.0", "0.1", "AKConv.padding", "border", "zeros")
    given = CompareOptions(
        cfg=("yolov5n.yaml", "yolov5n-AKConv.yaml"), sweep=words, data=str(data), device="cpu", project=str(tmp_path)
    )
    with pytest.raises(RunError, match="5 of 5 runs failed"):
        run_comparison(given)
    swept = {run.model.removeprefix("yolov5n-AKConv-"): run for run in seen[2:]}
    rates = {label: load_hyperparameters(run.options.hyp).offset_lr for label, run in swept.items()}
    assert rates == {
        "offset_lr-1.0-padding-border": 1.0,
        "offset_lr-1.0-padding-zeros": 1.0,
        "offset_lr-0.1-padding-zeros": 0.1,
    }
    fast = swept["offset_lr-1.0-padding-border"]
    assert (
        fast.options.hyp == str(tmp_path / f"exp/configs/{fast.model}.hyp.yaml")
        and f"--hyp {fast.options.hyp}" in fast.command()
    )
    assert load_model_config(fast.options.cfg).to_dict() == load_model_config("yolov5n-AKConv.yaml").to_dict()
    assert swept["offset_lr-0.1-padding-zeros"].options.hyp == "hyp.scratch-low.yaml", "as nothing in it is changed"

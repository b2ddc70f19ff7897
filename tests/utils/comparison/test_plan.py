"""The runs that a comparison plans, and the folder that it takes; nothing is trained."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from models.config import load_model_config
from tests.helpers.comparison import trained_model
from utils.cli import build_parser
from utils.comparison.candidates import ToTrain, from_configs
from utils.comparison.jobs import FailedRun
from utils.comparison.plan import MANIFEST, OLD_MANIFEST, Manifest, PlannedRun, choose_folder, plan_runs
from utils.comparison.run import run_comparison
from utils.errors import ConfigError, RunError, RunStopped
from utils.files import dump_json, load_json
from utils.locks import FolderLock
from utils.options import CompareOptions, TrainOptions
from utils.options.hyperparameters import load_hyperparameters
from utils.strict_yaml import dump_yaml

TWO = ("yolov5n.yaml", "yolov5n-akconv.yaml")
HYPS = Path(__file__).resolve().parents[3] / "data/hyps"


@pytest.fixture(scope="module")
def known() -> dict[str, ToTrain]:
    cfgs = (*TWO, "yolov5s.yaml")
    return dict(zip(cfgs, from_configs(cfgs), strict=True))


@pytest.fixture
def two(known: dict[str, ToTrain]) -> list[ToTrain]:
    return [known[cfg] for cfg in TWO]


def options(**changes: object) -> CompareOptions:
    return CompareOptions(**{"cfg": TWO, "seeds": (0, 1), **changes})  # type: ignore[arg-type]


def test_runs_are_planned_seed_by_seed_with_equal_settings(two):
    runs = plan_runs(options(imgsz=96, epochs=7), two, Path("runs"))
    names = ["yolov5n-seed0", "yolov5n-akconv-seed0", "yolov5n-seed1", "yolov5n-akconv-seed1"]
    assert [run.folder for run in runs] == [Path("runs") / name for name in names]
    assert runs[0].log == Path("runs/yolov5n-seed0.log")
    settings = [replace(run.options, cfg="", name="x", seed=0) for run in runs]
    assert all(one == settings[0] for one in settings) and (settings[0].imgsz, settings[0].epochs) == (96, 7)


def test_parallel_jobs_divide_the_data_workers(two, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert plan_runs(options(jobs=4), two, Path("runs"))[0].options.workers == 2
    assert plan_runs(options(jobs=1), two, Path("runs"))[0].options.workers == 8


def test_train_py_parses_the_arguments_to_the_planned_options(two):
    more = {"freeze": (0, 2), "multi_scale": True, "single_cls": True, "label_smoothing": 0.1, "fraction": 0.25}
    planned = options(
        imgsz=96,
        optimizer="AdamW",
        cos_lr=True,
        device="cpu",
        plugins=("a.py", "b.py"),
        workers=0,
        pretrained="w.pt",
        **more,
    )
    run = plan_runs(planned, two, Path("runs/c"))[3]
    values = vars(build_parser(TrainOptions, description="").parse_args(run.argv(resume=False)))
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    assert TrainOptions(**values) == run.options
    assert run.options.weights == "w.pt" and {key: getattr(run.options, key) for key in more} == more
    assert run.options.seed == 1 and run.command().startswith("python train.py --cfg yolov5n-akconv.yaml")
    last = str(run.folder / "weights/last.pt")
    assert run.argv(resume=True) == ["--resume", last, "--workers", "0", "--device", "cpu"]


def test_a_run_with_other_settings_is_rejected(two, tmp_path):
    run = plan_runs(options(), two, tmp_path)[0]

    def rejected() -> str:
        with pytest.raises(ConfigError) as error:
            plan_runs(options(), two, tmp_path)
        assert error.value.where == str(run.folder)
        return error.value.what

    stored = json.loads(json.dumps({**asdict(run.options), "epochs": 5, "device": "0", "workers": 3}))
    dump_yaml(run.folder / "opt.yaml", stored)
    assert "(--epochs)" in rejected()
    del stored["cos_lr"]  # a run of an older version has fewer options
    del stored["fraction"]
    dump_yaml(run.folder / "opt.yaml", {**stored, "epochs": 100})
    assert plan_runs(options(), two, tmp_path)
    for changes in ({"fraction": 0.5}, {"pretrained": "w.pt"}):
        with pytest.raises(ConfigError):
            plan_runs(options(**changes), two, tmp_path)
    dump_yaml(run.folder / "hyp.yaml", {**two[0].hyperparameters, "lr0": 0.5, "lrf": 0.6})
    assert "(lr0, lrf)" in rejected()
    dump_yaml(run.folder / "hyp.yaml", {"lr0": two[0].hyperparameters["lr0"]})
    assert plan_runs(options(), two, tmp_path)


def test_every_model_is_trained_with_every_hyperparameter_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    low = (HYPS / "hyp.scratch-low.yaml").read_text()
    Path("hyp.slow.yaml").write_text(low.replace("offset_lr: 0.1", "offset_lr: 0.05"))
    hyps = ("hyp.scratch-low.yaml", "hyp.slow.yaml", "hyp.scratch-high.yaml")
    given = options(cfg=("yolov5n.yaml", "yolov5n-AKConv.yaml"), hyp=hyps)
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


def test_a_swept_hyperparameter_reaches_train_py_in_a_yaml_of_its_own(data, tmp_path, monkeypatch):
    seen: list[PlannedRun] = []

    def fail_all(runs: list[PlannedRun], *, jobs: int) -> list[FailedRun]:
        seen.extend(runs)
        return [FailedRun(run=run, exit_code=1, reason="not now") for run in runs]

    monkeypatch.setattr("utils.comparison.run.finish_runs", fail_all)
    sweep = ("hyp.offset_lr", "1.0", "0.1", "AKConv.padding", "border", "zeros")
    cfg = ("yolov5n.yaml", "yolov5n-AKConv.yaml")
    with pytest.raises(RunError) as error:
        run_comparison(CompareOptions(cfg=cfg, sweep=sweep, data=str(data), device="cpu", project=str(tmp_path)))
    assert error.value.where == str(tmp_path / "exp") and len(seen) == 5
    swept = {run.model.removeprefix("yolov5n-AKConv-"): run for run in seen[2:]}
    assert {label: load_hyperparameters(run.options.hyp).offset_lr for label, run in swept.items()} == {
        "offset_lr-1.0-padding-border": 1.0,
        "offset_lr-1.0-padding-zeros": 1.0,
        "offset_lr-0.1-padding-zeros": 0.1,
    }
    fast = swept["offset_lr-1.0-padding-border"]
    assert fast.options.hyp == str(tmp_path / f"exp/configs/{fast.model}.hyp.yaml")
    assert f"--hyp {fast.options.hyp}" in fast.command()
    assert load_model_config(fast.options.cfg).to_dict() == load_model_config("yolov5n-AKConv.yaml").to_dict()
    assert swept["offset_lr-0.1-padding-zeros"].options.hyp == "hyp.scratch-low.yaml", "as none of its values changes"


@pytest.mark.slow
def test_combinations_of_switches_are_trained_after_the_models_and_may_be_extended(data, tmp_path, monkeypatch):
    seen: list[PlannedRun] = []

    def fail_all(runs: list[PlannedRun], *, jobs: int) -> list[FailedRun]:
        seen[:] = runs
        return [FailedRun(run=run, exit_code=1, reason="not now") for run in runs]

    monkeypatch.setattr("utils.comparison.run.finish_runs", fail_all)
    switches = ("zeros:AKConv.padding=zeros", "slow down:hyp.offset_lr=0.01")
    settings = {"cfg": ("yolov5n.yaml", "yolov5n-AKConv.yaml"), "data": str(data), "project": str(tmp_path)}
    for design, count in (("cumulative", 4), ("factorial", 5)):
        with pytest.raises(RunError) as error:
            run_comparison(CompareOptions(**settings, device="cpu", ablation=switches, design=design))
        assert error.value.where == str(tmp_path / "exp")
        assert len(seen) == count and [run.model for run in seen[:2]] == ["yolov5n", "yolov5n-AKConv"]
    one = next(run for run in seen if run.model == "yolov5n-AKConv+zeros+slow-down")
    assert load_hyperparameters(one.options.hyp).offset_lr == 0.01 and Path(one.options.cfg).stem == one.model
    assert load_model_config(one.options.cfg).layers[1].kwargs == {"padding": "zeros"}


def test_each_data_set_has_its_runs_in_a_folder_of_its_own(data, tmp_path, monkeypatch):
    seen: list[PlannedRun] = []

    def fail_all(runs: list[PlannedRun], *, jobs: int) -> list[FailedRun]:
        seen.extend(runs)
        return [FailedRun(run=run, exit_code=1, reason="not now") for run in runs]

    monkeypatch.setattr("utils.comparison.run.finish_runs", fail_all)
    other = data.with_name("other.yaml")
    other.write_bytes(data.read_bytes())
    settings = {"cfg": ("yolov5n.yaml", "yolov5s.yaml"), "device": "cpu", "project": str(tmp_path)}
    with pytest.raises(RunError) as error:
        run_comparison(CompareOptions(**settings, data=(str(data), str(other))))
    assert [run.title for run in seen] == [
        f"{stem}/{model}-seed0" for stem in (data.stem, "other") for model in ("yolov5n", "yolov5s")
    ]
    assert all(run.folder == tmp_path / "exp" / run.title for run in seen)
    assert [run.options.data for run in seen] == [str(data)] * 2 + [str(other)] * 2
    assert "4 of 4" in error.value.what and (tmp_path / "exp/other/configs/yolov5s.yaml").is_file()


def test_a_comparison_is_continued_on_more_data_sets_but_not_from_one(known, tmp_path):
    assert folder_of(known, tmp_path, data=("a.yaml", "b.yaml")) == "exp"
    assert folder_of(known, tmp_path, data=("c.yaml", "b.yaml", "a.yaml")) == "exp"
    assert folder_of(known, tmp_path, data=("c.yaml", "d.yaml")) == "exp2"
    assert folder_of(known, tmp_path, data="a.yaml") == "exp3"
    assert folder_of(known, tmp_path, data=("a.yaml", "x.yaml")) == "exp4", "the runs of one set are in the folder"
    assert json.loads((tmp_path / "exp3" / MANIFEST).read_text())["settings"]["data"] == "a.yaml"


def folder_of(
    known: dict[str, ToTrain],
    project: Path,
    *,
    named: bool = False,
    weights: tuple[str, ...] = (),
    **changes: object,
) -> str:
    """Start a comparison as `run_comparison` does, and return its folder's name."""
    options = CompareOptions(**{"cfg": TWO, "weights": weights, "project": str(project), **changes})  # type: ignore[arg-type]
    finished = [trained_model(name, project / name) for name in weights]
    manifest = Manifest.of(options, [known[cfg] for cfg in options.cfg], finished)
    folder = choose_folder(project, options.name, manifest, named=named)
    manifest.write(folder)
    return folder.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cfg": TWO[::-1]},
        {"cfg": (*TWO, "yolov5s.yaml")},
        {"seeds": (0, 1)},
        {"weights": ("a.pt",)},
        {"jobs": 2, "workers": 1, "device": "cpu", "task": "test", "strict": True, "names": ("a", "b")},
    ],
    ids=str,
)
def test_a_repeated_or_extended_comparison_continues_in_its_folder(known, tmp_path, changes):
    assert folder_of(known, tmp_path) == "exp"
    assert folder_of(known, tmp_path, **changes) == "exp"


@pytest.mark.parametrize(
    "changes",
    [
        {"cfg": (TWO[0], "yolov5s.yaml")},
        {"seeds": (1, 2)},
        {"epochs": 5},
        {"data": "bccd.yaml"},
        {"imgsz": 96},
        {"fraction": 0.5},
        {"freeze": (0, 1)},
        {"cfg": (), "weights": ("a.pt", "b.pt")},
    ],
    ids=str,
)
def test_another_comparison_gets_a_folder_of_its_own_and_both_continue_there(known, tmp_path, changes, caplog):
    caplog.set_level(logging.INFO)
    assert folder_of(known, tmp_path) == "exp"
    assert folder_of(known, tmp_path, **changes) == "exp2"
    (created,) = [message for message in caplog.messages if f"{tmp_path / 'exp2'} " in message]
    assert "--name exp" in created
    assert folder_of(known, tmp_path) == "exp"
    assert folder_of(known, tmp_path, **changes) == "exp2"
    assert folder_of(known, tmp_path, epochs=7) == "exp3"
    assert folder_of(known, tmp_path, epochs=8, named=True) == "exp", "a folder that the user names is used anyway"


def test_other_finished_weights_are_another_comparison(known, tmp_path):
    assert folder_of(known, tmp_path, cfg=(), weights=("a.pt", "b.pt")) == "exp"
    assert folder_of(known, tmp_path, cfg=(), weights=("a.pt", "c.pt")) == "exp2"
    assert folder_of(known, tmp_path, cfg=(), weights=("c.pt", "b.pt", "a.pt")) == "exp"


def test_a_folder_from_before_an_option_existed_is_continued_if_the_option_is_not_given(known, tmp_path):
    assert folder_of(known, tmp_path) == "exp"
    content = load_json(tmp_path / "exp" / MANIFEST)
    for name in ("pretrained", "fraction", "freeze", "rect"):
        del content["settings"][name]
    dump_json(tmp_path / "exp" / MANIFEST, content)
    assert folder_of(known, tmp_path, fraction=0.5) == "exp2"
    assert folder_of(known, tmp_path) == "exp"


def test_pretrained_weights_of_the_same_name_and_other_content_are_another_comparison(known, tmp_path):
    weights = [tmp_path / name for name in ("a.pt", "b.pt")]
    for file in weights:
        file.write_text("first")
    assert folder_of(known, tmp_path, pretrained=str(weights[0])) == "exp"
    assert folder_of(known, tmp_path) == "exp2"
    assert folder_of(known, tmp_path, pretrained=str(weights[1])) == "exp"
    weights[0].write_text("second")
    assert folder_of(known, tmp_path, pretrained=str(weights[0])) == "exp3"


def test_a_yaml_of_the_same_name_and_other_content_is_another_model(known, tmp_path):
    assert folder_of(known, tmp_path) == "exp"
    hyperparameters = {**known[TWO[0]].hyperparameters, "lr0": 0.5}
    assert folder_of({**known, TWO[0]: replace(known[TWO[0]], hyperparameters=hyperparameters)}, tmp_path) == "exp2"
    config = known["yolov5s.yaml"].config
    assert folder_of({**known, TWO[0]: replace(known[TWO[0]], config=config)}, tmp_path) == "exp3"


def test_a_folder_of_version_0_1_is_continued(known, tmp_path):
    assert folder_of(known, tmp_path) == "exp"
    (tmp_path / "exp" / MANIFEST).rename(tmp_path / "exp" / OLD_MANIFEST)
    assert folder_of(known, tmp_path, epochs=7) == "exp2"
    assert folder_of(known, tmp_path) == "exp" and (tmp_path / "exp" / MANIFEST).is_file()


@pytest.mark.parametrize("content", ["[]", "{", '{"settings": {}}', '{"settings": 3, "trained": 1}'])
def test_a_folder_with_another_manifest_is_left_alone(known, tmp_path, content):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / MANIFEST).write_text(content)
    assert folder_of(known, tmp_path) == "exp2"
    assert (tmp_path / "exp" / MANIFEST).read_text() == content


def test_a_stopped_comparison_is_continued_by_the_same_command(data, tmp_path, monkeypatch):
    seen: list[Path] = []

    def stop(runs: list[PlannedRun], *, jobs: int) -> None:
        seen.append(runs[-1].folder.parent)
        raise RunStopped("interrupted", "early", fix="continue", exit_code=143)

    monkeypatch.setattr("utils.comparison.run.finish_runs", stop)
    one = CompareOptions(cfg=TWO, data=str(data), device="cpu", project=str(tmp_path))
    for options, given in ((one, ()), (replace(one, epochs=3), ()), (replace(one, epochs=3), ()), (one, ("name",))):
        with pytest.raises(RunStopped):
            run_comparison(options, given)
    assert seen == [tmp_path / name for name in ("exp", "exp2", "exp2", "exp")]
    assert all((folder / "configs/yolov5n.yaml").is_file() for folder in seen)
    lock = FolderLock(tmp_path / "exp")
    with pytest.raises(ConfigError) as caught:
        run_comparison(one)
    lock.release()
    assert caught.value.where == str(tmp_path / "exp") and len(seen) == 4, "another comparison works there"

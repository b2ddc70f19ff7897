"""Which folder a comparison takes, and that it takes over no run on another training split; nothing is trained."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TINY_DATA
from utils.comparison.candidates import Candidate, from_configs
from utils.comparison.data import changed_datasets, require_same_data
from utils.comparison.folder import RECORD, choose_folder, record_of
from utils.comparison.plan import PlannedRun, plan_runs
from utils.comparison.run import run_comparison
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import ConfigError, RunStopped
from utils.files import dump_json
from utils.options import CompareOptions
from utils.strict_yaml import dump_yaml

TWO = ("yolov5n.yaml", "yolov5n-akconv.yaml")


@pytest.fixture(scope="module")
def known() -> dict[str, Candidate]:
    cfgs = (*TWO, "yolov5s.yaml")
    return dict(zip(cfgs, from_configs(cfgs), strict=True))


def folder_of(
    known: dict[str, Candidate],
    project: Path,
    *,
    named: bool = False,
    weights: tuple[str, ...] = (),
    **changes: object,
) -> str:
    """Begin a comparison as `run_comparison` does, and return its folder's name."""
    options = CompareOptions(**{"cfg": TWO, "weights": weights, "project": str(project), **changes})  # type: ignore[arg-type]
    finished = [replace(known[TWO[0]], label=name, cfg="", weights=(project / name,)) for name in weights]
    record = record_of(options, [known[cfg] for cfg in options.cfg], finished)
    folder = choose_folder(options, record, named=named)
    record.write(folder)
    return folder.name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cfg": TWO[::-1]},
        {"cfg": (*TWO, "yolov5s.yaml")},
        {"seeds": (0, 1)},
        {"weights": ("a.pt",)},
        {"jobs": 2, "workers": 1, "device": "cpu", "task": "test"},
    ],
    ids=str,
)
def test_a_repeated_or_extended_comparison_goes_on_in_its_folder(known, tmp_path, changes):
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
        {"cfg": (), "weights": ("a.pt", "b.pt")},
    ],
    ids=str,
)
def test_another_comparison_gets_a_folder_of_its_own_and_both_go_on_there(known, tmp_path, changes, caplog):
    caplog.set_level(logging.INFO)
    assert folder_of(known, tmp_path) == "exp"
    assert folder_of(known, tmp_path, **changes) == "exp2"
    assert f"{tmp_path / 'exp2'}, as {tmp_path / 'exp'} holds another comparison" in caplog.text
    assert folder_of(known, tmp_path) == "exp"
    assert folder_of(known, tmp_path, **changes) == "exp2"
    assert folder_of(known, tmp_path, epochs=7) == "exp3"
    assert folder_of(known, tmp_path, epochs=8, named=True) == "exp", "a given name is taken at its word"


def test_other_finished_weights_are_another_comparison(known, tmp_path):
    assert folder_of(known, tmp_path, cfg=(), weights=("a.pt", "b.pt")) == "exp"
    assert folder_of(known, tmp_path, cfg=(), weights=("a.pt", "c.pt")) == "exp2"
    assert folder_of(known, tmp_path, cfg=(), weights=("c.pt", "b.pt", "a.pt")) == "exp"


def test_a_yaml_of_the_same_name_and_other_content_is_another_model(known, tmp_path):
    assert folder_of(known, tmp_path) == "exp"
    numbers = {**known[TWO[0]].hyperparameters, "lr0": 0.5}
    assert folder_of({**known, TWO[0]: replace(known[TWO[0]], hyperparameters=numbers)}, tmp_path) == "exp2"
    config = known["yolov5s.yaml"].config
    assert folder_of({**known, TWO[0]: replace(known[TWO[0]], config=config)}, tmp_path) == "exp3"


@pytest.mark.parametrize("content", ["[]", "{", '{"settings": {}}', '{"settings": 3, "trained": 1}'])
def test_a_folder_with_what_no_comparison_writes_is_left_alone(known, tmp_path, content):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / RECORD).write_text(content)
    assert folder_of(known, tmp_path) == "exp2"
    assert (tmp_path / "exp" / RECORD).read_text() == content


def test_a_stopped_comparison_is_found_again_by_the_same_command(data, tmp_path, monkeypatch):
    seen: list[Path] = []

    def stop(runs: list[PlannedRun], *, jobs: int) -> None:
        seen.append(runs[-1].folder.parent)
        raise RunStopped("stopped", "early", fix="go on", exit_code=143)

    monkeypatch.setattr("utils.comparison.run.finish_runs", stop)
    one = CompareOptions(cfg=TWO, data=str(data), device="cpu", project=str(tmp_path))
    for options, given in ((one, ()), (replace(one, epochs=3), ()), (replace(one, epochs=3), ()), (one, ("name",))):
        with pytest.raises(RunStopped):
            run_comparison(options, given)
    assert seen == [tmp_path / name for name in ("exp", "exp2", "exp2", "exp")]
    assert all((folder / "configs/yolov5n.yaml").is_file() for folder in seen)


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    """Data yaml of a drawn set that a test may change."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(path)))
    return path


def change_labels(data: Path) -> None:
    label = min((data.parent / "shapes/labels/train").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.2 0.2\n")


def test_a_finished_run_on_data_that_changed_since_is_refused(known, changing, tmp_path):
    config = load_data_config(str(changing))
    options = CompareOptions(cfg=TWO, data=str(changing))
    run, other = plan_runs(options, [known[cfg] for cfg in TWO], tmp_path / "c")
    for folder in (run.folder, other.folder):
        dump_json(folder / "env.json", {"dataset": build_index(config, "train").fingerprint()})
    (run.folder / "weights").mkdir()
    (run.folder / "weights/best.pt").touch()
    dump_json(run.folder / "summary.json", {})
    require_same_data([run, other], config)
    change_labels(changing)
    with pytest.raises(ConfigError, match=r"yolov5n-seed0: .*changed since.*--name, or remove that run\."):
        require_same_data([run, other], config)
    require_same_data([other], config)  # of which nothing was saved: it begins anew
    (other.folder / "weights").mkdir()
    (other.folder / "weights/last.pt").touch()
    with pytest.raises(ConfigError, match=r"yolov5n-akconv-seed0: .*changed since"):
        require_same_data([other], config)
    dump_json(run.folder / "env.json", {"dataset": build_index(config, "train").fingerprint()})
    dump_json(other.folder / "env.json", {"torch": "2"})  # of a version that kept no fingerprint
    require_same_data([run, other], config)


def test_run_comparison_refuses_runs_on_data_that_changed_since(changing, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.comparison.run.finish_runs", lambda runs, *, jobs: pytest.fail("trained"))
    folder = tmp_path / "exp/yolov5n-seed0"
    dump_json(folder / "env.json", {"dataset": "of another split"})
    (folder / "weights").mkdir()
    (folder / "weights/last.pt").touch()
    options = CompareOptions(cfg=TWO, data=str(changing), device="cpu", project=str(tmp_path))
    with pytest.raises(ConfigError, match="changed since"):
        run_comparison(options, ("name",))


def test_finished_weights_on_data_that_changed_since_are_warned_of(known, changing, tmp_path):
    mark = build_index(load_data_config(str(changing)), "train").fingerprint()
    files = [tmp_path / name / "weights/best.pt" for name in ("a", "b")]
    dump_json(tmp_path / "a/env.json", {"dataset": mark})
    one = Candidate(label="a", config=known[TWO[0]].config, weights=tuple(files), data=str(changing))
    assert changed_datasets([one]) == []
    change_labels(changing)
    assert changed_datasets([one]) == ["Trained on a training split that has changed since: a."]
    assert changed_datasets([replace(one, data="")]) == changed_datasets([replace(one, data="nowhere.yaml")]) == []
    dump_yaml(tmp_path / "a/env.json", {"damaged": "x"})
    assert changed_datasets([one]) == []

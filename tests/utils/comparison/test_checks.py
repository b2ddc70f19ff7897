"""Checks before training, and warnings about where models come from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.tiny_data import TINY_DATA
from utils.comparison.candidates import from_configs
from utils.comparison.checks import (
    is_single_class,
    provenance_warnings,
    reject_unsupported_options,
    require_objects,
    require_same_data,
    split_overlaps,
)
from utils.comparison.plan import PlannedRun, plan_runs
from utils.comparison.run import run_comparison
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.splits import open_data
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import ConfigError, DataError
from utils.files import dump_json
from utils.options import CompareOptions

TWO = ("yolov5n.yaml", "yolov5n-akconv.yaml")
NAMES = ("cat", "dog")


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    """Data yaml of a generated set that a test may change."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(path)))
    return path


def change_labels(data: Path) -> None:
    label = min((data.parent / "shapes/labels/train").glob("*.txt"))
    label.write_text("0 0.5 0.5 0.2 0.2\n")


def test_training_flags_are_rejected_if_there_is_nothing_to_train():
    finished, mixed = CompareOptions(weights=("a", "b")), CompareOptions(cfg=("yolov5n.yaml",), weights=("a",))
    reject_unsupported_options(finished, {"weights", "data", "imgsz", "batch_size", "device", "workers", "name"})
    reject_unsupported_options(mixed, {"cfg", "epochs", "seeds"})
    with pytest.raises(ConfigError) as error:
        run_comparison(finished, {"no_amp", "imgsz", "epochs"})
    assert error.value.where == "--epochs, --no-amp"


def test_a_split_without_objects_is_rejected():
    require_objects(index_of([1], [0], [1]), data_file=Path("a.yaml"), split="val")
    with pytest.raises(DataError) as error:
        require_objects(index_of([1], [], [0]), data_file=Path("a.yaml"), split="val")
    assert error.value.where == "a.yaml"


def test_models_of_one_class_are_not_compared_with_those_of_several():
    several, single = trained_model("several"), trained_model("single", args={"single_cls": True})
    (to_train,) = from_configs(["yolov5n.yaml"])
    assert is_single_class([single], NAMES) and not is_single_class([several, to_train], NAMES)
    assert not is_single_class([single, several], ["cell"]), "a data set of one class is the same for both"
    for other in (several, to_train):
        for candidates in ([single, other], [other, single]):
            with pytest.raises(ConfigError) as error:
                is_single_class(candidates, NAMES)
            assert error.value.what.index("single") < error.value.what.index(other.label)


def test_a_run_on_data_that_has_changed_since_is_rejected(changing, tmp_path):
    config = load_data_config(str(changing))
    options = CompareOptions(cfg=TWO, data=str(changing))
    finished, other = plan_runs(options, from_configs(TWO), tmp_path / "c")
    for run in (finished, other):
        dump_json(run.folder / "env.json", {"dataset": build_index(config, "train").fingerprint()})
        (run.folder / "weights").mkdir()
    finished.best.touch()
    dump_json(finished.folder / "summary.json", {})
    require_same_data([finished, other], config)
    change_labels(changing)

    def rejected(runs: list[PlannedRun]) -> str:
        with pytest.raises(ConfigError) as error:
            require_same_data(runs, config)
        return error.value.where

    assert rejected([finished, other]) == str(finished.folder)
    require_same_data([other], config)  # nothing of it was saved, so it starts anew
    other.last.touch()
    assert rejected([other]) == str(other.folder)
    dump_json(finished.folder / "env.json", {"dataset": build_index(config, "train").fingerprint()})
    dump_json(other.folder / "env.json", {"torch": "2"})  # of a version that wrote no fingerprint
    require_same_data([finished, other], config)
    (other.folder / "env.json").write_text("{")
    assert rejected([finished, other]) == str(other.folder / "env.json")


def test_a_comparison_does_not_resume_runs_on_data_that_has_changed_since(changing, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.comparison.run.finish_runs", lambda runs, *, jobs: pytest.fail("trained"))
    folder = tmp_path / "exp/yolov5n-seed0"
    dump_json(folder / "env.json", {"dataset": "of another split"})
    (folder / "weights").mkdir()
    (folder / "weights/last.pt").touch()
    options = CompareOptions(cfg=TWO, data=str(changing), device="cpu", project=str(tmp_path))
    with pytest.raises(ConfigError) as error:
        run_comparison(options, ("name",))
    assert error.value.where == str(folder)


def warnings_of(*models, task: str = "val") -> list[str]:
    return provenance_warnings(models, index_of([__file__], [0], [1]), task=task)


def test_nothing_is_warned_of_where_all_is_well(changing):
    args = {"data": str(changing), "epochs": 3, "seed": 1, "device": "0"}
    same = [trained_model("a", args=args), trained_model("b", args={**args, "seed": 2, "device": "cpu"})]
    assert warnings_of(*same) == warnings_of(*same, task="test") == []


def test_weights_on_data_that_has_changed_since_are_warned_of(changing, tmp_path):
    fingerprint = build_index(load_data_config(str(changing)), "train").fingerprint()
    model = trained_model("a", tmp_path / "a/weights/best.pt", args={"data": str(changing)})
    model = replace(model, runs=tuple(replace(run, dataset=fingerprint) for run in model.runs))
    assert warnings_of(model) == []
    change_labels(changing)
    (warning,) = warnings_of(model)
    assert warning.endswith(" a.")
    assert warnings_of(replace(model, is_finished_weights=False)) == [], "`require_same_data` rejects such runs"
    for unknown in ("", "nowhere.yaml"):
        runs = tuple(replace(run, args={"data": unknown}) for run in model.runs)
        (warning,) = warnings_of(replace(model, runs=runs))
        assert warning.startswith("Unknown")


def test_weights_whose_training_is_not_finished_are_warned_of(changing, tmp_path):
    model = trained_model("a", tmp_path / "b/weights/best.pt", args={"data": str(changing), "epochs": 3})
    (tmp_path / "b").mkdir()
    (tmp_path / "b/results.csv").write_text("epoch\n0\n")
    (warning,) = warnings_of(replace(model, runs=tuple(replace(run, interrupted=True) for run in model.runs)))
    assert "b (1 of 3 epochs)" in warning


def test_other_training_options_than_those_of_the_first_model_are_warned_of(changing):
    args = {"data": str(changing), "epochs": 3, "optimizer": "SGD"}
    first, other = trained_model("first", args=args), trained_model("other", args={**args, "epochs": 7, "seed": 5})
    warning, _ = warnings_of(trained_model("unknown"), first, replace(other, is_finished_weights=False))
    assert " first: " in warning and "other with --epochs 7 instead of 3" in warning and "seed" not in warning


def test_another_order_of_classes_is_warned_of(changing):
    model = replace(trained_model("a", args={"data": str(changing)}), class_mismatch="class 0 is 'dog'")
    assert warnings_of(model) == ["a: class 0 is 'dog'."]


def test_evaluation_images_in_the_training_split_are_warned_of(changing):
    train = build_index(open_data(str(changing)), "train")
    models = [trained_model(label, args={"data": str(changing)}) for label in "ab"]
    (warning,) = split_overlaps(models, train, "train")
    assert warning.startswith(f"{len(train)} of {len(train)} ") and "tiny.yaml" in warning
    (unknown,) = split_overlaps([trained_model("c")], train, "train")
    assert " c," in unknown and split_overlaps([trained_model("c")], train, "val") == []


def test_evaluation_images_by_which_best_pt_was_selected_are_warned_of_on_the_test_split_only(changing):
    model = trained_model("a", args={"data": str(changing)})
    val = build_index(open_data(str(changing)), "val")
    assert provenance_warnings([model], val, task="val") == []
    (warning,) = provenance_warnings([model], val, task="test")
    assert warning.startswith(f"{len(val)} of {len(val)} ") and "best.pt" in warning
    assert split_overlaps([model], replace(val, paths=np.array([__file__] * len(val))), "val") == []

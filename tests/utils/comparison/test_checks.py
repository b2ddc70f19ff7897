"""Checks before training, and warnings about where models come from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.yolo import DetectionModel
from tests.helpers.comparison import index_of, trained_model
from tests.helpers.tiny_data import TINY_DATA
from tests.helpers.training_runs import SMALL_MODEL
from utils.comparison.candidates import from_configs
from utils.comparison.checks import (
    condition_warnings,
    is_single_class,
    provenance_warnings,
    reject_unsupported_options,
    require_objects,
    require_same_data,
    require_trainable,
    split_overlaps,
)
from utils.comparison.plan import PlannedRun, plan_runs
from utils.comparison.run import run_comparison
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.splits import open_data
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import CheckpointError, ConfigError, DataError
from utils.files import dump_json, file_hash
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

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
    assert is_single_class([single, to_train], NAMES, trained=True)
    with pytest.raises(ConfigError):
        is_single_class([several, to_train], NAMES, trained=True)
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


def test_runs_on_another_fraction_or_from_other_weights_are_rejected(changing, tmp_path):
    config, weights = load_data_config(str(changing)), tmp_path / "w.pt"
    weights.write_text("first")
    options = CompareOptions(cfg=TWO, data=str(changing), fraction=0.5, seeds=(0, 1), pretrained=str(weights))
    runs = plan_runs(options, from_configs(TWO), tmp_path / "c")
    index = build_index(config, "train")
    for run in runs:
        drawn = index.fraction(0.5, seed=run.options.seed).fingerprint()
        dump_json(run.folder / "env.json", {"dataset": drawn, "weights_sha256": file_hash(weights)})
        (run.folder / "weights").mkdir()
        run.last.touch()
    require_same_data(runs, config)
    for other in (0.6, 1.0):
        with pytest.raises(ConfigError):
            require_same_data([replace(runs[2], options=replace(runs[2].options, fraction=other))], config)
    weights.write_text("second")
    with pytest.raises(ConfigError) as error:
        require_same_data(runs, config)
    assert error.value.where == str(runs[0].folder) and str(weights) in error.value.what
    dump_json(runs[0].folder / "env.json", {})  # of a version that wrote no hash
    require_same_data(runs[:1], config)


def test_weights_or_layers_that_do_not_suit_a_model_are_found_before_the_trainings(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO", logger=LOGGER.name)
    yamls = {"plain": SMALL_MODEL, "ours": SMALL_MODEL.replace("Conv, [16", "AKConv, [16")}
    yamls["wide"] = SMALL_MODEL.replace("[8,", "[32,").replace("[16,", "[64,")
    for name, text in yamls.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    models = from_configs([str(tmp_path / f"{name}.yaml") for name in yamls])
    weights = tmp_path / "n.pt"
    teacher = DetectionModel(models[0].config, nc=2)
    save_checkpoint(weights, {**describe_model(teacher, NAMES), "ema": weights_of(teacher), "options": {}})
    pretrained = CompareOptions(cfg=TWO, pretrained=str(weights))
    require_trainable(models[:2], pretrained, num_classes=2)
    assert [message for message in caplog.messages if message.startswith(("plain ", "ours "))]
    assert "(100.0% of the parameters)" in caplog.text and "from the convolutions they replace" in caplog.text
    with pytest.raises(ConfigError) as error:
        require_trainable(models, pretrained, num_classes=2)
    assert error.value.where == str(weights) and "wide" in error.value.what
    with pytest.raises(ConfigError) as error:
        require_trainable(models[:1], CompareOptions(cfg=TWO, freeze=(99,)), num_classes=2)
    assert error.value.where == "--freeze"
    weights.write_bytes(b"nothing")
    with pytest.raises(CheckpointError):
        require_trainable(models[:1], pretrained, num_classes=2)


def test_an_unequal_start_is_warned_of(changing):
    def from_fractions(*fractions: float | None) -> list[str]:
        models = []
        for label, fraction in zip("abc", fractions, strict=False):
            model = trained_model(label, args={"data": str(changing)}, is_finished_weights=False)
            models.append(replace(model, runs=tuple(replace(run, transferred_fraction=fraction) for run in model.runs)))
        return warnings_of(*models)

    assert from_fractions(None, None) == from_fractions(0.99, 0.95, None) == []
    (warning,) = from_fractions(0.99, 0.5, None)
    assert "99% of a" in warning and "50% of b" in warning


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


def test_missing_models_and_unequal_conditions_are_warned_of():
    models = [trained_model(label) for label in "xyz"]
    assert condition_warnings(models, ["x", "y", "z"], [96, 96, 96], jobs=1) == []
    (jobs,) = condition_warnings(models, ["x", "y", "z"], [96, 96, 96], jobs=2)
    assert "2 jobs" in jobs
    (absent,) = condition_warnings(models[:2], ["x", "y", "z"], [96, 96], jobs=1)
    assert " z;" in absent
    absent, baseline, sizes = condition_warnings(models[1:], ["x", "y", "z"], [96, 64], jobs=1)
    assert " x;" in absent and " x " in baseline and "sizes" in sizes

"""Finished runs of train.py as contestants: grouped by what they were trained with, and compared as a whole."""

import json
from pathlib import Path

import pytest
import torch

from models.config import load_model_config
from models.yolo import DetectionModel
from tests.drawn import SMALL_NAMES, self_labelled_data, small_model
from utils.engine.checkpoint import describe_model, save_checkpoint, weights_of
from utils.engine.compare import run_comparison
from utils.engine.contestants import differing_recipe
from utils.engine.finished_weights import checkpoint_files, from_weights, trained_otherwise, unfinished
from utils.engine.options import CompareOptions
from utils.errors import CheckpointError, ConfigError, RunError
from utils.files import atomic_write, dump_json, dump_yaml

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one model trained with seeds 0, 1, 1 and, with another optimizer, 2; and one without options.

    Then runs of another recipe whose yaml has changed its place, and one with another factor on the offsets' rate.
    """
    folder = tmp_path_factory.mktemp("weights")
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    content = {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96}
    for name, seed, optimizer in (("a", 0, "SGD"), ("b", 1, "SGD"), ("c", 1, "SGD"), ("d", 2, "Adam")):
        options = {"seed": seed, "optimizer": optimizer, "name": name, "data": "cats.yaml", "device": name}
        kept = {**content, "options": options, "hyperparameters": {}}
        save_checkpoint(folder / name / "weights" / "best.pt", kept)
    save_checkpoint(folder / "plain.pt", content)
    runs = [("slow", 10, 0.1), ("slow", 2, 0.1), ("fast", 2, 1.0), ("fast", 3, 1.0), ("fast", 10, 1.0)]
    for name, seed, rate in runs:
        run = folder / f"net-{name}-seed{seed}"
        options = {"seed": seed, "cfg": f"{seed}/m.yaml", "hyp": f"{seed}/hyp.{name}.yaml", "epochs": 3, "data": "c"}
        kept = {**content, "options": options, "hyperparameters": {"lr0": 0.01, "offset_lr": rate}}
        save_checkpoint(run / "weights/best.pt", kept)
        dump_yaml(run / "opt.yaml", options)
        run.with_name(f"{run.name}.log").write_text("$ python train.py\n")
        if (name, seed) != ("fast", 3):
            dump_json(run / "summary.json", {})
    (folder / "net-fast-seed3" / "results.csv").write_text("epoch\n0\n")
    return folder


def test_weights_that_differ_in_the_seed_alone_are_one_model(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bad"] + [str(folder / "plain.pt")]
    found = from_weights(paths, names=NAMES)
    assert [(one.label, one.seeds) for one in found] == [("yolov5n", (0, 1)), ("d", (2,)), ("plain", (None,))]
    assert [path.parts[-3] for path in found[0].weights] == ["a", "b"], "by seed"
    assert [one.data for one in found] == ["cats.yaml", "cats.yaml", ""] and not any(one.cfg for one in found)
    (warning,) = trained_otherwise(found)
    assert "yolov5n being the measure" in warning and "d with --optimizer Adam instead of SGD" in warning


def test_the_same_seed_twice_is_two_models(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bc"]
    assert [one.label for one in from_weights(paths, names=NAMES, taken=["b"])] == ["b-again1", "c"]


def test_folders_of_runs_as_a_shell_names_them(folder):
    """`net-*` also names logs; numbers of hyperparameters count, and not where their file lies."""
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    assert (slow.label, slow.seeds) == ("net-slow", (2, 10)) and (fast.label, fast.seeds) == ("net-fast", (2, 3, 10))
    assert [path.parts[-3] for path in slow.weights] == ["net-slow-seed2", "net-slow-seed10"]
    assert differing_recipe(slow, fast) == ["offset_lr: 1.0 -> 0.1"] and trained_otherwise([slow, fast]) == []
    (warning,) = unfinished([slow, fast], summary="summary.json")
    assert "net-fast-seed3 (1 of 3 epochs)" in warning and "seed2" not in warning


def test_patterns_that_no_shell_has_filled_in(folder):
    found = checkpoint_files([str(folder / "net-slow-seed*"), str(folder / "a" / "weights"), str(folder / "plain.pt")])
    assert [str(path.relative_to(folder)) for path in found] == [
        "net-slow-seed10/weights/best.pt",
        "net-slow-seed2/weights/best.pt",
        "a/weights/best.pt",
        "plain.pt",
    ]
    assert CompareOptions(weights=(str(folder / "net-*"),)).weights
    with pytest.raises(CheckpointError, match="fits no file or folder"):
        checkpoint_files([str(folder / "nothing*")])
    with pytest.raises(CheckpointError, match=r"holds no weights/best\.pt"):
        checkpoint_files([str(folder)])


def test_mistakes_are_named(folder):
    path = str(folder / "plain.pt")
    with pytest.raises(CheckpointError, match="stands twice"):
        from_weights([path, path], names=NAMES)
    with pytest.raises(ConfigError, match="tells 2 classes, but --data has 3"):
        from_weights([path], names=("a", "b", "c"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        from_weights([str(folder / "none.pt")], names=NAMES)


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a model that is nearly right on a data set, and two of one that is right."""
    folder = tmp_path_factory.mktemp("finished")
    teacher = small_model("yolov5n-AKConv.yaml")
    data = self_labelled_data(folder, teacher, pictures=8)
    for label, noise, seeds in (("rough", 0.03, (0, 1, 2)), ("sharp", 0.0005, (1, 2))):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            model = small_model("yolov5n-AKConv.yaml")
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += noise * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
            run = folder / "answer" / f"{label}-seed{seed}"
            options = {"seed": seed, "hyp": f"{label}.yaml", "epochs": 2, "imgsz": 96, "data": str(data)}
            state = {"ema": weights_of(model), "image_size": 96, "options": options}
            state["hyperparameters"] = {"offset_lr": 1.0 if label == "rough" else 0.1}
            save_checkpoint(run / "weights/best.pt", {**describe_model(model, SMALL_NAMES), **state})
            dump_yaml(run / "opt.yaml", options)
            dump_json(run / "summary.json", {"training_seconds": 10 + seed})
            (run / "results.csv").write_text("metrics/mAP_0.5,train/box_loss\n0.1,0.2\n0.3,0.1\n")
    return folder


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is timed, and few resamples are enough to see that there are some."""
    monkeypatch.setattr("utils.engine.comparison_cost.TIMED_ROUNDS", 2)
    monkeypatch.setattr("utils.engine.comparison_cost.WARM_UP_ROUNDS", 0)
    monkeypatch.setattr("utils.engine.compare.RESAMPLES", 100)


def comparison(finished_runs: Path, name: str) -> Path:
    weights = (str(finished_runs / "answer/rough-seed*"), str(finished_runs / "answer/sharp-seed*"))
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": str(finished_runs / "compare")}
    return run_comparison(CompareOptions(weights=weights, data=str(finished_runs / "own.yaml"), name=name, **settings))


def test_finished_runs_are_compared_like_trained_ones(finished_runs):
    folder = comparison(finished_runs, "whole")
    content = json.loads((folder / "compare.json").read_text())
    rough, sharp = content["results"]
    assert (rough["model"], rough["seeds"], rough["seed_numbers"]) == ("rough", 3, [0, 1, 2])
    assert (sharp["model"], sharp["seeds"], sharp["seed_numbers"]) == ("sharp", 2, [1, 2])
    assert rough["training_seconds"] == 11 and sharp["training_seconds"] == 11.5
    deciding = next(
        d for d in content["comparisons"][0]["differences"] if (d["group"], d["figure"]) == ("all", "map50")
    )
    assert deciding["covers_seeds"] and deciding["low"] <= deciding["value"] <= deciding["high"]
    assert any("do not have the same seeds (rough 0, 1, 2; sharp 1, 2)" in text for text in content["warnings"])
    text = (folder / "compare.md").read_text()
    seeds = text.split("## Per seed")[1].split("\n## ")[0]
    assert "| seed 1 " in seeds and "| seed 2 " in seeds and "seed 0" not in seeds and "offset_lr: 1.0 -> 0.1" in text
    assert "other seeds" in text and "trained with 96 px, 2 epochs" in text
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Per seed" in page and "At a glance" in page and (folder / "compare.png").is_file()


def test_a_full_disk_while_drawing_costs_the_pictures_and_not_the_numbers(finished_runs, monkeypatch, caplog):
    def full(path: Path | str, content: bytes | str) -> Path:
        if Path(path).suffix in (".png", ".jpg", ".html"):
            raise RunError(path, "cannot be written (No space left on device)", fix="free space")
        return atomic_write(path, content)

    for user in ("utils.plots.figure", "utils.engine.report"):
        monkeypatch.setattr(f"{user}.atomic_write", full)
    folder = comparison(finished_runs, "full")
    assert json.loads((folder / "compare.json").read_text())["comparisons"] and (folder / "compare.md").is_file()
    assert not (folder / "compare.png").exists() and not (folder / "report.html").exists()
    assert sum("left out" in record.getMessage() for record in caplog.records) >= 2

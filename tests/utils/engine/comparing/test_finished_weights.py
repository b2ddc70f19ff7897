"""Finished runs of train.py as contestants: grouped by what they were trained with, and compared as a whole."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import load_model_config
from models.yolo import DetectionModel
from tests.drawn import SMALL_NAMES, self_labelled_data, small_model
from utils.engine.comparing.compare import run_comparison
from utils.engine.comparing.comparison import DECIDING
from utils.engine.comparing.contestants import differing_recipe, from_configs
from utils.engine.comparing.finished_weights import (
    checkpoint_files,
    doubts,
    from_weights,
    one_class,
    require_obeyed,
    trained_otherwise,
    unfinished,
)
from utils.engine.comparing.tables import Findings
from utils.engine.options import CompareOptions
from utils.engine.weights.checkpoint import describe_model, save_checkpoint, weights_of
from utils.errors import CheckpointError, ConfigError, DataError, RunError
from utils.files import atomic_write, dump_json, dump_yaml

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one model trained with seeds 0, 1, 1 and, with another optimizer, 2; and one without options.

    Then runs of another recipe whose yaml has changed its place, and some with another learning rate.
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
        kept = {**content, "options": options, "hyperparameters": {"lr0": rate, "offset_lr": 0.1}}
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


def test_a_rate_of_offsets_tells_models_apart_that_have_some(tmp_path):
    kinds = {"yolov5n.yaml": ["plain"], "yolov5n-AKConv.yaml": ["alterable-seed0", "alterable-seed1"]}
    paths = []
    for cfg in kinds:
        model = DetectionModel(load_model_config(cfg), nc=2)
        for seed, rate in ((0, 0.1), (1, 1.0)):
            kept = {**describe_model(model, NAMES), "ema": weights_of(model), "options": {"seed": seed}}
            path = tmp_path / f"{'plain' if 'AKConv' not in cfg else 'alterable'}-seed{seed}" / "weights/best.pt"
            save_checkpoint(path, {**kept, "hyperparameters": {"lr0": 0.01, "offset_lr": rate}})
            paths.append(str(path))
    found = from_weights(paths, names=NAMES)
    assert [one.label for one in found] == [label for labels in kinds.values() for label in labels]


def test_folders_of_runs_as_a_shell_names_them(folder):
    """`net-*` also names logs; numbers of hyperparameters count, and not where their file lies."""
    slow, fast = from_weights([str(path) for path in sorted(folder.glob("net-*"), reverse=True)], names=NAMES)
    assert (slow.label, slow.seeds) == ("net-slow", (2, 10)) and (fast.label, fast.seeds) == ("net-fast", (2, 3, 10))
    assert [path.parts[-3] for path in slow.weights] == ["net-slow-seed2", "net-slow-seed10"]
    assert differing_recipe(slow, fast) == ["lr0: 1.0 -> 0.1"] and trained_otherwise([slow, fast]) == []
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


def test_flags_that_only_trainings_obey_are_refused_where_there_is_none():
    finished, mixed = CompareOptions(weights=("a", "b")), CompareOptions(cfg=("yolov5n.yaml",), weights=("a",))
    require_obeyed(finished, {"weights", "data", "imgsz", "batch_size", "device", "workers", "name"})
    require_obeyed(mixed, {"cfg", "epochs", "seeds"})
    with pytest.raises(ConfigError, match=r"^--epochs, --no-amp: changes nothing in finished --weights"):
        run_comparison(finished, {"no_amp", "imgsz", "epochs"})


def test_names_of_classes_in_another_order_are_warned_of(folder):
    plain = [str(folder / "plain.pt")]
    (warning,) = doubts(from_weights(plain, names=NAMES[::-1]), summary="summary.json")
    assert warning.startswith("plain: class 0 is 'dog' in the data set, but 'cat' in the model")
    assert doubts(from_weights(plain, names=NAMES), summary="summary.json") == []


def test_models_of_one_class_are_not_compared_with_those_of_several(folder):
    several = from_weights([str(folder / "plain.pt")], names=NAMES)
    alone = [replace(several[0], label="alone", options={"single_cls": True})]
    trained = from_configs(["yolov5n.yaml"])
    assert one_class(alone, NAMES) and not one_class(several + trained, NAMES)
    assert not one_class(alone + several, ["cell"]), "a data set of one class is the same for both"
    for others in (several, trained):
        for contestants in (alone + others, others + alone):
            told = f"alone was trained with --single-cls, but {others[0].label} tells 2 classes apart"
            with pytest.raises(ConfigError, match=told):
                one_class(contestants, NAMES)


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
    monkeypatch.setattr("utils.engine.comparing.cost.TIMED_ROUNDS", 2)
    monkeypatch.setattr("utils.engine.comparing.cost.WARM_UP_ROUNDS", 0)
    monkeypatch.setattr("utils.engine.comparing.compare.RESAMPLES", 100)


def comparison(
    finished_runs: Path,
    name: str,
    *,
    data: str = "own.yaml",
    task: str = "val",
    seed: str = "*",
    given: frozenset[str] = frozenset(),
) -> Path:
    """Compare the runs of all seeds or of one, at 64 pixels if `given` says that this was asked for."""
    weights = tuple(str(finished_runs / f"answer/{label}-seed{seed}") for label in ("rough", "sharp"))
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": str(finished_runs / "compare"), "imgsz": 64}
    data = str(finished_runs / data)
    return run_comparison(CompareOptions(weights=weights, data=data, task=task, name=name, **settings), given)


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
    assert "judged at" not in text and rough["image_size"] == 96
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Per seed" in page and "At a glance" in page and (folder / "compare.png").is_file()
    links = links_of(folder)
    assert list(dict.fromkeys(link.split("/")[0] for link in links)) == ["compare.png", "examples", "sampling"]
    assert re.findall(r'base64,(.*?)"', page) == [b64encode((folder / link).read_bytes()).decode() for link in links]


def links_of(folder: Path) -> list[str]:
    """Return what compare.md links to as pictures."""
    return re.findall(r"^!\[.{20,}\]\((.*)\)$", (folder / "compare.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_a_full_disk_while_drawing_costs_the_pictures_and_not_the_numbers(finished_runs, monkeypatch, caplog):
    def full(path: Path | str, content: bytes | str) -> Path:
        if Path(path).suffix in (".png", ".jpg", ".html"):
            raise RunError(path, "cannot be written (No space left on device)", fix="free space")
        return atomic_write(path, content)

    for user in ("utils.plots.figure", "utils.engine.comparing.report", "utils.engine.comparing.report_examples"):
        monkeypatch.setattr(f"{user}.atomic_write", full)
    folder = comparison(finished_runs, "full")
    assert json.loads((folder / "compare.json").read_text())["comparisons"] and (folder / "compare.md").is_file()
    assert not (folder / "compare.png").exists() and not (folder / "report.html").exists()
    assert links_of(folder) == []
    assert sum("left out" in record.getMessage() for record in caplog.records) >= 2


@pytest.fixture
def found(finished_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Findings]:
    """A comparison of two runs that measures no cost and ends before anything is drawn."""

    class Enough(Exception):  # noqa: N818 - no error
        pass

    def stop(findings: Findings, *_: object, **__: object) -> None:
        raise Enough(findings)

    def compare(name: str, **settings: Any) -> Findings:
        with pytest.raises(Enough) as caught:
            comparison(finished_runs, name, seed="1", **settings)
        return caught.value.args[0]

    monkeypatch.setattr("utils.engine.comparing.compare.write_findings", stop)
    monkeypatch.setattr(
        "utils.engine.comparing.compare.standing_cost", lambda _, image_size: {"image_size": image_size}
    )
    monkeypatch.setattr(
        "utils.engine.comparing.compare.inference_cost", lambda checkpoints, *_, **__: [{} for _ in checkpoints]
    )
    return compare


def test_the_size_that_was_asked_for_is_the_one_that_is_judged(found):
    own, asked = found("size", given=frozenset({"name"})), found("size", given=frozenset({"name", "imgsz"}))
    assert [[cost["image_size"] for cost in one.costs] for one in (own, asked)] == [[96, 96], [64, 64]]
    for before, after in zip(own.models, asked.models, strict=True):
        assert before.figures[DECIDING].points != after.figures[DECIDING].points, "what was kept is of another size"
    assert asked.heading.endswith("All were judged at 64 px, as --imgsz says.") and "judged at" not in own.heading


def test_the_test_split_is_judged_beside_the_other(finished_runs, found):
    folder = copied(finished_runs, "splits", "0 .5 .5 .4 .4\n")
    for number, path in enumerate(sorted((folder / "images/val").iterdir())[:3]):
        atomic_write(folder / "images/test" / path.name, path.read_bytes())
        atomic_write(folder / "labels/test" / f"{path.stem}.txt", f"{number} .5 .5 .4 .4\n")
    atomic_write(folder / "own.yaml", "test: images/test\n" + (folder / "own.yaml").read_text(encoding="utf-8"))
    found("splits", data="splits/own.yaml")
    findings = found("splits", data="splits/own.yaml", task="test")
    assert "3 test pictures with 3 objects" in findings.heading
    for kept in ("judged", "test/judged"):
        assert len(list((finished_runs / "compare/splits" / kept).glob("*.npz"))) == 2


def test_classes_of_one_name_are_kept_apart(finished_runs, found):
    folder = copied(finished_runs, "twice", "0 .5 .5 .4 .4\n1 .3 .3 .2 .2\n")
    text = (folder / "own.yaml").read_text(encoding="utf-8").split("names:")[0]
    atomic_write(folder / "own.yaml", f"{text}names: [cell, cell, x]\n")
    findings = found("twice", data="twice/own.yaml")
    names = [name for group, name, figure in findings.models[0].figures if (group, figure) == ("class", "map50")]
    assert names == ["cell (0)", "cell (1)"]
    assert any("no object at all of x (2);" in warning for warning in findings.warnings)
    assert any("class 0 is 'cell' in the data set, but 'ring' in the model" in told for told in findings.warnings)


def copied(finished_runs: Path, name: str, label: str) -> Path:
    """Copy the data set, with the same label for all pictures."""
    folder = finished_runs / name
    for path in (finished_runs / "images").rglob("*.png"):
        atomic_write(folder / path.relative_to(finished_runs), path.read_bytes())
        atomic_write(folder / "labels/val" / f"{path.stem}.txt", label)
    atomic_write(folder / "own.yaml", (finished_runs / "own.yaml").read_bytes())
    return folder


def test_a_validation_set_without_objects_is_refused_before_anything_is_written(finished_runs):
    copied(finished_runs, "empty", "")
    with pytest.raises(DataError, match=r"own\.yaml: 'val' has no objects to judge by, all labels of its 8 pictures"):
        comparison(finished_runs, "empty", data="empty/own.yaml", seed="1")
    assert not (finished_runs / "compare/empty").exists()

"""Finished runs of train.py, compared as a whole."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_model
from utils.comparison.candidates import from_configs
from utils.comparison.checks import selected_on_eval_split
from utils.comparison.report import OVERVIEW, ComparisonResult
from utils.comparison.run import run_comparison
from utils.comparison.statistics import PRIMARY_METRIC
from utils.datasets.images import read_image, write_image
from utils.datasets.index import build_index
from utils.datasets.splits import open_data
from utils.errors import DataError, RunError
from utils.files import atomic_write, dump_json
from utils.options import CompareOptions
from utils.strict_yaml import dump_yaml
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a model that is nearly right on a data set, and two of one that is right."""
    folder = tmp_path_factory.mktemp("finished")
    teacher = small_model("yolov5n-AKConv.yaml")
    data = self_labelled_data(folder, teacher, images=8)
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
    monkeypatch.setattr("utils.comparison.cost.TIMED_ROUNDS", 2)
    monkeypatch.setattr("utils.comparison.cost.WARM_UP_ROUNDS", 0)
    monkeypatch.setattr("utils.comparison.run.RESAMPLES", 100)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are not counted, nor is drawn where AKConv samples: the first test looks at both."""
    summary = SimpleNamespace(parameters=1, gflops=1.0, sampling_gflops=0.0)
    monkeypatch.setattr("utils.comparison.cost.summarize", lambda *_: summary)
    monkeypatch.setattr("utils.comparison.figures.sampling_images", lambda *_, **__: [])


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


@pytest.mark.slow
def test_finished_runs_are_compared_like_trained_ones(finished_runs):
    folder = comparison(finished_runs, "whole")
    content = json.loads((folder / "results.json").read_text())
    rough, sharp = content["results"]
    assert (rough["model"], rough["seeds"], rough["seed_numbers"]) == ("rough", 3, [0, 1, 2])
    assert (sharp["model"], sharp["seeds"], sharp["seed_numbers"]) == ("sharp", 2, [1, 2])
    assert rough["training_seconds"] == 11 and sharp["training_seconds"] == 11.5
    deciding = next(
        d for d in content["comparisons"][0]["differences"] if (d["group"], d["metric"]) == ("all", "map50")
    )
    assert deciding["covers_seeds"] and deciding["low"] <= deciding["value"] <= deciding["high"]
    assert any("rough 0, 1, 2; sharp 1, 2" in warning for warning in content["warnings"])
    text = (folder / "compare.md").read_text()
    seeds = text.split("## Per seed")[1].split("\n## ")[0]
    assert "| seed 1 " in seeds and "| seed 2 " in seeds and "seed 0" not in seeds and "offset_lr: 1.0 -> 0.1" in text
    assert "other seeds" in text and "trained with 96 px, 2 epochs" in text
    assert "judged at" not in text and rough["image_size"] == 96
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Per seed" in page and OVERVIEW in page and (folder / "compare.png").is_file()
    links = links_of(folder)
    assert list(dict.fromkeys(link.split("/")[0] for link in links)) == ["compare.png", "examples", "sampling"]
    assert re.findall(r'base64,(.*?)"', page) == [b64encode((folder / link).read_bytes()).decode() for link in links]


def links_of(folder: Path) -> list[str]:
    """Return what compare.md links to as images."""
    return re.findall(r"^!\[.{20,}\]\((.*)\)$", (folder / "compare.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_a_full_disk_while_drawing_costs_the_images_and_not_the_numbers(finished_runs, monkeypatch, caplog):
    def full(path: Path | str, content: bytes | str) -> Path:
        if Path(path).suffix in (".png", ".jpg", ".html"):
            raise RunError(path, "cannot be written (No space left on device)", fix="free space")
        return atomic_write(path, content)

    for user in ("utils.plots.figure", "utils.comparison.report", "utils.comparison.figures"):
        monkeypatch.setattr(f"{user}.atomic_write", full)
    folder = comparison(finished_runs, "full")
    assert json.loads((folder / "results.json").read_text())["comparisons"] and (folder / "compare.md").is_file()
    assert not (folder / "compare.png").exists() and not (folder / "report.html").exists()
    assert links_of(folder) == []
    assert sum("No space left on device" in record.getMessage() for record in caplog.records) >= 2


@pytest.fixture
def found(finished_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ComparisonResult]:
    """A comparison of two runs that measures no cost and ends before anything is drawn."""

    class Enough(Exception):  # noqa: N818 - no error
        pass

    def stop(findings: ComparisonResult, *_: object, **__: object) -> None:
        raise Enough(findings)

    def compare(name: str, **settings: Any) -> ComparisonResult:
        with pytest.raises(Enough) as caught:
            comparison(finished_runs, name, seed="1", **settings)
        return caught.value.args[0]

    monkeypatch.setattr("utils.comparison.run.write_results", stop)
    monkeypatch.setattr("utils.comparison.run.model_cost", lambda _, image_size: {"image_size": image_size})
    monkeypatch.setattr(
        "utils.comparison.run.inference_cost",
        lambda checkpoints, *_, **__: ([{} for _ in checkpoints], (0.0, 0.0)),
    )
    return compare


@pytest.mark.slow
def test_the_size_that_was_asked_for_is_the_one_that_is_judged(found):
    own, asked = found("size", given=frozenset({"name"})), found("size", given=frozenset({"name", "imgsz"}))
    assert [[cost["image_size"] for cost in one.costs] for one in (own, asked)] == [[96, 96], [64, 64]]
    for before, after in zip(own.models, asked.models, strict=True):
        assert before.metrics[PRIMARY_METRIC].points != after.metrics[PRIMARY_METRIC].points, (
            "what was kept is of another size"
        )
    assert asked.header.endswith("All were judged at 64 px, as --imgsz says.") and "judged at" not in own.header


@pytest.mark.slow
def test_images_changed_in_place_are_judged_anew(finished_runs, found):
    folder = copied(finished_runs, "repainted", "")
    for path in (finished_runs / "labels/val").iterdir():
        atomic_write(folder / "labels/val" / path.name, path.read_bytes())
    before = found("repainted", data="repainted/own.yaml")
    for path in (folder / "images/val").iterdir():
        write_image(path, np.full_like(read_image(path), 90))
    after = found("repainted", data="repainted/own.yaml")
    for one, other in zip(before.models, after.models, strict=True):
        assert (
            one.metrics[PRIMARY_METRIC].points > 0.05
            and one.metrics[PRIMARY_METRIC].points != other.metrics[PRIMARY_METRIC].points
        )


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("place", ["", "weights", "deep/folder"])
def test_checkpoints_that_lie_in_no_run_are_compared_too(finished_runs, tmp_path, monkeypatch, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    dump_json(tmp_path / "summary.json", {"training_seconds": 99})  # of something else
    (tmp_path / "results.csv").write_text("nothing\n1\n")
    words = []
    for label in ("rough", "sharp"):
        words.append(str(Path(place) / f"{label}.pt"))
        (tmp_path / words[-1]).write_bytes((finished_runs / f"answer/{label}-seed1/weights/best.pt").read_bytes())
    monkeypatch.chdir(tmp_path)
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": "out"}
    data = str(finished_runs / "own.yaml")
    folder = run_comparison(CompareOptions(weights=tuple(words), data=data, **settings))
    content = json.loads((folder / "results.json").read_text())
    assert [one["training_seconds"] for one in content["results"]] == ([99, 99] if place == "weights" else [None] * 2)
    text = (folder / "compare.md").read_text(encoding="utf-8")
    assert (folder / "report.html").is_file() and all(word in text.split("## Weights")[1] for word in words)


def test_a_test_split_on_which_the_best_epoch_was_chosen_is_warned_of(finished_runs):
    folder = copied(finished_runs, "reused", "0 .5 .5 .4 .4\n")
    atomic_write(folder / "own.yaml", "test: images/val\n" + (folder / "own.yaml").read_text(encoding="utf-8"))
    trained = from_configs(["yolov5n.yaml"])
    split = build_index(open_data(str(folder / "own.yaml")), "test")
    (warning,) = selected_on_eval_split(str(folder / "own.yaml"), split, trained)
    assert "on which best.pt was chosen" in warning and f"of {len(split)} images" in warning
    others = build_index(open_data(str(folder / "own.yaml")), "train")
    assert selected_on_eval_split(str(folder / "own.yaml"), replace(others, paths=np.array([__file__])), trained) == []


@pytest.mark.slow
def test_the_test_split_is_judged_beside_the_other(finished_runs, found):
    folder = copied(finished_runs, "splits", "0 .5 .5 .4 .4\n")
    for number, path in enumerate(sorted((folder / "images/val").iterdir())[:3]):
        atomic_write(folder / "images/test" / path.name, path.read_bytes())
        atomic_write(folder / "labels/test" / f"{path.stem}.txt", f"{number} .5 .5 .4 .4\n")
    atomic_write(folder / "own.yaml", "test: images/test\n" + (folder / "own.yaml").read_text(encoding="utf-8"))
    found("splits", data="splits/own.yaml")
    findings = found("splits", data="splits/own.yaml", task="test")
    assert "3 test images with 3 objects" in findings.header
    for kept in ("predictions", "test/predictions"):
        assert len(list((finished_runs / "compare/splits" / kept).glob("*.npz"))) == 2


def test_classes_of_one_name_are_kept_apart(finished_runs, found):
    folder = copied(finished_runs, "twice", "0 .5 .5 .4 .4\n1 .3 .3 .2 .2\n")
    text = (folder / "own.yaml").read_text(encoding="utf-8").split("names:")[0]
    atomic_write(folder / "own.yaml", f"{text}names: [cell, cell, x]\n")
    findings = found("twice", data="twice/own.yaml")
    names = [name for group, name, figure in findings.models[0].metrics if (group, figure) == ("class", "map50")]
    assert names == ["cell (0)", "cell (1)"]
    assert any("no objects of x (2);" in warning for warning in findings.warnings)
    assert any("class 0 is 'cell' in the data set, but 'ring' in the model" in told for told in findings.warnings)


def copied(finished_runs: Path, name: str, label: str) -> Path:
    """Copy the data set, with the same label for all images."""
    folder = finished_runs / name
    for path in (finished_runs / "images").rglob("*.png"):
        atomic_write(folder / path.relative_to(finished_runs), path.read_bytes())
        atomic_write(folder / "labels/val" / f"{path.stem}.txt", label)
    atomic_write(folder / "own.yaml", (finished_runs / "own.yaml").read_bytes())
    return folder


def test_a_validation_set_without_objects_is_refused_before_anything_is_written(finished_runs):
    copied(finished_runs, "empty", "")
    with pytest.raises(DataError, match=r"own\.yaml: 'val' has no objects to judge by, all labels of its 8 images"):
        comparison(finished_runs, "empty", data="empty/own.yaml", seed="1")
    assert not (finished_runs / "compare/empty").exists()

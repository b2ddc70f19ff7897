"""Whole comparisons of finished runs of train.py."""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.coco_oracle import pycocotools_figures
from tests.helpers.faulty_data import FaultySet
from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_model
from utils.comparison import run as comparison_run
from utils.comparison.result import ComparisonResult
from utils.comparison.run import run_comparison
from utils.comparison.statistics import PRIMARY_METRIC
from utils.datasets.image_writing import write_image
from utils.datasets.images import read_image
from utils.errors import DataError, RunError
from utils.files import atomic_write, dump_json
from utils.log import LOGGER
from utils.options import CompareOptions, ValOptions
from utils.strict_yaml import dump_yaml
from utils.validation.run import run_evaluation
from utils.weights.checkpoint import describe_model, load_checkpoint, save_checkpoint, weights_of


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a model with noisy weights on a data set that the model without noise labelled, two with less."""
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
            run = folder / "runs" / f"{label}-seed{seed}"
            options = {"seed": seed, "hyp": f"{label}.yaml", "epochs": 2, "imgsz": 96, "data": str(data)}
            state = {"ema": weights_of(model), "image_size": 96, "options": options}
            state["hyperparameters"] = {"offset_lr": 1.0 if label == "rough" else 0.1}
            save_checkpoint(run / "weights/best.pt", {**describe_model(model, SMALL_NAMES), **state})
            dump_yaml(run / "opt.yaml", options)
            dump_json(run / "summary.json", {"training_seconds": 10 + seed, "peak_memory_gb": 1.0 + seed})
            (run / "results.csv").write_text("metrics/mAP_0.5,train/box_loss\n0.1,0.2\n0.3,0.1\n")
    return folder


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times do not matter here, and neither do many resamples."""
    monkeypatch.setattr("utils.comparison.cost.ROUNDS", 2)
    monkeypatch.setattr("utils.comparison.cost.WARM_UP_ROUNDS", 0)
    monkeypatch.setattr("utils.comparison.run.RESAMPLES", 100)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are not counted, and of the figures few are drawn; the first test covers both."""
    summary = SimpleNamespace(parameters=1, gflops=1.0, sampling_gflops=0.0)
    monkeypatch.setattr("utils.comparison.cost.summarize", lambda *_: summary)
    monkeypatch.setattr("utils.comparison.figures.sampling_images", lambda *_, **__: [])
    monkeypatch.setattr("utils.comparison.paper_figures.SHOWN", ())
    monkeypatch.setattr("utils.comparison.paper_figures.CURVES", {})


def comparison(
    finished_runs: Path,
    name: str,
    *,
    data: str = "own.yaml",
    task: str = "val",
    seed: str = "*",
    given: frozenset[str] = frozenset(),
    **more: Any,
) -> Path:
    """Compare the runs of all seeds or of one, at 64 pixels if `imgsz` is among the given options."""
    weights = tuple(str(finished_runs / f"runs/{label}-seed{seed}") for label in ("rough", "sharp"))
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": str(finished_runs / "compare"), "imgsz": 64}
    data = str(finished_runs / data)
    return run_comparison(CompareOptions(weights=weights, data=data, task=task, name=name, **settings, **more), given)


@pytest.mark.slow
def test_finished_runs_are_compared(finished_runs):
    folder = comparison(finished_runs, "whole", browse=True)
    assert (folder / "browse" / "index.html").is_file() and len(list(folder.glob("browse/images/*.jpg"))) == 8
    content = json.loads((folder / "results.json").read_text())
    rough, sharp = content["results"]
    assert (rough["model"], rough["seeds"], rough["seed_numbers"]) == ("rough", 3, [0, 1, 2])
    assert (sharp["model"], sharp["seeds"], sharp["seed_numbers"]) == ("sharp", 2, [1, 2])
    assert (rough["training_seconds"], sharp["training_seconds"]) == (11, 11.5)
    assert (rough["training_memory_gb"], rough["image_size"]) == (3, 96)
    assert rough["inference_ms"] > 0 and rough["inference_ms_p95"] >= rough["inference_ms"]
    weights_gb = rough["parameters"] * 4e-9
    assert weights_gb < rough["inference_memory_gb"] < weights_gb + 0.05
    assert weights_gb < 1e-3 * rough["file_mb_fp32"] < weights_gb + 1e-3
    assert rough["file_mb_fp16"] < rough["file_mb_fp32"] and rough["fps_end_to_end"] < rough["fps_network"]
    map50 = next(d for d in content["comparisons"][0]["differences"] if d["group"] == "all" and "map50" in d.values())
    assert map50["covers_seeds"] and map50["low"] <= map50["value"] <= map50["high"]
    errors = [d for d in content["comparisons"][0]["differences"] if d["group"] == "error"]
    assert len(errors) == 9 and all(d["low"] <= d["value"] <= d["high"] for d in errors)
    assert any("rough 0, 1, 2; sharp 1, 2" in text for text in content["warnings"])
    text = (folder / "compare.md").read_text()
    seeds = text.split("## Per seed")[1].split("\n## ")[0]
    assert "| seed 1 " in seeds and "| seed 2 " in seeds and "seed 0" not in seeds and "offset_lr: 1.0 -> 0.1" in text
    assert "96 px, 2 epochs" in text and (folder / "compare.png").is_file()
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = links_of(folder)
    assert list(dict.fromkeys(link.split("/")[0] for link in links)) == [
        "compare.png",
        "figures",
        "examples",
        "sheets",
        "sampling",
    ]
    assert re.findall(r'base64,(.*?)"', page) == [b64encode((folder / link).read_bytes()).decode() for link in links]


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_the_metrics_are_those_of_val_and_of_pycocotools_on_its_files(finished_runs):
    folder = comparison(finished_runs, "oracle", seed="1")
    row = json.loads((folder / "results.json").read_text())["results"][1]
    metrics = {(part["group"], part["name"], part["metric"]): part["mean"] for part in row["metrics"]}
    options = ValOptions(
        weights=(str(finished_runs / "runs/sharp-seed1/weights/best.pt"),),
        data=str(finished_runs / "own.yaml"),
        imgsz=96,
        batch_size=8,
        workers=0,
        device="cpu",
        engine="torch",  # as compare.py
        save_json=True,
        noplots=True,
        project=str(finished_runs / "val"),
    )
    validated = run_evaluation(options).metrics
    assert validated.map50 > 0.3
    for name, value in (
        ("precision", validated.mean_precision),
        ("recall", validated.mean_recall),
        ("f1", validated.f1.mean()),
        ("map75", validated.map75),
    ):
        assert metrics["all", "", name] == row[name] == pytest.approx(value, abs=1e-12)
    run = finished_runs / "val/exp"
    truth = json.loads((run / "ground_truth.json").read_text(encoding="utf-8"))
    expected = pycocotools_figures(truth, json.loads((run / "best_predictions.json").read_text()))
    coco = {name: value for (group, _, name), value in metrics.items() if group == "coco"}
    assert coco == pytest.approx({name: expected[name] for name in coco}, abs=1e-6)
    assert set(coco) >= {"AP", "AP50", "AP75", "AP_small"}


def links_of(folder: Path) -> list[str]:
    """Return the paths of the images in compare.md."""
    return re.findall(r"^!\[.{20,}\]\((.*)\)$", (folder / "compare.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_a_full_disk_while_drawing_loses_the_images_but_not_the_results(finished_runs, monkeypatch, caplog):
    def full(path: Path | str, content: bytes | str) -> Path:
        if Path(path).suffix in (".png", ".jpg", ".html"):
            raise RunError(path, "cannot be written (No space left on device)", fix="free space")
        return atomic_write(path, content)

    for user in ("plots.figure", *(f"comparison.{name}" for name in ("report", "figures", "contact_sheets", "browse"))):
        monkeypatch.setattr(f"utils.{user}.atomic_write", full)
    folder = comparison(finished_runs, "full", browse=True)
    assert json.loads((folder / "results.json").read_text())["comparisons"] and (folder / "compare.md").is_file()
    assert not (folder / "compare.png").exists() and not (folder / "report.html").exists()
    assert links_of(folder) == []
    assert sum("No space left on device" in record.getMessage() for record in caplog.records) >= 2


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_each_of_several_data_sets_has_a_report_beside_the_joint_one(finished_runs, monkeypatch):
    monkeypatch.setattr("utils.comparison.run.draw_figures", lambda *_, **__: {})
    own, other = finished_runs / "own.yaml", copied(finished_runs, "second", "") / "own.yaml"
    for path in (finished_runs / "labels/val").iterdir():
        atomic_write(other.parent / "labels/val" / path.name, path.read_bytes())
    runs = [finished_runs / f"runs/{label}-seed1" for label in ("sharp", "rough")]
    for run in runs:
        content = load_checkpoint(run / "weights/best.pt")
        content["options"] = {**content["options"], "data": str(other)}
        save_checkpoint(finished_runs / "second" / run.name / "weights/best.pt", content)
    weights = [str(finished_runs / "second" / run.name) for run in runs] + [str(run) for run in reversed(runs)]
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": str(finished_runs / "compare")}
    options = CompareOptions(weights=tuple(weights), data=(str(own), str(other)), name="sets", **settings)
    folder = run_comparison(options)
    joint, *parts = (json.loads((folder / place / "results.json").read_text()) for place in ("", "finished0", "second"))
    assert joint["options"]["data"] == [str(own), str(other)] and parts[1]["options"]["data"] == str(other)
    assert [[one["model"] for one in part["results"]] for part in parts] == [["sharp", "rough"]] * 2
    values = [part["comparisons"][0]["differences"][0]["value"] for part in parts]
    assert joint["comparisons"][0]["differences"][0]["value"] == pytest.approx(sum(values) / 2)
    assert any("8 evaluation images" in warning for warning in joint["warnings"])
    assert all((folder / place / "report.html").is_file() for place in ("", "finished0", "second"))


@pytest.fixture
def compared(finished_runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ComparisonResult]:
    """A comparison of two runs that measures no times and ends before anything is written."""

    class Stop(Exception):  # noqa: N818 - not an error
        pass

    def stop(result: ComparisonResult, *_: object, **__: object) -> None:
        raise Stop(result)

    def compare(name: str, **settings: Any) -> ComparisonResult:
        with pytest.raises(Stop) as caught:
            comparison(finished_runs, name, seed="1", **settings)
        return caught.value.args[0]

    monkeypatch.setattr("utils.comparison.run.write_results", stop)
    monkeypatch.setattr(
        "utils.comparison.run.measure_costs",
        lambda _, sizes, *__, **___: ([{"image_size": size} for size in sizes], (0.0, 0.0)),
    )
    return compare


@pytest.mark.slow
def test_models_are_evaluated_at_the_size_of_their_training_unless_imgsz_is_given(compared):
    own, given = compared("size", given=frozenset({"name"})), compared("size", given=frozenset({"name", "imgsz"}))
    assert [[cost["image_size"] for cost in one.costs] for one in (own, given)] == [[96, 96], [64, 64]]
    for before, after in zip(own.scores, given.scores, strict=True):
        assert before.metrics[PRIMARY_METRIC].points != after.metrics[PRIMARY_METRIC].points, "not those of the cache"
    assert "64 px" in given.header and "64 px" not in own.header


@pytest.mark.slow
def test_finished_runs_are_an_ablation_by_their_names(compared):
    result = compared("ablation", names=("net", "net+sharp"), ablation=("sharp",))
    assert result.ablation.ablation.on == {"net": set(), "net+sharp": {"sharp"}}
    (effect,) = result.ablation.effects
    assert effect.differences[PRIMARY_METRIC] == result.pairs[0].differences[PRIMARY_METRIC]
    assert compared("ablation").ablation is None


@pytest.mark.slow
def test_images_changed_in_place_are_evaluated_anew(finished_runs, compared):
    folder = copied(finished_runs, "repainted", "")
    for path in (finished_runs / "labels/val").iterdir():
        atomic_write(folder / "labels/val" / path.name, path.read_bytes())
    before = compared("repainted", data="repainted/own.yaml")
    for path in (folder / "images/val").iterdir():
        write_image(path, np.full_like(read_image(path), 90))
    after = compared("repainted", data="repainted/own.yaml")
    for one, other in zip(before.scores, after.scores, strict=True):
        points = one.metrics[PRIMARY_METRIC].points
        assert points > 0.05 and points != other.metrics[PRIMARY_METRIC].points


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("place", ["", "weights", "deep/folder"])
def test_checkpoints_outside_of_runs_are_compared(finished_runs, tmp_path, monkeypatch, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    dump_json(tmp_path / "summary.json", {"training_seconds": 99})  # of something else
    (tmp_path / "results.csv").write_text("nothing\n1\n")
    files = []
    for label in ("rough", "sharp"):
        files.append(str(Path(place) / f"{label}.pt"))
        (tmp_path / files[-1]).write_bytes((finished_runs / f"runs/{label}-seed1/weights/best.pt").read_bytes())
    monkeypatch.chdir(tmp_path)
    settings = {"device": "cpu", "workers": 0, "batch_size": 4, "project": "out"}
    data = str(finished_runs / "own.yaml")
    folder = run_comparison(CompareOptions(weights=tuple(files), data=data, **settings))
    content = json.loads((folder / "results.json").read_text())
    assert [one["training_seconds"] for one in content["results"]] == ([99, 99] if place == "weights" else [None] * 2)
    text = (folder / "compare.md").read_text(encoding="utf-8")
    assert (folder / "report.html").is_file() and all(f" {file} |" in text for file in files)


@pytest.mark.slow
def test_results_on_the_test_split_are_kept_beside_those_on_val(finished_runs, compared):
    folder = copied(finished_runs, "splits", "0 .5 .5 .4 .4\n")
    for number, path in enumerate(sorted((folder / "images/val").iterdir())[:3]):
        atomic_write(folder / "images/test" / path.name, path.read_bytes())
        atomic_write(folder / "labels/test" / f"{path.stem}.txt", f"{number} .5 .5 .4 .4\n")
    atomic_write(folder / "own.yaml", "test: images/test\n" + (folder / "own.yaml").read_text(encoding="utf-8"))
    compared("splits", data="splits/own.yaml")
    result = compared("splits", data="splits/own.yaml", task="test")
    assert "3 test images with 3 objects" in result.header
    for folder_name in ("predictions", "test/predictions"):
        assert len(list((finished_runs / "compare/splits" / folder_name).glob("*.npz"))) == 2


def test_classes_with_equal_names_get_their_ids_appended(finished_runs, compared):
    folder = copied(finished_runs, "twice", "0 .5 .5 .4 .4\n1 .3 .3 .2 .2\n")
    text = (folder / "own.yaml").read_text(encoding="utf-8").split("names:")[0]
    atomic_write(folder / "own.yaml", f"{text}names: [cell, cell, x]\n")
    result = compared("twice", data="twice/own.yaml")
    names = [name for group, name, metric in result.scores[0].metrics if (group, metric) == ("class", "map50")]
    assert names == ["cell (0)", "cell (1)"]
    assert any(" x (2)" in warning for warning in result.warnings)
    assert any("'cell'" in warning and "'ring'" in warning for warning in result.warnings)


def copied(finished_runs: Path, name: str, label: str) -> Path:
    """Copy the data set, with the same label for all images."""
    folder = finished_runs / name
    for path in (finished_runs / "images").rglob("*.png"):
        atomic_write(folder / path.relative_to(finished_runs), path.read_bytes())
        atomic_write(folder / "labels/val" / f"{path.stem}.txt", label)
    atomic_write(folder / "own.yaml", (finished_runs / "own.yaml").read_bytes())
    return folder


def test_a_split_without_objects_is_rejected_before_anything_is_written(finished_runs):
    copied(finished_runs, "empty", "")
    with pytest.raises(DataError) as error:
        comparison(finished_runs, "empty", data="empty/own.yaml", seed="1")
    assert error.value.where == str(finished_runs / "empty/own.yaml")
    assert not (finished_runs / "compare/empty").exists()


def test_what_spoils_the_metrics_is_said_before_the_trainings(tmp_path, monkeypatch, caplog):
    data = FaultySet(tmp_path)
    data.write_yaml(val="images/train")
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(comparison_run, "finish_runs", None)
    options = CompareOptions(
        cfg=("yolov5n.yaml", "yolov5n-AKConv.yaml"), data=str(data.yaml), device="cpu", project=str(tmp_path / "runs")
    )
    with pytest.raises(TypeError):
        run_comparison(options)
    assert sum("16 of 16" in record.getMessage() for record in caplog.records) == 1

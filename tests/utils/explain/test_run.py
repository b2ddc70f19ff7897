"""`python -m utils.explain`: what it writes, from labelled and unlabelled images, and options that are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_checkpoint, small_model
from utils.errors import CheckpointError, ConfigError, DetectorError
from utils.explain.run import run_explain
from utils.options.explain import ExplainOptions

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("plain.pt", "关注.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints and the data set own.yaml of images of 72 x 96 and 96 x 64 pixels."""
    folder = tmp_path_factory.mktemp("explain")
    for name, cfg in zip(NAMES, ("yolov5n.yaml", "yolov5n-AKConv.yaml"), strict=True):
        small_checkpoint(folder / name, cfg)
    self_labelled_data(folder, small_model("yolov5n.yaml"))
    return folder


def explained(folder: Path, tmp_path: Path, **settings: object) -> tuple[Path, dict]:
    weights = settings.pop("weights", tuple(str(folder / name) for name in NAMES))
    run = run_explain(
        ExplainOptions(weights=weights, device="cpu", project=str(tmp_path), **settings)  # type: ignore[arg-type]
    )
    content = json.loads((run / "explain.json").read_text(encoding="utf-8"), parse_constant=lambda text: 1 / 0)
    return run, content


@pytest.mark.slow
def test_two_models_on_labelled_images(folder: Path, tmp_path: Path) -> None:
    run, content = explained(
        folder,
        tmp_path,
        data=str(folder / "own.yaml"),
        images=2,
        layers=("17", "model.20.cv3"),
        method=("gradcam", "eigencam"),
        erf=True,
        feature_maps=True,
        imgsz=(64, 96),
        figures=("pdf",),
    )
    assert len(content["images"]) == 2 and content["skipped"] == []
    scores = {(row["model"], row["layer"], row["method"], row["metric"]): row for row in content["scores"]}
    for model in ("plain", "关注"):
        assert scores[model, "model.17", "eigencam", "energy_inside"]["images"] == 2
        for row in scores.values():
            values = [value for value in row["values"] if value is not None]
            assert len(row["values"]) == 2 and len(values) == row["images"]
            assert row["mean"] == pytest.approx(np.mean(values))
            if row["metric"] != "anisotropy":
                assert all(0 <= value <= 1 for value in values)
        areas = [scores[model, "model.17", "erf", f"area_{percent}"]["mean"] for percent in (20, 50, 95)]
        assert 0 < areas[0] < areas[1] < areas[2] < 1
    first, second = (scores[m, "model.17", "erf", "area_50"]["values"] for m in ("plain", "关注"))
    (row,) = [r for r in content["differences"] if (r["layer"], r["metric"]) == ("model.17", "area_50")]
    assert row["model"] == "关注" and row["baseline"]["model"] == "plain" and row["images"] == 2
    assert row["value"] == pytest.approx(np.mean(second) - np.mean(first)) and row["low"] < row["value"] < row["high"]
    assert {(row["model"], row["layer"]) for row in content["receptive_fields"]} == {
        (model, layer) for model in ("plain", "关注") for layer in ("model.17", "model.20.cv3")
    }
    assert all(row["changed"] == (row["rank_correlation"]["all"] < 0.5) for row in content["sanity"])
    assert content["sanity"] and {row["method"] for row in content["sanity"]} == {"gradcam", "eigencam"}
    page = (run / "report.html").read_text(encoding="utf-8")
    figures = [path.with_suffix("") for path in run.rglob("*.pdf")]
    assert page.count("<img") == len(figures) + len(list((run / "sampling").iterdir())) and "关注" in page
    assert {path.name for path in figures if path.parent == run} == {
        *("map_differences", "receptive_field_differences", "receptive_fields", "receptive_field_energy")
    }
    assert len(figures) == 4 + 2 * 2 + 2 * 2 * 2  # maps of 2 images by 2 methods; features by 2 models and 2 layers
    for path in figures:
        image = cv2.imread(f"{path}.png")
        assert image.shape[1] in (1003, 1004, 2007, 2008) and image.std() > 0  # 85 or 170 mm at 300 dpi
        assert Path(f"{path}.pdf").read_bytes().startswith(b"%PDF")
    assert list((run / "sampling").glob("*model.17.m.0.cv2.png"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"target": "class", "class_name": SMALL_NAMES[2], "method": ("layercam",)},
        {"target": "image", "score": "class", "method": ("gradcam++",)},
        {"position": (20.0, 30.0), "erf": True},
    ],
)
def test_images_without_labels_have_maps_but_no_scores(
    folder: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
        cv2.imwrite(str(images / name), cv2.GaussianBlur(image, (0, 0), 3))
    (images / "broken.jpg").write_bytes(b"no image")
    weights = (str(folder / NAMES[0]),)
    run, content = explained(
        folder, tmp_path, source=str(images), weights=weights, images=2, layers=("17",), imgsz=(96,), **settings
    )
    assert content["images"] == ["a.png", "b.png"]
    assert {row["method"] for row in content["scores"]} <= {"erf"} and content["differences"] == []
    methods = content["options"]["method"]
    assert len(list((run / "maps").glob("*.png"))) == len(methods) * (2 - len(content["skipped"]))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"weights": ()}, "--weights"),
        ({}, "--source"),
        ({"source": "a", "data": "b"}, "--source"),
        ({"source": "a", "position": (1.0,)}, "--position"),
        ({"source": "a", "position": (-1.0, 2.0)}, "--position"),
        ({"source": "a", "position": (float("nan"), 2.0)}, "--position"),
        ({"source": "a", "position": (1.0, 2.0), "target": "class"}, "--position"),
        ({"source": "a", "class_name": "ring", "target": "image"}, "--class-name"),
        ({"source": "a", "imgsz": (64, 64, 64)}, "--imgsz"),
        ({"source": "a", "imgsz": (8,)}, "--imgsz"),
        ({"source": "a", "images": 0}, "--images"),
        ({"source": "a", "seed": -1}, "--seed"),
    ],
)
def test_options_that_contradict_each_other_are_refused(settings: dict[str, object], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExplainOptions(**{"weights": ("a.pt",), **settings})  # type: ignore[arg-type]
    assert caught.value.where == where


def test_inputs_that_cannot_be_explained_are_refused_before_a_folder_is_made(folder: Path, tmp_path: Path) -> None:
    exported = tmp_path / "best.onnx"
    exported.write_bytes(b"")
    data = {"data": str(folder / "own.yaml"), "images": 1}
    cases: list[tuple[dict[str, object], type[DetectorError], str]] = [
        ({"weights": (str(exported),), **data}, CheckpointError, str(exported)),
        ({"weights": (str(tmp_path / "none.pt"),), **data}, CheckpointError, "none.pt"),
        ({"layers": ("99",), **data}, ConfigError, "--layers"),
        ({"layers": ("24",), **data}, ConfigError, "--layers"),
        ({"class_name": "rnig", **data}, ConfigError, "--class-name"),
        ({"class_name": "3", **data}, ConfigError, "--class-name"),
        ({"position": (9e9, 1.0), **data}, ConfigError, "--position"),
        ({"data": "shapes.yaml"}, ConfigError, "shapes.yaml"),
        ({"source": str(tmp_path / "nothing")}, DetectorError, "--source"),
    ]
    for settings, error, where in cases:
        with pytest.raises(error) as caught:
            explained(folder, tmp_path / "runs", **settings)
        assert where in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--data", "missing.yaml"], ["--data", "own.yaml", "--method", "gradcamm"]])
def test_the_command_reports_an_error_in_one_line(folder: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "utils.explain", "--weights", str(folder / NAMES[0]), *words]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=120
    )
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert "__main__" not in result.stderr

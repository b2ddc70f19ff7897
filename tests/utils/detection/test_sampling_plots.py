"""Plots of `--visualize`: which images, layers and locations are drawn, and from which offsets."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.yolo import DetectionModel
from tests.helpers.random_model import random_model
from tests.helpers.sampling import NAMES, model_with_offsets, random_sampling
from utils.cli import parse_options
from utils.datasets.letterbox import letterbox
from utils.detection.run import run_detection
from utils.detection.sampling_plots import MAX_OFFSETS, NO_LAYERS, OffsetCollection
from utils.errors import ConfigError
from utils.export.run import run_export
from utils.log import LOGGER
from utils.options import DetectOptions, ExportOptions
from utils.plots.sampling import SampledPosition
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)


def test_histograms_cover_all_images_with_limited_samples() -> None:
    collection = OffsetCollection()
    small, large = random_sampling((6, 9)), random_sampling((300, 200), stride=1)
    for layer in (small, small, large):
        collection.add({"a": layer})
    (samples,) = collection.samples()
    count = small.offset[:, :5].numel()
    assert samples.rows.shape == samples.columns.shape == (2 * count + MAX_OFFSETS,)
    np.testing.assert_array_equal(samples.rows[:count], small.offset[0, :5].flatten())
    np.testing.assert_array_equal(samples.columns[:count], small.offset[0, 5:].flatten())
    assert np.isin(samples.rows, torch.cat((small.offset[:, :5].flatten(), large.offset[:, :5].flatten()))).all()
    assert samples.abs_mean == pytest.approx((2 * small.offset.abs().mean() + large.offset.abs().mean()).item() / 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    for name, model in (("ak", model_with_offsets()), ("plain", random_model("yolov5n.yaml", len(NAMES)))):
        save_checkpoint(folder / f"{name}.pt", {**describe_model(model, NAMES), "ema": weights_of(model)})
    return {name: folder / f"{name}.pt" for name in ("ak", "plain")}


def write(path: Path, seed: int, height: int, width: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))[1])


def options(weights: Path, source: Path, project: Path, **changes: object) -> DetectOptions:
    settings = {"imgsz": (96,), "conf_thres": 0.05, "device": "cpu", "name": "run", "visualize": True, "nosave": True}
    return DetectOptions(weights=str(weights), source=str(source), project=str(project), **{**settings, **changes})


@pytest.mark.slow
def test_visualize_plots_one_layer_per_level_and_the_offsets(weights, tmp_path) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    flags = ["--weights", weights["ak"], "--source", "in", "--imgsz", 96, "--device", "cpu", "--visualize"]
    command = [sys.executable, str(ROOT / "detect.py"), *map(str, flags), "--conf-thres", "0.05"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "runs/detect/exp/sampling" in result.stdout and "warning" not in result.stderr
    folder = tmp_path / "runs/detect/exp/sampling"
    drawn = [f"a_model.{number}.png" for number in (1, 3, 5, 7)]
    assert sorted(path.name for path in folder.iterdir()) == [*drawn, "offsets.png"]
    assert all(cv2.imread(str(path)).std() > 5 for path in folder.iterdir())


@pytest.mark.slow
def test_the_first_images_and_one_frame_of_a_video_are_plotted(weights, tmp_path, monkeypatch, caplog) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}.png", number, 40 + 20 * number, 60)
    writer = cv2.VideoWriter(str(tmp_path / "in/0.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(3):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    monkeypatch.setattr("utils.detection.sampling_plots.MAX_IMAGES", 3)
    caplog.set_level("INFO")
    run = run_detection(options(weights["ak"], tmp_path / "in", tmp_path, visualize_layers=("23",), batch_size=3))
    names = sorted(path.name for path in (run / "sampling").iterdir())
    assert len(names) == 4 and names[-1] == "offsets.png" and all("model.23.m.0.cv2" in name for name in names[:3])
    assert len({name.split("_model")[0] for name in names[:3]}) == 3
    assert any("3 images" in record.message and str(run / "sampling") in record.message for record in caplog.records)


def test_given_locations_are_plotted_and_those_outside_warned_about(weights, tmp_path, monkeypatch, caplog) -> None:
    """Layer 3, N = 3, stride 2 on cells of 4 px: an output pixel covers 8 x 8 px of the network's input."""
    write(tmp_path / "in/wide.png", 0, 40, 120)
    write(tmp_path / "in/narrow.png", 1, 120, 40)
    write(tmp_path / "in/small.png", 2, 8, 8)
    drawn: dict[str, list[SampledPosition]] = {}
    monkeypatch.setattr(
        "utils.inference.sampling_figure.plot_sampling",
        lambda image, positions, *, path, **_: drawn.update({path.name: positions}),
    )
    monkeypatch.setattr("utils.detection.sampling_plots.plot_offsets", lambda *_, **__: None)
    selection = [
        "--visualize-at",
        "100,9",
        "9,100",
        "--visualize-layers",
        "3",
        "--conf-thres",
        "0.05",
        "--device",
        "cpu",
    ]
    words = ["--weights", weights["ak"], "--source", tmp_path / "in", "--project", tmp_path, "--imgsz", 96, "--nosave"]
    with caplog.at_level("WARNING"):
        run_detection(parse_options(DetectOptions, [*map(str, words), *selection], description="")[0])
    assert sorted(drawn) == ["narrow_model.3.png", "wide_model.3.png"]
    for name, image_hw, place in (("wide", (40, 120), (100, 9)), ("narrow", (120, 40), (9, 100))):
        (position,) = drawn[f"{name}_model.3.png"]
        _, transform = letterbox(np.zeros((*image_hw, 3), np.uint8), (96, 96), stride=32)
        corner = position.initial_xy[0] * transform.ratio_wh + transform.pad_wh - 2  # of the first point's cell
        within = np.array(place) * transform.ratio_wh + transform.pad_wh - corner
        assert position.label == f"{place[0]},{place[1]}" and (corner % 8 == 0).all()
        assert ((within >= 0) & (within < 8)).all(), (name, within)
        assert not np.allclose(position.learned_xy, position.initial_xy)
    warnings = sorted(record.message for record in caplog.records if "--visualize-at" in record.message)
    for warning, (name, locations, size) in zip(
        warnings,
        [("narrow", "100,9", "40x120"), ("small", "100,9 9,100", "8x8"), ("wide", "9,100", "120x40")],
        strict=True,
    ):
        assert warning.startswith(f"{name}: ") and f" {locations} " in warning and size in warning


@pytest.mark.parametrize("word", ["5", "5;6", "5,6,7", "a,6", "5,", "-1,6", "5,-0.1", "nan,6", "5,inf", ""])
def test_a_malformed_location_is_rejected(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_options(DetectOptions, ["--weights", "a.pt", f"--visualize-at={word}"], description="")
    assert error.value.where == "--visualize-at" and repr(word) in error.value.what and "\n" not in str(error.value)


def test_more_than_36_locations_are_rejected() -> None:
    words = ["--weights", "a.pt", "--visualize-at", *(f"{n},1" for n in range(37))]
    assert len(parse_options(DetectOptions, words[:-1], description="")[0].visualize_at) == 36
    with pytest.raises(ConfigError) as error:
        parse_options(DetectOptions, words, description="")
    assert error.value.where == "--visualize-at" and "36" in error.value.what and "37" in error.value.what


@pytest.mark.slow
def test_models_without_accessible_layers_are_detected_without_plots(weights, tmp_path, caplog) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    caplog.set_level("INFO")
    # Initial weights: the amplified ones of `weights` leave float32 noise of about 1e-4, which an export refuses.
    model = DetectionModel("yolov5n-AKConv.yaml", nc=len(NAMES)).eval()
    save_checkpoint(tmp_path / "initial.pt", {**describe_model(model, NAMES), "ema": weights_of(model)})
    export = [
        "--weights",
        str(tmp_path / "initial.pt"),
        "--include",
        "torchscript",
        "--imgsz",
        "96",
        "--project",
        str(tmp_path),
    ]
    run_export(parse_options(ExportOptions, export, description="")[0])
    exported = tmp_path / "initial.torchscript"
    for number, path in enumerate((weights["plain"], exported)):
        caplog.clear()
        run = run_detection(options(path, tmp_path / "in", tmp_path, name=f"n{number}", trust_torchscript=True))
        assert [record.message for record in caplog.records].count(NO_LAYERS) == 1
        assert "image 1/1" in caplog.text and not (run / "sampling").exists()


def test_an_unknown_layer_is_rejected_before_anything_is_written(weights, tmp_path) -> None:
    write(tmp_path / "in/a.png", 0, 40, 60)
    with pytest.raises(ConfigError) as error:
        run_detection(options(weights["ak"], tmp_path / "in", tmp_path, visualize_layers=("model.2",)))
    assert error.value.where == "--visualize-layers" and "'model.2'" in error.value.what
    assert not (tmp_path / "run").exists()

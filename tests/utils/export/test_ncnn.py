"""ncnn: AKConv layers alone in both forms, whole models, and their folders as --weights."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from models.fuse import fused
from tests.helpers.exports import UNTRACED_SHAPES, random_input_and_output
from tests.helpers.moving_layer import moving_layer
from tests.helpers.small_model import self_labelled_data, small_checkpoint, small_model
from utils.detection.run import run_detection
from utils.errors import CheckpointError, ConfigError
from utils.export import ncnn as conversion
from utils.export.ncnn_layers import FORMS, DeformAKConv, GridAKConv, NcnnWrapper
from utils.export.run import run_export
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_weights
from utils.inference.ncnn_model import BIN, METADATA, PARAM
from utils.inference.parity import max_difference, random_images
from utils.options import DetectOptions, ExportOptions, ValOptions
from utils.validation.run import run_evaluation

LAYERS: tuple[dict[str, Any], ...] = (
    {},
    {"offsets": "depthwise", "points": "centered", "padding": "zeros"},
    {"modulated": True, "bias": True},
    {"offsets": "depthwise", "modulated": True, "padding": "zeros"},
)


@pytest.mark.parametrize("form", [GridAKConv, DeformAKConv])
@pytest.mark.parametrize("words", LAYERS, ids=str)
@torch.no_grad()
def test_both_forms_compute_the_layer(words: dict[str, Any], form: type[GridAKConv] | type[DeformAKConv]) -> None:
    for num_points, stride in ((1, 1), (3, 2), (8, 2), (8, 1), (9, 1)):
        layer = moving_layer(num_points, stride, **words)
        for height, width in ((8, 16), (2, 6), (14, 4)):
            x = torch.randn(1, 4, height, width)
            torch.testing.assert_close(form(fused(layer))(x), layer(x), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_wrapped_model_predicts_the_same() -> None:
    for form in FORMS:
        model = small_model("yolov5n-AKConv-modulated.yaml")
        image = random_images((1, 3, 96, 160), torch.Generator().manual_seed(0))
        assert max_difference(model(image)[0], NcnnWrapper(model, form).eval()(image)) <= 1e-4


def export(folder: Path, cfg: str, **options: Any) -> Path:
    """Export a small checkpoint and return its ncnn folder."""
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    path = small_checkpoint(folder / "best.pt", cfg)
    return run_export(ExportOptions(weights=str(path), include=("ncnn",), **options))[0]["ncnn"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cfg", "form"),
    [
        ("yolov5n.yaml", ""),
        ("yolov5n-AKConv.yaml", "grid"),
        ("yolov5n-AKConv.yaml", "deform"),
        ("yolov5n-AKConv-modulated.yaml", "grid"),
        ("yolov5n-AKConv-modulated.yaml", "deform"),
    ],
)
def test_ncnn_matches_pytorch_at_sizes_never_traced(cfg: str, form: str, tmp_path: Path) -> None:
    folder = export(tmp_path, cfg, akconv_form=form)
    assert folder.name == "best_ncnn_model" and {file.name for file in folder.iterdir()} == {PARAM, BIN, METADATA}
    layers = {line.split()[0] for line in (folder / PARAM).read_text().splitlines()[2:]}
    assert ("GridSample" in layers) == (form == "grid") and ("DeformableConv2D" in layers) == (form == "deform")
    exported, metadata = open_weights(folder)
    assert metadata == open_weights(tmp_path / "best.pt")[1]
    for shape in UNTRACED_SHAPES:
        images, predictions = random_input_and_output(exported, shape)
        with torch.no_grad():
            assert max_difference(small_model(cfg)(images)[0], predictions) <= 1e-3


@pytest.mark.slow
def test_detect_and_val_accept_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    self_labelled_data(tmp_path, small_model("yolov5n-AKConv.yaml"))
    folder = export(tmp_path, "yolov5n-AKConv.yaml", half=True)
    words: dict[str, Any] = {"device": "cpu", "workers": 0, "noplots": True, "data": "own.yaml"}
    maps = [run_evaluation(ValOptions(weights=str(w), **words)).metrics.map50_95 for w in ("best.pt", folder)]
    assert maps[0] > 0.15 and maps[1] == pytest.approx(maps[0], abs=0.02)  # weights in half precision
    found = run_detection(DetectOptions(weights=str(folder), source="images/val", save_csv=True, conf_thres=0.05))
    assert len((found / "predictions.csv").read_text().splitlines()) > 20


@pytest.mark.slow
def test_a_damaged_folder_is_an_error(tmp_path: Path) -> None:
    folder = export(tmp_path, "yolov5n.yaml")
    param = (folder / PARAM).read_text()
    for name, content in (
        (PARAM, b"7767517\n1 1\nNoSuchLayer a 0 1 in0\n"),
        (PARAM, b""),
        (BIN, b"short"),
        (METADATA, b"names: [a]\n"),
        (METADATA, b"\x00"),
    ):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(CheckpointError):
            open_weights(folder)[0](torch.zeros(1, 3, 64, 64))
        (folder / name).write_bytes(before)
    (folder / PARAM).write_text(param.replace("out0", "in1"))
    (folder / METADATA).unlink()
    with pytest.raises(CheckpointError):
        open_weights(folder)


@pytest.mark.slow
def test_several_threads_may_call_one_model(tmp_path: Path) -> None:
    exported = open_weights(export(tmp_path, "yolov5n-AKConv.yaml"))[0]
    images = [random_images((1, 3, 96, 32 * n), torch.Generator().manual_seed(n)) for n in range(2, 6)]
    expected = [exported(image)[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        for index, rows in enumerate(pool.map(lambda image: exported(image)[0], images * 4)):
            torch.testing.assert_close(rows, expected[index % 4], rtol=0, atol=0)


def test_without_the_packages_a_line_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pnnx", None)
    monkeypatch.setitem(__import__("sys").modules, "ncnn", None)
    model = small_model("yolov5n.yaml")
    metadata = ModelMetadata(names=("a",), stride=32)
    with pytest.raises(ConfigError) as error, conversion.ncnn_folder(model, metadata, form="grid", half=False):
        pass
    assert error.value.where == conversion.FLAG and "ncnn" in error.value.fix

"""Files for small devices: of one size, in operators of opset 12, and with raw heads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.head import decode
from tests.helpers.exports import random_input_and_output
from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_checkpoint, small_model
from utils.detection.run import run_detection
from utils.errors import CheckpointError, ConfigError
from utils.export.run import run_export
from utils.inference import raw_heads
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_weights
from utils.inference.parity import max_difference
from utils.inference.raw_heads import decode_heads
from utils.options import DetectOptions, ExportOptions, ValOptions
from utils.validation.run import run_evaluation

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")
MODEL = "yolov5n-AKConv.yaml"


def export(folder: Path, name: str = MODEL, **options: Any) -> Path:
    """Export a small checkpoint and return the ONNX file."""
    path = small_checkpoint(folder / "best.pt", name)
    return run_export(ExportOptions(weights=str(path), include=("onnx",), **options))[0]["onnx"]


def opened(path: Path) -> ExportedModel:
    model = open_weights(path)[0]
    assert isinstance(model, ExportedModel)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", [MODEL, "yolov5n-AKConv-modulated.yaml"])
def test_a_static_file_has_plain_operators_of_opset_12_only(name: str, tmp_path: Path) -> None:
    path = export(tmp_path, name, static=(64, 160))
    graph = onnx.load(path)
    assert path.name == "best_64x160.onnx" and [entry.version for entry in graph.opset_import] == [12]
    for node in graph.graph.node:
        schema = onnx.defs.get_schema(node.op_type, 12, "")  # an operator since added is an error
        assert not schema.deprecated
        assert node.op_type not in ("Shape", "Range", "Where", "ConstantOfShape", "Expand", "Size", "NonZero")
    constants = {initializer.name for initializer in graph.graph.initializer}
    for node in graph.graph.node:  # shapes, axes and sizes are constants; only pixels are looked up
        assert node.op_type not in ("Reshape", "Resize", "Slice", "Pad") or set(node.input[1:]) - {""} <= constants
    exported, model = opened(path), small_model(name)
    images, predictions = random_input_and_output(exported, (3, 3, 64, 160))  # three batches of one image
    with torch.no_grad():
        assert max_difference(model(images)[0], predictions) <= 1e-4
    with pytest.raises(ConfigError):
        exported(images[:, :, :, :96])


@pytest.mark.slow
def test_detect_and_val_use_the_only_size_of_a_static_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    self_labelled_data(tmp_path, small_model("yolov5n.yaml"))
    path = export(tmp_path, "yolov5n.yaml", static=(96, 128), raw_heads=True, batch_size=2)
    assert path.name == "best_96x128_raw.onnx"
    words = {"device": "cpu", "workers": 0, "noplots": True, "data": "own.yaml"}
    assert run_evaluation(ValOptions(weights=str(path), **words)).metrics.map50_95 > 0.15  # type: ignore[arg-type]
    folder = run_detection(DetectOptions(weights=str(path), source="images/val", save_csv=True, conf_thres=0.05))
    assert len((folder / "predictions.csv").read_text().splitlines()) > 20
    with pytest.raises(ConfigError) as error:
        run_detection(DetectOptions(weights=str(path), source="images/val", imgsz=(96, 96)))
    assert error.value.where == "--imgsz" and "96 128" in error.value.what
    with pytest.raises(ConfigError):
        run_evaluation(ValOptions(weights=str(path), imgsz=96, **words))  # type: ignore[arg-type]


@pytest.mark.slow
def test_raw_heads_are_three_maps_that_the_decoder_turns_into_predictions(tmp_path: Path) -> None:
    path = export(tmp_path, raw_heads=True)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    levels = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert levels.pop("names") == list(SMALL_NAMES)
    exported, model = opened(path), small_model(MODEL)
    images, predictions = random_input_and_output(exported, (2, 3, 96, 160))
    maps = session.run(None, {"images": images.numpy()})
    assert [level.shape for level in maps] == [(2, 24, 12, 20), (2, 24, 6, 10), (2, 24, 3, 5)]
    with torch.no_grad():
        expected = model(images)[0]
    for found in (predictions, torch.from_numpy(decode_heads(maps, **levels))):
        assert found.dtype == torch.float32 and max_difference(expected, found) <= 1e-4


def test_the_decoder_equals_that_of_the_model() -> None:
    rng = np.random.default_rng(0)
    anchors = [[[10, 13], [16, 30]], [[30.5, 61], [62, 45]]]
    maps = [rng.normal(0, 4, (3, 2 * 7, 4, 6)).astype(np.float32), rng.normal(0, 4, (3, 14, 2, 3)).astype(np.float32)]
    expected = [
        decode(torch.from_numpy(raw).view(3, 2, 7, *raw.shape[2:]).permute(0, 1, 3, 4, 2), torch.tensor(sizes) / s, s)
        for raw, sizes, s in zip(maps, anchors, (8, 16), strict=True)
    ]
    found = decode_heads(maps, anchors=anchors, strides=(8, 16))
    assert found.shape == (3, 2 * 24 + 2 * 6, 7)
    assert max_difference(torch.cat(expected, 1), torch.from_numpy(found)) <= 1e-6
    assert np.isfinite(decode_heads([m * 1e4 for m in maps], anchors=anchors, strides=(8, 16))).all()
    for wrong in ((maps[:1], anchors, (8, 16)), ([maps[0][:, :13], maps[1]], anchors, (8, 16))):
        with pytest.raises(ValueError, match=r"maps|map"):
            decode_heads(wrong[0], anchors=wrong[1], strides=wrong[2])


@pytest.mark.slow
def test_the_decoder_alone_needs_numpy_only(tmp_path: Path) -> None:
    shutil.copy(raw_heads.__file__, tmp_path / "decoder.py")
    code = "import sys, decoder; print(sorted({'torch', 'utils', 'onnx'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "heads",
    ["[]", "{}", '{"anchors": [[[1, 2]]], "strides": []}', '{"anchors": [[[1, -2]]], "strides": [8]}', "[" * 9999],
)
def test_invalid_heads_in_a_file_are_refused(heads: str) -> None:
    with pytest.raises(CheckpointError):
        ModelMetadata.from_text({"names": "{0: 'a'}", "stride": "32", "heads": heads}, path="a.onnx")


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"static": (320,)}, "--static"),
        ({"static": (320, 9000)}, "--static"),
        ({"static": (320, 320), "include": ("onnx", "torchscript")}, "--static"),
        ({"static": (320, 320), "half": True}, "--static"),
        ({"static": (320, 320), "nms": True}, "--static"),
        ({"static": (320, 320), "dynamic": True}, "--static"),
        ({"raw_heads": True, "nms": True}, "--raw-heads"),
        ({"raw_heads": True, "include": ("torchscript",)}, "--raw-heads"),
        ({"akconv_form": "gather"}, "--akconv-form"),
        ({"static": (320, 320), "akconv_form": "deform", "opset": 17}, "--opset"),
    ],
)
def test_options_that_do_not_go_together(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportOptions(**{"weights": "a.pt", "include": ("onnx",), **settings})
    assert error.value.where == flag


def test_a_size_that_is_no_multiple_of_the_stride_names_the_next(tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "best.pt", "yolov5n.yaml")
    with pytest.raises(ConfigError) as error:
        run_export(ExportOptions(weights=str(path), include=("onnx",), static=(300, 417)))
    assert error.value.where == "--static" and "320 448" in error.value.fix
    with pytest.raises(ConfigError):
        run_export(ExportOptions(weights=str(path), include=("onnx",), static=(320, 320)), {"imgsz"})

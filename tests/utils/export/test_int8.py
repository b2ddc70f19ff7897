"""Quantized files: what is in int8 and what stays in float, and the mAP that is logged."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.small_model import self_labelled_data, small_checkpoint, small_model
from utils.errors import ConfigError
from utils.export.int8 import MAX_LOSS
from utils.export.run import run_export
from utils.inference.exported_model import ExportedModel
from utils.inference.model_loading import open_weights
from utils.options import ExportOptions

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxslim")


def weights_of(graph: Any) -> dict[str, bool]:
    """Return for each convolution whether its weights are quantized, by name."""
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {node.name: node.input[1] in dequantized for node in graph.node if node.op_type == "Conv"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "file", "offset_convolutions"),
    [
        ("yolov5n.yaml", {"raw_heads": True}, "best_raw_int8.onnx", 0),
        ("yolov5n-AKConv-light4.yaml", {"static": (96, 128)}, "best_96x128_int8.onnx", 2 * 5),
    ],
)
def test_convolutions_are_in_int8_except_heads_offsets_and_the_first(
    name: str,
    settings: dict[str, Any],
    file: str,
    offset_convolutions: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = small_model(name)
    data = self_labelled_data(tmp_path, model)
    weights = small_checkpoint(tmp_path / "best.pt", name)
    with caplog.at_level("INFO", logger="akyolo"):
        options = ExportOptions(weights=str(weights), include=("onnx",), int8=True, data=str(data), **settings)
        path = run_export(options)[0]["onnx"]
    assert path.name == file
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    convolutions = weights_of(graph)
    in_float = sorted(key for key, quantized in convolutions.items() if not quantized)
    assert len(in_float) == 1 + 3 + offset_convolutions and len(convolutions) > 50
    assert sum("/m.0/" in key or "/m.1/" in key or "/m.2/" in key for key in in_float) >= 3
    assert "Clip" not in kinds and "QuantizeLinear" in kinds
    before, after, lost = (
        float(number) for number in re.findall(r"-?\d\.\d{4}", next(m for m in caplog.messages if "mAP50-95" in m))
    )
    assert before > 0.15 or name != "yolov5n.yaml"
    assert lost == pytest.approx(before - after, abs=2e-4)
    level = next(record.levelname for record in caplog.records if "mAP50-95" in record.message)
    assert level == ("WARNING" if lost > MAX_LOSS else "INFO")
    exported = open_weights(path)[0]
    assert isinstance(exported, ExportedModel)
    images = torch.rand((2, 3, 96, 128), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(images)[0], exported(images)[0]
    assert found.shape == expected.shape
    assert 0 < (found[..., 4:] - expected[..., 4:]).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"half": True}, "--int8"),
        ({"nms": True}, "--int8"),
        ({"include": ("onnx", "torchscript")}, "--int8"),
        ({"opset": 12}, "--opset"),
        ({"static": (320, 320), "batch_size": 2}, "--batch-size"),
    ],
)
def test_options_that_do_not_go_together(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportOptions(**{"weights": "a.pt", "include": ("onnx",), "int8": True, **settings})
    assert error.value.where == flag


def test_the_data_set_must_have_the_models_classes(tmp_path: Path) -> None:
    weights = small_checkpoint(tmp_path / "best.pt", "yolov5n.yaml")
    data = tmp_path / "data.yaml"
    data.write_text("path: .\ntrain: a\nval: a\nnames: [a]\n")
    with pytest.raises(ConfigError) as error:
        run_export(ExportOptions(weights=str(weights), include=("onnx",), int8=True, data=str(data)))
    assert "1" in error.value.what and "3" in error.value.what

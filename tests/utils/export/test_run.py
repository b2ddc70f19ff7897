"""A whole export: what is written, and that nothing is written if it differs from PyTorch."""

from pathlib import Path

import pytest
import torch

from tests.helpers.exports import UNTRACED_SHAPES, random_input_and_output
from tests.helpers.small_model import small_checkpoint
from utils.errors import ConfigError, RunError
from utils.export import onnx_file, run
from utils.export.run import run_export
from utils.inference.model_loading import open_weights
from utils.inference.onnx_conversion import ExportWrapper
from utils.inference.parity import max_difference
from utils.options import ExportOptions

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_an_export_that_differs_from_pytorch_leaves_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_checkpoint(tmp_path / "best.pt", "yolov5n.yaml")
    module = run if name == "torchscript" else onnx_file
    convert = getattr(module, f"to_{name}")

    def slightly_wrong(wrapper: ExportWrapper, *words: object, **named: object) -> bytes:
        with torch.no_grad():
            next(iter(wrapper.network.head.m)).bias.add_(3e-3)
        return convert(wrapper, *words, **named)

    monkeypatch.setattr(module, f"to_{name}", slightly_wrong)
    with pytest.raises(RunError) as error:
        run_export(ExportOptions(weights=str(path), include=(name,)))
    assert error.value.where == name
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5n-AKConv.yaml", "yolov5n-AKConv-light.yaml", "yolov5n-AKConv-paper9.yaml"])
def test_openvino_matches_pytorch(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = small_checkpoint(tmp_path / "best.pt", name)
    folder = run_export(ExportOptions(weights=str(path), include=("openvino",)))[0]["openvino"]
    assert sorted(file.name for file in folder.iterdir()) == ["best.bin", "best.xml"]
    (exported, metadata), (checkpoint, checkpoint_metadata) = open_weights(folder), open_weights(path)
    assert metadata == checkpoint_metadata
    images, predictions = random_input_and_output(exported, UNTRACED_SHAPES[1])
    with torch.no_grad():
        assert max_difference(checkpoint(images)[0], predictions) <= 1e-4


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"include": ("engine",)}, "--include"),
        ({"include": ("coreml",)}, "--include"),
        ({"include": ("onyx",)}, "--include"),
        ({"opset": 9}, "--opset"),
        ({"nms": True}, "--nms"),
        ({"nms": True, "include": ("onnx",), "opset": 12}, "--opset"),
        ({"weights": ""}, "--weights"),
    ],
)
def test_invalid_options_are_rejected(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportOptions(**{"weights": "a.pt", **settings})  # type: ignore[arg-type]
    assert error.value.where == flag


@pytest.mark.parametrize(("name", "tool"), [("engine", "trtexec"), ("coreml", "coremltools")])
def test_formats_of_other_tools_name_the_tool(name: str, tool: str) -> None:
    with pytest.raises(ConfigError) as error:
        ExportOptions(weights="a.pt", include=(name,))
    assert tool in error.value.fix


def test_every_format_of_yolov5_and_of_ultralytics_is_known() -> None:
    known = {*ExportOptions.FORMATS, *ExportOptions.ELSEWHERE}
    assert known >= set(
        "torchscript onnx openvino engine coreml saved_model pb tflite edgetpu tfjs paddle ncnn rknn".split()
    )
    engine = ExportOptions.ELSEWHERE["engine"]
    assert all(shapes in engine for shapes in ("--minShapes=", "--optShapes=", "--maxShapes="))


def test_formats_of_other_tools_do_not_stop_the_others_and_checkpoints_follow_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = []

    def export(name: str, stem: Path, *_: object) -> Path:
        exported.append((name, stem.name))
        return stem

    monkeypatch.setattr(run, "_export", export)
    paths = [small_checkpoint(tmp_path / name, "yolov5n.yaml") for name in ("a.pt", "b.pt")]
    options = ExportOptions(weights=tuple(map(str, paths)), include=("engine", "torchscript", "tflite", "onnx"))
    with caplog.at_level("WARNING", logger="akyolo"):
        written = run_export(options)
    assert exported == [(name, stem) for stem in "ab" for name in ("torchscript", "onnx")]
    assert [list(formats) for formats in written] == [["torchscript", "onnx"]] * 2
    assert all(tool in caplog.text for tool in ("trtexec", "onnx2tf"))

"""The hub's entry points, and every snippet of docs/python.md, run as written from another folder."""

import importlib
import importlib.util
import inspect
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.yolo import DetectionModel
from tests.helpers.random_model import random_model
from utils.errors import CheckpointError, ConfigError
from utils.inference.autoshape import AutoShape
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.onnx_conversion import ExportWrapper, to_onnx
from utils.log import LOGGER
from utils.weights.checkpoint import describe_model, load_checkpoint, save_checkpoint, weights_of

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("ring", "cross", "arc")
EXPORTS = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.pt, best.onnx if its packages are installed, and an image, as docs/python.md assumes."""
    folder = tmp_path_factory.mktemp("workspace")
    model = random_model("yolov5n-akconv.yaml", len(NAMES), objectness=-3)
    save_checkpoint(folder / "best.pt", {**describe_model(model, NAMES), "ema": weights_of(model)})
    if EXPORTS:
        metadata = ModelMetadata(names=NAMES, stride=32)
        (folder / "best.onnx").write_bytes(to_onnx(ExportWrapper(model, half=False).eval(), metadata, opset=17))
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    (folder / "images").mkdir()
    cv2.imwrite(str(folder / "images/street.jpg"), cv2.resize(noise, (180, 120)))
    return folder


@pytest.fixture(autouse=True)
def hub_module_forgotten() -> Iterator[None]:
    yield
    sys.modules.pop("hubconf", None)


@pytest.fixture(autouse=True)
def logger_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)


def hub(name: str, *words: object, **named: object) -> object:
    return torch.hub.load(str(ROOT), name, *words, source="local", **named)


@pytest.mark.slow
def test_every_snippet_of_docs_python_runs(workspace: Path) -> None:
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(?!# server.py)(.*?)```", text, re.S)  # tests/test_server_example.py runs that
    assert len([snippet for snippet in snippets if "best.onnx" in snippet]) == 1
    snippets = [snippet for snippet in snippets if EXPORTS or "best.onnx" not in snippet]
    # Only the snippet that says so has the repository on its path.
    program = "\n".join(snippets).replace("/path/to/this/repository", str(ROOT))
    first, rest = program.split("from utils.inference.autoshape", 1)
    program = f"{first}\nimport sys; sys.path.insert(0, {str(ROOT)!r})\nfrom utils.inference.autoshape{rest}\n"
    program += "results.print()\nprint(neck.model.config.name, type(network).__name__, list(fresh.names.values()))"
    result = subprocess.run([sys.executable, "-c", program], cwd=workspace, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("image 1/1: 120x180 ") and "(no detections)" not in lines[0]
    assert "4 (4, 3, 256, 320)" in lines and sum(line.startswith("street.jpg ") for line in lines) == 1 + 1
    assert lines[-1] == "yolov5s-AKConv-neck.yaml DetectionModel ['class0', 'class1', 'class2']", lines[-1]
    saved = workspace / "runs/detect"
    assert {p.name for p in (saved / "exp").glob("*.jpg")} >= {"street.jpg", "street-2.jpg", "image3.jpg"}
    assert len(list((saved / "exp2/crops").rglob("*.jpg"))) > 4


def test_entry_points_have_the_documented_names() -> None:
    names = set(_entry_points())
    sizes = {f"yolov5{size}" for size in "nsmlx"}
    assert names == {"custom", "create", *sizes, *(f"{name}6" for name in sizes), *(f"{name}_akconv" for name in sizes)}


def _entry_points() -> list[str]:
    module = importlib.import_module("hubconf")  # as torch.hub.list finds them
    return [name for name in dir(module) if callable(getattr(module, name)) and not name.startswith("_")]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_custom_loads_a_checkpoint(workspace: Path, device: object) -> None:
    model = hub("custom", path=str(workspace / "best.pt"), device=device)
    again = hub("custom", path=str(workspace / "best"), device=device, verbose=False)  # as YOLOv5 allows
    assert isinstance(again, AutoShape)
    assert isinstance(model, AutoShape) and model.names == dict(enumerate(NAMES))
    settings = (model.conf, model.iou, model.agnostic, model.multi_label, model.classes, model.max_det, model.amp)
    assert settings == (0.25, 0.45, False, False, None, 1000, False)
    assert len(model(str(workspace / "images/street.jpg"), size=320).xyxy[0])
    parameters = list(inspect.signature(importlib.import_module("hubconf").custom).parameters)
    assert parameters[:4] == ["path", "autoshape", "_verbose", "device"]


@pytest.mark.skipif(not EXPORTS, reason="needs onnx and onnxruntime")
def test_custom_loads_an_exported_file(workspace: Path) -> None:
    exported, expected = (hub("custom", path=str(workspace / name), device="cpu") for name in ("best.onnx", "best.pt"))
    assert isinstance(exported, AutoShape) and isinstance(exported.model, ExportedModel)
    assert exported.names == expected.names
    street = str(workspace / "images/street.jpg")
    boxes, expected_boxes = exported(street, size=320).xyxy[0], expected(street, size=320).xyxy[0]
    # Boxes whose confidences differ by 1e-4 may come in another order: each is compared with the nearest.
    nearest = torch.cdist(expected_boxes, boxes).argmin(1)
    assert nearest.unique().numel() == len(boxes) == len(expected_boxes)
    torch.testing.assert_close(boxes[nearest], expected_boxes, rtol=0, atol=1e-2)
    assert isinstance(hub("custom", path=str(workspace / "best.onnx"), device="cpu", autoshape=False), ExportedModel)


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n_akconv"])
def test_a_named_model_has_fresh_weights_or_those_of_a_checkpoint(workspace: Path, name: str) -> None:
    fresh = hub(name, classes=2, device="cpu")
    assert isinstance(fresh, AutoShape) and len(fresh.names) == 2
    loaded = hub(name, weights=str(workspace / "best.pt"), device="cpu", autoshape=False)
    stored = DetectionModel("yolov5n-akconv.yaml", nc=len(NAMES))
    stored.load_state_dict(load_checkpoint(workspace / "best.pt")["ema"])
    assert loaded.num_classes == len(NAMES)
    for key in ("model.0.conv.weight", "model.24.m.0.weight"):
        assert torch.equal(loaded.state_dict()[key], stored.state_dict()[key])
    with torch.inference_mode():
        assert loaded(torch.zeros(1, 3, 64, 64))[0].shape == (1, 252, 8)


@pytest.mark.parametrize(
    ("entry", "named", "untrained"),
    [
        (("yolov5n",), {}, True),
        (("yolov5n_akconv",), {"autoshape": False}, True),
        (("create", "yolov5n.yaml"), {}, True),
        (("yolov5n", False), {}, False),
        (("yolov5n",), {"pretrained": False}, False),
        (("yolov5n",), {"weights": "best.pt"}, False),
        (("yolov5n",), {"weights": "best.pt", "pretrained": True}, False),
        (("create", "yolov5n.yaml", "best.pt"), {}, False),
    ],
)
def test_a_model_without_weights_is_called_untrained(
    entry: tuple[object, ...],
    named: dict[str, object],
    untrained: bool,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(workspace)
    with caplog.at_level("WARNING", logger="akyolo"):
        hub(*entry, device="cpu", **named)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * untrained


@pytest.mark.parametrize("size", ["s", "m", "l", "x"])
def test_larger_models_use_their_yaml(size: str) -> None:
    module = importlib.import_module("hubconf")
    for name, suffix in ((f"yolov5{size}", ""), (f"yolov5{size}_akconv", "-AKConv")):
        assert getattr(module, name).cfg == f"yolov5{size}{suffix}.yaml"
        assert (ROOT / "models" / getattr(module, name).cfg).is_file()


def test_invalid_calls_are_rejected(workspace: Path) -> None:
    with pytest.raises(ConfigError) as error:
        hub("yolov5s", pretrained=True)
    assert error.value.where == "pretrained" and "/v7.0/yolov5s.pt" in error.value.fix
    with pytest.raises(CheckpointError) as missing:
        hub("custom", path=str(workspace / "yolov5n"))
    assert "/v7.0/yolov5n.pt" in missing.value.fix
    with pytest.raises(CheckpointError) as missing:
        hub("custom", path=str(workspace / "none.pt"))
    assert missing.value.where == str(workspace / "none.pt")
    with pytest.raises(ConfigError) as error:
        hub("custom", path=str(workspace / "best.pt"), device="cuda:77")
    assert "cuda:77" in str(error.value)


def test_the_script_builds_a_model_and_detects_in_the_sample_images(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["hubconf.py", "--model", "yolov5n", "--device", "cpu"])
    handlers, level = list(LOGGER.handlers), LOGGER.level
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "hubconf.py"), run_name="__main__")
    finally:
        LOGGER.handlers[:] = handlers
        LOGGER.setLevel(level)
    assert ended.value.code == 0
    assert "image 2/2: " in capsys.readouterr().out

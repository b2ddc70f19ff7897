"""ONNX Runtime for checkpoints: the predictions of torch, one conversion, and torch wherever it cannot run."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.small_model import self_labelled_data, small_checkpoint, small_model
from utils.detection.run import run_detection
from utils.errors import CheckpointError, ConfigError, RunError
from utils.inference import engine, onnx_cache, onnx_conversion
from utils.inference.autoshape import load_detector
from utils.inference.engine import open_onnx_network
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_torch_network
from utils.inference.onnx_session import OnnxNetwork
from utils.log import LOGGER
from utils.options import DetectOptions, ValOptions
from utils.validation.run import run_evaluation

ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
SHAPES = ((1, 96, 160), (3, 160, 64), (8, 64, 96), (5, 32, 32), (1, 224, 352))  # images, H, W; none was traced
# Blocks a package, runs a script, and prints whether it has imported torch.
DRIVER = """
import runpy, sys
blocked, script, *sys.argv[1:] = sys.argv[1:]
if blocked:
    sys.modules[blocked] = None
sys.argv[0] = script
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as end:
    print("exit code", end.code, sys.modules.get("torch") is not None)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights") / "best.pt", "yolov5n.yaml")


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory):
    """A cache that the tests of this module share, so that a checkpoint is converted once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("WARNING")
    return caplog


@pytest.fixture
def no_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("converted again")

    monkeypatch.setattr(onnx_conversion, "convert", fail)


def opened(path: Path, **changes: str) -> tuple[OnnxNetwork, ModelMetadata]:
    network = open_onnx_network([path], **{"engine": "auto", "device": "cpu", **changes})
    assert network is not None
    return network


def noise(images: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (B, 3, H, W) uint8 images, channels last in memory."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (images, height, width, 3), np.uint8).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def test_predictions_are_those_of_torch_at_any_size(name: str, tmp_path: Path) -> None:
    path = small_checkpoint(tmp_path / "a.pt", name)
    network, metadata = opened(path, engine="onnxruntime")
    expected, expected_metadata = open_torch_network([str(path)], CPU)
    assert metadata == expected_metadata
    assert (network.num_classes, network.max_stride) == (expected.num_classes, expected.max_stride)
    for shape in SHAPES:
        images = noise(*shape)
        pixels, expected_pixels = network.scale(images), expected.scale(images)
        assert np.array_equal(pixels, expected_pixels.numpy()) and pixels.dtype == np.float32
        predictions, raw = network(pixels)
        assert raw == []
        np.testing.assert_allclose(predictions, expected(expected_pixels)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_converted_once_and_again_after_a_change(
    checkpoint: Path, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, (file,) = opened(checkpoint), fresh_cache.rglob("*.graph")
    moved = tmp_path / "moved.pt"
    moved.write_bytes(checkpoint.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(onnx_conversion, "convert", None)
        again = opened(moved)
    images = first[0].scale(noise(2, 64, 96))
    assert np.array_equal(first[0](images)[0], again[0](images)[0]) and first[1] == again[1]
    assert [*fresh_cache.rglob("*.graph")] == [file] and [p.name for p in checkpoint.parent.iterdir()] == ["best.pt"]
    opened(small_checkpoint(tmp_path / "other.pt", "yolov5n-AKConv.yaml"))
    monkeypatch.setattr(onnx_cache, "__version__", "0.0.0")
    opened(checkpoint)
    assert len([*fresh_cache.rglob("*.graph")]) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "checksum", "folder"])
def test_a_damaged_cache_is_made_again(
    damage: str, checkpoint: Path, fresh_cache: Path, warnings: pytest.LogCaptureFixture
) -> None:
    expected = opened(checkpoint)[0](network_input := opened(checkpoint)[0].scale(noise(1, 64, 96)))[0]
    (file,) = fresh_cache.rglob("*.graph")
    data = file.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes({"cut": data[:middle], "flipped": flipped, "empty": b"", "checksum": b"\xff\n{}\n"}[damage])
    assert np.array_equal(opened(checkpoint)[0](network_input)[0], expected)
    assert file.is_dir() or onnx_cache.load_graph(file.stem) is not None
    assert len(warnings.records) == (damage == "folder")


def test_without_a_writable_cache_torch_runs_unless_the_engine_is_required(
    checkpoint: Path, fresh_cache: Path, warnings: pytest.LogCaptureFixture
) -> None:
    fresh_cache.write_text("a file, not a folder")
    assert open_onnx_network([checkpoint], engine="auto", device="cpu") is None
    assert len(warnings.records) == 1
    network, _ = opened(checkpoint, engine="onnxruntime")
    assert len(network(network.scale(noise(1, 32, 64)))[0]) == 1 and len(warnings.records) == 2


def test_without_a_home_folder_torch_runs(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture, no_conversion: None
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert open_onnx_network([checkpoint], engine="auto", device="cpu") is None
    assert len(warnings.records) == 1


def test_only_the_latest_graphs_are_kept(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_cache, "MAX_FILES", 3)
    stored = onnx_cache.CachedGraph(graph=b"\n\0", metadata={"names": "{}"}, summary="s")
    for number in range(5):
        assert onnx_cache.store_graph(f"{number}", stored) is None
    assert len([*fresh_cache.rglob("*.graph")]) == 3 and onnx_cache.load_graph("4") == stored


def test_a_failing_runtime_hands_over_to_torch(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    network, _ = opened(checkpoint)
    pixels = network.scale(noise(3, 96, 64))
    expected = network(pixels)[0]
    strict, _ = opened(checkpoint, engine="onnxruntime")
    for one in (network, strict):
        monkeypatch.setattr(one, "_session", None)  # has no `run`
    for _ in range(2):
        np.testing.assert_allclose(network(pixels)[0], expected, rtol=1e-4, atol=1e-4)
    assert len(warnings.records) == 1
    with pytest.raises(RunError):
        strict(pixels)


def test_torch_does_not_take_over_with_other_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.pt"
    path.write_bytes(checkpoint.read_bytes())
    network, _ = opened(path)
    small_checkpoint(path, "yolov5n-AKConv.yaml")
    monkeypatch.setattr(network, "_session", None)
    with pytest.raises(CheckpointError):
        network(network.scale(noise(1, 32, 64)))


def test_a_graph_that_differs_from_torch_is_refused(
    checkpoint: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, warnings: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(onnx_conversion, "max_difference", lambda *_: 2e-4)
        assert open_onnx_network([checkpoint], engine="auto", device="cpu") is None
        patch.setattr(onnx_conversion, "convert", None)  # the refusal is remembered
        assert open_onnx_network([checkpoint], engine="auto", device="cpu") is None
    assert len(warnings.records) == 2
    with monkeypatch.context() as patch:
        patch.setattr(onnx_conversion, "to_onnx", None)
        with pytest.raises(ConfigError):
            open_onnx_network([checkpoint], engine="onnxruntime", device="cpu")
    assert open_onnx_network([checkpoint], engine="onnxruntime", device="cpu") is not None


def test_what_needs_torch_is_left_to_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_conversion: None
) -> None:
    refused = (
        ([checkpoint, checkpoint], {}),
        ([tmp_path / "none.pt"], {}),
        ([tmp_path / "best.onnx"], {}),
        ([checkpoint], {"device": "0"}),
        ([checkpoint], {"torch_only": "--augment"}),
    )
    for weights, changes in refused:
        assert open_onnx_network(weights, **{"engine": "auto", "device": "cpu", **changes}) is None
        with pytest.raises(ConfigError):
            open_onnx_network(weights, **{"engine": "onnxruntime", "device": "cpu", **changes})
    assert open_onnx_network([checkpoint], engine="torch", device="cpu") is None
    monkeypatch.setattr(engine, "_has_gpu", lambda: True)
    assert open_onnx_network([checkpoint], engine="auto", device="") is None


def test_modules_of_plugins_are_left_to_torch(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Custom(torch.nn.Module):
        pass

    load = onnx_conversion.load_model

    def with_plugin(*args: object, **keywords: object) -> tuple[torch.nn.Module, tuple[str, ...]]:
        model, names = load(*args, **keywords)
        model.extra = Custom()
        return model, names

    monkeypatch.setattr(onnx_conversion, "load_model", with_plugin)
    converted = onnx_conversion.convert(checkpoint, checkpoint.read_bytes())
    assert converted.refusal and not converted.graph


def run(blocked: str, script: str, *words: object, cache: Path) -> tuple[int, bool, str]:
    """Run a script with a package blocked; return its exit code, whether torch was imported, and its messages."""
    command = [sys.executable, "-c", DRIVER, blocked, script, *map(str, words)]
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**engine.os.environ, "XDG_CACHE_HOME": str(cache)}
    )
    *_, end = process.stdout.splitlines()
    _, _, code, torch_imported = end.split()
    return int(code), torch_imported == "True", process.stderr


@pytest.mark.slow
def test_detect_and_val_need_torch_only_without_a_cached_graph(checkpoint: Path, tmp_path: Path) -> None:
    data = self_labelled_data(tmp_path / "data", small_model("yolov5n.yaml"))
    common = ("--weights", checkpoint, "--imgsz", 96, "--device", "cpu", "--project", tmp_path)
    detect = ("detect.py", *common, "--source", ROOT / "data/images", "--save-txt", "--save-csv", "--save-crop")
    cache = tmp_path / "cache"
    assert run("", *detect, cache=cache)[:2] == (0, True)
    for blocked in ("", "torch"):
        assert run(blocked, *detect, cache=cache)[:2] == (0, False)
    single = ("val.py", *common, "--data", data, "--save-json", "--save-txt", "--coco-eval")
    assert run("torch", *single, cache=cache)[:2] == (0, False)
    assert run("onnxruntime", *detect, cache=cache)[:2] == (0, True)
    code, _, messages = run("onnxruntime", *detect, "--engine", "onnxruntime", cache=cache)
    assert code == 2 and "onnxruntime is not installed" in messages
    assert run("", *detect, "--engine", "torch", cache=cache)[:2] == (0, True)


@pytest.mark.slow
def test_two_processes_convert_at_once(checkpoint: Path, tmp_path: Path) -> None:
    words = ("--weights", checkpoint, "--imgsz", 64, "--device", "cpu", "--project", tmp_path / "runs", "--nosave")
    command = [sys.executable, "detect.py", *map(str, words), "--engine", "onnxruntime"]
    environment = {**engine.os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate() and process.returncode for process in both] == [0, 0]
    assert [path.suffix for path in (tmp_path / "cache/akyolo/onnxruntime").iterdir()] == [".graph"]
    assert run("torch", "detect.py", *words, cache=tmp_path / "cache")[:2] == (0, False)


def test_val_and_detect_find_with_both_engines_the_same(checkpoint: Path, tmp_path: Path) -> None:
    data = self_labelled_data(tmp_path / "data", small_model("yolov5n.yaml"), images=7)
    common = {"weights": (str(checkpoint),), "device": "cpu", "save_txt": True, "save_conf": True, "conf_thres": 0.05}
    metrics, boxes = {}, {}
    for engine_name in ("torch", "onnxruntime"):
        settings = {**common, "engine": engine_name, "project": str(tmp_path / engine_name)}
        evaluation = run_evaluation(
            ValOptions(**settings, data=str(data), imgsz=128, batch_size=3, workers=2, noplots=True, name="val")
        )
        metrics[engine_name] = evaluation.metrics.map50, evaluation.metrics.map50_95
        for size in ((96,), (160, 64)):
            images, name = str(data.parent / "images/val"), "x".join(map(str, size))
            run_detection(DetectOptions(**settings, source=images, imgsz=size, batch_size=2, name=name))
        boxes[engine_name] = {
            str(path.relative_to(tmp_path / engine_name)): np.loadtxt(path, ndmin=2)
            for path in (tmp_path / engine_name).rglob("labels/*.txt")
        }
    assert metrics["torch"][0] > 0.3 and metrics["onnxruntime"] == pytest.approx(metrics["torch"], abs=1e-3)
    assert boxes["torch"].keys() == boxes["onnxruntime"].keys() and len(boxes["torch"]) == 21
    for name, rows in boxes["torch"].items():
        np.testing.assert_allclose(boxes["onnxruntime"][name], rows, rtol=1e-4, atol=1e-5)


def test_the_python_call_runs_in_the_engine_until_the_model_is_moved(checkpoint: Path) -> None:
    image = noise(1, 60, 84)[0].transpose(1, 2, 0)
    with_torch = load_detector(checkpoint, device="cpu", engine="torch")
    model = load_detector(checkpoint, device="cpu")
    onnx_network = model._onnx_network
    assert with_torch._onnx_network is None and onnx_network is not None
    for one in (model, with_torch):
        one.conf = 0.01
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) / 255
    for ims in ([image, image[:40]], tensor, [tensor.half().float(), image]):
        results, expected = model(ims, size=96), with_torch(ims, size=96)
        assert results.s == expected.s
        for one, other in zip(results.xyxy, expected.xyxy, strict=True):
            assert len(one) > 5
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert model._network(augment=True) is not onnx_network
    assert copy.deepcopy(model)._onnx_network is None and copy.copy(model)._onnx_network is None
    assert model.double()._network(augment=False) is not onnx_network
    with pytest.raises(ConfigError):
        load_detector(checkpoint, device="cpu", engine="tensorrt")
    with pytest.raises(ConfigError):
        load_detector(checkpoint, device="cpu", engine="onnxruntime", autoshape=False)

"""Exported files: their metadata, and the Python API on them against the checkpoint they were made of."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.small_model import SMALL_NAMES, small_checkpoint
from utils.errors import CheckpointError, ConfigError
from utils.export.run import run_export
from utils.inference.autoshape import AutoShape, create_detector, load_detector
from utils.inference.exported_model import ExportedModel, open_onnx
from utils.inference.metadata import ModelMetadata
from utils.inference.onnx_session import require_package
from utils.options import ExportOptions

pytestmark = pytest.mark.slow

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SIZES_HW = ((64, 96), (100, 61), (37, 150), (240, 180))
EXPORTS = ["best.onnx", "best.torchscript", "best_openvino_model", "best_openvino_model/best.xml"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.pt and its exports."""
    folder = tmp_path_factory.mktemp("exported")
    small_checkpoint(folder / "best.pt", "yolov5n-AKConv.yaml")
    run_export(ExportOptions(weights=str(folder / "best.pt"), include=("torchscript", "onnx")), {"weights", "include"})
    return folder


@pytest.fixture(scope="module")
def openvino_too(place: Path) -> None:
    pytest.importorskip("openvino")
    run_export(ExportOptions(weights=str(place / "best.pt"), include=("openvino",)), {"weights", "include"})


def images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (6, 8, 3), np.uint8) for _ in SIZES_HW]
    return [cv2.resize(n, size[::-1], interpolation=cv2.INTER_CUBIC) for n, size in zip(noise, SIZES_HW, strict=True)]


def load(path: Path, **named: object) -> AutoShape:
    detector = load_detector(path, device="cpu", **named)
    assert isinstance(detector, AutoShape)
    detector.conf, detector.max_det = 0.05, 50
    return detector


def assert_same(results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare (n, 6) rows in any order: boxes within 0.5 px, confidences within 0.001, equal classes."""
    assert len(results) == len(expected) > 0
    for rows, expected_rows in zip(results, expected, strict=True):
        assert len(rows) == len(expected_rows) > 3
        distance = (rows[:, None, :4] - expected_rows[None, :, :4]).abs().amax(2)
        distance += 1e3 * (rows[:, None, 5] != expected_rows[None, :, 5])
        nearest, partner = distance.min(1)
        assert nearest.max() <= 0.5 and len(partner.unique()) == len(rows)
        assert (rows[:, 4] - expected_rows[partner, 4]).abs().max() <= 1e-3


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_file_detects_what_its_checkpoint_detects(
    name: str, place: Path, request: pytest.FixtureRequest
) -> None:
    if "openvino" in name:
        request.getfixturevalue("openvino_too")
    checkpoint, exported = load(place / "best.pt"), load(place / name)
    assert exported.names == checkpoint.names == dict(enumerate(SMALL_NAMES)) and exported.stride == 32
    pixels = torch.rand(2, 3, 70, 110, generator=torch.Generator().manual_seed(0))
    for size in (160, (96, 192)):
        assert_same(exported([*images(), pixels], size=size).pred, checkpoint([*images(), pixels], size=size).pred)
    image = images()[3]
    augmented = exported(image, size=160, augment=True)
    assert augmented.s == (1, 3, 160, 128)
    assert_same(augmented.pred, checkpoint(image, size=160, augment=True).pred)
    exported.to("cpu").half()  # has no effect
    assert_same(exported(image, size=160).pred, checkpoint(image, size=160).pred)


@pytest.mark.parametrize("name", EXPORTS[:3])
def test_several_threads_may_call_an_exported_file(name: str, place: Path, request: pytest.FixtureRequest) -> None:
    if "openvino" in name:
        request.getfixturevalue("openvino_too")
    detector = load(place / name)
    expected = [detector(image, size=96).pred[0] for image in images()]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image: detector(image, size=96).pred[0], images() * 4))
    for rows, expected_rows in zip(results, expected * 4, strict=True):
        torch.testing.assert_close(rows, expected_rows, rtol=0, atol=1e-3)


def test_without_autoshape_the_bare_model_is_returned(place: Path) -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    networks = [load_detector(place / name, device="cpu", autoshape=False) for name in ("best.pt", "best.onnx")]
    assert isinstance(networks[1], ExportedModel)
    with torch.inference_mode():
        expected, actual = (network(images)[0] for network in networks)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_what_cannot_be_loaded_is_rejected_in_one_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.onnx").write_bytes((place / "best.onnx").read_bytes()[:1000])
    foreign = Path(shutil.copy(place / "best.torchscript", tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    for path in (tmp_path / "none.onnx", tmp_path / "broken.onnx", foreign):
        with pytest.raises(CheckpointError) as error:
            load_detector(path, device="cpu")
        assert error.value.where == str(path) and len(str(error.value).splitlines()) == 1
    assert isinstance(load(foreign, trust=True), AutoShape)
    with pytest.raises(ConfigError) as config_error:
        create_detector("yolov5n.yaml", weights=place / "best.onnx", device="cpu")
    assert config_error.value.where == "weights"


def test_an_output_of_another_shape_is_rejected() -> None:
    transposed = ExportedModel(lambda images: images.new_zeros(1, 84, 20), ModelMetadata(names=("a",) * 80, stride=32))
    with pytest.raises(CheckpointError) as error:
        AutoShape(transposed, ("a",) * 80)(np.zeros((32, 64, 3), np.uint8), size=64)
    assert "1x84x20" in error.value.what and "85" in error.value.what


def test_names_are_parsed_as_yolov5_writes_them() -> None:
    for names in ("{0: 'a', 1: \"b'c\"}", {"0": "a", "1": "b'c"}, ["a", "b'c"]):
        metadata = ModelMetadata.from_text({"names": names, "stride": "32"}, path="x")
        assert (metadata.names, metadata.stride, metadata.nms) == (("a", "b'c"), 32, False)


@pytest.mark.parametrize(
    "text",
    [{}, {"names": "{0: 'a'}"}, {"names": "{1: 'a'}", "stride": 32}, {"names": "__import__('os')", "stride": 32}],
)
def test_a_file_without_valid_names_and_stride_is_rejected(text: dict[str, object]) -> None:
    with pytest.raises(CheckpointError) as error:
        ModelMetadata.from_text(text, path="x.onnx")
    assert error.value.where == "x.onnx"


def test_a_graph_of_fixed_size_states_its_shape(place: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_model(place / "best.onnx")
    for dim, value in zip(graph.graph.input[0].type.tensor_type.shape.dim, (1, 3, 64, 64), strict=True):
        dim.dim_value = value
    exported = open_onnx(graph.SerializeToString(), CPU, path="a.onnx")
    with pytest.raises(ConfigError) as error:
        exported(torch.zeros(1, 3, 96, 64))
    assert error.value.where == "a.onnx" and "1x3x64x64" in error.value.what


def test_a_missing_package_is_named_with_its_command() -> None:
    with pytest.raises(ConfigError) as error:
        require_package("no_such_package_here", "--include onnx")
    assert error.value.where == "--include onnx" and error.value.fix.endswith("pip install no_such_package_here")

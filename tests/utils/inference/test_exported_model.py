"""The Python call with exported files: the same as with the checkpoint they were made of."""

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
from utils.inference.exported_model import ExportedModel, ModelMetadata
from utils.inference.model_loading import open_weights
from utils.options import ExportOptions

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SIZES_HW = ((64, 96), (100, 61), (37, 150), (240, 180))
FILES = ["best.onnx", "best.torchscript", "best_openvino_model", "best_openvino_model/best.xml"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.pt, and what export.py made of it."""
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


def opened(path: Path, **named: object) -> AutoShape:
    detector = load_detector(path, device="cpu", **named)
    assert isinstance(detector, AutoShape)
    detector.conf, detector.max_det = 0.05, 50
    return detector


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare (n, 6) rows: the same boxes, within 0.5 px, 0.001 of confidence, and of the same class."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other) > 3
        apart = (one[:, None, :4] - other[None, :, :4]).abs().amax(2)
        apart += 1e3 * (one[:, None, 5] != other[None, :, 5])
        distance, partner = apart.min(1)
        assert distance.max() <= 0.5 and len(partner.unique()) == len(one)
        assert (one[:, 4] - other[partner, 4]).abs().max() <= 1e-3


@pytest.mark.parametrize("name", FILES)
def test_an_exported_file_finds_what_its_checkpoint_finds(
    name: str, place: Path, request: pytest.FixtureRequest
) -> None:
    if "openvino" in name:
        request.getfixturevalue("openvino_too")
    expected, found = opened(place / "best.pt"), opened(place / name)
    assert found.names == expected.names == dict(enumerate(SMALL_NAMES)) and found.stride == 32
    pixels = torch.rand(2, 3, 70, 110, generator=torch.Generator().manual_seed(0))
    for size in (160, (96, 192)):
        assert_same(found([*images(), pixels], size=size).pred, expected([*images(), pixels], size=size).pred)
    image = images()[3]
    augmented = found(image, size=160, augment=True)
    assert augmented.s == (1, 3, 160, 128)
    assert_same(augmented.pred, expected(image, size=160, augment=True).pred)
    found.to("cpu").half()  # stays as it is
    assert_same(found(image, size=160).pred, expected(image, size=160).pred)


@pytest.mark.parametrize("name", FILES[:3])
def test_several_threads_may_call_an_exported_file(name: str, place: Path, request: pytest.FixtureRequest) -> None:
    if "openvino" in name:
        request.getfixturevalue("openvino_too")
    detector = opened(place / name)
    expected = [detector(image, size=96).pred[0] for image in images()]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: detector(image, size=96).pred[0], images() * 4))
    for one, other in zip(found, expected * 4, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_without_autoshape_it_is_the_bare_network(place: Path) -> None:
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    networks = [load_detector(place / name, device="cpu", autoshape=False) for name in ("best.pt", "best.onnx")]
    assert isinstance(networks[1], ExportedModel)
    with torch.inference_mode():
        expected, found = (network(images)[0] for network in networks)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


def test_mistakes_get_one_line(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.onnx").write_bytes((place / "best.onnx").read_bytes()[:1000])
    (tmp_path / "best.engine").write_bytes(b"")
    for name, said in (
        ("none.onnx", "cannot be read"),
        ("broken.onnx", "cannot be opened by ONNX Runtime"),
        ("best.engine", "are not supported"),
        ("empty", "not one"),
    ):
        with pytest.raises((CheckpointError, ConfigError), match=said) as error:
            load_detector(tmp_path / name, device="cpu")
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="is an exported file"):
        create_detector("yolov5n.yaml", weights=place / "best.onnx", device="cpu")
    foreign = shutil.copy(place / "best.torchscript", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(CheckpointError, match="trust=True"):
        load_detector(foreign, device="cpu")
    assert isinstance(opened(Path(foreign), trust=True), AutoShape)


def test_a_file_that_answers_in_another_form_is_refused() -> None:
    transposed = ExportedModel(lambda images: images.new_zeros(1, 84, 20), ModelMetadata(names=("a",) * 80, stride=32))
    with pytest.raises(CheckpointError, match="returns 1x84x20 values, not 85 per box for 80 classes"):
        AutoShape(transposed, ("a",) * 80)(np.zeros((32, 64, 3), np.uint8), size=64)


def test_a_checkpoint_with_an_odd_description_is_refused_in_one_line(place: Path, tmp_path: Path) -> None:
    from utils.weights.checkpoint import load_checkpoint, save_checkpoint

    content = load_checkpoint(place / "best.pt")
    for wrong in ({"image_size": [96]}, {"image_size": "96"}, {"options": ["a"]}, {"options": {"data": 3}}):
        save_checkpoint(tmp_path / "odd.pt", {**content, **wrong})
        with pytest.raises(CheckpointError, match=f"{next(iter(wrong))}"):
            open_weights(tmp_path / "odd.pt", CPU)
    assert open_weights(place / "best.pt", CPU)[1].image_size == 96

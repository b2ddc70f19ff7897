"""Opening weights: exported files of known and unknown origin, damaged files, invalid metadata, ensembles."""

from pathlib import Path

import pytest
import torch

from tests.helpers.exports import METADATA
from tests.helpers.small_model import SMALL_NAMES, small_checkpoint, small_model
from utils.errors import CheckpointError, ConfigError, DetectorError
from utils.export.formats import to_torchscript
from utils.inference.ensemble import Ensemble, SingleClassWrapper
from utils.inference.exported_model import mark_trusted
from utils.inference.model_loading import open_ensemble, open_weights
from utils.inference.onnx_conversion import ExportWrapper
from utils.weights.checkpoint import describe_model, load_checkpoint, save_checkpoint, weights_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("weights") / "best.pt", "yolov5n.yaml")


@pytest.mark.slow
def test_a_torchscript_file_of_unknown_origin_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = to_torchscript(ExportWrapper(small_model("yolov5n.yaml"), half=False).eval(), METADATA)
    path = tmp_path / "a.torchscript"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        open_weights(path)
    assert (
        error.value.where == str(path) and "--trust-torchscript" in error.value.fix and "trust=True" in error.value.fix
    )
    assert open_weights(path, trust=True)[1] == METADATA
    mark_trusted(data)
    assert open_weights(path)[1] == METADATA
    path.write_bytes(data + b" ")
    with pytest.raises(CheckpointError):
        open_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.onnx", b"no graph", CheckpointError),
        ("a.torchscript", b"PK no archive", CheckpointError),
        ("a.engine", b"", ConfigError),
        ("none.onnx", None, CheckpointError),
        ("none.pt", None, CheckpointError),
    ],
)
def test_unusable_files_are_rejected_in_one_line(
    name: str, content: bytes | None, kind: type[DetectorError], tmp_path: Path
) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnxruntime")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(kind) as error:
        open_weights(tmp_path / name, trust=True)
    assert error.value.where == str(tmp_path / name) and error.value.fix and "\n" not in str(error.value)


@pytest.mark.parametrize("graphs", [(), ("a.xml", "b.xml")])
def test_a_folder_must_hold_one_graph(graphs: tuple[str, ...], tmp_path: Path) -> None:
    for name in graphs:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        open_weights(tmp_path)
    assert f"{len(graphs)} .xml files" in error.value.what


def test_the_metadata_of_a_checkpoint(checkpoint: Path) -> None:
    _, metadata = open_weights(checkpoint)
    assert (metadata.names, metadata.stride, metadata.image_size) == (SMALL_NAMES, 32, 96)
    assert (metadata.data, metadata.single_class) == ("own.yaml", False)


@pytest.mark.parametrize(
    "wrong", [{"image_size": [96]}, {"image_size": "96"}, {"options": ["a"]}, {"options": {"data": 3}}]
)
def test_a_checkpoint_with_invalid_metadata_is_rejected(
    wrong: dict[str, object], checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.pt"
    save_checkpoint(path, {**load_checkpoint(checkpoint), **wrong})
    with pytest.raises(CheckpointError) as error:
        open_weights(path)
    assert error.value.where == str(path) and next(iter(wrong)) in error.value.what


def test_an_ensemble_concatenates_predictions_and_combines_metadata(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    content = load_checkpoint(small_checkpoint(other, "yolov5n-AKConv.yaml"))
    save_checkpoint(other, {**content, "image_size": 128, "options": {"data": "b.yaml", "single_cls": True}})
    models = [open_weights(path)[0] for path in (checkpoint, other)]
    ensemble, metadata = open_ensemble([str(checkpoint), str(other)])
    assert isinstance(ensemble, Ensemble) and ensemble.num_classes == 3
    assert (metadata.names, metadata.image_size, metadata.data, metadata.single_class) == (
        SMALL_NAMES,
        128,
        "own.yaml",
        True,
    )
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = torch.cat([model(images)[0] for model in models], 1)
        assert torch.equal(ensemble(images)[0], expected)
    alone, _ = open_ensemble([str(checkpoint)])
    assert not isinstance(alone, Ensemble)


@pytest.mark.parametrize(
    ("names", "difference"), [(("x", "y"), "2 classes"), (("ring", "dog", "细胞"), "class 1 'dog'")]
)
def test_an_ensemble_of_different_classes_is_rejected(
    names: tuple[str, ...], difference: str, checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.pt"
    model = small_model("yolov5n.yaml")
    model = type(model)(model.config, nc=len(names))
    save_checkpoint(path, {**describe_model(model, names), "ema": weights_of(model)})
    with pytest.raises(CheckpointError) as error:
        open_ensemble([str(checkpoint), str(path)])
    assert error.value.where == str(path) and difference in error.value.what


def test_the_single_class_wrapper_keeps_the_best_probability(checkpoint: Path) -> None:
    model, _ = open_weights(checkpoint)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        predictions, merged = model(images)[0], SingleClassWrapper(model)(images)[0]
    assert torch.equal(merged[..., :5], predictions[..., :5]) and merged.shape[2] == 6
    assert torch.equal(merged[..., 5], predictions[..., 5:].max(-1).values)

"""Exports against PyTorch: sizes never traced, suppression inside the graph, what files say of themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.modules import AKConv
from models.yolo import DetectionModel
from tests.helpers.small_model import SMALL_NAMES, small_checkpoint, small_model
from utils.errors import CheckpointError, ConfigError, RunError
from utils.export import run
from utils.export.formats import ExportWrapper, add_nms, to_onnx, to_torchscript
from utils.export.onnx_nms import EmbeddedNms
from utils.export.parity_check import max_difference
from utils.export.run import run_export
from utils.inference import exported_model
from utils.inference.exported_model import ExportedModel, ModelMetadata, open_onnx, open_torchscript
from utils.inference.model_loading import open_weights
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.options import ExportOptions

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SHAPES = ((1, 3, 64, 160), (3, 3, 128, 96))
DESCRIPTION = ModelMetadata(names=SMALL_NAMES, stride=32, image_size=96, data="tiny.yaml")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    return small_model("yolov5n-AKConv.yaml")


@pytest.fixture(scope="module")
def onnx_file(model: DetectionModel) -> bytes:
    return to_onnx(ExportWrapper(model, half=False).eval(), DESCRIPTION, opset=17)


def found_by(network: ExportedModel, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    return images, network(images)[0]


@pytest.fixture(scope="module")
def script_file(model: DetectionModel) -> bytes:
    return to_torchscript(ExportWrapper(model, half=False).eval(), DESCRIPTION)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def test_every_format_serves_sizes_never_traced(name: str, script_file: bytes, onnx_file: bytes) -> None:
    model = small_model(name)
    form = ExportWrapper(model, half=False).eval()
    if name == "yolov5n.yaml":
        script_file, graphs = to_torchscript(form, DESCRIPTION), [to_onnx(form, DESCRIPTION, opset=12)]
    else:
        graphs = [onnx_file, to_onnx(form, DESCRIPTION, opset=19)]
    networks = [open_torchscript(script_file, CPU, path="a"), *(open_onnx(graph, CPU, path="b") for graph in graphs)]
    for network in networks:
        for shape in SHAPES:
            images, found = found_by(network, shape)
            with torch.no_grad():
                expected = model(images)[0]
            assert expected[..., 4].std() > 1e-3, "a model that says the same everywhere shows nothing"
            assert max_difference(expected, found) <= 1e-4


def test_an_exported_akconv_depends_on_its_offsets(onnx_file: bytes, model: DetectionModel) -> None:
    images, found = found_by(open_onnx(onnx_file, CPU, path="a"), SHAPES[0])
    twin = small_model("yolov5n-AKConv.yaml")
    for layer in twin.modules():
        if isinstance(layer, AKConv):
            nn.init.zeros_(layer.p_conv.weight)
    with torch.no_grad():
        assert max_difference(twin(images)[0], found) > 1e-2
        assert max_difference(model(images)[0], found) <= 1e-4


def test_sizes_stay_open_in_the_graph(onnx_file: bytes) -> None:
    graph = onnx.load_model_from_string(onnx_file).graph
    names = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (graph.input[0], graph.output[0])
    ]
    assert names == [["batch", 3, "height", "width"], ["batch", "predictions", 5 + len(SMALL_NAMES)]]
    assert {node.domain for node in graph.node} == {""}, "standard operators alone"


def test_half_precision_is_half_the_size_and_keeps_boxes(model: DetectionModel, onnx_file: bytes) -> None:
    form = ExportWrapper(model, half=True).eval()
    data = to_onnx(form, DESCRIPTION, opset=17)
    assert len(data) < 0.65 * len(onnx_file)
    images, found = found_by(open_onnx(data, CPU, path="a"), SHAPES[0])
    with torch.no_grad():
        assert 0 < max_difference(model(images)[0], found) < 0.05
    assert found.dtype == torch.float32


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("limit", [5, 1000])
def test_suppression_inside_the_graph_is_ours(agnostic: bool, limit: int, onnx_file: bytes) -> None:
    nms = EmbeddedNms(
        conf_threshold=0.02, iou_threshold=0.45, max_per_class=limit, max_detections=limit, agnostic=agnostic
    )
    inside = open_onnx(add_nms(onnx_file, DESCRIPTION, nms), CPU, path="a")
    ours = NmsSettings(conf_threshold=0.02, iou_threshold=0.45, max_detections=limit, agnostic=agnostic)
    images, predictions = found_by(open_onnx(onnx_file, CPU, path="b"), SHAPES[1])
    wanted = non_max_suppression(predictions, ours)
    rows = inside._run(images)
    assert sum(len(w) for w in wanted) > 10 and rows.shape[2] == 6
    for expected, image in zip(wanted, rows, strict=True):
        kept = image[image[:, 4] > 0]
        torch.testing.assert_close(kept[:, 4], expected.scores, atol=1e-6, rtol=0)
        order, other = (
            np.lexsort((c.numpy(), s.numpy().round(4)))
            for c, s in ((kept[:, 5], kept[:, 4]), (expected.classes, expected.scores))
        )
        torch.testing.assert_close(kept[order, :4], expected.boxes[other], atol=1e-3, rtol=0)
        assert kept[order, 5].tolist() == expected.classes[other].tolist()
        assert not image[len(kept) :].any()
    again = non_max_suppression(inside(images)[0], ours)
    assert [len(a) for a in again] == [len(w) for w in wanted], "suppressing twice changes nothing"


def test_suppression_inside_finds_nothing_in_nothing(onnx_file: bytes) -> None:
    nms = EmbeddedNms(conf_threshold=0.999, iou_threshold=0.45, max_per_class=10, max_detections=10, agnostic=False)
    _, found = found_by(open_onnx(add_nms(onnx_file, DESCRIPTION, nms), CPU, path="a"), (2, 3, 32, 64))
    assert found.shape == (2, 10, 5 + len(SMALL_NAMES)) and not found[..., :5].any()


def test_files_say_what_they_are(script_file: bytes, onnx_file: bytes) -> None:
    for network in (open_onnx(onnx_file, CPU, path="a"), open_torchscript(script_file, CPU, path="b")):
        assert network.metadata == DESCRIPTION
        assert (network.num_classes, network.max_stride) == (3, 32)


def test_names_are_read_as_yolov5_writes_them() -> None:
    for names in ("{0: 'a', 1: \"b'c\"}", {"0": "a", "1": "b'c"}, ["a", "b'c"]):
        found = ModelMetadata.from_text({"names": names, "stride": "32"}, path="x")
        assert (found.names, found.stride, found.nms) == (("a", "b'c"), 32, False)


@pytest.mark.parametrize(
    "text",
    [{}, {"names": "{0: 'a'}"}, {"names": "{1: 'a'}", "stride": 32}, {"names": "__import__('os')", "stride": 32}],
)
def test_a_file_without_names_is_refused(text: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="class names and stride"):
        ModelMetadata.from_text(text, path="x")


def test_difference_is_relative_above_one_and_infinite_where_shapes_differ() -> None:
    expected = torch.tensor([0.5, 1000.0, torch.nan])
    assert max_difference(expected, expected) == 0
    assert max_difference(expected, torch.tensor([0.5, 1000.1, torch.nan])) == pytest.approx(1e-4, rel=1e-2)
    assert max_difference(expected, torch.tensor([0.6, 1000.0, torch.nan])) == pytest.approx(0.1)
    assert max_difference(expected, torch.tensor([0.5, 1000.0, 1.0])) == float("inf")
    assert max_difference(expected, expected[:2]) == float("inf")


@pytest.mark.parametrize("name", ["onnx", "torchscript"])
def test_an_export_that_differs_leaves_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_checkpoint(tmp_path / "best.pt", "yolov5n.yaml")

    def slightly_wrong(wrapper: ExportWrapper, *words: object, **named: object) -> bytes:
        with torch.no_grad():
            next(iter(wrapper.network.head.m)).bias.add_(3e-3)
        return make(wrapper, *words, **named)

    make = getattr(run, f"to_{name}")
    monkeypatch.setattr(run, f"to_{name}", slightly_wrong)
    with pytest.raises(RunError, match=r"largest difference to PyTorch \d\.\de-0\d .* no file is written"):
        run_export(ExportOptions(weights=str(path), include=(name,)))
    assert [file.name for file in tmp_path.iterdir()] == ["best.pt"]


def test_a_torchscript_file_from_elsewhere_needs_trust(
    script_file: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "a.torchscript"
    path.write_bytes(script_file)
    with pytest.raises(CheckpointError, match="--trust-torchscript"):
        open_weights(path, CPU)
    assert open_weights(path, CPU, trust=True)[1] == DESCRIPTION
    exported_model.mark_trusted(script_file)
    assert open_weights(path, CPU)[1] == DESCRIPTION
    path.write_bytes(script_file + b" ")
    with pytest.raises(CheckpointError, match="--trust-torchscript"):
        open_weights(path, CPU)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.onnx", b"no graph", "cannot be opened by ONNX Runtime"),
        ("a.torchscript", b"PK no archive", "not a TorchScript file, or is damaged"),
        ("a.engine", b"", "not supported"),
        ("none.onnx", None, "cannot be read"),
    ],
)
def test_files_that_cannot_be_used_get_one_line(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((CheckpointError, ConfigError), match=said) as caught:
        open_weights(tmp_path / name, CPU, trust=True)
    assert "\n" not in str(caught.value)


def test_a_graph_of_fixed_size_says_which(onnx_file: bytes) -> None:
    model = onnx.load_model_from_string(onnx_file)
    for dim, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 64, 64), strict=True):
        dim.dim_value = value
    network = open_onnx(model.SerializeToString(), CPU, path="a.onnx")
    with pytest.raises(ConfigError, match="shape 1x3x64x64 only"):
        network(torch.zeros(1, 3, 96, 64))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"include": ("engine",)}, "trtexec"),
        ({"include": ("coreml",)}, "coremltools"),
        ({"include": ("onyx",)}, "--include"),
        ({"opset": 9}, "--opset"),
        ({"nms": True}, "--include onnx"),
        ({"nms": True, "include": ("onnx",), "opset": 12}, "at least 13"),
        ({"weights": ""}, "--weights"),
    ],
)
def test_options_are_checked(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExportOptions(**{"weights": "a.pt", **settings})  # type: ignore[arg-type]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="pip install no_such_package_here"):
        exported_model.require_package("no_such_package_here", "--include onnx")


def test_openvino_agrees(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = small_checkpoint(tmp_path / "best.pt", "yolov5n-AKConv.yaml")
    folder = run_export(ExportOptions(weights=str(path), include=("openvino",)))["openvino"]
    assert sorted(file.name for file in folder.iterdir()) == ["best.bin", "best.xml"]
    (opened, metadata), (checkpoint, expected_metadata) = open_weights(folder, CPU), open_weights(path, CPU)
    assert metadata == expected_metadata
    images, found = found_by(opened, SHAPES[1])  # type: ignore[arg-type]
    with torch.no_grad():
        assert max_difference(checkpoint(images)[0], found) <= 1e-4
    assert json.dumps(metadata.names) == json.dumps(SMALL_NAMES)

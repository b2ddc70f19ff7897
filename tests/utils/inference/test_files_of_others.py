"""Exported files that are not detectors of this project or YOLOv5: one line each, when opened or at the first image."""

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from utils.errors import CheckpointError
from utils.inference.autoshape import AutoShape
from utils.inference.exported_model import ExportedModel, open_onnx, open_torchscript
from utils.inference.metadata import DEFAULT_IMAGE_SIZE, ModelMetadata

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
METADATA = {"names": "{0: 'a', 1: 'b'}", "stride": "32"}


def tensor(name: str, dtype: int = FLOAT, shape: tuple[object, ...] | None = None) -> object:
    return onnx.helper.make_tensor_value_info(name, dtype, shape)


IMAGES = tensor("images", FLOAT, ("b", 3, "h", "w"))
OUTPUT, INTEGERS = tensor("output0"), tensor("output0", INT64)
SEQUENCE = onnx.helper.make_tensor_sequence_value_info("output0", FLOAT, None)


def constant(name: str, values: list[int]) -> object:
    return onnx.numpy_helper.from_array(np.array(values, np.int64), name)


def graph(
    operator: str, sources: list[str], inputs: list[object], output: object, *constants: object, **attributes: object
) -> bytes:
    node = onnx.helper.make_node(operator, sources, ["output0"], **attributes)
    whole = onnx.helper.make_graph([node], "g", inputs, [output], list(constants))
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.helper.set_model_props(model, METADATA)
    return model.SerializeToString()


def filled(count: int) -> bytes:
    value = onnx.numpy_helper.from_array(np.array([0.9], np.float32))
    return graph("ConstantOfShape", ["sh"], [IMAGES], OUTPUT, constant("sh", [count, 5, 7]), value=value)


GRAPHS: dict[str, Callable[[], bytes]] = {
    "two inputs": lambda: graph("Add", ["images", "y"], [IMAGES, tensor("y", FLOAT, ("b", 3, "h", "w"))], OUTPUT),
    "integers": lambda: graph("Identity", ["images"], [tensor("images", INT64, ("b", 3, "h", "w"))], INTEGERS),
    "a vector": lambda: graph("Identity", ["images"], [tensor("images", FLOAT, ("b",))], OUTPUT),
    "two images out": lambda: filled(2),
    "no image out": lambda: filled(0),
    "no input": lambda: graph("Identity", ["c"], [], INTEGERS, constant("c", [1])),
    "text out": lambda: graph("Cast", ["images"], [IMAGES], tensor("output0", 8), to=8),
    "integers out": lambda: graph("Cast", ["images"], [IMAGES], INTEGERS, to=INT64),
    "a sequence out": lambda: graph("SplitToSequence", ["images"], [IMAGES], SEQUENCE, axis=1),
    "a reshape that fails": lambda: graph("Reshape", ["images", "sh"], [IMAGES], OUTPUT, constant("sh", [1, -1, 7])),
    "nothing": lambda: b"",
    "no graph": lambda: onnx.ModelProto().SerializeToString(),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_an_onnx_file_of_another_family_is_one_line(name: str) -> None:
    with pytest.raises(CheckpointError) as error:
        exported = open_onnx(GRAPHS[name](), CPU, path="x.onnx")
        AutoShape(exported, ("a", "b"))(np.zeros((32, 64, 3), np.uint8), size=64)
    assert error.value.where == "x.onnx" and error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 500


def test_a_runtime_that_fails_or_returns_something_else_is_one_line() -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("first\nsecond")

    def nothing(_: Tensor) -> None:
        return None

    for run in (fail, nothing, lambda images: [images], lambda images: images.new_zeros(1, 4, 7).int()):
        exported = ExportedModel(run, ModelMetadata(names=("a", "b"), stride=32), path="x.torchscript")
        with pytest.raises(CheckpointError) as error:
            exported(torch.zeros(1, 3, 32, 64))
        assert error.value.where == "x.torchscript" and len(str(error.value).splitlines()) == 1


def test_memory_that_runs_out_is_no_fault_of_the_file() -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        ExportedModel(fail, ModelMetadata(names=("a",), stride=32))(torch.zeros(1, 3, 32, 64))


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        return [images], images


def test_a_torchscript_file_with_another_output_is_one_line() -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Pair()), buffer, _extra_files={"config.txt": json.dumps(METADATA)})
    exported = open_torchscript(buffer.getvalue(), CPU, path="x.torchscript")
    with pytest.raises(CheckpointError) as error:
        exported(torch.zeros(1, 3, 32, 64))
    assert error.value.where == "x.torchscript"


@pytest.mark.parametrize("size", ["²", "9" * 5000, "0", "-1", "64.0", "", "[640, 640]", "10000", "nan", None])
def test_an_image_size_that_is_none_is_the_usual_one(size: object) -> None:
    assert ModelMetadata.from_text({**METADATA, "imgsz": size}, path="x").image_size == DEFAULT_IMAGE_SIZE
    assert ModelMetadata.from_text({**METADATA, "imgsz": "320"}, path="x").image_size == 320


@pytest.mark.parametrize(
    "changes",
    [{"names": "{1e999: 'a'}"}, {"names": "{0: 'a', 5: 'b'}"}, {"names": "9" * 5000}, {"names": "[" * 9999},
     {"stride": "9" * 5000},
     {"stride": "²"}, {"stride": "1e999"}, {"stride": "32.5"}, {"stride": "-32"}, {"names": 5}, {"names": None}],
)  # fmt: skip
def test_metadata_that_mean_nothing_are_one_line(changes: dict[str, object]) -> None:
    with pytest.raises(CheckpointError) as error:
        ModelMetadata.from_text({**METADATA, **changes}, path="x.onnx")
    assert error.value.where == "x.onnx"

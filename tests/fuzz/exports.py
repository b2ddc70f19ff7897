"""Exported files: ONNX and TorchScript."""

from __future__ import annotations

import random
from pathlib import Path

import onnx

from tests.fuzz.checkpoints import NAMES, in_child, run_model, small_model
from tests.fuzz.isolation import WrongResultError
from tests.fuzz.kind import Bases, Kind
from tests.fuzz.mutation import hostile, mutate_bytes, near, pick
from tests.fuzz.yamls import TINY
from utils.export.formats import add_nms, to_torchscript
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_weights
from utils.inference.nms import NmsSettings
from utils.inference.onnx_conversion import ExportWrapper, default_opset, to_onnx


def export_bases(folder: Path, quick: bool) -> Bases:
    """Return exported files: ONNX with and without NMS, and TorchScript."""

    def export() -> None:
        model = small_model({**TINY, "activation": None} if quick else TINY)
        metadata = ModelMetadata(names=NAMES, stride=model.max_stride, image_size=64, data="own.yaml")
        wrapper = ExportWrapper(model, half=False).eval()
        graph = to_onnx(wrapper, metadata, opset=default_opset(model))
        (folder / "plain.onnx").write_bytes(graph)
        if not quick:
            settings = NmsSettings(conf_threshold=0.1)
            (folder / "nms.onnx").write_bytes(add_nms(graph, metadata, settings, max_per_class=20))
        (folder / "traced.torchscript").write_bytes(to_torchscript(wrapper, metadata))

    in_child(export)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def mutate_export(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return an exported file with other metadata or another graph, or with damaged bytes."""
    name = rng.choice(list(bases))
    data = bases[name]
    if name.endswith(".onnx") and rng.random() < 0.6:
        data = _other_graph(data, rng)
    return f"case{Path(name).suffix}", data if rng.random() < 0.5 and data != bases[name] else mutate_bytes(data, rng)


def _other_graph(data: bytes, rng: random.Random) -> bytes:
    """Return an ONNX file with a changed entry of the metadata, node, attribute, shape or constant."""
    model = onnx.load_model_from_string(data)
    graph, node = model.graph, rng.choice(model.graph.node)
    match rng.randrange(9):
        case 0 | 1 | 2:
            entry = rng.choice(model.metadata_props)
            value = pick(
                rng, hostile(rng), near(entry.value, rng), {0: "a"}, {1: "a"}, ["a"] * 3, {i: "x" for i in range(9)}
            )
            entry.value = str(value).encode("utf-8", "replace").decode()
        case 3:
            del model.metadata_props[rng.randrange(len(model.metadata_props))]
        case 4:
            node.op_type = pick(rng, "Relu", "Nope", "Loop", "Transpose", "Reshape", "Add", "Concat", "")
        case 5 if node.attribute:
            attribute = rng.choice(node.attribute)
            if attribute.ints:
                attribute.ints[rng.randrange(len(attribute.ints))] = pick(rng, 0, -1, 2, 3, 2**31, 2**62, -(2**63))
            else:
                attribute.i = pick(rng, 0, -1, 5, 2**40)
        case 6:
            dimension = rng.choice(rng.choice([*graph.input, *graph.output]).type.tensor_type.shape.dim)
            dimension.dim_value = pick(rng, 0, 1, 2, 64, 2**40, -1)
        case 7 if graph.initializer:
            constant = rng.choice(graph.initializer)
            if constant.dims and rng.random() < 0.5:
                constant.dims[0] = pick(rng, 0, 1, -1, 2**40, constant.dims[0] + 1)
            else:
                constant.raw_data = mutate_bytes(constant.raw_data, rng)
        case _:
            node.input[0:1] = [pick(rng, "", "images", "nowhere", node.output[0])]
    return model.SerializeToString()


def check_export(path: Path) -> None:
    """Open an exported file and run it; TorchScript of others must be refused."""
    opened, metadata = open_weights(path)
    if not isinstance(opened, ExportedModel) or path.suffix == ".torchscript":
        raise WrongResultError("a program of unknown origin is opened")
    if metadata.stride <= 64:
        run_model(opened, 5 + len(metadata.names))


KIND = Kind(
    name="exports",
    cases=1000,
    quick=15,
    batch=25,
    prepare=export_bases,
    mutate=mutate_export,
    check=check_export,
    warm_up=("plain.onnx",),
)

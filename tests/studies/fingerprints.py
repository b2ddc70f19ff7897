"""Hashes and numbers of the files that the scripts write, read without any module of the project."""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import torch

# Keys whose values differ from run to run (times, memory), describe the machine, or came with the refactor. Strings are
# not recorded at all: they are paths, versions, wording, and hashes that cover these.
EXCLUDED = re.compile(r"seconds|_ms\b|_ms_|memory|environment|machine|transferred_fraction")
Items = dict[str, str]  # names of items and their hashes or numbers


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:20]


def array_digest(array: np.ndarray) -> str:
    return digest(f"{array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())


def walk(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield all tensors, numbers and lists of numbers below a value, with their names."""
    if EXCLUDED.search(name):
        return
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)  # bfloat16 is unknown to NumPy
        yield name, digest(f"{value.dtype} {tuple(value.shape)} ".encode() + flat.numpy().tobytes())
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from walk(below, f"{name}/{key}")
    elif isinstance(value, list | tuple) and value and all(isinstance(one, int | float) for one in value):
        yield name, digest(repr(list(value)).encode()) if len(value) > 4 else repr(list(value))
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from walk(below, f"{name}/{index}")
    elif value is None or isinstance(value, int | float):
        yield name, repr(value)


def read(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield the items of one file, by its kind."""
    if path.name == "results.csv":
        rows = list(csv.reader(path.read_text().splitlines()))
        for column in zip(*rows, strict=True):
            yield f"{name}/{column[0].strip()}", digest("\n".join(column[1:]).encode())
    elif path.suffix == ".pt":
        yield from walk(torch.load(path, weights_only=True, map_location="cpu"), name)
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            yield from ((f"{name}/{key}", array_digest(arrays[key])) for key in arrays if arrays[key].dtype.kind != "U")
    elif path.suffix in (".jpg", ".png"):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if path.parent.name == "sampling":  # titles and legend are wording: the left plot without them
            height, width = pixels.shape[:2]
            pixels = pixels[height // 10 : height * 9 // 10, : width * 46 // 100]
        yield name, array_digest(pixels)
    elif path.suffix == ".json":
        content = json.loads(path.read_text())
        if path.stem.endswith(("_predictions", "ground_truth")):
            yield name, digest(json.dumps(content, sort_keys=True).encode())
        else:
            yield from walk(content, name)
    else:
        yield name, digest(path.read_bytes())


def read_folder(folder: Path, name: str, *patterns: str) -> Iterator[tuple[str, str]]:
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        yield from read(path, f"{name}/{path.relative_to(folder)}")


def run_exported(path: Path, images: list[np.ndarray]) -> tuple[list[str], list[np.ndarray]]:
    """Return the operations of an exported graph, in order, and its outputs for some images."""
    if path.suffix == ".onnx":
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        answers = [session.run(None, {session.get_inputs()[0].name: image}) for image in images]
        return [node.op_type for node in onnx.load(path).graph.node], [output for one in answers for output in one]
    if path.suffix == ".torchscript":
        module = torch.jit.load(path, map_location="cpu").eval()
        with torch.no_grad():
            found = [module(torch.from_numpy(image)) for image in images]
        flat = [tensor for one in found for tensor in (one if isinstance(one, list | tuple) else [one])]
        return [node.kind() for node in module.inlined_graph.nodes()], [tensor.numpy() for tensor in flat]
    import openvino

    core = openvino.Core()
    model = core.read_model(next(path.glob("*.xml")))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1})
    results = [compiled(image) for image in images]
    return [node.get_type_name() for node in model.get_ordered_ops()], [
        one[i] for one in results for i in range(len(one))
    ]

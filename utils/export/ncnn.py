"""Convert a model to ncnn by pnnx: a folder of the network, its weights and metadata.yaml, as others write it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from models.yolo import DetectionModel
from utils.errors import RunError
from utils.export.ncnn_layers import NcnnWrapper
from utils.inference.metadata import ModelMetadata
from utils.inference.ncnn_model import BIN, METADATA, PARAM
from utils.inference.onnx_conversion import silenced
from utils.inference.onnx_session import require_package
from utils.strict_yaml import dump_yaml

FLAG = "--include ncnn"
TIME_LIMIT = 1800  # seconds for pnnx, which takes some


@contextmanager
def ncnn_folder(model: DetectionModel, metadata: ModelMetadata, *, form: str, half: bool) -> Iterator[Path]:
    """Convert a model on the CPU and yield a temporary folder of its files.

    Args:
        model: in float32.
        metadata: of the model.
        form: of the AKConv layers, one of `ncnn_layers.FORMS`.
        half: whether the weights are stored in half precision.

    Raises:
        ConfigError: ncnn or pnnx is not installed.
        RunError: pnnx fails.
    """
    require_package("ncnn", FLAG)
    program = require_package("pnnx", FLAG).EXEC_PATH
    wrapper = NcnnWrapper(model, form).eval()
    images = wrapper.examples()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with silenced(), torch.no_grad():
            torch.jit.trace(wrapper, images[0], check_trace=False).save(str(folder / "model.pt"))
        shapes = ["[" + ",".join(map(str, image.shape)) + "]" for image in images]
        command = [program, "model.pt", f"inputshape={shapes[0]}", f"inputshape2={shapes[1]}", f"fp16={int(half)}"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=TIME_LIMIT)  # noqa: S603
            log = done.stderr.decode(errors="replace").strip().splitlines()
            reason = (
                "" if done.returncode == 0 and (folder / BIN).exists() else (log or [f"code {done.returncode}"])[-1]
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if reason:
            raise RunError("ncnn", f"pnnx fails: {reason[:200]}; no file is written", fix="choose another format")
        for file in folder.iterdir():
            if file.name not in (PARAM, BIN):
                file.unlink()
        text = metadata.to_text()
        dump_yaml(
            folder / METADATA,
            {**text, "names": dict(enumerate(metadata.names)), "stride": metadata.stride, "imgsz": metadata.image_size},
        )
        yield folder

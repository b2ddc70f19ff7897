"""Run an ncnn model from the folder that export.py writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import CheckpointError, ConfigError
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.onnx_session import require_package
from utils.strict_yaml import load_yaml
from utils.threads import thread_count
from utils.weights_file import read_weights_file

PARAM, BIN, METADATA = "model.ncnn.param", "model.ncnn.bin", "metadata.yaml"
LOWER_PRECISION = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed")


def open_ncnn(folder: Path, *, path: Path | str) -> ExportedModel:
    """Open an ncnn model in full precision on the CPU; `path` is its name in messages.

    Raises:
        CheckpointError: a file is missing or damaged.
        ConfigError: ncnn is not installed.
    """
    ncnn = require_package("ncnn", path)
    for name in (PARAM, BIN, METADATA):
        read_weights_file(folder / name)  # explains why it cannot be read, which ncnn does not
    try:
        metadata = ModelMetadata.from_text(load_yaml(folder / METADATA), path=folder / METADATA)
    except ConfigError as error:
        raise CheckpointError(folder / METADATA, error.what, fix="export it again") from error
    network = ncnn.Net()
    network.opt.num_threads = thread_count()
    network.opt.use_vulkan_compute = False
    for option in LOWER_PRECISION:  # some are on by default, on Arm also for arithmetic
        setattr(network.opt, option, False)
    if network.load_param(str(folder / PARAM)) or network.load_model(str(folder / BIN)):
        raise CheckpointError(path, "cannot be opened by ncnn", fix="export it again")
    if len(network.input_names()) != 1 or not network.output_names():
        what = f"is not a detector of images: it has {len(network.input_names())} inputs"
        raise CheckpointError(path, what, fix="export it with export.py")
    source, output = network.input_names()[0], network.output_names()[0]

    def run_image(image: np.ndarray) -> np.ndarray:
        extractor = network.create_extractor()
        extractor.input(source, ncnn.Mat(image))  # refers to the array's memory
        code, rows = extractor.extract(output)
        if code:
            raise CheckpointError(path, f"fails in ncnn with code {code}", fix="export it again")
        return np.array(rows)

    def run(images: Tensor) -> Tensor:
        array = np.ascontiguousarray(images.cpu().numpy(), dtype=np.float32)
        if not len(array):
            return torch.zeros(0, 0, 5 + len(metadata.names))
        return torch.from_numpy(np.stack([run_image(image) for image in array])).to(images.device)

    return ExportedModel(run, metadata, path=path)

"""Check exports against PyTorch, on images of sizes that were never traced."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from utils.errors import CheckpointError, RunError
from utils.inference.exported_model import ExportedModel
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.inference.parity import TOLERANCE, max_difference, random_images
from utils.log import LOGGER

HALF_TOLERANCE = 0.05
SEED = 0
Shape = tuple[int, ...]


class Reference:
    """PyTorch's outputs for random images of several shapes, computed once per device for all formats."""

    def __init__(self, network: nn.Module, shapes: Sequence[Shape]) -> None:
        self.network = network
        self.shapes = tuple(shapes)
        self._outputs: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}

    @torch.inference_mode()
    def outputs(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Return images and predictions on a device."""
        if device not in self._outputs:
            generator = torch.Generator().manual_seed(SEED)
            network = copy.deepcopy(self.network).to(device)
            images = [random_images(shape, generator).to(device) for shape in self.shapes]
            self._outputs[device] = [(batch, network(batch)) for batch in images]
        return self._outputs[device]


def check_parity(
    name: str,
    reference: Reference,
    exported: ExportedModel,
    *,
    device: torch.device,
    tolerance: float = TOLERANCE,
    verbose: bool = False,
) -> None:
    """Compare an export, which runs on `device`, with PyTorch, and log the difference; `name` is that of the format.

    A difference above the tolerance, or a failure of the export, raises a RunError.
    """
    worst = 0.0
    for images, expected in reference.outputs(device):
        difference = max_difference(expected, _output(name, exported, images))
        if verbose:
            LOGGER.info(f"{name}: {'x'.join(map(str, images.shape))} differs by {difference:.1e}")
        worst = max(worst, difference)
    result = f"largest difference to PyTorch {worst:.1e} on {len(reference.shapes)} sizes (tolerance {tolerance:.0e})"
    if not worst <= tolerance:
        fix = "leave --simplify out, or choose another format or --opset"
        raise RunError(name, f"{result}; no file is written", fix=fix)
    LOGGER.info(f"{name}: {result}")


def _output(name: str, exported: ExportedModel, images: Tensor) -> Tensor:
    """Return the output of an export; RunError if it fails, or is not that of a detector."""
    try:
        return cast(Tensor, exported(images)[0])
    except CheckpointError as error:
        what = f"fails on images {tuple(images.shape)}: {error.what}; no file is written"
        raise RunError(name, what, fix="choose another format or --opset") from error


def check_nms(
    without_nms: ExportedModel, with_nms: ExportedModel, nms: NmsSettings, reference: Reference, *, max_per_class: int
) -> None:
    """Compare the NMS in a graph with PyTorch's on the graph's own predictions; RunError if the scores differ."""
    comparable = max_per_class >= nms.max_detections  # PyTorch's has no limit per class
    boxes = 0
    for images, _ in reference.outputs(torch.device("cpu")):
        detections = non_max_suppression(without_nms(images)[0], nms)
        for expected, rows in zip(detections, _output("onnx", with_nms, images), strict=True):
            scores = rows[rows[:, 4] > 0, 4]
            boxes += len(scores)
            if comparable and max_difference(torch.from_numpy(expected.scores), scores) > TOLERANCE:
                what = f"the graph's NMS finds {len(scores)} boxes, PyTorch's {len(expected)}, or their scores differ"
                raise RunError("onnx", f"{what}; no file is written", fix="leave --nms out")
    LOGGER.info(f"onnx: the graph's NMS matches the PyTorch NMS, {boxes} boxes in the checked images")

"""Check exports against PyTorch, on images of sizes that were never traced."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import CheckpointError, RunError
from utils.inference.exported_model import ExportedModel
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.log import LOGGER

TOLERANCE = 1e-4
HALF_TOLERANCE = 0.05
SEED = 0
Shape = tuple[int, ...]


def _random_images(shape: Shape, generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) in [0, 1] with coarse and fine structure."""
    batch, channels, height, width = shape
    coarse = torch.rand(batch, channels, max(height // 16, 1), max(width // 16, 1), generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (0.8 * smooth + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)


@torch.inference_mode()
def max_difference(expected: Tensor, actual: Tensor) -> float:
    """Return the largest difference of two outputs: absolute for values up to 1, relative above.

    Boxes are in pixels: the float32 next to 1000 is 6e-5 away. Infinite if shapes or non-finite entries differ.
    """
    if expected.shape != actual.shape or not torch.equal(expected.isfinite(), actual.isfinite()):
        return float("inf")
    finite = expected.isfinite()
    expected, actual = expected[finite].double(), actual[finite].double()
    return float(((actual - expected).abs() / expected.abs().clamp(min=1)).max()) if expected.numel() else 0.0


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
            images = [_random_images(shape, generator).to(device) for shape in self.shapes]
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

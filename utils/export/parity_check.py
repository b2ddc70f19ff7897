"""Whether an export says what PyTorch says: on images of sizes that were never traced."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.errors import DetectorError, RunError
from utils.export.onnx_nms import EmbeddedNms
from utils.inference.exported_model import ExportedNetwork
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.log import LOGGER

TOLERANCE = 1e-4
HALF_TOLERANCE = 0.05
SEED = 0
Shape = tuple[int, ...]


def check_images(shape: Shape, generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) with large and small structure, in [0, 1]."""
    batch, channels, height, width = shape
    coarse = torch.rand(batch, channels, max(height // 16, 1), max(width // 16, 1), generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (0.8 * smooth + 0.2 * torch.rand(shape, generator=generator)).clamp(0, 1)


@torch.inference_mode()
def difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference of two outputs: absolute up to 1, above as a share of the number.

    Boxes are in pixels, and next to 1000 the next float32 is 6e-5 away. Infinite where shapes differ, or what is not
    finite.
    """
    if expected.shape != found.shape or not torch.equal(expected.isfinite(), found.isfinite()):
        return float("inf")
    finite = expected.isfinite()
    expected, found = expected[finite].double(), found[finite].double()
    return float(((found - expected).abs() / expected.abs().clamp(min=1)).max()) if expected.numel() else 0.0


class Reference:
    """What PyTorch says of images of several sizes: computed once, for all formats."""

    def __init__(self, network: nn.Module, sizes: Sequence[Shape]) -> None:
        """Take the network, images to predictions, on the CPU, and shapes (B, 3, H, W)."""
        self.network = network
        self.sizes = tuple(sizes)
        self._known: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}

    @torch.inference_mode()
    def answers(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Return images and predictions on a device."""
        if device not in self._known:
            generator = torch.Generator().manual_seed(SEED)
            network = copy.deepcopy(self.network).to(device)
            images = [check_images(shape, generator).to(device) for shape in self.sizes]
            self._known[device] = [(batch, network(batch)) for batch in images]
        return self._known[device]


def check_difference(
    name: str,
    reference: Reference,
    network: ExportedNetwork,
    *,
    device: torch.device,
    tolerance: float = TOLERANCE,
    verbose: bool = False,
) -> None:
    """Compare an export with PyTorch, and say by how much it differs.

    Args:
        name: of the format.
        reference: what PyTorch says.
        network: the export.
        device: where it runs.
        tolerance: how much it may differ.
        verbose: also say it for each size.

    Raises:
        RunError: it differs by more, or fails.
    """
    worst = 0.0
    for images, expected in reference.answers(device):
        spread = difference(expected, _answer(name, network, images))
        if verbose:
            LOGGER.info(f"{name}: {'x'.join(map(str, images.shape))} differs by {spread:.1e}")
        worst = max(worst, spread)
    said = f"largest difference to PyTorch {worst:.1e} on {len(reference.sizes)} sizes (allowed {tolerance:.0e})"
    if not worst <= tolerance:
        fix = "leave --simplify out, or choose another format or --opset"
        raise RunError(name, f"{said}; no file is written", fix=fix)
    LOGGER.info(f"{name}: {said}")


def _answer(name: str, network: Callable[[Tensor], tuple[Tensor, object]], images: Tensor) -> Tensor:
    """Return what an export says; each runtime has errors of its own."""
    try:
        return network(images)[0]
    except DetectorError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        what = f"fails on images {tuple(images.shape)}: {reason}; no file is written"
        raise RunError(name, what, fix="choose another format or --opset") from error


def check_nms(plain: ExportedNetwork, inside: ExportedNetwork, nms: EmbeddedNms, reference: Reference) -> None:
    """Compare suppression inside a graph with our own of the same graph's predictions.

    Raises:
        RunError: they differ.
    """
    ours = NmsSettings(
        conf_threshold=nms.conf_threshold,
        iou_threshold=nms.iou_threshold,
        max_detections=nms.max_detections,
        agnostic=nms.agnostic,
    )
    comparable = nms.max_per_class >= nms.max_detections  # our own has no limit for each class
    count = 0
    for images, _ in reference.answers(torch.device("cpu")):
        wanted = non_max_suppression(plain(images)[0], ours)
        for expected, rows in zip(wanted, _answer("onnx", inside, images), strict=True):
            scores = rows[rows[:, 4] > 0, 4]
            count += len(scores)
            if comparable and difference(expected.scores, scores) > TOLERANCE:
                what = f"NMS inside finds {len(scores)} boxes, our own {len(expected)}, or other scores"
                raise RunError("onnx", f"{what}; no file is written", fix="leave --nms out")
    LOGGER.info(f"onnx: NMS inside agrees with our own, {count} boxes in the images of the check")

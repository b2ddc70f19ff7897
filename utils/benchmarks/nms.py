"""The speed of NMS against one call of torchvision's nms: `python -m utils.benchmarks.nms`.

The dense candidates are those of an untrained model: standard-normal logits decoded with YOLOv5's anchors, confidence
threshold 0.001, several classes per box. Both implementations are timed in turns and must agree bitwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from models.yolo import DetectionModel
from utils.benchmarks.timing import interleave
from utils.boxes import cxcywh_to_xyxy
from utils.cli import option, parse_options, run_script
from utils.errors import RunError
from utils.inference.nms import EVALUATION_NMS, MAX_CANDIDATES, greedy_nms, non_max_suppression
from utils.log import LOGGER
from utils.options.base import Options
from utils.structures import Detections

DENSE_CASES = ((320, 3), (320, 80), (640, 3), (640, 80))  # image side, classes
CLASS_OFFSET = 1e6  # pixels between the boxes of two classes, exact enough in double precision


@dataclass(frozen=True, kw_only=True)
class NmsBenchmarkOptions(Options):
    """Options of this benchmark."""

    repeats: int = option(5, "timing repeats per implementation", aliases=("--rounds",), within=(1, math.inf))
    seed: int = option(0, "seed of the logits", within=(0, math.inf))
    threads: int = option(1, "threads of torch", within=(1, math.inf))


def dense_candidates(side: int, classes: int, *, seed: int) -> Tensor:
    """Return (1, n, 5 + classes) predictions of an untrained model for a square image."""
    generator = torch.Generator().manual_seed(seed)
    head = DetectionModel("yolov5n.yaml", nc=classes).head
    shapes = [(1, head.num_anchors, side // stride, side // stride, 5 + classes) for stride in head.strides]
    return head.decode([torch.randn(shape, generator=generator) for shape in shapes])


def candidates(prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes in float64, scores and classes of one image's best candidates, best first, in plain operations."""
    scores = prediction[:, 5:] * prediction[:, 4:5]
    row, classes = (scores > EVALUATION_NMS.conf_threshold).nonzero(as_tuple=True)
    score = scores[row, classes]
    order = score.argsort(descending=True, stable=True)[:MAX_CANDIDATES]
    return cxcywh_to_xyxy(prediction[row[order], :4].double()), score[order], classes[order]


def with_torchvision(prediction: Tensor) -> Detections:
    """Suppress the boxes of one image by one torchvision call over class-offset boxes."""
    boxes, score, classes = candidates(prediction)
    shifted = boxes + (classes.double() * CLASS_OFFSET)[:, None]
    kept = nms(shifted, score.double(), EVALUATION_NMS.iou_threshold)[: EVALUATION_NMS.max_detections]
    return Detections(boxes=boxes[kept].float().numpy(), scores=score[kept].numpy(), classes=classes[kept].numpy())


def compare(side: int, classes: int, *, rounds: int, seed: int) -> str:
    """Time both implementations on one case and return the table row; raise RunError if their results differ."""
    prediction = dense_candidates(side, classes, seed=seed)
    detections, expected = non_max_suppression(prediction, EVALUATION_NMS)[0], with_torchvision(prediction[0])
    for name in ("boxes", "scores", "classes"):
        if not np.array_equal(getattr(detections, name), getattr(expected, name)):
            raise RunError(f"{side} px, {classes} classes", f"{name} differ from torchvision's", fix="report this")
    boxes, score, labels = candidates(prediction[0])
    shifted = boxes + (labels.double() * CLASS_OFFSET)[:, None]
    limit = EVALUATION_NMS.max_detections
    actions = (
        lambda: nms(shifted, score.double(), EVALUATION_NMS.iou_threshold)[:limit],
        lambda: greedy_nms(boxes, labels, iou_threshold=EVALUATION_NMS.iou_threshold, limit=limit),
        lambda: with_torchvision(prediction[0]),
        lambda: non_max_suppression(prediction, EVALUATION_NMS),
    )
    reference, ours, reference_whole, ours_whole = (t.median for t in interleave(actions, rounds=rounds, warm_up=0))
    return (
        f"| {side} px, {classes} classes | {len(score):,} | {reference:.1f} | {ours:.2f} | {reference / ours:.0f} "
        f"| {reference_whole:.1f} | {ours_whole:.2f} | {reference_whole / ours_whole:.0f} |"
    )


def main() -> None:
    """Measure all cases and print a table."""
    options, _ = parse_options(NmsBenchmarkOptions, None, description=__doc__ or "")
    torch.set_num_threads(options.threads)
    LOGGER.info(
        "| case | candidates | torchvision nms, ms | ours, ms | ratio | with selection, ms | ours, ms | ratio |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    for side, classes in DENSE_CASES:
        LOGGER.info(compare(side, classes, rounds=options.repeats, seed=options.seed))


if __name__ == "__main__":
    run_script(main)

"""The detection loss: CIoU for boxes, IoU-aware objectness, and binary cross entropy for classes.

Letters: B batch, A anchors per level, (H, W) cells, K = 5 + classes, M matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.boxes import paired_iou
from utils.losses.assignment import LevelMatches, assign_level

COMPONENTS = ("box", "obj", "cls")
# Weights of the levels' objectness losses: fine maps have many more cells.
LEVEL_BALANCE: dict[int, tuple[float, ...]] = {3: (4.0, 1.0, 0.4)}
DEFAULT_LEVEL_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)
FOCAL_ALPHA = 0.25


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the components, by their names in the hyperparameter yaml: for three levels, 80 classes, 640 px."""

    box: float = 0.05
    obj: float = 1.0
    cls: float = 0.5

    def scaled(self, *, levels: int, num_classes: int, image_size: int) -> LossWeights:
        """Return the weights for another number of levels and classes and another image size in pixels."""
        per_level = 3 / levels
        return replace(
            self,
            box=self.box * per_level,
            cls=self.cls * num_classes / 80 * per_level,
            obj=self.obj * (image_size / 640) ** 2 * per_level,
        )

    def apply(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Multiply each component by its weight."""
        return {name: loss * getattr(self, name) for name, loss in losses.items()}


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Shape of the loss, by the names in the hyperparameter yaml."""

    obj_pw: float = 1.0  # weight of positive cells in objectness
    cls_pw: float = 1.0  # weight of the true class in the class loss
    anchor_t: float = 4.0  # largest ratio of an object's side to the anchor's for which the two are matched
    fl_gamma: float = 0.0  # focal loss gamma; 0 is plain cross entropy
    label_smoothing: float = 0.0  # label-smoothing epsilon


class DetectionLoss:
    """Computes the losses of a batch from raw predictions; has no parameters and no state."""

    def __init__(self, settings: LossSettings, *, anchors: Tensor, num_classes: int) -> None:
        """Set up the loss for a model with (levels, A, 2) anchors, width and height in cells of each level."""
        self.settings = settings
        self.anchors = anchors
        self.num_classes = num_classes
        self.balance = LEVEL_BALANCE.get(len(anchors), DEFAULT_LEVEL_BALANCE)

    def __call__(
        self, raw: Sequence[Tensor], targets: Tensor, *, total: Callable[[Tensor], Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the mean losses `box`, `obj` and `cls` (0 with a single class), unweighted, each a scalar.

        Args:
            raw: [(B, A, H, W, K), ...] logits.
            targets: (T, 6): image, class, cx, cy, w, h, normalized by the image's size.
            total: sums a tensor over all processes that share the batch. Each process then computes its part of the
                losses; the parts add up to the losses of the whole batch.
        """
        box, objectness, classes = (raw[0].new_zeros((), dtype=torch.float32) for _ in COMPONENTS)
        assigned = [
            assign_level(targets, anchors, (logits.shape[2], logits.shape[3]), max_ratio=self.settings.anchor_t)
            for logits, anchors in zip(raw, self.anchors, strict=True)
        ]
        match_fractions, cell_fractions = _process_fractions(raw, assigned, total)
        for level, (logits, matches) in enumerate(zip(raw, assigned, strict=True)):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            iou_targets = logits.new_zeros(logits.shape[:4])
            if len(matches):
                cells = (matches.image, matches.anchor, matches.row, matches.column)
                predicted = logits[cells]  # (M, K)
                iou = self._iou(predicted, matches)
                box = box + (1 - iou).mean() * match_fractions[level]
                iou_targets[cells] = iou.detach().clamp(min=0).to(iou_targets.dtype)
                if self.num_classes > 1:
                    classes = classes + self._class_loss(predicted[:, 5:], matches.classes) * match_fractions[level]
            level_loss = self._cross_entropy(logits[..., 4], iou_targets, self.settings.obj_pw) * cell_fractions[level]
            objectness = objectness + level_loss * self.balance[level]
        return {"box": box, "obj": objectness, "cls": classes}

    @staticmethod
    def _iou(predicted: Tensor, matches: LevelMatches) -> Tensor:
        """Return the CIoU of (M, K) predictions with their objects, (M,)."""
        centre = predicted[:, 0:2].sigmoid() * 2 - 0.5
        size = (predicted[:, 2:4].sigmoid() * 2) ** 2 * matches.anchor_sizes
        return paired_iou(torch.cat((centre, size), 1), matches.boxes, kind="ciou")

    def _class_loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return the mean cross entropy of (M, C) logits, each class a binary decision."""
        smoothing = self.settings.label_smoothing
        targets = torch.full_like(logits, 0.5 * smoothing)
        targets[torch.arange(len(classes), device=classes.device), classes] = 1 - 0.5 * smoothing
        return self._cross_entropy(logits, targets, self.settings.cls_pw)

    def _cross_entropy(self, logits: Tensor, targets: Tensor, positive_weight: float) -> Tensor:
        """Return the mean binary cross entropy, or with gamma the focal loss (arXiv 1708.02002, eq. 5)."""
        weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
        if self.settings.fl_gamma == 0:
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)
        loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
        probability = logits.sigmoid()
        p_t = targets * probability + (1 - targets) * (1 - probability)
        alpha_t = targets * FOCAL_ALPHA + (1 - targets) * (1 - FOCAL_ALPHA)
        return (loss * alpha_t * (1 - p_t) ** self.settings.fl_gamma).mean()


def _process_fractions(
    raw: Sequence[Tensor], assigned: Sequence[LevelMatches], total: Callable[[Tensor], Tensor] | None
) -> tuple[list[float], list[float]]:
    """Return for each level this process's fractions of the whole batch's matches and cells."""
    ones = [1.0] * len(raw)
    if total is None:
        return ones, ones
    local = [float(len(matches)) for matches in assigned] + [float(logits[..., 4].numel()) for logits in raw]
    counts = torch.tensor(local, dtype=torch.float64, device=raw[0].device)
    fractions = (counts / total(counts).clamp(min=1)).tolist()
    return fractions[: len(raw)], fractions[len(raw) :]

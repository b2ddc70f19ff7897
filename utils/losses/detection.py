"""The detection loss: boxes by CIoU, objectness by the detached IoU, classes one by one.

Letters: B batch, A anchors per level, (H, W) cells, K = 5 + classes, M matches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.boxes import paired_iou
from utils.losses.assignment import LevelMatches, assign_level

COMPONENTS = ("box", "obj", "cls")
BALANCE: dict[int, tuple[float, ...]] = {3: (4.0, 1.0, 0.4)}
BALANCE_OTHERWISE = (4.0, 1.0, 0.25, 0.06, 0.02)
AUTOBALANCE_STRIDE = 16
FOCAL_ALPHA = 0.25


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights and shape of the loss; the names are those of the hyperparameter yaml.

    Attributes:
        box: weight of the box loss.
        obj: weight of the objectness loss.
        cls: weight of the class loss.
        obj_pw: weight of positive cells in objectness.
        cls_pw: weight of the true class in the class loss.
        anchor_t: how many times a side may differ from the anchor's.
        fl_gamma: focal exponent; 0 is plain cross entropy.
        label_smoothing: share taken from the true class and given to all.
    """

    box: float = 0.05
    obj: float = 1.0
    cls: float = 0.5
    obj_pw: float = 1.0
    cls_pw: float = 1.0
    anchor_t: float = 4.0
    fl_gamma: float = 0.0
    label_smoothing: float = 0.0

    def scaled(self, *, levels: int, num_classes: int, image_size: int) -> LossSettings:
        """Return the weights for a model and image size other than three levels, 80 classes, 640 pixels."""
        per_level = 3 / levels
        return replace(
            self,
            box=self.box * per_level,
            cls=self.cls * num_classes / 80 * per_level,
            obj=self.obj * (image_size / 640) ** 2 * per_level,
        )


class DetectionLoss:
    """Computes the losses of a batch. Holds no parameters; with `autobalance` it remembers the levels' balance."""

    def __init__(
        self,
        settings: LossSettings,
        *,
        anchors: Tensor,
        strides: Sequence[int],
        num_classes: int,
        autobalance: bool = False,
        total: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Make the loss.

        Args:
            settings: weights, already scaled.
            anchors: (levels, A, 2) in cells of each level.
            strides: pixels per cell of each level.
            num_classes: classes the model tells apart; with one there is no class loss.
            autobalance: let the levels' objectness weights follow their losses.
            total: sums a tensor over all processes that share the batch. Each then gets its part of the losses, which
                add up to those of the whole batch.
        """
        self.settings = settings
        self.anchors = anchors
        self.num_classes = num_classes
        self.balance = list(BALANCE.get(len(strides), BALANCE_OTHERWISE))
        self.autobalance = autobalance
        self.total = total
        self._anchor_level = list(strides).index(AUTOBALANCE_STRIDE) if AUTOBALANCE_STRIDE in strides else 0

    def alone(self) -> DetectionLoss:
        """Return the same loss for batches that one process has to itself."""
        other = copy.copy(self)
        other.total = None
        return other

    def __call__(self, raw: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        """Return the mean losses `box`, `obj` and `cls`, weighted, each a scalar.

        Args:
            raw: [(B, A, H, W, K), ...] logits.
            targets: (T, 6): image, class, cx, cy, w, h as shares of the image.
        """
        box, objectness, classes = (raw[0].new_zeros((), dtype=torch.float32) for _ in COMPONENTS)
        assigned = [
            assign_level(targets, anchors, (logits.shape[2], logits.shape[3]), max_ratio=self.settings.anchor_t)
            for logits, anchors in zip(raw, self.anchors, strict=True)
        ]
        matched_shares, cell_shares = self._shares(raw, assigned)
        for level, (logits, matches) in enumerate(zip(raw, assigned, strict=True)):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            wanted = logits.new_zeros(logits.shape[:4])
            if len(matches):
                place = (matches.image, matches.anchor, matches.row, matches.column)
                predicted = logits[place]  # (M, K)
                overlap = self._overlap(predicted, matches)
                box = box + (1 - overlap).mean() * matched_shares[level]
                wanted[place] = overlap.detach().clamp(min=0).to(wanted.dtype)
                if self.num_classes > 1:
                    classes = classes + self._class_loss(predicted[:, 5:], matches.classes) * matched_shares[level]
            level_loss = self._cross_entropy(logits[..., 4], wanted, self.settings.obj_pw) * cell_shares[level]
            objectness = objectness + level_loss * self.balance[level]
            if self.autobalance:
                self.balance[level] = self.balance[level] * 0.9999 + 0.0001 / float(level_loss.detach())
        if self.autobalance:
            self.balance = [weight / self.balance[self._anchor_level] for weight in self.balance]
        settings = self.settings
        return {"box": box * settings.box, "obj": objectness * settings.obj, "cls": classes * settings.cls}

    def _shares(self, raw: Sequence[Tensor], assigned: Sequence[LevelMatches]) -> tuple[list[float], list[float]]:
        """Return for each level which share of the whole batch's matches, and of its cells, this process has."""
        ones = [1.0] * len(raw)
        if self.total is None:
            return ones, ones
        mine = [float(len(matches)) for matches in assigned] + [float(logits[..., 4].numel()) for logits in raw]
        counts = torch.tensor(mine, dtype=torch.float64, device=raw[0].device)
        shares = (counts / self.total(counts).clamp(min=1)).tolist()
        return shares[: len(raw)], shares[len(raw) :]

    @staticmethod
    def _overlap(predicted: Tensor, matches: LevelMatches) -> Tensor:
        """CIoU of (M, K) predictions with their objects, (M,)."""
        centre = predicted[:, 0:2].sigmoid() * 2 - 0.5
        size = (predicted[:, 2:4].sigmoid() * 2) ** 2 * matches.anchor_sizes
        return paired_iou(torch.cat((centre, size), 1), matches.boxes, kind="ciou")

    def _class_loss(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Cross entropy of (M, C) logits, each class on its own."""
        smoothing = self.settings.label_smoothing
        wanted = torch.full_like(logits, 0.5 * smoothing)
        wanted[torch.arange(len(classes), device=classes.device), classes] = 1 - 0.5 * smoothing
        return self._cross_entropy(logits, wanted, self.settings.cls_pw)

    def _cross_entropy(self, logits: Tensor, wanted: Tensor, positive_weight: float) -> Tensor:
        """Mean binary cross entropy, focal where asked (arXiv 1708.02002, eq. 5)."""
        weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
        if self.settings.fl_gamma == 0:
            return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none")
        probability = logits.sigmoid()
        certainty = wanted * probability + (1 - wanted) * (1 - probability)
        alpha = wanted * FOCAL_ALPHA + (1 - wanted) * (1 - FOCAL_ALPHA)
        return (loss * alpha * (1 - certainty) ** self.settings.fl_gamma).mean()

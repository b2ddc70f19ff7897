"""Which predictions answer for which object: by shape against each anchor, in the object's cell and its two nearest.

Letters: T targets, M matches, A anchors per level, (H, W) a level's cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LevelMatches:
    """The matches of one level.

    Attributes:
        image: (M,) image in the batch.
        anchor: (M,) anchor's number.
        row: (M,) cell's row.
        column: (M,) cell's column.
        boxes: (M, 4) the object's centre from the cell's corner, and its size, in cells.
        anchor_sizes: (M, 2) the anchor's width and height in cells.
        classes: (M,) int64.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    boxes: Tensor
    anchor_sizes: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """Return the number of matches."""
        return len(self.image)


def assign_level(targets: Tensor, anchors: Tensor, size_hw: tuple[int, int], *, max_ratio: float) -> LevelMatches:
    """Match targets to one level's anchors and cells.

    An object goes to every anchor from which neither side differs by more than `max_ratio` times, in the cell that
    holds its centre and in those two neighbours, one across and one up or down, that lie nearest to it and exist.

    Args:
        targets: (T, 6): image, class, cx, cy, w, h as shares of the image.
        anchors: (A, 2) width and height in cells.
        size_hw: rows and columns of the level.
        max_ratio: the hyperparameter `anchor_t`.

    Returns:
        The matches in the order: own cell, left, upper, right, lower neighbour; then by anchor; then by target. Where
        two objects claim the same prediction the later match decides its objectness.
    """
    height, width = size_hw
    boxes = targets[:, 2:6] * targets.new_tensor((width, height, width, height))
    ratio = boxes[None, :, 2:] / anchors[:, None]  # (A, T, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(2) < max_ratio
    anchor_index, target_index = fits.nonzero(as_tuple=True)

    centre = boxes[target_index, :2]
    from_far = centre.new_tensor((width, height)) - centre
    near_left, near_top = ((centre % 1 < 0.5) & (centre > 1)).unbind(1)
    near_right, near_bottom = ((from_far % 1 < 0.5) & (from_far > 1)).unbind(1)
    own = torch.ones_like(near_left)
    shift = centre.new_tensor(((0, 0), (0.5, 0), (0, 0.5), (-0.5, 0), (0, -0.5)))
    which, match = torch.stack((own, near_left, near_top, near_right, near_bottom)).nonzero(as_tuple=True)

    anchor_index, target_index = anchor_index[match], target_index[match]
    centre, size = boxes[target_index, :2], boxes[target_index, 2:]
    cell = (centre - shift[which]).long()
    column = cell[:, 0].clamp(0, width - 1)
    row = cell[:, 1].clamp(0, height - 1)
    return LevelMatches(
        image=targets[target_index, 0].long(),
        anchor=anchor_index,
        row=row,
        column=column,
        boxes=torch.cat((centre - torch.stack((column, row), 1), size), 1),
        anchor_sizes=anchors[anchor_index],
        classes=targets[target_index, 1].long(),
    )

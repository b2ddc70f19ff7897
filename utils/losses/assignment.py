"""Target assignment: by shape to anchors, by position to the object's cell and its two nearest neighbours.

Letters: T targets, M matches, A anchors per level, (H, W) a level's cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LevelMatches:
    """The matches of one level."""

    image: Tensor  # (M,) image in the batch
    anchor: Tensor  # (M,) anchor index within the level
    row: Tensor  # (M,) row of the cell
    column: Tensor  # (M,) column of the cell
    boxes: Tensor  # (M, 4) the object's cx, cy relative to the cell's top left corner, and w, h; all in cells
    anchor_sizes: Tensor  # (M, 2) the anchor's width and height in cells
    classes: Tensor  # (M,) int64 class ids

    def __len__(self) -> int:
        """Return the number of matches."""
        return len(self.image)


def assign_level(targets: Tensor, anchors: Tensor, size_hw: tuple[int, int], *, max_ratio: float) -> LevelMatches:
    """Match targets to one level's anchors and cells.

    An object is matched to every anchor whose width and height both differ from its own by less than a factor of
    `max_ratio`, in the cell that contains its centre and in the nearest horizontal and vertical neighbour, as far as
    these lie within the map.

    Args:
        targets: (T, 6): image, class, cx, cy, w, h, normalized by the image's size.
        anchors: (A, 2) width and height in cells.
        size_hw: rows and columns of the map.
        max_ratio: the hyperparameter `anchor_t`.

    Returns:
        The matches ordered by cell (own, left, upper, right, lower neighbour), then by anchor, then by target. If two
        objects are matched to the same prediction, the later match sets its objectness target.
    """
    height, width = size_hw
    boxes = targets[:, 2:6] * targets.new_tensor((width, height, width, height))
    ratio = boxes[None, :, 2:] / anchors[:, None]  # (A, T, 2)
    similar = torch.maximum(ratio, 1 / ratio).amax(2) < max_ratio
    anchor_index, target_index = similar.nonzero(as_tuple=True)

    centre = boxes[target_index, :2]
    from_bottom_right = centre.new_tensor((width, height)) - centre
    near_left, near_top = ((centre % 1 < 0.5) & (centre > 1)).unbind(1)
    near_right, near_bottom = ((from_bottom_right % 1 < 0.5) & (from_bottom_right > 1)).unbind(1)
    own_cell = torch.ones_like(near_left)
    shift = centre.new_tensor(((0, 0), (0.5, 0), (0, 0.5), (-0.5, 0), (0, -0.5)))
    offset_index, match = torch.stack((own_cell, near_left, near_top, near_right, near_bottom)).nonzero(as_tuple=True)

    anchor_index, target_index = anchor_index[match], target_index[match]
    centre, size = boxes[target_index, :2], boxes[target_index, 2:]
    cell = (centre - shift[offset_index]).long()
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

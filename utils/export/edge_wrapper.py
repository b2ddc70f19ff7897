"""What is traced for files of one size, and for files that end with the head's raw maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.inference.metadata import INPUT, RawHeads
from utils.inference.onnx_conversion import ExportWrapper


class EdgeWrapper(ExportWrapper):
    """Images to predictions, or to the outputs `head0`, `head1`, ..., (B, A (5 + classes), h, w) of each level."""

    def __init__(self, model: DetectionModel, *, shape: tuple[int, int, int] | None, raw_heads: bool) -> None:
        """Copy a float32 model with its batch norms folded.

        Args:
            model: to export.
            shape: batch size, height and width if they are fixed; all but raw maps need it.
            raw_heads: whether to leave out the decoding.
        """
        super().__init__(model, half=False)
        head = self.network.head
        head.undecoded = True
        self.shape, self.raw_heads = shape, raw_heads
        if raw_heads:
            names = [f"head{level}" for level in range(len(head.m))]
            axes = {name: {0: "batch", 2: f"{name}_height", 3: f"{name}_width"} for name in names}
            self.dynamic_axes = {INPUT: self.dynamic_axes[INPUT], **axes}
        if shape is not None:
            self.dynamic_axes = {name: {} for name in self.dynamic_axes}

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        """Map images to predictions or raw maps."""
        maps = self.network(images)
        return tuple(maps) if self.raw_heads else self._decoded(maps)

    def example(self) -> Tensor:
        """Return images for tracing."""
        if self.shape is None:
            return super().example()
        batch, height, width = self.shape
        return torch.rand(batch, self.network.in_channels, height, width, device=self.anchors.device)

    def heads(self) -> RawHeads:
        """Return what decodes the raw maps."""
        pixels = self.anchors * torch.tensor(self.strides, dtype=torch.float32).view(-1, 1, 1)
        anchors = tuple(tuple((w, h) for w, h in level) for level in pixels.tolist())
        return RawHeads(anchors=anchors, strides=self.strides)

    def _decoded(self, maps: Sequence[Tensor]) -> Tensor:
        """Decode maps of fixed sizes by few nodes: the cells, strides and anchors of all boxes are constants.

        See `models.head.decode`, which this equals; the logits are (B, n, 5 + classes) from here on.
        """
        count = self.network.head.num_anchors
        logits, corners, strides, anchors = [], [], [], []
        for y, level in zip(maps, range(len(self.strides)), strict=True):
            batch, channels, height, width = (int(size) for size in y.shape)
            y = y.reshape(batch * count, channels // count, height * width).transpose(1, 2)
            logits.append(y.reshape(batch, count * height * width, channels // count))
            rows, columns = np.mgrid[:height, :width]
            stride = self.strides[level]
            cell = np.stack((columns, rows), -1).reshape(-1, 2)
            corners.append(np.tile((cell - 0.5) * stride, (count, 1)))
            strides.append(np.full((count * len(cell), 1), 2 * stride))
            sizes = np.array(self.anchors[level].tolist()) * stride
            anchors.append(np.repeat(4 * sizes, len(cell), axis=0))
        corner, twice_stride, anchor = (
            torch.from_numpy(np.concatenate(levels)[None].astype(np.float32)) for levels in (corners, strides, anchors)
        )
        probability = torch.cat(logits, 1).sigmoid()
        centre, size, others = probability.split([2, 2, probability.shape[2] - 4], -1)
        return torch.cat((centre * twice_stride + corner, size * size * anchor, others), -1)

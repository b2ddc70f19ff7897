"""What runs inference, in whichever engine: images in, predictions out, as torch's tensors or NumPy's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # ONNX Runtime works without torch, whose import takes more than a second
    from torch import Tensor


class Network(Protocol):
    """A detector ready for inference."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def device(self) -> object:
        """Where it runs: a device of torch, or its name."""

    @property
    def max_stride(self) -> int:
        """Image sides must be multiples of it, in pixels."""

    def scale(self, images: Tensor | np.ndarray, /) -> Any:  # noqa: ANN401 - of the engine's own type
        """Convert (B, 3, H, W) uint8 images in any memory layout to values in [0, 1], as `__call__` takes them."""

    def __call__(self, pixels: Any, /) -> tuple[Tensor | np.ndarray, Sequence[Tensor]]:  # noqa: ANN401
        """Return the (B, n, 5 + classes) predictions of scaled images, in pixels, and the raw maps, if any."""

"""Pictures kept in memory at training size: as many as fit into a bound, the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np


class PictureCache:
    """A bounded memory of decoded pictures. What it returns never depends on what it holds."""

    def __init__(self, max_bytes: int) -> None:
        """Make a cache of at most `max_bytes`; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0

    def get(self, index: int, load: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return picture `index`, calling `load` unless it is held. The array is not to be written to."""
        image = self._held.get(index)
        if image is not None:
            self._held.move_to_end(index)
            return image
        image = load(index)
        image.flags.writeable = False
        if image.nbytes <= self.max_bytes:
            self._held[index] = image
            self._bytes += image.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        return image

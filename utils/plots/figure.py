"""Saving matplotlib figures without its global state."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from utils.files import atomic_write

BLUE, ORANGE, GREEN, GREY = "#2563a8", "#d9730d", "#3a8a4d", "#8a8f98"


def save_figure(figure: Figure, path: Path | str, *, dpi: int = 120) -> Path:
    """Write a figure atomically in the format of the suffix."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:], dpi=dpi)
    return atomic_write(path, buffer.getvalue())

"""Options of app.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.cli import option
from utils.options.base import PluginOptions, require


@dataclass(frozen=True, kw_only=True)
class AppOptions(PluginOptions):
    """The models to look at, and where the page is served."""

    weights: tuple[str, ...] = option((), "checkpoint(s) or exported file(s) that the page offers")
    comparison: str = option("", "folder of a finished comparison to browse, as runs/compare/exp")
    lang: str = option("auto", "language of the first page; auto: the browser's", choices=("auto", "zh", "en"))
    host: str = option("127.0.0.1", "address to listen on; any but 127.0.0.1 lets other computers use the page")
    port: int = option(7860, "port to listen on; 0: any free one", within=(0, 65535))
    upload_mb: int = option(200, "largest upload in megabytes", within=(1, math.inf))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(any(self.weights), "--weights", "given", "nothing")

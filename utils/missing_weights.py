"""The error for a weights file that is missing, and where the weights that YOLOv5's commands name come from."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from utils.errors import CheckpointError

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0/"
OFFICIAL_NAME = re.compile(r"yolov5[nsmlx]6?(\.pt)?", re.IGNORECASE)


def unreadable_weights(path: Path, code: int = errno.ENOENT, *, alternative: str = "") -> CheckpointError:
    """Return the error for a weights file that cannot be read, by default because it is missing.

    `code` is the errno; `alternative` is what else to do if no weights are at hand.
    """
    if code == errno.ENOENT and OFFICIAL_NAME.fullmatch(path.name):
        fix = f"download {RELEASE}{path.stem.lower()}.pt" + (f", or {alternative}" if alternative else "")
        return CheckpointError(path, "does not exist, and no weights are shipped or downloaded", fix=fix)
    near = ", ".join(str(p) for p in sorted(path.parent.glob("*.pt"))[:3]) if path.parent.is_dir() else ""
    fix = f"did you mean {near}?" if near else "check the path"
    return CheckpointError(path, f"cannot be read ({os.strerror(code)})", fix=fix)

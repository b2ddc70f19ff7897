"""Reading a weights file, the error if it is missing, and where the weights that YOLOv5's commands name come from."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from utils.errors import CheckpointError

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0/"
MAX_BYTES = 16_000_000_000
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


def read_weights_file(path: Path) -> bytes:
    """Return the bytes of a weights file of any format; CheckpointError if it cannot be read or exceeds MAX_BYTES."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise CheckpointError(path, "is a device or pipe, not a file", fix="check the path")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise CheckpointError(path, f"is too large ({path.stat().st_size} bytes)", fix="check the path")
        return path.read_bytes()
    except OSError as error:
        raise unreadable_weights(path, error.errno or 0) from error
    except ValueError as error:
        raise CheckpointError(repr(str(path)), f"is not a path ({error})", fix="check the path") from error

"""What the options of several commands share: values they know, and checks."""

from __future__ import annotations

from typing import Any

from utils.errors import ConfigError

OPTIMIZERS = ("SGD", "Adam", "AdamW")
MAX_SEED = 2**53  # beyond it a number does not survive every file


def require(condition: bool, flag: str, rule: str, got: Any) -> None:  # noqa: ANN401
    """Check an option.

    Raises:
        ConfigError: the condition does not hold.
    """
    if not condition:
        raise ConfigError(flag, f"must be {rule} (got {got})", fix=f"correct {flag}")


def check_thresholds(confidence: float, overlap: float, max_detections: int) -> None:
    """Check what val.py and detect.py share.

    Raises:
        ConfigError: names the flag.
    """
    require(0 <= confidence < 1, "--conf-thres", "in [0, 1)", confidence)
    require(0 < overlap <= 1, "--iou-thres", "in (0, 1]", overlap)
    require(max_detections >= 1, "--max-det", "at least 1", max_detections)

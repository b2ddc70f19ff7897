"""Options as dataclasses: a base class that checks ranges, fields that several commands share, and further checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from utils.cli import option
from utils.errors import ConfigError
from utils.files import PROJECT_ROOT

MAX_SEED = 2**53  # larger integers are not preserved by every file format
IMAGE_SIZES = (32, 8192)
HYP_FOLDER = PROJECT_ROOT / "data" / "hyps"


def require(condition: bool, flag: str, rule: str, got: Any) -> None:  # noqa: ANN401
    """Raise a ConfigError for an option's value unless the condition holds."""
    if not condition:
        raise ConfigError(flag, f"must be {rule} (got {got})", fix=f"correct {flag}")


def check_thresholds(conf_threshold: float, iou_threshold: float, max_detections: int) -> None:
    """Raise a ConfigError if a threshold of detection or evaluation is out of range."""
    require(0 <= conf_threshold < 1, "--conf-thres", "in [0, 1)", conf_threshold)
    require(0 < iou_threshold <= 1, "--iou-thres", "in (0, 1]", iou_threshold)
    require(max_detections >= 1, "--max-det", "at least 1", max_detections)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base class of all options."""

    def __post_init__(self) -> None:
        """Raise a ConfigError that names the flag if a value is invalid, as far as no file is needed to see it."""
        for field in fields(self):
            if isinstance(field.default, tuple) and isinstance(getattr(self, field.name), str):
                one = getattr(self, field.name)
                object.__setattr__(self, field.name, (one,) if one else ())
            low, high = field.metadata["within"]
            value = getattr(self, field.name)
            values = value if isinstance(value, tuple) else (value,)
            if (low, high) != (-math.inf, math.inf):
                rule = f"at least {low}" if high == math.inf else f"from {low} to {high}"
                valid = all(low <= number <= high for number in values)
                require(valid, "--" + field.name.replace("_", "-"), rule, value)


@dataclass(frozen=True, kw_only=True)
class PluginOptions(Options):
    """The user's own modules."""

    plugins: tuple[str, ...] = option((), "Python files with @register modules")


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Options):
    """How train.py and val.py read a data set."""

    single_cls: bool = option(False, "treat all classes as one")
    strict: bool = option(False, "stop at an invalid image or label instead of skipping it")
    no_label_cache: bool = option(False, "ignore the label cache")

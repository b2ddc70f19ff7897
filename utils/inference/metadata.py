"""What is known of a model besides its weights, and how exported files store it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import CheckpointError, ConfigError
from utils.literals import NOT_A_LITERAL, parse_literal
from utils.log import LOGGER

INPUT, OUTPUT = "images", "output0"  # of exported graphs
DEFAULT_IMAGE_SIZE = 640


@dataclass(frozen=True, kw_only=True)
class RawHeads:
    """What decodes the raw maps of a file without decoding, level by level, see `decode_heads`."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]  # widths and heights in pixels
    strides: tuple[int, ...]  # pixels per cell

    @classmethod
    def from_json(cls, text: str) -> RawHeads:
        """Parse the JSON object of the two fields; one of several errors if it is invalid."""
        content = json.loads(text)
        anchors = tuple(tuple((float(w), float(h)) for w, h in level) for level in content["anchors"])
        strides = tuple(int(stride) for stride in content["strides"])
        positive = [*strides, *(side for level in anchors for pair in level for side in pair)]
        if len(anchors) != len(strides) or not all(anchors) or not all(0 < n < math.inf for n in positive):
            raise ValueError
        return cls(anchors=anchors, strides=strides)


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What is known of a model besides its weights; exported files store it under the keys that YOLOv5 uses."""

    names: tuple[str, ...]  # of the classes
    stride: int  # image sides must be multiples of it
    image_size: int = DEFAULT_IMAGE_SIZE  # default longer side in pixels
    data: str = ""  # data yaml it was trained on
    single_class: bool = False  # trained with all classes as one
    nms: bool = False  # NMS is part of the graph: output rows are x1, y1, x2, y2, score, class
    heads: RawHeads | None = None  # the outputs are raw maps of these levels, without decoding
    fixed_hw: tuple[int, int] | None = None  # the only height and width that the file accepts; not stored, but its own
    device: str = "cpu"  # type of device a TorchScript file runs on: its constants are bound to it

    def to_text(self) -> dict[str, str]:
        """Return the key-value pairs to store in a file."""
        return {
            "names": str(dict(enumerate(self.names))),
            "stride": str(self.stride),
            "imgsz": str(self.image_size),
            "data": self.data,
            "single_cls": str(self.single_class),
            "nms": str(self.nms),
            "device": self.device,
            **({"heads": json.dumps(asdict(self.heads))} if self.heads else {}),
        }

    @classmethod
    def from_text(cls, text: Mapping[str, Any], *, path: Path | str) -> ModelMetadata:
        """Parse what `to_text`, or YOLOv5, wrote; CheckpointError if class names or stride are missing or invalid."""
        try:
            names = text["names"]
            names = parse_literal(names) if isinstance(names, str) else names
            by_id = {int(n): str(v) for n, v in (names.items() if isinstance(names, dict) else enumerate(names))}
            stride, size = int(text["stride"]), str(text.get("imgsz", ""))
            if sorted(by_id) != list(range(len(by_id))) or not by_id or not 1 <= stride <= 4096:
                raise ValueError
            heads = RawHeads.from_json(str(text["heads"])) if text.get("heads") else None
        except (KeyError, OverflowError, *NOT_A_LITERAL) as error:
            raise CheckpointError(
                path, "has no valid class names and stride in its metadata", fix="export it with export.py or YOLOv5"
            ) from error
        return cls(
            names=tuple(by_id[n] for n in range(len(by_id))),
            stride=stride,
            image_size=int(size) if re.fullmatch("[1-9][0-9]{0,3}", size) else DEFAULT_IMAGE_SIZE,
            data=str(text.get("data", "")),
            single_class=str(text.get("single_cls")) == "True",
            nms=str(text.get("nms")) == "True",
            heads=heads,
            device=str(text.get("device", "")),
        )


def require_fixed_size(fixed_hw: tuple[int, int], imgsz: Sequence[int], path: Path | str) -> None:
    """Log the only size that a file accepts; a ConfigError if `--imgsz`, one side or height and width, is another."""
    height, width = fixed_hw
    if imgsz and tuple((*imgsz, *imgsz)[:2]) != fixed_hw:
        given = " ".join(map(str, imgsz))
        raise ConfigError("--imgsz", f"must be {height} {width} for {path} (got {given})", fix="leave --imgsz out")
    LOGGER.info(f"Image size: {height} x {width} px, the only one of this file")

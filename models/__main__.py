"""Print the layers, parameters and operations of a model: `python -m models --cfg yolov5n-AKConv.yaml`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from models.config import load_model_config
from utils.cli import option, parse_options, run_script
from utils.log import LOGGER
from utils.plugins import load_plugins


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """The model to describe."""

    IGNORED: ClassVar[dict[str, str]] = {
        "--batch-size": "the operations are those of one image",
        "--device": "nothing is computed",
    }
    REFUSED: ClassVar[dict[str, tuple[str, str]]] = {
        "--profile": ("only sizes are counted here", "run benchmarks.py"),
        "--line-profile": ("only sizes are counted here", "run benchmarks.py"),
        "--test": ("only one model is built here", "pass its yaml to --cfg"),
    }

    cfg: str = option("yolov5n.yaml", "model yaml, by path or bare name")
    imgsz: int = option(640, "image size for which operations are counted, rounded up to the stride")
    plugins: tuple[str, ...] = option((), "Python files with @register modules")


def main() -> None:
    """Parse the command line, build the model, and print its table."""
    options, _ = parse_options(SummaryOptions, None, description=__doc__ or "")
    config = load_model_config(options.cfg)
    from models.summary import summarize  # torch comes after what can be checked without
    from models.yolo import DetectionModel

    load_plugins(options.plugins)
    model = DetectionModel(config)
    side = max(math.ceil(options.imgsz / model.max_stride), 1) * model.max_stride
    LOGGER.info(summarize(model, (side, side)).table())


if __name__ == "__main__":
    run_script(main)

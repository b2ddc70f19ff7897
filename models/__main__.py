"""Print the layers, parameters and operations of a model, or draw it: `python -m models --cfg yolov5n-AKConv.yaml`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from models.config import ModelConfig, load_model_config
from utils.cli import option, parse_options, run_script
from utils.errors import ConfigError
from utils.files import atomic_write
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
    nc: int = option(80, "number of classes, if not the yaml's")
    diagram: str = option("", "SVG file for a drawing of the structure, for print")
    lang: str = option("en", "language of the drawing's labels", choices=("en", "zh"))
    plugins: tuple[str, ...] = option((), "Python files with @register modules")


def main() -> None:
    """Parse the command line, build the model, and print its table."""
    options, given = parse_options(SummaryOptions, None, description=__doc__ or "")
    path = Path(options.diagram)
    if options.diagram and path.suffix.lower() != ".svg":
        raise ConfigError("--diagram", f"only SVG is written (got {path.name!r})", fix="use a name that ends in .svg")
    config = load_model_config(options.cfg)
    if "nc" in given:
        config = ModelConfig.from_dict({**config.to_dict(), "nc": options.nc}, name=config.name, path=config.path)
    from models.summary import summarize  # torch comes after what can be checked without
    from models.yolo import DetectionModel

    load_plugins(options.plugins)
    model = DetectionModel(config)
    side = max(math.ceil(options.imgsz / model.max_stride), 1) * model.max_stride
    LOGGER.info(summarize(model, (side, side)).table())
    if options.diagram:
        from models.diagram import structure_svg

        svg, scale = structure_svg(model, (side, side), lang=options.lang)
        atomic_write(path, svg)
        LOGGER.info(f"Diagram: {path}, with text of 7 pt; it fits A4 at {int(100 * scale)} %")


if __name__ == "__main__":
    run_script(main)

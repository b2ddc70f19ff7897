"""Options of utils.explain."""

from __future__ import annotations

import math
from dataclasses import dataclass

from utils.cli import option
from utils.options.base import IMAGE_SIZES, MAX_SEED, PluginOptions, require

METHODS = ("gradcam", "gradcam++", "eigencam", "layercam")
TARGETS = ("detection", "class", "image")
SCORES = ("confidence", "class")


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(PluginOptions):
    """The models to look into, the images, and what to show."""

    weights: tuple[str, ...] = option((), "checkpoint(s); the first is the baseline of the differences")
    source: str = option("", "images without labels: image, folder, glob, list or video")
    data: str = option("", "data yaml: images with labels, against which maps are scored")
    task: str = option("val", "split of --data", choices=("train", "val", "test"))
    images: int = option(
        8, "number of images, spread evenly over the split; the first of --source", within=(1, math.inf)
    )
    layers: tuple[str, ...] = option((), "layers: 17, model.17.cv1; default: the rows that the head reads")
    method: tuple[str, ...] = option(("gradcam", "eigencam"), "class activation maps", choices=METHODS)
    target: str = option("detection", "what a map explains", choices=TARGETS)
    score: str = option("confidence", "objectness times class probability, or the class alone", choices=SCORES)
    class_name: str = option("", "explain this class only, by name or id; default: that of the detection or object")
    position: tuple[float, ...] = option(
        (), "x y in pixels of the image: the object or detection there, and the place of --erf", kind=float
    )
    erf: bool = option(False, "effective receptive field of each layer; default place: the centre of the input")
    feature_maps: bool = option(False, "the most variable channels of each layer")
    imgsz: tuple[int, ...] = option(
        (), "image size: longer side, or height and width; default: the checkpoint's", kind=int, within=IMAGE_SIZES
    )
    figures: tuple[str, ...] = option(("svg",), "formats of figures, besides PNG with 300 dpi", choices=("svg", "pdf"))
    device: str = option("", "cpu, mps, or a CUDA device index")
    seed: int = option(0, "seed of the random weights", within=(0, MAX_SEED))
    project: str = option("runs/explain", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(any(self.weights), "--weights", "given", "nothing")
        one = bool(self.source) != bool(self.data)
        require(one, "--source", "given, or --data, and not both", self.source or "none")
        require(len(self.imgsz) <= 2, "--imgsz", "one or two numbers", self.imgsz)
        at, class_name = self.position, self.class_name
        valid = len(at) in (0, 2) and all(0 <= value < math.inf for value in at)
        require(valid, "--position", "x y in pixels of the image, both at least 0", at)
        used = not at or self.target == "detection" or self.erf
        require(used, "--position", "used with --target detection or --erf", at)
        used = not class_name or self.target != "image"
        require(used, "--class-name", "used with --target detection or class", class_name)

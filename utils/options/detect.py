"""Options of detect.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.options.checks import check_thresholds, require
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS

MOST_CHOSEN_POSITIONS = 36  # more could not be told apart in one image


def image_position(text: str) -> tuple[float, float]:
    """Return the x and y of a word `x,y`, in pixels of an image.

    Raises:
        ConfigError: it is no such word; names --visualize-at.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        x = y = math.nan
    good = all(0 <= value < math.inf for value in (x, y))
    require(good, "--visualize-at", "x,y in pixels of the image, both from 0, as 320,96", repr(text))
    return x, y


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Options of detect.py."""

    IGNORED: ClassVar[dict[str, str]] = {"--dnn": "exported models run in ONNX Runtime"}
    REFUSED: ClassVar[dict[str, str]] = {"--update": "it rewrites your weights file"}

    weights: str = option("", "checkpoint to use")
    source: str = option("data/images", "image, folder, glob, video, list, camera number, stream, or screen")
    data: str = option("", "data yaml for class names; the checkpoint holds its own")
    imgsz: tuple[int, ...] = option(
        (640,), "longer side in pixels, or height and width", kind=int, many=True, flags=("--img", "--img-size")
    )
    batch_size: int = option(4, "images of like shape to look at together", flags=("--batch",))
    conf_thres: float = option(CONF_THRESHOLD, "confidence above which a box counts")
    iou_thres: float = option(IOU_THRESHOLD, "overlap above which the worse box goes")
    max_det: int = option(MAX_DETECTIONS, "boxes per image at most")
    device: str = option("", "cpu, mps, or a CUDA device's number")
    view_img: bool = option(False, "show each result in a window")
    save_txt: bool = option(False, "write labels/<image>.txt")
    save_format: int = option(0, "coordinates of --save-txt as shares: 0 cx cy w h, 1 x1 y1 x2 y2")
    save_csv: bool = option(False, "write predictions.csv")
    save_conf: bool = option(False, "with the confidence as last column of --save-txt")
    save_crop: bool = option(False, "write each box as an image, crops/<class>/<image>.jpg")
    nosave: bool = option(False, "write no annotated images or videos")
    classes: tuple[int, ...] = option((), "keep these class numbers only", kind=int, many=True)
    agnostic_nms: bool = option(False, "let boxes of different classes suppress each other")
    augment: bool = option(False, "look at three sizes, once mirrored: slower, often surer")
    project: str = option("runs/detect", "folder of all runs")
    name: str = option("exp", "folder of this run")
    exist_ok: bool = option(False, "write into an existing folder")
    line_thickness: int = option(3, "width of drawn boxes in pixels")
    hide_labels: bool = option(False, "draw boxes without names")
    hide_conf: bool = option(False, "draw names without confidences")
    half: bool = option(False, "half precision, on CUDA")
    vid_stride: int = option(1, "take every n-th frame of a video")
    visualize: bool = option(False, "draw where AKConv layers sample, of the first 8 images, into sampling/")
    visualize_layers: tuple[str, ...] = option(
        (), "layers to draw: 3, model.5, model.17.m.0.cv2; by default the first of each stride", kind=str, many=True
    )
    visualize_at: tuple[tuple[float, float], ...] = option(
        (),
        "positions to draw, x,y in pixels of the image: 320,96 12.5,40; by default the best boxes",
        kind=image_position,
        many=True,
    )
    stream_timeout: float = option(30.0, "seconds without a frame after which a stream is given up")
    trust_torchscript: bool = option(
        False, "run a TorchScript file, which is a program, that was not exported here", aliases=("--trust",)
    )
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check ranges that need no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(all(32 <= side <= 8192 for side in self.imgsz), "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(0 < self.stream_timeout < 1e9, "--stream-timeout", "above 0", self.stream_timeout)
        require(self.vid_stride >= 1, "--vid-stride", "at least 1", self.vid_stride)
        require(self.save_format in (0, 1), "--save-format", "0 or 1", self.save_format)
        require(self.line_thickness >= 1, "--line-thickness", "at least 1", self.line_thickness)
        chosen = len(self.visualize_at)
        require(chosen <= MOST_CHOSEN_POSITIONS, "--visualize-at", f"at most {MOST_CHOSEN_POSITIONS} positions", chosen)
        check_thresholds(self.conf_thres, self.iou_thres, self.max_det)

    @property
    def draws_sampling(self) -> bool:
        """Whether images of sampling points are asked for: each flag about them does."""
        return self.visualize or bool(self.visualize_layers) or bool(self.visualize_at)

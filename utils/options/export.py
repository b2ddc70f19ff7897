"""Options of export.py."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.errors import ConfigError
from utils.options.base import IMAGE_SIZES, PluginOptions, check_thresholds, require
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD

TRTEXEC = (
    "export onnx, then trtexec --onnx=best.onnx --saveEngine=best.engine --minShapes=images:1x3x320x320 "
    "--optShapes=images:1x3x640x640 --maxShapes=images:8x3x1280x1280"
)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(PluginOptions):
    """The checkpoint to export, and the formats."""

    IGNORED: ClassVar[dict[str, str]] = {
        "--inplace": "nothing is computed in place",
        "--optimize": "for a mobile tool that no longer exists",
        "--workspace": "TensorRT; see trtexec",
        "--cache": "TensorRT; see trtexec",
        "--keras": "TensorFlow",
        "--per-tensor": "TensorFlow",
        "--mlmodel": "CoreML",
    }
    FORMATS: ClassVar[tuple[str, ...]] = ("torchscript", "onnx", "openvino", "ncnn")
    ELSEWHERE: ClassVar[dict[str, str]] = {
        "engine": TRTEXEC,
        "trt": TRTEXEC,
        "coreml": "export torchscript, then coremltools.convert",
        "mlmodel": "export torchscript, then coremltools.convert",
        "rknn": "export onnx with --static H W --raw-heads, then convert it with rknn-toolkit2",
        "saved_model": "export onnx, then onnx2tf",
        "pb": "export onnx, then onnx2tf",
        "tflite": "export onnx, then onnx2tf",
        "edgetpu": "export onnx, then onnx2tf and edgetpu_compiler",
        "tfjs": "export onnx, and run it in the browser with ONNX Runtime Web",
        "paddle": "export onnx, then x2paddle",
    }

    data: str = option("", "data yaml for --benchmark and --int8; default: the one the checkpoint was trained on")
    weights: tuple[str, ...] = option((), "checkpoint(s) to export one after another; files are written beside them")
    imgsz: tuple[int, ...] = option(
        (640, 640),
        "default height and width for users of the file; default: the checkpoint's. All sizes work",
        within=IMAGE_SIZES,
    )
    batch_size: int = option(1, "batch size that is also checked. All batch sizes work", within=(1, math.inf))
    device: str = option("cpu", "device a TorchScript file is for: cpu, or a CUDA device index")
    half: bool = option(False, "half precision inside; boxes stay in full precision")
    dynamic: bool = option(False, "dynamic axes (always on)")
    static: tuple[int, ...] = option(
        (),
        "ONNX of one height and width only, with --batch-size images, without operators that compute shapes",
        kind=int,
    )
    akconv_form: str = option(
        "",
        "AKConv with --static: gather (default; any opset) or deform (DeformConv, opset 19 and later); in ncnn: grid "
        "(default) or deform (faster on x86)",
        choices=("gather", "deform", "grid"),
    )
    raw_heads: bool = option(False, "end the ONNX graph with the head's raw maps, without decoding")
    int8: bool = option(
        False, "quantize the ONNX file with images of the train split of --data, and report its mAP on the val split"
    )
    simplify: bool = option(False, "run onnxslim on the ONNX graph (always with --static)")
    opset: int = option(0, "ONNX opset, 12 to 20; 0: 17, 19 for models with AKConv, 12 with --static and gathers")
    verbose: bool = option(False, "log the difference to PyTorch per size")
    nms: bool = option(False, "NMS inside the ONNX graph")
    agnostic_nms: bool = option(False, "with --nms: class-agnostic NMS")
    topk_per_class: int = option(100, "with --nms: maximum detections per class", within=(1, math.inf))
    topk_all: int = option(100, "with --nms: maximum detections per image")
    iou_thres: float = option(IOU_THRESHOLD, "with --nms: NMS IoU threshold")
    conf_thres: float = option(CONF_THRESHOLD, "with --nms: confidence threshold")
    include: tuple[str, ...] = option(("torchscript",), "formats: torchscript onnx openvino ncnn")
    benchmark: bool = option(False, "then compare the formats: file size, mAP on --data, latency")
    repeats: int = option(15, "with --benchmark: timing repeats", aliases=("--rounds",), within=(1, math.inf))
    project: str = option("runs/export", "with --benchmark: folder of all tables")
    name: str = option("exp", "with --benchmark: folder of this table")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(any(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(self.opset == 0 or 12 <= self.opset <= 20, "--opset", "from 12 to 20", self.opset)
        for name in self.include:
            require(name in (*self.FORMATS, *self.ELSEWHERE), "--include", f"among {', '.join(self.FORMATS)}", name)
        if not set(self.include) & set(self.FORMATS):
            name = self.include[0]
            raise ConfigError("--include", f"{name} is not supported", fix=self.ELSEWHERE[name])
        self._check_edge()
        if self.nms:
            require("onnx" in self.include, "--nms", "with --include onnx", self.include)
            require(self.opset != 12, "--opset", "at least 13 with --nms", self.opset)
        check_thresholds(self.conf_thres, self.iou_thres, self.topk_all)

    def _check_edge(self) -> None:
        """Raise a ConfigError for options of small devices that are invalid or do not go together."""
        low, high = IMAGE_SIZES
        valid = len(self.static) == 2 and all(low <= side <= high for side in self.static)
        require(valid or not self.static, "--static", f"height and width, from {low} to {high} pixels", self.static)
        forms = ("gather", "deform") if self.static else ("grid", "deform") if "ncnn" in self.include else ()
        allowed = "gather or deform with --static, grid or deform with --include ncnn"
        require(self.akconv_form in ("", *forms), "--akconv-form", allowed, self.akconv_form)
        deformable = not self.static or self.akconv_form != "deform" or self.opset == 0 or self.opset >= 19
        require(deformable, "--opset", "at least 19 with --akconv-form deform", self.opset)
        if self.int8:
            require(self.opset != 12, "--opset", "at least 13 with --int8", self.opset)
            require(self.batch_size == 1 or not self.static, "--batch-size", "1 with --int8", self.batch_size)
        flags = {"--static": self.static, "--raw-heads": self.raw_heads, "--int8": self.int8}
        others = {"--half": self.half, "--nms": self.nms}
        if self.static:
            others["--dynamic"] = self.dynamic
        for flag in (flag for flag, given in flags.items() if given):
            require(set(self.include) == {"onnx"}, flag, "with --include onnx alone", " ".join(self.include))
            if other := next((name for name, given in others.items() if given), ""):
                raise ConfigError(flag, f"is not possible with {other}", fix=f"leave {other} out")

"""Options of export.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from utils.cli import option
from utils.errors import ConfigError
from utils.options.checks import check_thresholds, require
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of export.py."""

    IGNORED: ClassVar[dict[str, str]] = {
        "--inplace": "nothing is computed in place",
        "--optimize": "for phones, by a tool that is no more",
        "--workspace": "TensorRT; see trtexec",
        "--cache": "TensorRT; see trtexec",
        "--keras": "TensorFlow",
        "--per-tensor": "TensorFlow",
        "--mlmodel": "CoreML",
    }
    REFUSED: ClassVar[dict[str, str]] = {"--int8": "quantise the ONNX file with onnxruntime.quantization"}
    FORMATS: ClassVar[tuple[str, ...]] = ("torchscript", "onnx", "openvino")
    ELSEWHERE: ClassVar[dict[str, str]] = {
        "engine": "export onnx, then trtexec --onnx=best.onnx --saveEngine=best.engine on the GPU",
        "coreml": "export torchscript, then coremltools.convert",
        "saved_model": "export onnx, then onnx2tf",
        "pb": "export onnx, then onnx2tf",
        "tflite": "export onnx, then onnx2tf",
        "edgetpu": "export onnx, then onnx2tf and edgetpu_compiler",
        "tfjs": "export onnx, and run it in the browser with ONNX Runtime Web",
        "paddle": "export onnx, then x2paddle",
    }

    data: str = option("", "data yaml for --benchmark; by default the one the checkpoint was trained on")
    weights: str = option("", "checkpoint to export; files are written beside it")
    imgsz: tuple[int, ...] = option(
        (640, 640),
        "height and width that users of the file take by default; not given, the checkpoint's. All sizes work",
        kind=int,
        many=True,
        flags=("--img", "--img-size"),
    )
    batch_size: int = option(1, "images per batch, also checked. All batches work", flags=("--batch",))
    device: str = option("cpu", "device a TorchScript file is for: cpu, or a CUDA device's number")
    half: bool = option(False, "half precision inside; boxes stay in full")
    dynamic: bool = option(False, "batch, height and width open: always so")
    simplify: bool = option(False, "run onnxslim over the ONNX graph")
    opset: int = option(0, "version of ONNX's operators, 12 to 20; 0: 17, or 19 for models with AKConv")
    verbose: bool = option(False, "tell the difference to PyTorch for each size")
    nms: bool = option(False, "suppression inside the ONNX graph")
    agnostic_nms: bool = option(False, "with --nms, let boxes of different classes suppress each other")
    topk_per_class: int = option(100, "with --nms, boxes of a class at most")
    topk_all: int = option(100, "with --nms, boxes of an image at most")
    iou_thres: float = option(IOU_THRESHOLD, "with --nms, overlap above which the worse box goes")
    conf_thres: float = option(CONF_THRESHOLD, "with --nms, confidence above which a box counts")
    include: tuple[str, ...] = option(("torchscript",), "formats: torchscript onnx openvino", kind=str, many=True)
    benchmark: bool = option(False, "then compare the formats: size, mAP on --data, milliseconds")
    repeats: int = option(15, "with --benchmark: timing repeats per format", aliases=("--rounds",))
    project: str = option("runs/export", "folder of all tables of --benchmark")
    name: str = option("exp", "folder of this table")
    plugins: tuple[str, ...] = option((), "python files with @register modules", kind=str, many=True)

    def __post_init__(self) -> None:
        """Check what needs no file.

        Raises:
            ConfigError: names the flag.
        """
        require(bool(self.weights), "--weights", "given", "nothing")
        require(len(self.imgsz) in (1, 2), "--imgsz", "one or two numbers", self.imgsz)
        require(all(32 <= side <= 8192 for side in self.imgsz), "--imgsz", "from 32 to 8192", self.imgsz)
        require(self.batch_size >= 1, "--batch-size", "at least 1", self.batch_size)
        require(self.opset == 0 or 12 <= self.opset <= 20, "--opset", "from 12 to 20", self.opset)
        require(self.repeats >= 1, "--repeats", "at least 1", self.repeats)
        for name in self.include:
            if name in self.ELSEWHERE:
                raise ConfigError("--include", f"{name} is not made here", fix=self.ELSEWHERE[name])
            require(name in self.FORMATS, "--include", f"among {', '.join(self.FORMATS)}", name)
        if self.nms:
            require("onnx" in self.include, "--nms", "with --include onnx", self.include)
            require(self.opset != 12, "--opset", "at least 13 with --nms", self.opset)
            require(self.topk_per_class >= 1, "--topk-per-class", "at least 1", self.topk_per_class)
            check_thresholds(self.conf_thres, self.iou_thres, self.topk_all)

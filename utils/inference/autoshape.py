"""The Python API: a detector to call with images of any type, size and number, which returns `Results`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import load_model_config
from models.fuse import fused
from models.yolo import DetectionModel
from utils.datasets.letterbox import PAD_VALUE
from utils.errors import ConfigError
from utils.inference.detector import TorchNetwork
from utils.inference.engine import open_onnx_network
from utils.inference.exported_model import ExportedModel
from utils.inference.inputs import ImageInput, InputImage, number, parse_inputs, whole_numbers
from utils.inference.model_loading import MAX_IMAGE_SIZE, Model, is_exported, open_weights
from utils.inference.nms import NmsSettings
from utils.inference.onnx_session import OnnxNetwork
from utils.inference.predict import InferenceConfig, Timings, predict, predict_batch, preprocess
from utils.inference.results import Results
from utils.inference.tta import augmented
from utils.options.base import check_thresholds
from utils.options.inference import AUTO, ENGINES
from utils.runtime import select_device, to_device
from utils.structures import Detections, LetterboxTransform
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD, MAX_DETECTIONS
from utils.weights.checkpoint import load_checkpoint, stored_weights
from utils.weights.transfer import transfer_weights

BATCH_SIZE = 16
PHASES = ("pre", "inference", "nms")


class AutoShape(nn.Module):
    """A detector to call with images.

    Its settings are plain attributes, read when a call begins, so that several threads may call it at once.

    Attributes:
        allow_urls: download images given by their address. Off by default: an address from an untrusted source could
            make this machine send requests into its own network.
        model: the model with batch norms folded, or an exported one, which stays on its device.
        names: class id -> name.
        stride: largest stride of the model.
    """

    conf = CONF_THRESHOLD  # confidence threshold, in [0, 1)
    iou = IOU_THRESHOLD  # NMS IoU threshold, in (0, 1]
    agnostic = False  # class-agnostic NMS
    multi_label = False  # a box may be detected as every class above `conf` rather than its best class only
    classes: Sequence[int] | int | None = None  # keep these class ids only; None keeps all
    max_det = MAX_DETECTIONS  # maximum detections per image
    amp = False  # mixed precision, ignored on the CPU

    def __init__(
        self, model: Model, names: Sequence[str], *, allow_urls: bool = False, onnx_network: OnnxNetwork | None = None
    ) -> None:
        """Wrap a copy of a model, or an exported model itself.

        `onnx_network` is the same model in ONNX Runtime, which runs it while it is in single precision on the CPU.
        """
        super().__init__()
        self._onnx_network = onnx_network
        self.model: Model = fused(model)
        self.names = dict(enumerate(names))
        self.stride = model.max_stride
        self.allow_urls = allow_urls
        self.eval()

    def forward(
        self, ims: ImageInput | Sequence[ImageInput], size: int | Sequence[int] = 640, augment: bool = False
    ) -> Results:
        """Detect objects. The detections of an image do not depend on the other images of the call.

        Args:
            ims: one image or a list: a path, a PIL image, an (H, W, 3) RGB array (convert OpenCV's BGR with
                `[..., ::-1]`) or any other that `to_rgb8` accepts, also channels first, or a tensor (3, H, W) or
                (B, 3, H, W) of values in [0, 1], which is padded to the stride but not resized.
            size: longer side in pixels, or height and width, to which images other than tensors are letterboxed.
            augment: test-time augmentation.

        Raises:
            DataError: an image cannot be read, or is of an unsupported type.
            ConfigError: a setting is out of range.
        """
        config = self._config(size)
        network = self._network(augment=augment)
        inputs = parse_inputs(ims, allow_urls=self.allow_urls)
        predicted: list[tuple[Detections, Timings]] = []
        shape: tuple[int, ...] = ()
        for start in range(0, len(inputs), BATCH_SIZE):
            of_chunk, shape = self._predict(network, inputs[start : start + BATCH_SIZE], config)
            predicted += of_chunk
        count = max(len(predicted), 1)
        return Results(
            [image.image for image in inputs],
            [detections for detections, _ in predicted],
            [image.file for image in inputs],
            names=self.names,
            times=tuple(sum(timings[phase] for _, timings in predicted) / count for phase in PHASES),
            shape=shape,
        )

    if TYPE_CHECKING:  # nn.Module declares that a call returns Any

        def __call__(
            self, ims: ImageInput | Sequence[ImageInput], size: int | Sequence[int] = 640, augment: bool = False
        ) -> Results:
            """See `forward`."""

    def _config(self, size: int | Sequence[int]) -> InferenceConfig:
        """Return the settings of one call; ConfigError if one is out of range."""
        conf, iou = (number(value, name) for value, name in ((self.conf, "conf"), (self.iou, "iou")))
        (max_det,) = whole_numbers(self.max_det, "max_det")
        check_thresholds(conf, iou, max_det)
        sides = whole_numbers(size, "size")
        if len(sides) not in (1, 2) or not all(1 <= side <= MAX_IMAGE_SIZE for side in sides):
            what = f"must be one or two numbers of pixels up to {MAX_IMAGE_SIZE} (got {size})"
            raise ConfigError("size", what, fix="pass the longer side, or height and width")
        classes = None if self.classes is None else whole_numbers(self.classes, "classes")
        nms = NmsSettings(
            conf_threshold=conf,
            iou_threshold=iou,
            max_detections=max_det,
            classes=classes,
            agnostic=self.agnostic,
            multi_label=self.multi_label,
        )
        size_hw = (self._round(sides[0]), self._round(sides[-1]))
        return InferenceConfig(size_hw=size_hw, stride=self.stride, nms=nms)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy gets: torch runs it, since its weights may change."""
        return {**self.__dict__, "_onnx_network": None}

    def _network(self, *, augment: bool) -> TorchNetwork | OnnxNetwork:
        """Return the model ready to run where it is now."""
        detector = augmented(self.model) if augment else self.model
        if isinstance(self.model, ExportedModel):
            return TorchNetwork(detector=detector, device=self.model.device, amp=self.amp)
        parameter = next(self.model.parameters())
        single = parameter.device.type == "cpu" and parameter.dtype == torch.float32
        if self._onnx_network is not None and single and not augment:
            return self._onnx_network
        return TorchNetwork(detector=detector, device=parameter.device, dtype=parameter.dtype, amp=self.amp)

    def _round(self, side: int) -> int:
        return math.ceil(side / self.stride) * self.stride

    def _predict(
        self, network: TorchNetwork | OnnxNetwork, inputs: Sequence[InputImage], config: InferenceConfig
    ) -> tuple[list[tuple[Detections, Timings]], tuple[int, ...]]:
        """Return detections and timings of each image, and the shape of an input."""
        images = {index: preprocess(one.image, config) for index, one in enumerate(inputs) if one.pixels is None}
        results = dict(zip(images, predict(network, list(images.values()), config), strict=True))
        shapes = [image.image.shape[:2] for image in images.values()]
        for index, one in enumerate(inputs):
            if one.pixels is not None:
                batch = self._pad(one.pixels)[None]
                height, width = one.image.shape[:2]
                transform = LetterboxTransform(original_hw=(height, width), ratio_wh=(1.0, 1.0), pad_wh=(0.0, 0.0))
                (detections,), timings = predict_batch(network, network.convert(batch), [transform], config)
                results[index] = detections, {"pre": 0.0, **timings}
                shapes.append(batch.shape[2:])
        return [results[index] for index in range(len(inputs))], (len(inputs), 3, *shapes[-1])

    def _pad(self, pixels: Tensor) -> Tensor:
        """Return a (3, H, W) image padded with grey at the right and bottom to multiples of the stride."""
        height, width = pixels.shape[1:]
        return F.pad(pixels, (0, self._round(width) - width, 0, self._round(height) - height), value=PAD_VALUE / 255)


@overload
def load_detector(
    weights: str | Path,
    *,
    device: str = "",
    autoshape: Literal[True] = True,
    allow_urls: bool = False,
    trust: bool = False,
    engine: str = AUTO,
) -> AutoShape: ...


@overload
def load_detector(
    weights: str | Path, *, device: str = "", autoshape: Literal[False], trust: bool = False, engine: str = AUTO
) -> Model: ...


@overload
def load_detector(
    weights: str | Path,
    *,
    device: str = "",
    autoshape: bool,
    allow_urls: bool = False,
    trust: bool = False,
    engine: str = AUTO,
) -> AutoShape | Model: ...


def load_detector(
    weights: str | Path,
    *,
    device: str = "",
    autoshape: bool = True,
    allow_urls: bool = False,
    trust: bool = False,
    engine: str = AUTO,
) -> AutoShape | Model:
    """Load a trained model.

    Args:
        weights: a checkpoint, whose `.pt` may be left out, or its export: an .onnx, .torchscript, OpenVINO folder or
            .xml.
        device: cpu, mps, or a CUDA device's index; the best available by default.
        autoshape: return an `AutoShape` to call with images; otherwise the bare model, (B, 3, H, W) in [0, 1] to
            predictions.
        allow_urls: download images given by their web address.
        trust: run a TorchScript file, which is a program, even if it was not exported on this machine.
        engine: what runs a checkpoint on a CPU: torch, onnxruntime, or auto, which takes ONNX Runtime if it is
            installed. Changes of the weights after loading need torch.

    Raises:
        DetectorError: the weights cannot be read, a required package is missing, or the device is not available.
    """
    selected = select_device(device)
    if not Path(weights).suffix and not Path(weights).exists():
        weights = Path(weights).with_suffix(".pt")
    if engine not in ENGINES:
        raise ConfigError("engine", f"must be one of {', '.join(ENGINES)} (got {engine!r})", fix="correct engine")
    torch_only = "" if autoshape else "autoshape=False"
    opened = open_onnx_network([weights], engine=engine, device=selected.type, torch_only=torch_only)
    model, metadata = open_weights(weights, selected, trust=trust)
    if not autoshape:
        return to_device(model, selected)
    onnx_network = opened[0] if opened else None
    return to_device(AutoShape(model, metadata.names, allow_urls=allow_urls, onnx_network=onnx_network), selected)


def create_detector(
    cfg: str,
    *,
    weights: str | Path = "",
    classes: int | None = None,
    channels: int = 3,
    device: str = "",
    autoshape: bool = True,
) -> AutoShape | DetectionModel:
    """Build a model from its yaml, with fresh weights or all matching ones of a checkpoint.

    Args:
        cfg: name or path of a model yaml.
        weights: a checkpoint; its class names are kept if the number of classes is the same.
        classes: number of classes; by default the checkpoint's, else the yaml's.
        channels: input channels; other than 3 only without `autoshape`.
        device: see `load_detector`.
        autoshape: see `load_detector`.

    Raises:
        DetectorError: a file cannot be read or is invalid, or the device is not available.
    """
    if autoshape and channels != 3:
        raise ConfigError("channels", f"must be 3 for images (got {channels})", fix="pass autoshape=False")
    selected = select_device(device)
    config = load_model_config(cfg)
    if weights and is_exported(weights):
        raise ConfigError("weights", f"{weights} is an exported file", fix="pass the checkpoint, a .pt")
    content = load_checkpoint(weights) if weights else None
    stored_names = content.get("names") if content is not None else None
    known = [str(name) for name in stored_names] if isinstance(stored_names, list) else []
    count = classes if classes is not None else len(known) or config.num_classes
    names = known if len(known) == count else [f"class{class_id}" for class_id in range(count)]
    model = DetectionModel(config, ch=channels, nc=count)
    if content is not None:
        stored = stored_weights(content, weights)
        transfer_weights(model, stored, source=weights)
        anchors = stored.get(f"model.{len(model.model) - 1}.anchors")
        if anchors is not None and anchors.shape == model.head.anchors.shape:
            with torch.no_grad():
                model.head.anchors.copy_(anchors)
    model = model.eval()
    return to_device(AutoShape(model, names) if autoshape else model, selected)

"""The Python call: a detector that takes images of any kind, size and number, and returns `Results`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import load_model_config
from models.fuse import fused
from models.yolo import DetectionModel
from utils.datasets.letterbox import PAD_VALUE
from utils.errors import ConfigError
from utils.inference.exported_model import ExportedNetwork
from utils.inference.inputs import ImageInput, InputImage, take
from utils.inference.model_loading import Network, is_exported, open_network
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, find, fit, look
from utils.inference.results import Results
from utils.options.checks import check_thresholds
from utils.runtime import select_device, to_device
from utils.structures import Detections, LetterboxTransform
from utils.weights.checkpoint import load_checkpoint, stored_weights
from utils.weights.transfer import transfer_weights

BATCH_SIZE = 16


class AutoShape(nn.Module):
    """A detector to call with images.

    Its settings are plain attributes, read at the beginning of each call, so that several threads may call it at once.

    Attributes:
        conf: confidence above which a box counts, in [0, 1).
        iou: overlap above which the worse of two boxes goes, in (0, 1].
        agnostic: let boxes of different classes suppress each other.
        multi_label: let a box stand for every class above `conf`.
        classes: keep these class numbers only; None keeps all.
        max_det: boxes per image at most.
        amp: mixed precision, where the device is no CPU.
        allow_urls: fetch images whose address is given. Off, since an address from elsewhere could make this machine
            ask its neighbours.
        model: the network, batch norms folded; or that of an exported file, which stays on the device it was opened on.
        names: class number -> name.
        stride: pixels per cell of the coarsest level.
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: Sequence[int] | None = None
    max_det = 1000
    amp = False

    def __init__(self, model: Network, names: Sequence[str], *, allow_urls: bool = False) -> None:
        """Fold the model's batch norms.

        Args:
            model: left as it is; an exported one is used as it is.
            names: class names.
            allow_urls: see the attribute.
        """
        super().__init__()
        self.model: Network = fused(model)
        self.names = dict(enumerate(names))
        self.stride = model.max_stride
        self.allow_urls = allow_urls
        self.eval()

    def forward(
        self, ims: ImageInput | Sequence[ImageInput], size: int | tuple[int, int] = 640, augment: bool = False
    ) -> Results:
        """Look at images. What is found in one does not depend on the others of the call.

        Args:
            ims: an image or a list of them: the path of a file, a PIL image, an array as `to_rgb8` takes it (RGB, so
                turn OpenCV's with `[..., ::-1]`) or with channels first, or a tensor (3, H, W) or (B, 3, H, W) of
                numbers in [0, 1], which is padded to the stride but not scaled.
            size: longer side in pixels, or height and width, to which images other than tensors are brought.
            augment: look at three sizes, once mirrored.

        Raises:
            DataError: an image cannot be read, or is of no such kind.
            ConfigError: a setting is out of range.
        """
        how = self._how(size, augment)
        taken = take(ims, allow_urls=self.allow_urls)
        found: list[Detections] = []
        spent = np.zeros(3)
        shape: tuple[int, ...] = ()
        for start in range(0, len(taken), BATCH_SIZE):
            results, times, shape = self._look(taken[start : start + BATCH_SIZE], how)
            found += results
            spent += times
        mean = spent / max(len(taken), 1)
        return Results(
            [one.image for one in taken],
            found,
            [one.file for one in taken],
            names=self.names,
            times=(float(mean[0]), float(mean[1]), float(mean[2])),
            shape=shape,
        )

    def _how(self, size: int | tuple[int, int], augment: bool) -> InferenceConfig:
        """Return the settings of one call.

        Raises:
            ConfigError: one is out of range.
        """
        check_thresholds(self.conf, self.iou, self.max_det)
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side <= 8192 for side in sides):
            raise ConfigError("size", f"must be a number of pixels up to 8192, or two (got {size})", fix="correct it")
        classes = None if self.classes is None else [self.classes] if isinstance(self.classes, int) else self.classes
        device, dtype = self._home()
        return InferenceConfig(
            size_hw=(self._round(sides[0]), self._round(sides[1])),
            stride=self.stride,
            nms=NmsSettings(
                conf_threshold=self.conf,
                iou_threshold=self.iou,
                max_detections=self.max_det,
                classes=tuple(classes) if classes is not None else None,
                agnostic=self.agnostic,
                multi_label=self.multi_label,
            ),
            device=device,
            dtype=dtype,
            augment=augment,
            amp=self.amp,
        )

    def _home(self) -> tuple[torch.device, torch.dtype]:
        """Return where the network computes, and what it takes."""
        if isinstance(self.model, ExportedNetwork):
            return self.model.device, torch.float32
        parameter = next(self.model.parameters())
        return parameter.device, parameter.dtype

    def _round(self, side: int) -> int:
        """Return a side rounded up to the stride."""
        return math.ceil(side / self.stride) * self.stride

    def _look(
        self, taken: Sequence[InputImage], how: InferenceConfig
    ) -> tuple[list[Detections], np.ndarray, tuple[int, ...]]:
        """Look at images; return what was found, the sums of each phase's milliseconds, and an input's shape."""
        results: dict[int, Detections] = {}
        spent = np.zeros(3)
        fitted = {number: fit(one.image, how) for number, one in enumerate(taken) if one.pixels is None}
        for number, (found, times) in zip(fitted, look(self.model, list(fitted.values()), how), strict=True):
            results[number] = found
            spent += [times[phase] for phase in ("pre", "inference", "nms")]
        shapes = [image.image.shape[:2] for image in fitted.values()]
        for number, one in enumerate(taken):
            if one.pixels is not None:
                batch = self._padded(one.pixels).to(how.device, how.dtype)[None]
                height, width = one.image.shape[:2]
                placement = LetterboxTransform(original_hw=(height, width), ratio_wh=(1.0, 1.0), pad_wh=(0.0, 0.0))
                (results[number],), times = find(self.model, batch, [placement], how)
                spent += [0.0, times["inference"], times["nms"]]
                shapes.append((batch.shape[2], batch.shape[3]))
        return [results[n] for n in range(len(taken))], spent, (len(taken), 3, *shapes[-1])

    def _padded(self, pixels: Tensor) -> Tensor:
        """Return a (3, H, W) image with grey at the right and bottom up to the stride."""
        height, width = pixels.shape[1:]
        return F.pad(pixels, (0, self._round(width) - width, 0, self._round(height) - height), value=PAD_VALUE / 255)


def load_detector(
    weights: str | Path,
    *,
    device: str = "",
    autoshape: bool = True,
    allow_urls: bool = False,
    trust: bool = False,
) -> AutoShape | Network:
    """Return a trained model, ready to call.

    Args:
        weights: a checkpoint, or what export.py made of one: an .onnx, .torchscript, OpenVINO folder or .xml.
        device: cpu, mps, a CUDA device's number, or nothing for the best there is.
        autoshape: ready to call with images; otherwise the bare network, (B, 3, H, W) in [0, 1] to predictions.
        allow_urls: fetch images whose web address is given.
        trust: run a TorchScript file, which is a program, that was not exported on this machine.

    Raises:
        DetectorError: the weights cannot be read, a package that they need is missing, or there is no such device.
    """
    where = select_device(device)
    opened = open_network(weights, where, trust=trust)
    if not autoshape:
        return to_device(opened.network, where)
    return to_device(AutoShape(opened.network, opened.description.names, allow_urls=allow_urls), where)


def create_detector(
    cfg: str,
    *,
    weights: str | Path = "",
    classes: int | None = None,
    channels: int = 3,
    device: str = "",
    autoshape: bool = True,
) -> AutoShape | DetectionModel:
    """Build a model from its yaml, with fresh weights or with what fits of a checkpoint's.

    Args:
        cfg: name or path of a model yaml.
        weights: a checkpoint; its class names are kept if the number of classes is.
        classes: number of classes; by default the checkpoint's, else the yaml's.
        channels: of the images; anything but 3 only without `autoshape`.
        device: see `load_detector`.
        autoshape: see `load_detector`.

    Raises:
        DetectorError: a file cannot be read or is wrong, or there is no such device.
    """
    if autoshape and channels != 3:
        raise ConfigError("channels", f"must be 3 for images (got {channels})", fix="pass autoshape=False")
    where = select_device(device)
    config = load_model_config(cfg)
    if weights and is_exported(weights):
        raise ConfigError("weights", f"{weights} is an exported file", fix="pass the checkpoint, a .pt")
    content = load_checkpoint(weights) if weights else None
    stored = stored_weights(content, weights) if content is not None else {}
    listed = content.get("names") if content is not None else None
    known = [str(name) for name in listed] if isinstance(listed, list) else []
    count = classes if classes is not None else len(known) or config.num_classes
    names = known if len(known) == count else [f"class{number}" for number in range(count)]
    model = DetectionModel(config, ch=channels, nc=count)
    if content is not None:
        transfer_weights(model, stored, source=weights)
        anchors = stored.get(f"model.{len(model.model) - 1}.anchors")
        if anchors is not None and anchors.shape == model.head.anchors.shape:
            with torch.no_grad():
                model.head.anchors.copy_(anchors)
    model = model.eval()
    return to_device(AutoShape(model, names) if autoshape else model, where)

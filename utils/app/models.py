"""The models that the page offers, on the devices on which they were used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.files import unique_name
from utils.inference.detector import TorchNetwork, torch_network
from utils.inference.exported_model import ExportedModel
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import MAX_IMAGE_SIZE, Model, model_name, open_weights
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, predict, preprocess
from utils.inference.sampling_points import akconv_layers
from utils.options.base import check_thresholds
from utils.runtime import select_device, to_device
from utils.structures import Detections
from utils.thresholds import CONF_THRESHOLD, IOU_THRESHOLD

MAX_DETECTIONS = 300
# Hooks record what passes through a model, and a CPU gains nothing from two forward passes at once.
_ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Settings:
    """Settings of the page, in the order of `widgets.controls`."""

    conf: float = CONF_THRESHOLD
    iou: float = IOU_THRESHOLD
    size: int = 0  # longer side in pixels; 0: the model's
    classes: Sequence[str] = ()  # names; empty: all
    device: str = "cpu"


@dataclass(kw_only=True)
class LoadedModel:
    """A model by its label, unique on the page."""

    label: str
    model: Model  # in evaluation mode, on the CPU unless exported
    metadata: ModelMetadata
    networks: dict[torch.device, TorchNetwork] = field(default_factory=dict)  # with batch norms folded

    @property
    def has_akconv(self) -> bool:
        """Whether the model has AKConv layers."""
        return isinstance(self.model, DetectionModel) and bool(akconv_layers(self.model))

    def network(self, device: torch.device) -> DetectionModel:
        """Return the network on a device, for use under `exclusive`; ConfigError for an exported model."""
        if not isinstance(self.model, DetectionModel):
            raise ConfigError(
                self.label, "is an exported model, which has neither layers nor gradients", fix="use a .pt"
            )
        return to_device(self.model, device)

    def config(self, settings: Settings) -> InferenceConfig:
        """Return the settings of inference; ConfigError if one is out of range."""
        check_thresholds(settings.conf, settings.iou, MAX_DETECTIONS)
        stride = self.model.max_stride
        if not 0 <= settings.size <= MAX_IMAGE_SIZE:
            raise ConfigError("image size", f"must be up to {MAX_IMAGE_SIZE} (got {settings.size})", fix="change it")
        side = -(-(settings.size or self.metadata.image_size) // stride) * stride
        names = self.metadata.names
        classes = [class_id for class_id, name in enumerate(names) if name in settings.classes]
        nms = NmsSettings(
            conf_threshold=settings.conf,
            iou_threshold=settings.iou,
            max_detections=MAX_DETECTIONS,
            classes=classes if settings.classes else None,
        )
        return InferenceConfig(size_hw=(side, side), stride=stride, nms=nms)

    def detect(self, image: np.ndarray, settings: Settings) -> tuple[Detections, float]:
        """Return the detections in an (H, W, 3) uint8 RGB image, in its pixels, and the milliseconds that they took."""
        config = self.config(settings)
        device = self.model.device if isinstance(self.model, ExportedModel) else select_device(settings.device)
        preprocessed = preprocess(image, config)
        with exclusive():
            if device not in self.networks:
                self.networks[device] = torch_network(self.model, device=device)
            ((detections, timings),) = predict(self.networks[device], [preprocessed], config)
        return detections, sum(timings.values())

    def describe(self, detections: Detections, row: int) -> tuple[str, float | str]:
        """Return class and confidence of a detection; empty for the row -1."""
        if row < 0:
            return "", ""
        return self.metadata.names[int(detections.classes[row])], round(float(detections.scores[row]), 3)


def exclusive() -> threading.RLock:
    """Return the lock under which models run."""
    return _ONE_AT_A_TIME


def open_models(paths: Sequence[str]) -> dict[str, LoadedModel]:
    """Open weights by the label of the page: the name of the training run, or of the file.

    Raises:
        DetectorError: a file is missing, damaged, of an unsupported format, or a program of unknown origin.
    """
    models: dict[str, LoadedModel] = {}
    for path in paths:
        model, metadata = open_weights(path)
        if isinstance(model, DetectionModel):
            model = model.requires_grad_(False)
        label = unique_name(model_name(path), models)
        models[label] = LoadedModel(label=label, model=model, metadata=metadata)
    return models


def devices() -> list[str]:
    """Return the devices of this machine, the default first."""
    gpus = [str(index) for index in range(torch.cuda.device_count())]
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]

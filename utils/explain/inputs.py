"""The models to look into, and the images with their labels, as `python -m utils.explain` names them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.boxes import cxcywh_to_xyxy
from utils.datasets.images import read_image
from utils.datasets.index import build_index
from utils.datasets.sources import open_source
from utils.datasets.splits import open_data, round_image_size
from utils.errors import CheckpointError, ConfigError, RunError, did_you_mean
from utils.explain.layers import select_layers
from utils.explain.target import Objects
from utils.files import unique_name
from utils.inference.class_mapping import class_name_mismatch
from utils.inference.exported_model import ModelMetadata
from utils.inference.model_loading import is_exported, open_weights
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, PreprocessedImage, preprocess
from utils.log import LOGGER
from utils.options.explain import ExplainOptions
from utils.runtime import to_device


@dataclass(frozen=True, kw_only=True)
class ExplainedModel:
    """A trained network, in evaluation mode on the device."""

    label: str  # unique among the models
    network: DetectionModel
    metadata: ModelMetadata
    layers: Sequence[str]  # names of modules
    class_id: int | None  # of `--class-name`


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image, as the networks read it."""

    name: str  # of the file
    image: np.ndarray  # (H, W, 3) uint8 RGB, the original
    preprocessed: PreprocessedImage
    objects: Objects | None  # its labels; None if they are unknown

    def position(self, xy: Sequence[float]) -> tuple[float, float]:
        """Return a position in pixels of the original in pixels of the input; ConfigError if it is outside."""
        height, width = self.image.shape[:2]
        if not (xy[0] < width and xy[1] < height):
            what = f"{xy[0]:g} {xy[1]:g} is outside {self.name} of {width}x{height} pixels"
            raise ConfigError("--position", what, fix="choose a position inside every image")
        x, y, _, _ = self.preprocessed.transform.to_input(np.array([[*xy, *xy]], np.float32))[0]
        return float(x), float(y)


def open_models(options: ExplainOptions, device: torch.device) -> list[ExplainedModel]:
    """Open the checkpoints and find the layers and the class in each.

    Raises:
        CheckpointError: missing, damaged or exported.
        ConfigError: a layer or class does not exist, or the models have different numbers of classes.
    """
    models: list[ExplainedModel] = []
    for path in options.weights:
        if is_exported(path) and Path(path).exists():
            what = "is an exported model, which gives neither gradients nor maps of its layers"
            raise CheckpointError(path, what, fix="pass the .pt that it was exported from")
        network, metadata = open_weights(path)
        if not isinstance(network, DetectionModel):
            raise CheckpointError(path, "is not a checkpoint", fix="pass a .pt")
        if models and network.num_classes != models[0].network.num_classes:
            what = f"has {network.num_classes} classes, but the first model {models[0].network.num_classes}"
            raise CheckpointError(path, what, fix="compare models of one data set")
        layers = select_layers(network, options.layers)
        if models and len(layers) != len(models[0].layers):
            what = f"has a head that reads {len(layers)} layers, but the first model {len(models[0].layers)}"
            raise ConfigError(path, what, fix="choose as many --layers of each")
        file = Path(path).resolve()
        in_run = file.parent.name == "weights"  # runs/train/NAME/weights/best.pt
        name = file.parent.parent.name if in_run else file.stem
        models.append(
            ExplainedModel(
                label=unique_name(name, [model.label for model in models]),
                network=to_device(network.requires_grad_(False), device),
                metadata=metadata,
                layers=layers,
                class_id=_class_id(options.class_name, metadata.names),
            )
        )
    return models


def _class_id(text: str, names: Sequence[str]) -> int | None:
    """Return the class of `--class-name`, by name or id; None for ""."""
    if not text or text in names:
        return names.index(text) if text else None
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    fix = did_you_mean(text, names) or f"choose from {', '.join(names[:20])}"
    raise ConfigError("--class-name", f"{text!r} is not a class of the model", fix=fix)


def inference_config(
    options: ExplainOptions, models: Sequence[ExplainedModel], device: torch.device
) -> InferenceConfig:
    """Return how all models read the images: in the size of the first, or that of `--imgsz`."""
    stride = max(model.network.max_stride for model in models)
    sides = options.imgsz or (models[0].metadata.image_size,)
    height, width = (round_image_size(side, stride) for side in (sides * 2)[:2])
    return InferenceConfig(size_hw=(height, width), stride=stride, nms=NmsSettings(), device=device)


def read_images(options: ExplainOptions, model: ExplainedModel, config: InferenceConfig) -> list[InputImage]:
    """Return the images of `--data` with labels, spread evenly over the split, or the first ones of `--source`.

    Raises:
        ConfigError, DataError: the source or data set cannot be used, or has other classes than the model.
        RunError: no image of the source could be read.
    """
    if options.data:
        return list(_labelled(options, model, config))
    source = open_source(options.source)
    with contextlib.closing(source.batches(1, lambda frame: frame)) as batches:
        frames = [frame for (frame,) in itertools.islice(batches, options.images)]
    if not frames:
        first, reason = source.skipped[0]
        raise RunError(first, reason, fix="check the source")
    names = [f"{f.path.stem}_{f.index}{f.path.suffix}" if f.is_video else f.path.name for f in frames]
    return [
        InputImage(name=name, image=frame.image, preprocessed=preprocess(frame.image, config), objects=None)
        for name, frame in zip(names, frames, strict=True)
    ]


def _labelled(options: ExplainOptions, model: ExplainedModel, config: InferenceConfig) -> Iterator[InputImage]:
    """Yield images of a split with their labels."""
    data = open_data(options.data)
    metadata, single_class = model.metadata, model.metadata.single_class
    if not single_class and data.num_classes != model.network.num_classes:
        what = f"has {data.num_classes} classes, but the model has {model.network.num_classes}"
        raise ConfigError(data.file, what, fix="pass the data set of the model")
    if not single_class and (difference := class_name_mismatch(data.names, metadata.names)):
        LOGGER.warning(f"{data.file}: {difference}")
    index = build_index(data, options.task)
    for image_id in np.linspace(0, len(index) - 1, min(options.images, len(index))).round().astype(int).tolist():
        path = Path(str(index.paths[image_id]))
        image = read_image(path)
        preprocessed = preprocess(image, config)
        rows = index.rows(image_id)
        height, width = image.shape[:2]
        boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.array((width, height, width, height), np.float32)
        classes = np.zeros(len(rows), int) if single_class else rows[:, 0].astype(int)
        objects = Objects(boxes=preprocessed.transform.to_input(boxes), classes=classes)
        yield InputImage(name=path.name, image=image, preprocessed=preprocessed, objects=objects)

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
from utils.datasets.letterbox import round_image_size
from utils.datasets.sources import open_source
from utils.datasets.splits import open_data
from utils.errors import CheckpointError, ConfigError, RunError, did_you_mean
from utils.explain.layers import select_layers
from utils.files import unique_name
from utils.inference.class_mapping import class_name_mismatch
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import is_exported, model_name, open_weights
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, PreprocessedImage, preprocess
from utils.log import LOGGER
from utils.options.explain import ExplainOptions
from utils.runtime import to_device
from utils.structures import LetterboxTransform, Sample


@dataclass(frozen=True, kw_only=True)
class ExplainedModel:
    """A trained network, in evaluation mode on the device."""

    label: str  # unique among the models
    network: DetectionModel
    metadata: ModelMetadata
    layers: list[str]  # names of modules
    class_id: int | None  # of `--class-name`


@dataclass(frozen=True, kw_only=True)
class InputImage:
    """An image, as the networks read it."""

    name: str  # of the file
    image: np.ndarray  # (H, W, 3) uint8 RGB, the original
    preprocessed: PreprocessedImage
    labels: Sample | None  # in pixels of the input; None if they are unknown
    position_xy: tuple[float, float] | None  # `--position` in pixels of the input


def open_models(options: ExplainOptions, device: torch.device) -> list[ExplainedModel]:
    """Open the checkpoints and find the layers and the class in each.

    Raises:
        CheckpointError: missing, damaged, exported, or for another number of classes than the first.
        ConfigError: a layer or class does not exist, or the models have different numbers of layers.
    """
    models: list[ExplainedModel] = []
    for path in options.weights:
        network, metadata = (None, None) if is_exported(path) else open_weights(path)
        if not isinstance(network, DetectionModel) or metadata is None:
            what = "is not a checkpoint, and only those have gradients and layers"
            raise CheckpointError(path, what, fix="pass a .pt that train.py wrote")
        layers = select_layers(network, options.layers)
        if models and network.num_classes != models[0].network.num_classes:
            what = f"has {network.num_classes} classes, but the first model {models[0].network.num_classes}"
            raise CheckpointError(path, what, fix="compare models of one data set")
        if models and len(layers) != len(models[0].layers):
            what = f"has a head that reads {len(layers)} layers, but the first model {len(models[0].layers)}"
            raise ConfigError(path, what, fix="choose --layers that all models have")
        models.append(
            ExplainedModel(
                label=unique_name(model_name(path), [model.label for model in models]),
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


def inference_config(options: ExplainOptions, models: Sequence[ExplainedModel]) -> InferenceConfig:
    """Return how all models read the images: in the size of the first, or that of `--imgsz`."""
    stride = max(model.network.max_stride for model in models)
    sides = options.imgsz or (models[0].metadata.image_size,)
    height, width = (round_image_size(side, stride) for side in (sides * 2)[:2])
    return InferenceConfig(size_hw=(height, width), stride=stride, nms=NmsSettings())


def read_images(options: ExplainOptions, model: ExplainedModel, config: InferenceConfig) -> list[InputImage]:
    """Return the images of `--data` with labels, spread evenly over the split, or the first ones of `--source`.

    Raises:
        ConfigError, DataError: the source or data set cannot be used, has other classes than the model, or an image
            does not reach to `--position`.
        RunError: no image of the source could be read.
    """
    images = []
    for name, image, rows in _labelled(options, model) if options.data else _unlabelled(options):
        preprocessed, labels = preprocess(image, config), None
        if rows is not None:
            boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.tile(image.shape[1::-1], 2)
            boxes, classes = preprocessed.transform.to_input(boxes), rows[:, 0].astype(np.int64)
            labels = Sample(image=preprocessed.image, boxes=boxes, classes=classes)
        position_xy = _position(options.position, name, preprocessed.transform)
        images.append(
            InputImage(name=name, image=image, preprocessed=preprocessed, labels=labels, position_xy=position_xy)
        )
    return images


def _position(xy: Sequence[float], name: str, transform: LetterboxTransform) -> tuple[float, float] | None:
    """Return `--position` in pixels of the input, None if it is not given; ConfigError if it is outside the image."""
    if not xy:
        return None
    height, width = transform.original_hw
    if not (xy[0] < width and xy[1] < height):
        what = f"{xy[0]:g} {xy[1]:g} is outside {name} of {width}x{height} pixels"
        raise ConfigError("--position", what, fix="choose a position inside every image")
    x, y = transform.to_input(np.array([*xy, *xy], np.float32))[:2].tolist()
    return x, y


def _unlabelled(options: ExplainOptions) -> Iterator[tuple[str, np.ndarray, None]]:
    """Yield name and image of the first frames of a source, and None for unknown labels."""
    source = open_source(options.source)
    with contextlib.closing(source.batches(1, lambda frame: frame)) as batches:
        frames = [frame for (frame,) in itertools.islice(batches, options.images)]
    if not frames:
        first, reason = source.skipped[0]
        raise RunError(first, reason, fix="check the source")
    for frame in frames:
        path = frame.path
        yield f"{path.stem}_{frame.index}{path.suffix}" if frame.is_video else path.name, frame.image, None


def _labelled(options: ExplainOptions, model: ExplainedModel) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and label rows (n, 5) of images of a split."""
    data = open_data(options.data)
    metadata, single_class = model.metadata, model.metadata.single_class
    if not single_class and data.num_classes != model.network.num_classes:
        what = f"has {data.num_classes} classes, but the model has {model.network.num_classes}"
        raise ConfigError(data.file, what, fix="pass the data set of the model")
    if not single_class and (difference := class_name_mismatch(data.names, metadata.names)):
        LOGGER.warning(f"{data.file}: {difference}")
    index = build_index(data, options.task)
    for image_id in np.linspace(0, len(index) - 1, min(options.images, len(index))).round().astype(int).tolist():
        path, rows = Path(str(index.paths[image_id])), index.rows(image_id)
        yield path.name, read_image(path), rows * (0, 1, 1, 1, 1) if single_class else rows

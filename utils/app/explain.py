"""What the page shows of the inside of a model at a position of an image: sampling points, offsets, maps, fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.yolo import DetectionModel
from utils.app.models import LoadedModel, Settings, exclusive
from utils.datasets.letterbox import letterbox
from utils.errors import ConfigError
from utils.explain.cam import activation_maps, normalize
from utils.explain.layers import select_layers
from utils.explain.receptive_field import FRACTIONS, energy_levels, receptive_fields
from utils.explain.target import choose_target
from utils.inference.offset_statistics import layer_offsets
from utils.inference.predict import InferenceConfig, PreprocessedImage, preprocess
from utils.inference.sampling_figure import plot_layer, sample_image
from utils.inference.sampling_points import LayerSampling, Location, akconv_layers
from utils.plots.explain import ModelMaps, plot_maps, plot_receptive_fields
from utils.plots.figure import save_figure
from utils.plots.sampling import OffsetSamples, plot_offsets
from utils.runtime import scale_pixels, select_device

VIEWS = ("sampling", "offsets", "cam", "field")  # sampling points, histogram, class activation map, receptive field
MAX_LAYERS = 8


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Figures, and what they explain."""

    figures: list[tuple[str, str, Path]]  # view, the layer or method if it has one, file
    target: str  # what the class activation map explains; "" without one


def explain_position(
    model: LoadedModel,
    image: np.ndarray,
    xy: tuple[float, float],
    settings: Settings,
    *,
    views: Sequence[str],
    layers: Sequence[str],
    method: str,
    folder: Path,
    lang: str = "en",
) -> Explanation:
    """Draw views of a position, x and y in pixels of an (H, W, 3) uint8 RGB image, into a folder.

    `layers` are names of AKConv layers; the maps and fields are those of the rows that the head reads. `lang` is the
    language of the figures.

    Raises:
        ConfigError: the position is outside the image, a setting is invalid, or the model is an exported one.
    """
    height, width = image.shape[:2]
    if not (0 <= xy[0] < width and 0 <= xy[1] < height):
        what = f"{xy[0]:g}, {xy[1]:g} is outside the image of {width} x {height} pixels"
        raise ConfigError("position", what, fix="choose a position in the image")
    config = model.config(settings)
    device = select_device(settings.device)
    preprocessed = preprocess(image, config)
    figures: list[tuple[str, str, Path]] = []
    target = ""
    with exclusive():
        network = model.network(device)
        if model.has_akconv and {"sampling", "offsets"} & set(views):
            samplings = sample_image(network, akconv_layers(network), preprocessed)
            if "sampling" in views:
                location = Location(xy=xy, label=f"{xy[0]:.0f}, {xy[1]:.0f}")
                for name in [name for name in layers if name in samplings][:MAX_LAYERS]:
                    path = folder / f"sampling-{name}.png"
                    plot_layer(samplings[name], image, preprocessed, [location], path, lang=lang)
                    figures.append(("sampling", name, path))
            if "offsets" in views:
                samples = [offset_samples(layer) for layer in samplings.values()]
                figures.append(("offsets", "", plot_offsets(samples, folder / "offsets.png", lang=lang)))
        if "cam" in views:
            target, path = _draw_maps(network, model, preprocessed, xy, method, folder, lang)
            figures += [("cam", method, path)] if target else []
        if "field" in views:
            figures.append(("field", "", _draw_fields(network, model, image, config, xy, folder, lang)))
    return Explanation(figures=figures, target=target)


def offset_samples(layer: LayerSampling) -> OffsetSamples:
    """Return the offsets of one layer on one image, for a histogram."""
    measured = layer_offsets(layer)
    rows, columns = layer.offset.cpu().chunk(2, 1)
    return OffsetSamples(
        name=layer.name,
        rows=rows.numpy(),
        columns=columns.numpy(),
        abs_mean=measured.abs_mean,
        oob_fraction=measured.oob_fraction,
        initial_oob_fraction=measured.initial_oob_fraction,
    )


def _pixels(image: np.ndarray, network: DetectionModel) -> torch.Tensor:
    """Return the (1, 3, H, W) input of an (H, W, 3) uint8 image."""
    return scale_pixels(
        torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None], network.head.anchors.device
    )


def _draw_maps(
    network: DetectionModel,
    model: LoadedModel,
    image: PreprocessedImage,
    xy: tuple[float, float],
    method: str,
    folder: Path,
    lang: str,
) -> tuple[str, Path]:
    """Draw the maps of the most confident prediction around a position; its class and score, "" if there is none."""
    pixels, path = _pixels(image.image, network), folder / f"{method.replace('+', 'p')}.png"
    with torch.no_grad():
        predictions = network(pixels)[0][0]
    x, y = image.transform.to_input(np.array([*xy, *xy], np.float32))[:2].tolist()
    target = choose_target("detection", predictions, labels=None, position_xy=(x, y))
    if target is None:
        return "", path
    maps = activation_maps(network, pixels, target, layers=select_layers(network, ()), methods=[method])
    size_hw = (pixels.shape[2], pixels.shape[3])
    shown = [(name, None if heat is None else normalize(heat, size_hw).numpy()) for (name, _), heat in maps.items()]
    text = target.describe(predictions, model.metadata.names)
    models = [ModelMaps(model=model.label, text=text, box=target.box(predictions), maps=shown)]
    figure = plot_maps(image.image, models, method=method, truth_xyxy=np.zeros((0, 4)), lang=lang)
    return text, save_figure(figure, path)


def _draw_fields(
    network: DetectionModel,
    model: LoadedModel,
    image: np.ndarray,
    config: InferenceConfig,
    xy: tuple[float, float],
    folder: Path,
    lang: str,
) -> Path:
    """Draw the effective receptive fields of the rows that the head reads, at a position."""
    padded, transform = letterbox(image, config.size_hw, stride=config.stride)
    height, width = padded.shape[:2]
    x, y = transform.to_input(np.array([*xy, *xy], np.float32))[:2].tolist()
    at = (x / width, y / height)
    fields = receptive_fields(network, _pixels(padded, network), layers=select_layers(network, ()), position=at)
    levels = {model.label: {name: energy_levels(energy) for name, energy in fields.items()}}
    figure = plot_receptive_fields(levels, fractions=list(FRACTIONS.values()), position=at, lang=lang)
    return save_figure(figure, folder / "receptive-field.png")

"""Where the models of a comparison sample, for its report: a layer of each with AKConv, and all its offsets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utils.boxes import cxcywh_to_xyxy
from utils.comparison.html import ReportImage
from utils.comparison.predictions import image_size_of
from utils.comparison.report_examples import shown_name
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex
from utils.detection.sampling_plots import FOLDER, OffsetCollection, plot_layer, sample_image
from utils.inference.model_loading import is_exported
from utils.inference.nms import NmsSettings
from utils.inference.offset_statistics import layer_offsets
from utils.inference.predict import InferenceConfig, preprocess
from utils.inference.sampling_points import MAX_LOCATIONS, Location, akconv_layers, box_centers, first_layer_per_level
from utils.plots.fonts import printable
from utils.plots.sampling import plot_offsets
from utils.weights.checkpoint import load_model


def shown_image(index: DatasetIndex) -> int:
    """Return the number of the image to show: the first with most objects, but no more than are drawn apart."""
    counts = np.diff(index.starts)
    return int(np.argmax(np.where(counts <= MAX_LOCATIONS, counts, -counts)))


def sampling_images(
    labels: Sequence[str], best: Sequence[Path], *, val: DatasetIndex, names: Sequence[str], folder: Path
) -> list[ReportImage]:
    """Draw the sampling of every model that has AKConv, at the centres of one validation image's labels.

    Args:
        labels: of the models.
        best: the best checkpoint of each.
        val: the validation set.
        names: of the classes.
        folder: of the comparison; files go into `sampling/` there.

    Returns:
        Two images for each model with AKConv.
    """
    place = shown_image(val)
    image = read_image(str(val.paths[place]))
    rows = val.rows(place)
    boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.tile((image.shape[1], image.shape[0]), 2)
    locations = box_centers(
        boxes, [shown_name(names, int(kind)) for kind in rows[:, 0]], (image.shape[0], image.shape[1])
    )
    found: list[ReportImage] = []
    for number, (label, checkpoint) in enumerate(zip(labels, best, strict=True), 1):
        if not is_exported(checkpoint):
            note = f"{printable(label, number)}: offsets, one image"
            found += _of_model(label, checkpoint, image, locations, folder / FOLDER, note=note)
    return found


def _of_model(
    label: str, checkpoint: Path, image: np.ndarray, locations: Sequence[Location], folder: Path, *, note: str
) -> list[ReportImage]:
    """Draw one model: of the first layers of each level the one that moved most, and all histograms."""
    model, _ = load_model(checkpoint)
    layers = akconv_layers(model)
    side = image_size_of(checkpoint)
    how = InferenceConfig(size_hw=(side, side), stride=model.max_stride, nms=NmsSettings(), device=torch.device("cpu"))
    fitted = preprocess(image, how)
    samplings = sample_image(model, layers, fitted, how) if layers else {}
    if not samplings:
        return []
    firsts = first_layer_per_level(samplings, height=fitted.image.shape[0])
    layer = max((samplings[name] for name in firsts), key=lambda one: layer_offsets(one).magnitude)
    collection = OffsetCollection()
    collection.add(samplings)
    drawn = plot_layer(layer, image, fitted, locations, folder / f"{label}.jpg")
    spread = plot_offsets(collection.spreads(), folder / f"{label}-offsets.jpg", note=note)
    return [
        ReportImage(
            path=drawn,
            caption=f"{label}: initial and learned sampling points of {layer.name}, the layer that moved most of the "
            "first on each level, at the centres of labels.",
        ),
        ReportImage(path=spread, caption=f"{label}: offsets of all AKConv layers in that image."),
    ]

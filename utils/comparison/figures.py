"""The images of a report: those on which models differ most, and AKConv's sampling points."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.boxes import cxcywh_to_xyxy
from utils.comparison.report import EXAMPLES, SAMPLING
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import PRIMARY_METRIC
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex
from utils.datasets.letterbox import resize_longest_side
from utils.detection.sampling_plots import FOLDER, OffsetCollection
from utils.document import Block, Image
from utils.files import atomic_write
from utils.inference.nms import NmsSettings
from utils.inference.offset_statistics import layer_offsets
from utils.inference.predict import InferenceConfig, preprocess
from utils.inference.sampling_figure import plot_layer, sample_image
from utils.inference.sampling_points import MAX_LOCATIONS, akconv_layers, box_centers, first_layer_per_level
from utils.log import optional
from utils.metrics.evaluated_set import EvaluatedSet
from utils.plots.boxes import draw_boxes, image_grid
from utils.plots.fonts import display_name
from utils.plots.sampling import plot_offsets
from utils.weights.checkpoint import load_model

CPU = torch.device("cpu")
MAX_EXAMPLE_MODELS = 4
EXAMPLES_EACH_WAY = 2
CONFIDENCE = 0.25  # of the detections in examples
PANEL_PIXELS, JPEG_QUALITY = 420, 82
Boxes = tuple[np.ndarray, list[str], list[int]]


def draw_figures(
    result: ComparisonResult, evaluated: Sequence[Sequence[EvaluatedSet]], *, folder: Path
) -> dict[str, list[Block]]:
    """Draw `examples/` and `sampling/` in place of earlier ones; what cannot be drawn is a warning.

    `evaluated` holds the predictions of the runs of each model. Images are returned by the heading of their section.
    """
    for path in (*folder.glob("examples/*.jpg"), *folder.glob(f"{FOLDER}/*.jpg")):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    figures: dict[str, list[Block]] = {EXAMPLES: [], SAMPLING: []}
    with optional():
        p_values = [pair.differences[PRIMARY_METRIC].p_value for pair in result.pairs]
        shown = sorted(np.argsort(p_values, kind="stable")[:MAX_EXAMPLE_MODELS].tolist())
        if len(shown) < len(p_values):
            figures[EXAMPLES].append(f"Of the {len(shown)} models with the most significant differences.")
        for index in shown:
            figures[EXAMPLES] += example_images(result, evaluated, 1 + index, folder=folder / "examples")
    with optional():
        figures[SAMPLING] += sampling_images(result, folder=folder / FOLDER)
    return figures


def image_f1(evaluated: EvaluatedSet, *, confidence: float = CONFIDENCE) -> np.ndarray:
    """Return the (images,) F1 of each image at an IoU threshold of 0.5; 1 without objects and detections."""
    confident, count = evaluated.confidences >= confidence, evaluated.num_images
    tp = np.bincount(evaluated.image_ids[confident & evaluated.tp[:, 0]], minlength=count)
    detections = np.bincount(evaluated.image_ids[confident], minlength=count)
    total = detections + np.bincount(evaluated.label_image_ids, minlength=count)
    return np.where(total > 0, 2 * tp / np.maximum(total, 1), 1.0)


def largest_differences(model: Sequence[EvaluatedSet], baseline: Sequence[EvaluatedSet]) -> list[tuple[int, float]]:
    """Return image ids and differences of F1, the mean over runs: the largest gains, then the largest losses."""
    gains = np.mean([image_f1(run) for run in model], 0) - np.mean([image_f1(run) for run in baseline], 0)
    order = np.argsort(-gains, kind="stable")
    best = [i for i in order[:EXAMPLES_EACH_WAY] if gains[i] > 0]
    worst = [i for i in order[::-1][:EXAMPLES_EACH_WAY] if gains[i] < 0]
    return [(int(i), float(gains[i])) for i in (*best, *worst)]


def representative_seed_pair(
    f1: tuple[Sequence[float], Sequence[float]], seeds: tuple[Sequence[int | None], Sequence[int | None]], gain: float
) -> tuple[int, int]:
    """Return the indices of the runs of model and baseline whose difference of F1 is nearest to the mean difference.

    `f1` is of one image. Only runs with the same seed, None where unknown, are considered if there are any.
    """
    pairs = [(i, j) for i in range(len(f1[0])) for j in range(len(f1[1]))]
    same_seed = [(i, j) for i, j in pairs if seeds[0][i] is not None and seeds[0][i] == seeds[1][j]]
    return min(same_seed or pairs, key=lambda pair: abs(f1[0][pair[0]] - f1[1][pair[1]] - gain))


def example_images(
    result: ComparisonResult, evaluated: Sequence[Sequence[EvaluatedSet]], model_index: int, *, folder: Path
) -> list[Image]:
    """Draw labels and detections of the images on which a model and the baseline differ most.

    Of the runs of each, those that represent the mean over all runs best are drawn.
    """
    examples: list[Image] = []
    val, names = result.val, result.names
    scores, runs = (result.scores[model_index], result.scores[0]), (evaluated[model_index], evaluated[0])
    seeds = scores[0].seeds, scores[1].seeds
    for image_id, gain in largest_differences(*runs):
        f1 = [float(image_f1(run)[image_id]) for run in runs[0]], [float(image_f1(run)[image_id]) for run in runs[1]]
        shown = representative_seed_pair(f1, seeds, gain)
        title, baseline_title = (
            f"{of.label} (seed {of.seeds[run]})" if len(of.seeds) > 1 and of.seeds[run] is not None else of.label
            for of, run in zip(scores, shown, strict=True)
        )
        image = read_image(str(val.paths[image_id]))
        scale = min(PANEL_PIXELS / max(image.shape[:2]), 1.0)
        image = resize_longest_side(image, PANEL_PIXELS, smooth=True) if scale < 1 else image
        of_runs = [_detections(runs[of][shown[of]], image_id, names, scale) for of in (1, 0)]
        boxes = [_labels(val, image_id, names, image), *of_runs]
        captions = ["labels", display_name(baseline_title, 1), display_name(title, 2)]
        grid = image_grid([draw_boxes(image, *part, thickness=2) for part in boxes], captions, columns=3)
        _, encoded = cv2.imencode(".jpg", grid[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        path = atomic_write(folder / f"{scores[0].label}-{len(examples) + 1}.jpg", encoded.tobytes())
        caption = (
            f"{val.paths[image_id].split('/')[-1]}: labels, {baseline_title}, {title}; detections with a confidence "
            f"of at least {CONFIDENCE}. F1 {f1[1][shown[1]]:.2f} and {f1[0][shown[0]]:.2f}."
        )
        if max(map(len, runs)) > 1:
            caption += f" Mean over runs: {scores[0 if gain > 0 else 1].label} is better by {abs(gain):.2f}."
        examples.append(Image(path, caption))
    return examples


def _class_name(names: Sequence[str], class_id: int) -> str:
    index = class_id if len(names) > 1 else 0  # a single name stands for all classes
    return display_name(names[index], index)


def _labels(val: DatasetIndex, image_id: int, names: Sequence[str], image: np.ndarray) -> Boxes:
    """Return (n, 4) boxes in pixels of an (H, W, 3) image, their texts and class ids."""
    rows = val.rows(image_id)
    class_ids = rows[:, 0].astype(np.int64).tolist()
    boxes = cxcywh_to_xyxy(rows[:, 1:]) * np.tile(image.shape[1::-1], 2)
    return boxes, [_class_name(names, class_id) for class_id in class_ids], class_ids


def _detections(run: EvaluatedSet, image_id: int, names: Sequence[str], scale: float) -> Boxes:
    """Return (n, 4) boxes in pixels of the scaled image, their texts and class ids."""
    shown = (run.image_ids == image_id) & (run.confidences >= CONFIDENCE)
    class_ids = run.classes[shown].tolist()
    texts = [f"{_class_name(names, i)} {c:.2f}" for i, c in zip(class_ids, run.confidences[shown], strict=True)]
    return run.boxes[shown] * scale, texts, class_ids


def image_for_sampling(val: DatasetIndex) -> int:
    """Return the id of the first image with the most objects, but not more than can be drawn apart."""
    counts = np.diff(val.starts)
    return int(np.argmax(np.where(counts <= MAX_LOCATIONS, counts, -counts)))


def sampling_images(result: ComparisonResult, *, folder: Path) -> list[Image]:
    """Draw sampling points of the best run of each model with AKConv at the labels of one image, and all offsets."""
    image_id = image_for_sampling(result.val)
    image = read_image(str(result.val.paths[image_id]))
    boxes, texts, _ = _labels(result.val, image_id, result.names, image)
    locations = box_centers(boxes, texts, (image.shape[0], image.shape[1]))
    images: list[Image] = []
    for number, (model, scores) in enumerate(zip(result.models, result.scores, strict=True), 1):
        label, run = model.label, model.runs[int(scores.metrics[PRIMARY_METRIC].points.argmax())]
        network, _ = load_model(run.path)
        layers = akconv_layers(network)
        size_hw = (run.image_size, run.image_size)
        config = InferenceConfig(size_hw=size_hw, stride=network.max_stride, nms=NmsSettings())
        preprocessed = preprocess(image, config)
        samplings = sample_image(network, layers, preprocessed) if layers else {}
        if not samplings:
            continue
        first_layers = first_layer_per_level(samplings, height=preprocessed.image.shape[0])
        layer = max((samplings[name] for name in first_layers), key=lambda one: layer_offsets(one).abs_mean)
        offsets = OffsetCollection()
        offsets.add(samplings)
        points = plot_layer(layer, image, preprocessed, locations, folder / f"{label}.jpg")
        caption = (
            f"{label}: initial and learned sampling points of {layer.name}, at the centres of labels; of the first "
            "layers of each level, it has the largest offsets."
        )
        note = f"{display_name(label, number)}: offsets, one image"
        histograms = plot_offsets(offsets.samples(), folder / f"{label}-offsets.jpg", note=note)
        images.append(Image(points, caption))
        images.append(Image(histograms, f"{label}: offsets of all AKConv layers in that image."))
    return images

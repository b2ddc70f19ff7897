"""Labels that a trained model contradicts with confidence: another class, no box, or a box where it sees nothing.

The model may be wrong, and on images it was trained on it may have learned a wrong label by heart. The lists are places
to look at first, the most confident first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from utils.boxes import pairwise_iou
from utils.datasets.config import DataConfig
from utils.datasets.images import READ_THREADS, read_image
from utils.datasets.letterbox import round_image_size
from utils.errors import ConfigError, DataError
from utils.inference.class_mapping import class_name_mismatch
from utils.inference.detector import torch_network
from utils.inference.model_loading import open_weights
from utils.inference.network import Network
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig, predict, preprocess
from utils.log import LOGGER
from utils.options import PrepareOptions
from utils.preparation.checks_boxes import class_name
from utils.preparation.findings import Example, Finding, Mark, found
from utils.preparation.survey import SplitSurvey
from utils.runtime import select_device

CONFIDENT = 0.5  # confidence from which a detection contradicts a label
MATCHED = 0.5  # IoU from which a detection and a label are one object
APART = 0.1  # IoU with every label, below which a detection stands for an object without label
SEEN = 0.05  # confidence from which a detection confirms that something is there
BATCH = 8  # images decoded and predicted at a time
OTHER_CLASS, UNLABELLED, UNCONFIRMED = "labels-of-another-class", "objects-unlabelled", "labels-unconfirmed"
PAIR_KEYS = ("labelled", "predicted", "count")
MIN_SWAPPED, SWAPPED = 3, 0.5  # objects, and their fraction of a class in a split, that suggest swapped classes


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One contradiction between a model and the labels."""

    kind: str  # one of `KINDS`
    split: int
    image: int
    confidence: float  # of the detection; 0 without one
    box: np.ndarray  # x1, y1, x2, y2 normalized: the label, or the detection without one
    labelled: int = -1  # class id of the label
    predicted: int = -1  # class id of the detection


def open_detector(options: PrepareOptions, config: DataConfig) -> tuple[Network, InferenceConfig]:
    """Open the trained model of `--weights`, and return how to run it.

    Raises:
        CheckpointError: the weights cannot be used.
        ConfigError: the model has another number of classes than the data set.
    """
    device = select_device(options.device)
    model, metadata = open_weights(options.weights, device)
    if model.num_classes != config.num_classes:
        what = f"has {model.num_classes} classes, but {config.file} has {config.num_classes}"
        raise ConfigError(options.weights, what, fix="pass a model of this data set")
    difference = class_name_mismatch(config.names, metadata.names)
    if difference:
        LOGGER.warning(f"{config.file}: {difference}")
    size = round_image_size(options.imgsz or metadata.image_size, model.max_stride)
    nms = NmsSettings(conf_threshold=SEEN)
    settings = InferenceConfig(size_hw=(size, size), stride=model.max_stride, nms=nms)
    return torch_network(model, device=device), settings


def find_suspects(network: Network, splits: Sequence[SplitSurvey], settings: InferenceConfig) -> list[Suspect]:
    """Return all contradictions of a network, which runs with `settings`, and the labels of the splits."""
    suspects: list[Suspect] = []
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for position, split in enumerate(splits):
            images = np.flatnonzero(split.decoded)
            progress = tqdm(total=len(images), desc=f"Predicting {split.name}", leave=False, disable=None)
            for start in range(0, len(images), BATCH):
                chunk = images[start : start + BATCH].tolist()
                pixels = list(pool.map(_read, [split.paths[i] for i in chunk]))
                usable = [(i, image) for i, image in zip(chunk, pixels, strict=True) if image is not None]
                inputs = [preprocess(image, settings) for _, image in usable]
                for (index, image), (detected, _) in zip(usable, predict(network, inputs, settings), strict=True):
                    height, width = image.shape[:2]
                    boxes = detected.boxes / np.array((width, height, width, height))
                    suspects += _compare(position, split, index, boxes, detected.scores, detected.classes)
                progress.update(len(chunk))
            progress.close()
    return suspects


def _read(path: str) -> np.ndarray | None:
    try:
        return read_image(path)
    except DataError:  # changed since it was surveyed
        return None


def _compare(
    position: int, split: SplitSurvey, image: int, boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray
) -> Iterator[Suspect]:
    """Yield the contradictions of one image; detections in normalized corners, by descending confidence."""
    labels = split.boxes(image).clip(0, 1)
    label_classes = split.rows_of(image)[:, 0].astype(int)
    iou = pairwise_iou(labels, boxes) if len(labels) and len(boxes) else np.zeros((len(labels), len(boxes)))
    agrees = label_classes[:, None] == classes[None]
    suspect = partial(Suspect, split=position, image=image)
    for label, labelled in enumerate(label_classes.tolist()):
        near = iou[label] >= MATCHED
        best = int(np.flatnonzero(near)[0]) if near.any() else -1  # the most confident
        # A detection of the label's class with a fair confidence settles it, as does a better label for the other one.
        if best >= 0 and scores[best] >= CONFIDENT and not agrees[label, best]:
            rival = scores[near & agrees[label]].max(initial=0.0)
            claimed = ((iou[:, best] >= MATCHED) & agrees[:, best]).any()
            if rival < scores[best] / 2 and not claimed:
                score, predicted = float(scores[best]), int(classes[best])
                yield suspect(
                    kind=OTHER_CLASS, confidence=score, box=labels[label], labelled=labelled, predicted=predicted
                )
        elif not (iou[label] >= APART).any():
            yield suspect(kind=UNCONFIRMED, confidence=0.0, box=labels[label], labelled=labelled)
    alone = (iou.max(0, initial=0.0) < APART) & (scores >= CONFIDENT)
    for index in np.flatnonzero(alone).tolist():
        score, predicted = float(scores[index]), int(classes[index])
        yield suspect(kind=UNLABELLED, confidence=score, box=boxes[index], predicted=predicted)


def suspect_findings(suspects: Sequence[Suspect], splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Return the findings, the most confident contradictions first."""
    pairs = Counter((suspect.labelled, suspect.predicted) for suspect in suspects if suspect.kind == OTHER_CLASS)
    counts = [(class_name(a, names), class_name(b, names), count) for (a, b), count in pairs.most_common()]
    most_often = ", ".join(f"{a} seen as {b} ({count})" for a, b, count in counts[:6])
    words = {
        OTHER_CLASS: f"A detection of confidence {CONFIDENT} or more overlaps the label with IoU {MATCHED} or more, "
        f"and has another class. Most often: {most_often}.",
        UNLABELLED: f"A detection of confidence {CONFIDENT} or more overlaps no label.",
        UNCONFIRMED: f"No detection overlaps the label, even at confidence {SEEN}: a hard object, or a wrong box.",
    }
    details = {OTHER_CLASS: {"pairs": [dict(zip(PAIR_KEYS, row, strict=True)) for row in counts]}}
    findings = _swapped_classes(pairs, splits, names)
    for kind, sentences in words.items():
        of_kind = sorted(
            (s for s in suspects if s.kind == kind), key=lambda suspect: (-suspect.confidence, suspect.split)
        )
        examples = [_example(suspect, splits, names) for suspect in of_kind]
        findings += found(kind, examples, words=sentences, details=details.get(kind))
    return findings


def _swapped_classes(
    pairs: Counter[tuple[int, int]], splits: Sequence[SplitSurvey], names: Sequence[str]
) -> list[Finding]:
    """Report pairs of classes of which the model sees most objects of each as the other."""
    total = Counter(int(class_id) for split in splits for class_id in split.rows[:, 0])
    words = [
        f"{class_name(one, names)} and {class_name(other, names)}"
        for one, other in pairs
        if one < other
        and all(pairs[pair] >= max(MIN_SWAPPED, SWAPPED * total[pair[0]]) for pair in ((one, other), (other, one)))
    ]
    return found(
        "classes-swapped",
        [Example(words=pair) for pair in words],
        words=f"{'; '.join(words)}: the model sees most objects of each as the other. Their ids are exchanged in these "
        "labels, or were in those that the model was trained on.",
    )


def _example(suspect: Suspect, splits: Sequence[SplitSurvey], names: Sequence[str]) -> Example:
    split = splits[suspect.split]
    labelled, predicted = (class_name(class_id, names) for class_id in (suspect.labelled, suspect.predicted))
    if suspect.kind == OTHER_CLASS:
        words = f"labelled {labelled}, seen as {predicted} with {suspect.confidence:.2f}"
        text, class_id = f"{labelled}? {predicted} {suspect.confidence:.2f}", suspect.labelled
    elif suspect.kind == UNLABELLED:
        words = f"{predicted} with {suspect.confidence:.2f}, no label"
        text, class_id = f"{predicted} {suspect.confidence:.2f}", suspect.predicted
    else:
        words, text, class_id = f"labelled {labelled}, nothing seen", labelled, suspect.labelled
    mark = Mark(box=suspect.box.tolist(), text=text, class_id=class_id)
    return Example(path=split.paths[suspect.image], words=words, split=split.name, marks=(mark,))

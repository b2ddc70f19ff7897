"""TIDE's errors: against its authors' tool, and against what must hold."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.metrics.tide import AP, ERRORS, FALSE_NEGATIVES, FALSE_POSITIVES, assign_errors, error_scores

REFERENCE = json.loads((Path(__file__).parents[2] / "reference" / "tide.json").read_text())
NAMES = (AP, *ERRORS, FALSE_POSITIVES, FALSE_NEGATIVES)
WIDTH, HEIGHT = 200, 60
KINDS = ("distinct", "equal confidences", "equal IoUs", "equal confidences and IoUs")


def scene(seed: int, kind: str = "distinct", *, images: int = 3) -> EvaluatedSet:
    """The set of `scene_images`."""
    return EvaluatedSet.concatenate(scene_images(seed, kind, images=images))


def scene_images(seed: int, kind: str = "distinct", *, images: int) -> list[ImageEvaluation]:
    """Random labels, and detections near and far from them, some of another class.

    Coordinates are whole numbers, so that no rounding decides whether an IoU reaches a threshold.
    """
    rng = np.random.default_rng(seed)
    grid = 8 if "IoUs" in kind else 1
    parts = []
    for _ in range(images):
        corner = rng.integers(0, (WIDTH, HEIGHT), (rng.integers(0, 6), 2))
        labels = np.concatenate((corner, corner + rng.integers((20, 8), (90, 40), corner.shape)), 1)
        count = int(rng.integers(0, 16))
        corner = rng.integers(0, (WIDTH, HEIGHT), (count, 2))
        boxes = np.concatenate((corner, corner + rng.integers((20, 8), (90, 40), corner.shape)), 1)
        label_classes, classes = rng.integers(0, 3, len(labels)), rng.integers(0, 3, count)
        if len(labels):
            near, same = rng.random(count) < 0.8, rng.random(count) < 0.6
            of = rng.integers(0, len(labels), count)
            noise = rng.normal(0, rng.choice([1, 4, 9], (count, 1)), (count, 4)).round().astype(int)
            boxes = np.where(near[:, None], labels[of] + noise, boxes)
            classes = np.where(near & same, label_classes[of], classes)
        boxes, labels = (b // grid * grid for b in (boxes, labels))
        boxes[:, 2:], labels[:, 2:] = (np.maximum(b[:, 2:], b[:, :2] + grid) for b in (boxes, labels))
        steps = 5 if "confidences" in kind else 100_000
        confidences = np.sort(rng.integers(1, steps + 1, count) / steps)[::-1]
        parts.append(image_evaluation(boxes.astype(float), confidences, classes, labels.astype(float), label_classes))
    return parts


def tidecv_scores(evaluated: EvaluatedSet, *, max_detections: int = 100) -> dict[str, float] | None:
    """The numbers of tidecv, in [0, 1]; None where it divides by zero, because no class is left."""
    tidecv, data = pytest.importorskip("tidecv"), pytest.importorskip("tidecv.data")
    labels, detections = data.Data("labels", max_detections), data.Data("detections", max_detections)
    for image_id in range(evaluated.num_images):
        labels.add_image(image_id, str(image_id))
        detections.add_image(image_id, str(image_id))

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    rows = zip(evaluated.label_image_ids, evaluated.label_classes, evaluated.label_boxes, strict=True)
    for image_id, class_id, box in rows:
        labels.add_ground_truth(int(image_id), int(class_id), xywh(box))
    rows = zip(evaluated.image_ids, evaluated.classes, evaluated.confidences, evaluated.boxes, strict=True)
    for image_id, class_id, confidence, box in rows:
        detections.add_detection(int(image_id), int(class_id), float(confidence), xywh(box))
    tide = tidecv.TIDE()
    try:
        run = tide.evaluate(labels, detections, mode=tidecv.TIDE.BOX)
        main, special = tide.get_main_errors()["detections"], tide.get_special_errors()["detections"]
    except ZeroDivisionError:
        return None
    return dict(zip(NAMES, np.divide([run.ap, *main.values(), *special.values()], 100).tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_tidecv_as_recorded(kind):
    recorded = REFERENCE[kind]
    assert len(recorded) >= 5
    for seed, expected in recorded.items():
        actual = [float(values[0]) for values in error_scores(scene(int(seed), kind)).values()]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-8, err_msg=seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_detections", [4, 100])
def test_scores_are_those_of_tidecv(kind, max_detections):
    compared = 0
    for seed in range(100, 125):
        evaluated = scene(seed, kind)
        expected = tidecv_scores(evaluated, max_detections=max_detections)
        if expected is not None:
            actual = {k: float(v[0]) for k, v in error_scores(evaluated, max_detections=max_detections).items()}
            assert actual == pytest.approx(expected, abs=1e-8), seed
            compared += 1
    assert compared > 15


def test_each_error_is_what_the_paper_calls_it():
    labels = np.array([[0, 0, 40, 10], [100, 0, 140, 10], [0, 30, 40, 40], [100, 30, 140, 40.0]])
    label_classes = [0, 1, 0, 1]
    boxes = np.array(
        [
            [0, 0, 40, 10],  # right
            [0, 0, 40, 9],  # again
            [100, 0, 140, 11],  # of another class
            [0, 30, 12, 40],  # badly placed
            [100, 0, 108, 10],  # of another class and badly placed
            [300, 300, 340, 310],  # nowhere
        ]
    )
    image = image_evaluation(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 0, 0, 0], labels, label_classes)
    errors = assign_errors(EvaluatedSet.concatenate([image]))
    names = [("true positive" if kind == len(ERRORS) - 1 else ERRORS[kind]) for kind in errors.kinds]
    assert names == ["true positive", "duplicate", "classification", "localization", "both", "background"]
    assert errors.targets.tolist() == [0, -1, 1, 2, -1, -1]
    assert errors.matched.tolist() == [True, False, False, False]
    assert errors.missed.tolist() == [False, False, False, True]
    scores = {name: float(values[0]) for name, values in error_scores(EvaluatedSet.concatenate([image])).items()}
    assert scores[AP] == pytest.approx(51 / 101 / 2), "half of class 0, nothing of class 1"
    assert scores["classification"] == pytest.approx(51 / 101 / 2), "half of class 1"
    assert scores["localization"] == pytest.approx(50 / 101 * 2 / 4 / 2), "the other half of class 0, at rank 4"
    assert scores["missed"] == 0, "of class 1, which has no true positive"
    assert scores[FALSE_NEGATIVES] == pytest.approx(1 - 51 / 101 / 2), "without class 1, of which nothing is left"
    assert scores[FALSE_POSITIVES] == 0, "all rank below the true positive"


@pytest.mark.parametrize("seed", range(5))
def test_resampled_scores_equal_those_of_repeated_images(seed):
    rng = np.random.default_rng(seed)
    images = 4
    evaluated = scene(seed, images=images)
    evaluated = replace(evaluated, confidences=np.sort(rng.random(len(evaluated.confidences)))[::-1])
    detections = evaluated.boxes, evaluated.confidences, evaluated.classes
    weights = draw_resamples(images, 6, seed=seed)
    resampled = error_scores(evaluated, weights)
    for row, counts in enumerate(weights):
        chosen = np.repeat(np.arange(images), counts)
        parts = [
            image_evaluation(
                *(of[evaluated.image_ids == image] for of in detections),
                *(of[evaluated.label_image_ids == image] for of in (evaluated.label_boxes, evaluated.label_classes)),
            )
            for image in chosen
        ]
        repeated = error_scores(EvaluatedSet.concatenate(parts))
        assert {k: v[row] for k, v in resampled.items()} == pytest.approx({k: v[0] for k, v in repeated.items()})


def test_chunks_of_resamples_do_not_change_the_scores(monkeypatch):
    evaluated, weights = scene(3), draw_resamples(3, 50, seed=1)
    whole = error_scores(evaluated, weights)
    monkeypatch.setattr("utils.metrics.bootstrap.CHUNK_ELEMENTS", 64)
    parts = error_scores(evaluated, weights)
    assert all((whole[name] == parts[name]).all() for name in NAMES)


@pytest.mark.parametrize("seed", range(5))
def test_scores_do_not_depend_on_units_axes_or_class_ids(seed):
    evaluated = scene(seed)
    changed = replace(
        evaluated,
        boxes=evaluated.boxes[:, [1, 0, 3, 2]] * 4,
        label_boxes=evaluated.label_boxes[:, [1, 0, 3, 2]] * 4,
        classes=7 - evaluated.classes,
        label_classes=7 - evaluated.label_classes,
    )
    expected, actual = error_scores(evaluated), error_scores(changed)
    assert all(actual[name] == pytest.approx(expected[name]) for name in NAMES)


def test_perfect_detections_have_no_errors_and_no_detections_only_missed_labels():
    images = [i for i in scene_images(11, images=5) if len(i.label_classes)]
    labels = [(image.label_boxes, image.label_classes) for image in images]
    perfect = [image_evaluation(boxes, np.ones(len(boxes)), classes, boxes, classes) for boxes, classes in labels]
    scores = error_scores(EvaluatedSet.concatenate(perfect))
    assert scores[AP] == pytest.approx([1]) and all(scores[name] == 0 for name in NAMES[1:])
    silent = [image_evaluation(label_boxes=boxes, label_classes=classes) for boxes, classes in labels]
    silent = EvaluatedSet.concatenate(silent)
    assert assign_errors(silent).missed.all() and error_scores(silent)[AP] == [0]


def test_an_empty_set_has_scores():
    scores = error_scores(EvaluatedSet.concatenate([]))
    assert tuple(scores) == NAMES and all(values.tolist() == [0] for values in scores.values())

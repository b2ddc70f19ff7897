"""Targets, scores of maps against boxes, differences over images, and the check with random weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers.small_model import small_model
from utils.boxes import xyxy_to_cxcywh
from utils.explain.report import Explanation, sanity_verdict
from utils.explain.sanity import CHANGED, STAGES, changed, compare_randomized, randomized
from utils.explain.scores import box_mask, difference_over_images, map_scores, rank_correlation
from utils.explain.target import choose_target
from utils.structures import Sample

BOXES = np.array(((10, 5, 30, 25), (50, 20, 90, 60), (48, 18, 95, 64), (0, 0, 8, 8)), np.float32)
OBJECTNESS = (0.9, 0.5, 0.8, 0.95)
CLASSES = ((0.9, 0.1), (0.2, 0.9), (0.6, 0.5), (0.02, 0.01))


def predictions() -> Tensor:
    columns = [xyxy_to_cxcywh(BOXES), np.array(OBJECTNESS)[:, None], np.array(CLASSES)]
    return torch.from_numpy(np.concatenate(columns, 1)).float()


def objects(*rows: tuple[float, ...]) -> Sample:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Sample(image=np.zeros((96, 128, 3), np.uint8), boxes=table[:, 1:], classes=table[:, 0].astype(int))


def chosen(kind: str, labels: Sample | None = None, **settings: object) -> list[tuple[int, int]] | None:
    target = choose_target(kind, predictions(), labels=labels, **settings)  # type: ignore[arg-type]
    return None if target is None else list(zip(target.rows.tolist(), target.classes.tolist(), strict=True))


def test_without_labels_the_most_confident_predictions_are_explained() -> None:
    assert chosen("detection") == [(0, 0)]
    assert chosen("detection", class_id=1) == [(1, 1)]
    assert chosen("detection", position_xy=(93, 62)) == [(2, 0)]
    assert chosen("detection", position_xy=(40, 90)) is None
    assert chosen("class", class_id=0) == [(0, 0), (2, 0)]
    assert chosen("class") == [(0, 0), (2, 0)]  # the class of the most confident prediction
    assert chosen("class", class_id=1) == [(1, 1), (2, 1)]
    assert chosen("image") == [(0, 0), (1, 1), (2, 0)]


def test_with_labels_the_prediction_of_the_largest_object_is_explained() -> None:
    labels = objects((0, 12, 5, 30, 25), (1, 50, 20, 90, 60), (0, 70, 70, 75, 75))
    assert chosen("detection", labels) == [(1, 1)]
    assert chosen("detection", labels, class_id=0) == [(0, 0)]
    assert chosen("detection", labels, position_xy=(15, 10)) == [(0, 0)]
    assert chosen("detection", labels, position_xy=(1, 1)) is None
    assert chosen("detection", objects((1, 200, 200, 220, 230))) == [(1, 1)]  # all boxes are apart from it
    for kind in ("detection", "class", "image"):
        assert chosen(kind, objects()) is None
    assert chosen("class", objects((0, 0, 0, 5, 5)), class_id=1) is None


@pytest.mark.parametrize(("kind", "count"), [("detection", 1), ("class", 2), ("image", 3)])
def test_the_truth_of_a_target_is_what_is_explained(kind: str, count: int) -> None:
    labels = objects((0, 12, 5, 30, 25), (1, 50, 20, 90, 60), (0, 70, 70, 75, 75))
    target = choose_target(kind, predictions(), labels=labels, class_id=0 if kind != "image" else None)
    assert target is not None and len(target.truth) == count


@pytest.mark.parametrize(("score", "expected"), [("confidence", 0.9 * 0.9 + 0.8 * 0.6), ("class", 0.9 + 0.6)])
def test_the_score_is_the_logarithm_of_the_sum(score: str, expected: float) -> None:
    target = choose_target("class", predictions(), labels=None, class_id=0, score=score)
    assert target is not None
    assert float(target.log_score(predictions())) == pytest.approx(math.log(expected), rel=1e-5)
    assert target.log_score(torch.zeros(4, 7)).isfinite()


def test_energy_and_maximum_inside_boxes() -> None:
    mask = box_mask(np.array(((2, 1, 4, 3), (3.5, 1, 5, 2))), (4, 6))
    assert mask.sum() == 5 and mask[1, 2:5].all() and mask[2, 2:4].all()
    heat = np.zeros((4, 6))
    heat[1, 4], heat[0, 0] = 3, 1
    assert map_scores(heat, mask) == {"energy_inside": 0.75, "points_inside": 1, "area_inside": 5 / 24}
    heat[0, 0] = 9
    assert map_scores(heat, mask) == {"energy_inside": 0.25, "points_inside": 0, "area_inside": 5 / 24}
    assert map_scores(np.ones((4, 6)), mask)["energy_inside"] == pytest.approx(5 / 24)
    assert map_scores(np.zeros((4, 6)), mask) == {"energy_inside": 0, "points_inside": 0, "area_inside": 5 / 24}


def test_rank_correlation_handles_ties_and_constant_maps() -> None:
    first = np.array(((0.0, 0.0, 1.0), (2.0, 3.0, 4.0)))
    assert rank_correlation(first, first**3) == pytest.approx(1)
    assert rank_correlation(first, -first) == pytest.approx(-1)
    second = np.array(((5.0, 1.0, 1.0), (0.0, 2.0, 2.0)))  # ranks 1.5 1.5 3 4 5 6 and 6 2.5 2.5 1 4.5 4.5
    assert rank_correlation(first, second) == pytest.approx(
        np.corrcoef((1.5, 1.5, 3, 4, 5, 6), (6, 2.5, 2.5, 1, 4.5, 4.5))[0, 1]
    )
    assert rank_correlation(first, np.ones((2, 3))) == 0


def test_the_interval_is_that_of_students_paired_t() -> None:
    # The differences 1, 2, 3, 6: mean 3, standard error sqrt(14 / 3) / 2; t = 3.18244630528 at 3 degrees of freedom.
    model, baseline = np.array((2.0, 2, 4, 9, math.nan, 1)), np.array((1.0, 0, 1, 3, 0, math.nan))
    found = difference_over_images(model, baseline)
    error = math.sqrt(14 / 3) / 2
    assert found is not None and found.images == 4 and found.value == 3
    assert (found.low, found.high) == pytest.approx((3 - 3.18244630528 * error, 3 + 3.18244630528 * error), rel=1e-9)
    assert found.p_value == pytest.approx(0.06913686926, rel=1e-8)  # scipy.stats.ttest_1samp
    assert difference_over_images(np.full(3, math.nan), np.ones(3)) is None
    for values in ((0.5,), (0.5, 0.5)):
        same = difference_over_images(np.array(values), np.zeros(len(values)))
        assert same is not None and same.value == 0.5 and math.isnan(same.low) and math.isnan(same.p_value)


def test_randomized_copies_keep_the_rows_before_and_lose_the_others() -> None:
    network = small_model("yolov5n-AKConv.yaml")
    for stage, kept in zip(STAGES, (len(network.model) - 1, len(network.model) // 2, 0), strict=True):
        other = randomized(network, stage, seed=0)
        assert not other.training
        again = randomized(network, stage, seed=0).state_dict()
        for (name, old), (_, new) in zip(network.state_dict().items(), other.state_dict().items(), strict=True):
            assert torch.equal(new, again[name])
            if name.endswith("weight") and old.dim() == 4:
                assert torch.equal(old, new) == (int(name.split(".")[1]) < kept), name


def test_a_map_before_the_random_rows_is_the_same_and_the_verdict_names_those_that_never_change() -> None:
    network = small_model("yolov5n.yaml").requires_grad_(False)
    pixels = torch.rand(1, 3, 64, 96)
    target = choose_target("image", network(pixels)[0][0], labels=None)
    assert target is not None
    layers, methods = ["model.2", "model.17"], ["gradcam", "eigencam"]
    similarity = compare_randomized(network, [(pixels, target)], layers=layers, methods=methods, seed=0)
    assert set(similarity) == {(layer, method) for layer in layers for method in methods}
    assert similarity["model.17", "eigencam"]["head"] == pytest.approx(1)
    assert similarity["model.2", "eigencam"]["second half"] == pytest.approx(1)
    assert similarity["model.17", "gradcam"]["all"] < CHANGED
    nowhere = replace(target, rows=target.rows[:0], classes=target.classes[:0])  # a score of 0: all gradients are 0
    assert compare_randomized(network, [(pixels, nowhere)], layers=["model.17"], methods=["gradcam"], seed=0) == {}
    unchanged = {**dict.fromkeys(STAGES, 0.0), "all": CHANGED}
    assert not changed(unchanged)
    result = Explanation(models=[("a", ["model.2"])], images=[], similarity={(0, "gradcam", 0): unchanged})
    (row,) = result.content()["sanity"]
    assert not row["changed"] and (row["model"], row["layer"], row["method"]) == ("a", "model.2", "gradcam")
    assert "0 of 1" in sanity_verdict([row]) and "a model.2 gradcam" in sanity_verdict([row])
    assert compare_randomized(network, [], layers=layers, methods=methods, seed=0) == {}

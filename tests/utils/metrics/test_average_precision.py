import numpy as np
import pytest

from tests.helpers.data_oracles import REFERENCE
from tests.helpers.evaluations import evaluated_set
from utils.metrics.average_precision import average_precision, fitness, precision_recall, smooth


def metrics_of(is_tp, confidences, classes=None, labels=()):
    """Metrics of detections that are true or false positives at all ten IoU thresholds."""
    tp = np.repeat(np.array(is_tp, bool)[:, None], 10, 1).reshape(-1, 10)
    classes = np.zeros(len(is_tp)) if classes is None else classes
    return precision_recall(evaluated_set(tp, np.array(confidences, float), classes, labels))


def test_metrics_equal_those_of_the_reference():
    with np.load(REFERENCE / "metrics.npz") as stored:
        images = range(40)
        detections = np.concatenate([stored[f"image{i}_detections"] for i in images])
        correct = np.concatenate([stored[f"image{i}_correct"] for i in images])
        labels = np.concatenate([stored[f"image{i}_labels"] for i in images])
        result = precision_recall(evaluated_set(correct, detections[:, 4], detections[:, 5], labels[:, 0]))
        tp = (result.recall * result.label_counts).round()
        ours = {
            "tp": tp,
            "fp": (tp / (result.precision + 1e-16) - tp).round(),
            "precision": result.precision,
            "recall": result.recall,
            "f1": result.f1,
            "ap": result.ap,
        }
        for name, value in ours.items():
            np.testing.assert_allclose(value, stored[name], rtol=0, atol=1e-6, err_msg=name)
        assert np.array_equal(result.class_ids, stored["ap_class"])
        assert result.map50 == pytest.approx(stored["ap"][:, 0].mean())
        assert result.map50_95 == pytest.approx(stored["ap"].mean())


@pytest.mark.parametrize(
    ("recall", "precision", "area"),
    [
        ([0.5, 1.0], [1.0, 1.0], 0.995),  # all correct; the curve falls to 0 within the last hundredth
        ([0.5], [1.0], 0.75),  # constant to one half, then linear to 0 at 1
        ([0.0], [0.0], 0.0),  # nothing correct
        ([0.25, 0.25], [1.0, 0.5], 0.25 + 0.75 * 0.5 / 2),  # the false positive halves the slope
        ([0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3], 0.5 + 0.5 * 2 / 3),
    ],
)
def test_area_under_hand_made_curves(recall, precision, area):
    result, curve_recall, envelope = average_precision(np.array(recall), np.array(precision))
    assert result == pytest.approx(area, abs=0.006)
    assert curve_recall[0] == 0 and curve_recall[-1] == 1 and (np.diff(envelope) <= 0).all()


def test_a_false_positive_between_two_true_positives():
    result = metrics_of([True, False, True], [0.9, 0.8, 0.7], labels=[0, 0])
    assert result.precision == pytest.approx([2 / 3]) and result.recall == pytest.approx([1.0])
    assert result.f1 == pytest.approx([0.8])
    assert result.ap.shape == (1, 10) and result.ap == pytest.approx(5 / 6, abs=0.006)
    assert result.best_confidence <= 0.7


def test_false_positives_of_low_confidence_raise_the_best_confidence():
    result = metrics_of([True, True] + [False] * 20, [0.9, 0.8] + [0.1] * 20, labels=[0, 0])
    assert 0.1 < result.best_confidence <= 0.8
    assert result.precision[0] > 0.95 and result.recall[0] == pytest.approx(1.0)


def test_metrics_do_not_depend_on_the_order_of_detections():
    rng = np.random.default_rng(0)
    is_tp, scores, classes = rng.random(50) < 0.5, rng.random(50), rng.integers(0, 3, 50)
    first = metrics_of(is_tp, scores, classes, labels=[0, 1, 1, 2] * 10)
    order = rng.permutation(50)
    second = metrics_of(is_tp[order], scores[order], classes[order], labels=[2, 1, 0, 1] * 10)
    np.testing.assert_allclose(first.ap, second.ap)
    np.testing.assert_allclose(first.f1, second.f1)


def test_detections_of_equal_confidence_keep_their_order():
    rng = np.random.default_rng(0)
    is_tp, scores = rng.random(300) < 0.5, rng.choice([0.3, 0.5, 0.7], 300)
    apart = scores - np.arange(300) * 1e-6
    assert metrics_of(is_tp, scores, labels=[0] * 160).map50 == metrics_of(is_tp, apart, labels=[0] * 160).map50


def test_classes_are_separate_and_those_without_labels_are_excluded():
    result = metrics_of([True, True, False], [0.9, 0.8, 0.7], classes=[1, 5, 3], labels=[1, 5, 5])
    assert result.class_ids.tolist() == [1, 5] and result.label_counts.tolist() == [1, 2]
    assert result.ap[:, 0] == pytest.approx([0.995, 0.75], abs=1e-9)
    assert result.map50 == pytest.approx(0.8725) == result.map50_95
    assert result.mean_recall == pytest.approx(0.75) and result.mean_precision == pytest.approx(1.0)


def test_a_class_with_labels_but_no_detections_has_zero_ap():
    result = metrics_of([True], [0.9], classes=[0], labels=[0, 1])
    assert result.ap[:, 0] == pytest.approx([0.995, 0.0]) and result.recall[1] == 0


def test_each_iou_threshold_has_its_own_ap():
    tp = np.zeros((2, 10), bool)
    tp[:, 0] = True
    tp[0, :5] = True
    result = precision_recall(evaluated_set(tp, [0.9, 0.8], [0, 0], [0, 0]))
    assert result.ap[0, 0] == pytest.approx(0.995) and result.ap[0, 4] == pytest.approx(0.625, abs=0.006)
    assert result.map50_95 == pytest.approx((0.995 + 4 * 0.625) / 10, abs=0.003) and result.map75 == 0


def test_fitness_weighs_map50_by_one_tenth():
    result = metrics_of([True, False, True], [0.9, 0.8, 0.7], labels=[0, 0, 0])
    assert fitness(0.5, 0.25) == pytest.approx(0.275)
    assert result.fitness == fitness(result.map50, result.map50_95) > 0


@pytest.mark.parametrize(("detections", "labels"), [(0, 0), (0, 3), (3, 0)])
def test_missing_detections_or_labels_give_zeros(detections, labels):
    result = metrics_of([False] * detections, np.linspace(0.9, 0.5, detections), labels=[0] * labels)
    assert (result.map50, result.map75, result.map50_95, result.fitness) == (0, 0, 0, 0)
    assert (result.mean_precision, result.mean_recall) == (0, 0)
    assert result.ap.shape == (min(labels, 1), 10) and np.isfinite(result.best_confidence)


def test_curves_have_a_thousand_points_and_stay_in_range():
    result = metrics_of([True, False, True], [0.9, 0.8, 0.7], labels=[0, 0, 0])
    for curve in (result.precision_curve, result.recall_curve, result.precision_by_recall):
        assert curve.shape == (1, 1000) and (curve >= 0).all() and (curve <= 1).all()
    assert (np.diff(result.recall_curve) <= 0).all() and (np.diff(result.precision_by_recall) <= 1e-12).all()


def test_precision_is_undefined_above_the_last_detection_of_a_class_that_has_any():
    tp = np.ones((3, 10), bool)
    metrics = precision_recall(evaluated_set(tp, [0.8, 0.6, 0.3], [0, 0, 1], [0, 0, 1, 2]))
    assert metrics.max_confidences.tolist() == [0.8, 0.3, 1.0]
    defined = np.isfinite(metrics.defined_precision)
    for row, last in zip(defined, (0.8, 0.3, 1.0), strict=True):
        np.testing.assert_array_equal(row, metrics.confidences <= last)
    np.testing.assert_array_equal(metrics.defined_precision[defined], metrics.precision_curve[defined])


def test_smoothing_is_a_running_mean_with_repeated_end_values():
    values = np.array([0.0, 0, 0, 0, 10, 0, 0, 0, 0, 5])
    assert smooth(values, 0.2) == pytest.approx([0, 0, 0, 10 / 3, 10 / 3, 10 / 3, 0, 0, 5 / 3, 10 / 3])
    assert smooth(np.full(40, 3.0), 0.1) == pytest.approx(np.full(40, 3.0))

"""Non-maximum suppression against float64 oracles and stored references, by the compiled kernel and without it."""

import json

import numpy as np
import pytest
import torch
import torchvision

from tests.helpers.data_oracles import REFERENCE
from utils.benchmarks.nms import dense_candidates as dense_logits
from utils.benchmarks.nms import with_torchvision
from utils.compiled import load
from utils.inference import nms
from utils.inference.nms import CHUNK, EVALUATION_NMS, NmsSettings, greedy_nms, non_max_suppression

pytestmark = pytest.mark.kernels
FIELDS = {
    "conf_thres": "conf_threshold",
    "iou_thres": "iou_threshold",
    "max_det": "max_detections",
    "classes": "classes",
    "agnostic": "agnostic",
    "multi_label": "multi_label",
}
CASES = json.loads((REFERENCE / "nms.json").read_text())


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def implementation(request, monkeypatch):
    """Run every test with the compiled kernel and without it."""
    if request.param == "torch":
        monkeypatch.setattr(nms, "load", lambda name: None)
    elif load("nms") is None:
        pytest.skip("needs python -m utils.compiled")
    return request.param


@pytest.fixture(scope="module")
def arrays():
    with np.load(REFERENCE / "nms.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def settings_of(case):
    return NmsSettings(**{FIELDS[name]: value for name, value in case.items() if name != "case"})


def rows_of(detections):
    columns = (detections.boxes, detections.scores, detections.classes)
    return torch.from_numpy(np.column_stack(columns).astype(np.float32))


def dense_candidates(count, seed):
    """Boxes in clusters, best first."""
    draw = torch.Generator().manual_seed(seed)
    cluster_centers = torch.rand(max(count // 8, 1), 2, generator=draw) * 900
    centres = cluster_centers[torch.randint(0, len(cluster_centers), (count,), generator=draw)]
    centres = centres + torch.randn(count, 2, generator=draw) * 3
    sizes = 30 + 12 * torch.rand(count, 2, generator=draw)
    scores = torch.rand(count, generator=draw).sort(descending=True)[0]
    return torch.cat((centres - sizes / 2, centres + sizes / 2), 1).double(), scores.double()


def kept_of(boxes, iou_threshold, limit, groups=None):
    groups = torch.zeros(len(boxes), dtype=torch.int64) if groups is None else groups
    return greedy_nms(boxes, groups, iou_threshold=iou_threshold, limit=limit)


def predictions(count, seed, classes=4):
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, count, 4, generator=draw) * torch.tensor([600.0, 400, 120, 90]) + 5
    return torch.cat((boxes, torch.rand(2, count, 1 + classes, generator=draw)), 2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_detections_match_the_reference_in_order(arrays, case):
    results = non_max_suppression(arrays["predictions"], settings_of(case))
    assert len(results) == 3
    for index, detections in enumerate(results):
        expected = arrays[f"case{case['case']}_image{index}"]
        assert len(detections) == len(expected)
        torch.testing.assert_close(rows_of(detections), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("limit", [1, 10, 300, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_dense_boxes_match_torchvision_cut_at_the_limit(seed, limit):
    boxes, scores = dense_candidates(4000, seed)
    for iou_threshold in (0.45, 0.7):
        kept = kept_of(boxes, iou_threshold, limit)
        assert torch.equal(kept, torchvision.ops.nms(boxes, scores, iou_threshold)[:limit])
        assert 1 <= len(kept) <= min(limit, 3000)


@pytest.mark.parametrize("count", [1, *(edge + step for edge in (CHUNK, 3 * CHUNK) for step in (-1, 0, 1))])
def test_results_do_not_depend_on_chunk_borders(count):
    boxes, scores = dense_candidates(count, 7)
    expected = torchvision.ops.nms(boxes, scores, 0.5)
    for limit in (len(expected) - 1, len(expected), len(expected) + 1):
        assert torch.equal(kept_of(boxes, 0.5, limit), expected[: max(limit, 0)])


def test_a_box_of_a_later_chunk_is_suppressed_by_one_of_the_first():
    far = torch.arange(CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 20, 10])
    far[-1] = far[3] + 1
    kept = kept_of(far, 0.5, 10**6)
    assert kept.tolist() == list(range(len(far) - 1))


def test_results_do_not_depend_on_the_number_of_threads():
    batch, threads = predictions(3000, 0), torch.get_num_threads()
    settings = NmsSettings(conf_threshold=0.05, multi_label=True)
    results = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append(
                [rows_of(detections).numpy().tobytes() for detections in non_max_suppression(batch, settings)]
            )
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("multi_label", [False, True])
def test_detections_are_confident_sorted_finite_and_do_not_overlap(multi_label):
    for detections in non_max_suppression(
        predictions(2500, 1), NmsSettings(conf_threshold=0.4, multi_label=multi_label)
    ):
        assert 50 < len(detections) <= 300 and rows_of(detections).isfinite().all()
        assert (detections.scores > 0.4).all() and (np.diff(detections.scores) <= 0).all()
        assert detections.classes.dtype == np.int64 and set(detections.classes.tolist()) == {0, 1, 2, 3}
        for label in range(4):
            of_class = detections.classes == label
            boxes, scores = (torch.from_numpy(rows[of_class]) for rows in (detections.boxes, detections.scores))
            assert len(torchvision.ops.nms(boxes, scores, 0.45)) == len(boxes)


def test_no_confident_predictions_give_no_detections():
    for batch in (torch.zeros(2, 0, 9), torch.zeros(2, 50, 9), predictions(0, 0)):
        for settings in (NmsSettings(), NmsSettings(multi_label=True, classes=[1]), NmsSettings(agnostic=True)):
            results = non_max_suppression(batch, settings)
            assert [len(image) for image in results] == [0, 0]
            assert results[0].boxes.shape == (0, 4) and results[0].classes.dtype == np.int64
    assert kept_of(torch.zeros(0, 4), 0.5, 10).shape == (0,)


def one_image(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_detections_of_four_known_boxes():
    batch = one_image(
        (50, 40, 20, 10, 0.9, 0.9, 0.1),
        (51, 40, 20, 10, 0.8, 0.9, 0.1),  # suppressed by the first
        (50, 40, 20, 10, 0.8, 0.1, 0.9),  # another class
        (90, 40, 20, 10, 0.5, 0.4, 0.3),  # 0.2 is below the threshold
    )
    (detections,) = non_max_suppression(batch, NmsSettings())
    assert detections.boxes.tolist() == [[40, 35, 60, 45], [40, 35, 60, 45]] and detections.classes.tolist() == [0, 1]
    assert detections.scores == pytest.approx([0.81, 0.72])
    (agnostic,) = non_max_suppression(batch, NmsSettings(agnostic=True))
    assert agnostic.classes.tolist() == [0]
    (of_class,) = non_max_suppression(batch, NmsSettings(classes=[1]))
    assert of_class.classes.tolist() == [1]
    (multi,) = non_max_suppression(batch, NmsSettings(conf_threshold=0.14, multi_label=True))
    assert multi.classes.tolist() == [0, 1, 0, 1]
    assert multi.scores == pytest.approx([0.81, 0.72, 0.20, 0.15])


def test_nan_scores_are_dropped():
    nan = float("nan")
    batch = one_image((50, 40, 20, 10, nan, 0.9), (90, 40, 20, 10, 0.9, nan), (10, 10, 8, 6, 0.9, 0.9))
    (detections,) = non_max_suppression(batch, NmsSettings())
    assert len(detections) == 1 and rows_of(detections).isfinite().all()


def test_boxes_that_are_not_finite_are_dropped():
    batch = one_image(
        (float("nan"), 40, 20, 10, 0.95, 0.9), (50, 40, float("inf"), 6, 0.9, 0.9), (9, 9, 8, 6, 0.9, 0.9)
    )
    (detections,) = non_max_suppression(batch, NmsSettings())
    assert len(detections) == 1 and rows_of(detections).isfinite().all()


def test_an_iou_equal_to_the_threshold_is_kept_in_every_chunk():
    boxes = torch.arange(CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 4, 1])
    boxes[-1] = torch.tensor([1.0, 0, 5, 1])  # IoU 3/5 with the first
    scores = torch.linspace(1, 0.1, len(boxes))
    kept = kept_of(boxes.double(), 0.6, 10**6)
    assert len(kept) == len(boxes) and torch.equal(kept, torchvision.ops.nms(boxes.double(), scores.double(), 0.6))


def test_boxes_without_area_suppress_nothing_in_any_chunk():
    boxes = torch.arange(CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 0, 5])
    scores = torch.linspace(1, 0.1, len(boxes))
    assert torch.equal(kept_of(boxes, 0.5, 10**6), torchvision.ops.nms(boxes, scores, 0.5))


def untrained_predictions(side, classes, seed=0, spread=1.0):
    """Predictions of a model whose logits are noise: every box is a candidate for every class."""
    batch = dense_logits(side, classes, seed=seed)
    center = torch.tensor([side / 2, side / 2, 60, 60])
    batch[..., :4] = center + (batch[..., :4] - center) * spread
    return batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "classes", "spread", "full"),
    [(320, 3, 1.0, True), (224, 20, 1.0, True), (320, 3, 0.02, False), (640, 1, 0.01, False)],
    ids=["few classes", "many classes", "one cluster", "one class in one cluster"],
)
def test_an_untrained_models_detections_match_one_call_of_torchvision(side, classes, spread, full):
    batch = untrained_predictions(side, classes, spread=spread)
    (detections,) = non_max_suppression(batch, EVALUATION_NMS)
    expected = with_torchvision(batch[0])
    assert torch.equal(rows_of(detections), rows_of(expected))
    assert (len(detections) == 300) == full and len(detections) > 0


@pytest.mark.parametrize(
    "options", [{}, {"agnostic": True}, {"classes": [2, 0]}, {"multi_label": True, "classes": [1]}]
)
def test_results_do_not_depend_on_the_first_pool(options, monkeypatch):
    settings = NmsSettings(conf_threshold=0.001, iou_threshold=0.6, max_detections=200, **options)
    batch = untrained_predictions(256, 3, spread=0.3)
    default = non_max_suppression(batch, settings)[0]
    monkeypatch.setattr(nms, "FIRST_POOL", 10**9)
    all_at_once = non_max_suppression(batch, settings)[0]
    monkeypatch.setattr(nms, "FIRST_POOL", 40)
    small_pool = non_max_suppression(batch, settings)[0]
    assert (
        20 < len(all_at_once)
        and torch.equal(rows_of(default), rows_of(all_at_once))
        and torch.equal(rows_of(small_pool), rows_of(all_at_once))
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_only_the_best_candidates_up_to_the_limit_are_considered(multi_label, monkeypatch):
    batch = predictions(2500, 5)[:1]
    settings = NmsSettings(conf_threshold=0.05, max_detections=2000, multi_label=multi_label)
    scores = (batch[0, :, 5:] * batch[0, :, 4:5]).numpy()
    best = np.sort(scores.max(1) if not multi_label else scores.ravel())[::-1]
    (unlimited,) = non_max_suppression(batch, settings)
    monkeypatch.setattr(nms, "MAX_CANDIDATES", 500)
    (detections,) = non_max_suppression(batch, settings)
    # What suppresses a box is better than the box, so that the limit cuts the list and changes nothing before.
    expected = rows_of(unlimited)[unlimited.scores >= best[499]]
    assert 20 < len(expected) < 500 < len(unlimited) and torch.equal(rows_of(detections), expected)


def test_equal_scores_keep_the_order_of_the_boxes():
    batch = untrained_predictions(320, 3)
    batch[..., 4:] = (batch[..., 4:] * 4).round() / 4
    assert torch.equal(rows_of(non_max_suppression(batch, EVALUATION_NMS)[0]), rows_of(with_torchvision(batch[0])))


def test_images_of_a_batch_do_not_affect_each_other():
    batch = torch.cat([untrained_predictions(256, 3, seed=seed) for seed in range(5)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = non_max_suppression(batch, EVALUATION_NMS)
    finally:
        torch.set_num_threads(threads)
    for index, detections in enumerate(together):
        assert torch.equal(
            rows_of(detections), rows_of(non_max_suppression(batch[index : index + 1], EVALUATION_NMS)[0])
        )


@pytest.mark.parametrize("iou_threshold", [0.01, 0.3, 0.6, 0.99, 1.0])
def test_chunks_give_what_torchvision_gives_at_any_threshold(iou_threshold):
    boxes, scores = dense_candidates(1500, 4)
    boxes = torch.cat((boxes, boxes[:300], boxes[300:600] * 1.001))
    scores = torch.cat((scores, scores[:300] * 0.01, scores[300:600] * 0.005)).sort(descending=True)[0]
    kept = kept_of(boxes, iou_threshold, 10**6)
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, iou_threshold)) and 1 < len(kept) < len(boxes) + (
        iou_threshold == 1.0
    )


def suppressed_per_class(prediction, settings):
    """NMS in plain Python and float64, one class after the other: rows of x1, y1, x2, y2, score, class, best first."""
    rows = []
    best = prediction[:, 5:].amax(1).tolist()
    for index, label in prediction[:, 5:].nonzero().tolist():
        cx, cy, w, h, objectness = prediction[index, :5].tolist()
        probability = prediction[index, 5 + label].item()
        score = float(np.float32(probability) * np.float32(objectness))
        if score > settings.conf_threshold and (settings.multi_label or probability == best[index]):
            rows.append((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, score, label))
    rows.sort(key=lambda row: -row[4])
    kept = {}
    for row in rows:
        others = kept.setdefault(0 if settings.agnostic else row[5], [])
        if all(plain_iou(row, other) <= settings.iou_threshold for other in others):
            others.append(row)
    return sorted((row for others in kept.values() for row in others), key=lambda row: -row[4])


def plain_iou(a, b):
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def crowd(count, classes, side, seed):
    """Predictions of small overlapping boxes in a far corner of a large image, of a few of many classes."""
    draw = torch.Generator().manual_seed(seed)
    used = torch.tensor([0, classes // 2, classes - 1])
    rows = torch.zeros(count, 5 + classes)
    rows[:, :2] = side - 60 * torch.rand(count, 2, generator=draw)
    rows[:, 2:4] = 6 + 18 * torch.rand(count, 2, generator=draw)
    rows[:, 4] = 0.3 + 0.7 * torch.rand(count, generator=draw)
    labels = used[torch.randint(0, 3, (count,), generator=draw)]
    rows[torch.arange(count), 5 + labels] = 0.95 + 0.05 * torch.rand(count, generator=draw)
    return rows


@pytest.mark.parametrize("options", [{}, {"multi_label": True}, {"agnostic": True}])
@pytest.mark.parametrize(("classes", "side"), [(1, 320), (80, 640), (3000, 16384), (100_000, 640)])
def test_any_number_of_classes_and_any_size_give_suppression_per_class_in_double_precision(classes, side, options):
    settings = NmsSettings(conf_threshold=0.2, **options)
    for seed in range(2):
        prediction = crowd(60, classes, side, seed)
        (detections,) = non_max_suppression(prediction[None], settings)
        expected = torch.tensor(suppressed_per_class(prediction, settings), dtype=torch.float64)
        assert 3 < len(expected) < 60 and torch.equal(rows_of(detections).double(), expected.float().double())


def test_boxes_of_two_classes_far_apart_both_stay():
    batch = one_image((7800, 7800, 100, 100, 1, 0.9, 0), (120, 120, 100, 100, 1, 0, 0.8))
    (detections,) = non_max_suppression(batch, NmsSettings())
    assert detections.classes.tolist() == [0, 1]


def test_many_kept_boxes_are_compared_in_parts(monkeypatch):
    boxes, _ = dense_candidates(1500, 3)
    groups = torch.arange(1500) % 7
    expected = kept_of(boxes, 0.5, 10**6, groups)
    monkeypatch.setattr(nms, "MAX_PAIRS", 1000)
    assert torch.equal(kept_of(boxes, 0.5, 10**6, groups), expected) and 300 < len(expected) < 1500


def odd_predictions(trial, draw):
    """Predictions with equal scores, NaN, boxes without area or with infinite sides, in turn."""
    classes = int(torch.randint(1, 6, (1,), generator=draw))
    count = int(torch.randint(0, 4000 if trial % 3 else 40, (1,), generator=draw))
    boxes = torch.rand(2, count, 4, generator=draw) * torch.tensor([600.0, 400, 120, 90]) + 5 * (trial % 2)
    rows = torch.cat((boxes, torch.rand(2, count, 1 + classes, generator=draw)), 2)
    if trial % 4 == 1:
        rows[..., 4:] = (rows[..., 4:] * 8).round() / 8
    if count:
        some = torch.randint(0, count, (9,), generator=draw)
        if trial % 5 == 2:
            rows[0, some, torch.randint(0, 5 + classes, (9,), generator=draw)] = torch.nan
        if trial % 7 == 3:
            rows[1, some, torch.randint(0, 4, (9,), generator=draw)] = torch.inf
        if trial % 6 == 4:
            rows[:, ::3, 2:4] = 0
    return rows


def test_the_kernel_equals_torch_bitwise(implementation, monkeypatch):
    if implementation == "torch":
        pytest.skip("compares both implementations")
    draw, rows = torch.Generator().manual_seed(0), 0
    for trial in range(60):
        batch = odd_predictions(trial, draw)
        for multi_label in (True, False):
            settings = NmsSettings(
                conf_threshold=(0.001, 0.25, 0.0)[trial % 3],
                iou_threshold=(0.45, 0.6, 0.7, 0.02)[trial % 4],
                max_detections=(300, 5, 1000)[trial % 3],
                multi_label=multi_label,
                agnostic=bool(trial % 2),
                classes=(None, [0], [0, 2])[trial % 3],
            )
            compiled = non_max_suppression(batch, settings)
            with monkeypatch.context() as without:
                without.setattr(nms, "load", lambda name: None)
                expected = non_max_suppression(batch, settings)
            for one, other in zip(compiled, expected, strict=True):
                rows += len(one)
                assert torch.equal(rows_of(one), rows_of(other)), trial
    assert rows > 10_000

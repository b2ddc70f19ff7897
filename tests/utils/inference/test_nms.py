import json

import numpy as np
import pytest
import torch
import torchvision

from tests.helpers.data_oracles import REFERENCE
from utils.benchmarks.nms import dense_candidates as flood_of_logits
from utils.benchmarks.nms import with_torchvision
from utils.compiled import load
from utils.inference import nms
from utils.inference.nms import EVALUATION_NMS, FIRST_CHUNK, NmsSettings, greedy_nms, non_max_suppression

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
def way(request, monkeypatch):
    """Every test twice: by the compiled kernel and without it."""
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


def rows_of(found):
    return torch.cat((found.boxes, found.scores[:, None], found.classes[:, None].float()), 1)


def dense_candidates(count, seed):
    """Boxes in heaps, best first."""
    draw = torch.Generator().manual_seed(seed)
    heaps = torch.rand(max(count // 8, 1), 2, generator=draw) * 900
    centres = heaps[torch.randint(0, len(heaps), (count,), generator=draw)]
    centres = centres + torch.randn(count, 2, generator=draw) * 3
    sizes = 30 + 12 * torch.rand(count, 2, generator=draw)
    scores = torch.rand(count, generator=draw).sort(descending=True)[0]
    return torch.cat((centres - sizes / 2, centres + sizes / 2), 1), scores


def predictions(count, seed, classes=4):
    draw = torch.Generator().manual_seed(seed)
    boxes = torch.rand(2, count, 4, generator=draw) * torch.tensor([600.0, 400, 120, 90]) + 5
    return torch.cat((boxes, torch.rand(2, count, 1 + classes, generator=draw)), 2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_reference_rows_remain_in_the_same_order(arrays, case):
    found = non_max_suppression(arrays["predictions"], settings_of(case))
    assert len(found) == 3
    for number, detections in enumerate(found):
        wanted = arrays[f"case{case['case']}_image{number}"]
        assert len(detections) == len(wanted)
        torch.testing.assert_close(rows_of(detections), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("limit", [1, 10, 300, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_flood_is_thinned_as_by_torchvision_cut_at_the_limit(seed, limit):
    boxes, scores = dense_candidates(4000, seed)
    for overlap in (0.45, 0.7):
        kept = greedy_nms(boxes, scores, iou_threshold=overlap, limit=limit)
        assert torch.equal(kept, torchvision.ops.nms(boxes, scores, overlap)[:limit])
        assert 1 <= len(kept) <= min(limit, 3000)


@pytest.mark.parametrize("count", [1, *(edge + step for edge in (FIRST_CHUNK, 3 * FIRST_CHUNK) for step in (-1, 0, 1))])
def test_chunk_borders_do_not_show(count):
    boxes, scores = dense_candidates(count, 7)
    wanted = torchvision.ops.nms(boxes, scores, 0.5)
    for limit in (len(wanted) - 1, len(wanted), len(wanted) + 1):
        assert torch.equal(greedy_nms(boxes, scores, iou_threshold=0.5, limit=limit), wanted[: max(limit, 0)])


def test_a_box_of_a_later_chunk_falls_to_one_of_the_first():
    far = torch.arange(FIRST_CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 20, 10])
    far[-1] = far[3] + 1
    kept = greedy_nms(far, torch.linspace(1, 0.1, len(far)), iou_threshold=0.5, limit=10**6)
    assert kept.tolist() == list(range(len(far) - 1))


def test_thread_count_does_not_matter():
    given, threads = predictions(3000, 0), torch.get_num_threads()
    options = NmsSettings(conf_threshold=0.05, multi_label=True)
    results = []
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            results.append([rows_of(found).numpy().tobytes() for found in non_max_suppression(given, options)])
    finally:
        torch.set_num_threads(threads)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("multi_label", [False, True])
def test_what_remains_is_sure_best_first_finite_and_apart(multi_label):
    for found in non_max_suppression(predictions(2500, 1), NmsSettings(conf_threshold=0.4, multi_label=multi_label)):
        assert 50 < len(found) <= 300 and rows_of(found).isfinite().all()
        assert (found.scores > 0.4).all() and (found.scores.diff() <= 0).all()
        assert found.classes.dtype == torch.int64 and set(found.classes.tolist()) == {0, 1, 2, 3}
        for label in range(4):
            boxes = found.boxes[found.classes == label]
            assert len(torchvision.ops.nms(boxes, found.scores[found.classes == label], 0.45)) == len(boxes)


def test_no_predictions_or_no_sure_ones_leave_nothing():
    for given in (torch.zeros(2, 0, 9), torch.zeros(2, 50, 9), predictions(0, 0)):
        for options in (NmsSettings(), NmsSettings(multi_label=True, classes=[1]), NmsSettings(agnostic=True)):
            found = non_max_suppression(given, options)
            assert [len(image) for image in found] == [0, 0]
            assert found[0].boxes.shape == (0, 4) and found[0].classes.dtype == torch.int64
    assert greedy_nms(torch.zeros(0, 4), torch.zeros(0), iou_threshold=0.5, limit=10).shape == (0,)


def one_image(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_hand_made_image():
    given = one_image(
        (50, 40, 20, 10, 0.9, 0.9, 0.1),
        (51, 40, 20, 10, 0.8, 0.9, 0.1),  # falls to the first
        (50, 40, 20, 10, 0.8, 0.1, 0.9),  # of another class
        (90, 40, 20, 10, 0.5, 0.4, 0.3),  # 0.2 is too unsure
    )
    (found,) = non_max_suppression(given, NmsSettings())
    assert found.boxes.tolist() == [[40, 35, 60, 45], [40, 35, 60, 45]] and found.classes.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([0.81, 0.72]))
    (agnostic,) = non_max_suppression(given, NmsSettings(agnostic=True))
    assert agnostic.classes.tolist() == [0]
    (chosen,) = non_max_suppression(given, NmsSettings(classes=[1]))
    assert chosen.classes.tolist() == [1]
    (several,) = non_max_suppression(given, NmsSettings(conf_threshold=0.14, multi_label=True))
    assert several.classes.tolist() == [0, 1, 0, 1]
    torch.testing.assert_close(several.scores, torch.tensor([0.81, 0.72, 0.20, 0.15]))


def test_unsure_not_a_number_is_left_out():
    nan = float("nan")
    given = one_image((50, 40, 20, 10, nan, 0.9), (90, 40, 20, 10, 0.9, nan), (10, 10, 8, 6, 0.9, 0.9))
    (found,) = non_max_suppression(given, NmsSettings())
    assert len(found) == 1 and rows_of(found).isfinite().all()


def test_box_that_is_no_number_is_left_out():
    given = one_image(
        (float("nan"), 40, 20, 10, 0.95, 0.9), (50, 40, float("inf"), 6, 0.9, 0.9), (9, 9, 8, 6, 0.9, 0.9)
    )
    (found,) = non_max_suppression(given, NmsSettings())
    assert len(found) == 1 and rows_of(found).isfinite().all()


def test_overlap_equal_to_the_threshold_means_the_same_in_every_chunk():
    boxes = torch.arange(FIRST_CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 4, 1])
    boxes[-1] = torch.tensor([1.0, 0, 5, 1])  # IoU 3/5 with the first
    scores = torch.linspace(1, 0.1, len(boxes))
    assert torch.equal(
        greedy_nms(boxes, scores, iou_threshold=0.6, limit=10**6), torchvision.ops.nms(boxes, scores, 0.6)
    )


def test_boxes_without_area_are_treated_alike_in_every_chunk():
    boxes = torch.arange(FIRST_CHUNK + 5)[:, None] * 100.0 + torch.tensor([0.0, 0, 0, 5])
    scores = torch.linspace(1, 0.1, len(boxes))
    assert torch.equal(
        greedy_nms(boxes, scores, iou_threshold=0.5, limit=10**6), torchvision.ops.nms(boxes, scores, 0.5)
    )


def drawn_flood(side, classes, seed=0, spread=1.0):
    """Predictions of a model whose logits are noise: every box a candidate for every class."""
    given = flood_of_logits(side, classes, seed=seed)
    usual = torch.tensor([side / 2, side / 2, 60, 60])
    given[..., :4] = usual + (given[..., :4] - usual) * spread
    return given


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "classes", "spread", "full"),
    [(320, 3, 1.0, True), (224, 20, 1.0, True), (320, 3, 0.02, False), (640, 1, 0.01, False)],
    ids=["few classes", "many classes", "all in one heap", "one class in one heap"],
)
def test_flood_of_an_untrained_model_is_thinned_as_by_one_call_of_torchvision(side, classes, spread, full):
    given = drawn_flood(side, classes, spread=spread)
    (found,) = non_max_suppression(given, EVALUATION_NMS)
    expected = with_torchvision(given[0])
    assert torch.equal(rows_of(found), rows_of(expected))
    assert (len(found) == 300) == full and len(found) > 0


@pytest.mark.parametrize(
    "options", [{}, {"agnostic": True}, {"classes": [2, 0]}, {"multi_label": True, "classes": [1]}]
)
def test_pools_of_candidates_do_not_show(options, monkeypatch):
    settings = NmsSettings(conf_threshold=0.001, iou_threshold=0.6, max_detections=200, **options)
    given = drawn_flood(256, 3, spread=0.3)
    few = non_max_suppression(given, settings)[0]
    monkeypatch.setattr(nms, "FIRST_POOL", 10**9)
    every = non_max_suppression(given, settings)[0]
    monkeypatch.setattr(nms, "FIRST_POOL", 40)
    fewest = non_max_suppression(given, settings)[0]
    assert (
        20 < len(every) and torch.equal(rows_of(few), rows_of(every)) and torch.equal(rows_of(fewest), rows_of(every))
    )


def test_scores_that_tie_are_kept_in_the_order_of_the_boxes():
    given = drawn_flood(320, 3)
    given[..., 4:] = (given[..., 4:] * 4).round() / 4
    assert torch.equal(rows_of(non_max_suppression(given, EVALUATION_NMS)[0]), rows_of(with_torchvision(given[0])))


def test_images_of_a_batch_do_not_meet_whatever_the_threads():
    given = torch.cat([drawn_flood(256, 3, seed=seed) for seed in range(5)])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = non_max_suppression(given, EVALUATION_NMS)
    finally:
        torch.set_num_threads(threads)
    for number, found in enumerate(together):
        assert torch.equal(rows_of(found), rows_of(non_max_suppression(given[number : number + 1], EVALUATION_NMS)[0]))


@pytest.mark.parametrize("overlap", [0.01, 0.3, 0.6, 0.99, 1.0])
def test_no_pair_is_overlooked_at_any_overlap(overlap):
    boxes, scores = dense_candidates(1500, 4)
    boxes = torch.cat((boxes, boxes[:300], boxes[300:600] * 1.001))
    scores = torch.cat((scores, scores[:300] * 0.01, scores[300:600] * 0.005)).sort(descending=True)[0]
    kept = greedy_nms(boxes, scores, iou_threshold=overlap, limit=10**6)
    assert torch.equal(kept, torchvision.ops.nms(boxes, scores, overlap)) and 1 < len(kept) < len(boxes) + (
        overlap == 1.0
    )


def odd_predictions(trial, draw):
    """Predictions with ties, numbers that are none, boxes without area or without end, in turn."""
    classes = int(torch.randint(1, 6, (1,), generator=draw))
    count = int(torch.randint(0, 4000 if trial % 3 else 40, (1,), generator=draw))
    boxes = torch.rand(2, count, 4, generator=draw) * torch.tensor([600.0, 400, 120, 90]) + 5 * (trial % 2)
    found = torch.cat((boxes, torch.rand(2, count, 1 + classes, generator=draw)), 2)
    if trial % 4 == 1:
        found[..., 4:] = (found[..., 4:] * 8).round() / 8
    if count:
        some = torch.randint(0, count, (9,), generator=draw)
        if trial % 5 == 2:
            found[0, some, torch.randint(0, 5 + classes, (9,), generator=draw)] = torch.nan
        if trial % 7 == 3:
            found[1, some, torch.randint(0, 4, (9,), generator=draw)] = torch.inf
        if trial % 6 == 4:
            found[:, ::3, 2:4] = 0
    return found


def test_the_kernel_gives_the_bits_of_torch(way, monkeypatch):
    if way == "torch":
        pytest.skip("compares both")
    draw, rows = torch.Generator().manual_seed(0), 0
    for trial in range(60):
        given = odd_predictions(trial, draw)
        for multi_label in (True, False):
            settings = NmsSettings(
                conf_threshold=(0.001, 0.25, 0.0)[trial % 3],
                iou_threshold=(0.45, 0.6, 0.7, 0.02)[trial % 4],
                max_detections=(300, 5, 1000)[trial % 3],
                multi_label=multi_label,
                agnostic=bool(trial % 2),
                classes=(None, [0], [0, 2])[trial % 3],
            )
            found = non_max_suppression(given, settings)
            with monkeypatch.context() as without:
                without.setattr(nms, "load", lambda name: None)
                expected = non_max_suppression(given, settings)
            for one, other in zip(found, expected, strict=True):
                rows += len(one)
                assert torch.equal(rows_of(one), rows_of(other)), trial
    assert rows > 10_000

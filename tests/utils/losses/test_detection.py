"""The detection loss: against recorded references, and in closed form on a single cell."""

import json
import math

import numpy as np
import pytest
import torch

from tests.helpers.data_oracles import REFERENCE
from utils.losses.detection import DetectionLoss, LossSettings, LossWeights

STRIDES = (8, 16, 32)
ANCHORS_PX = torch.tensor(
    [
        [[10, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ],
    dtype=torch.float32,
)
ANCHORS = ANCHORS_PX / torch.tensor(STRIDES).view(3, 1, 1)
DESCRIPTION = json.loads((REFERENCE / "loss.json").read_text())
CASES = DESCRIPTION["cases"]


@pytest.fixture(scope="module")
def arrays():
    with np.load(REFERENCE / "loss.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def loss_of(case, **changes):
    """Return a function from raw predictions and targets to the weighted losses, as the reference has them."""
    hyp = {name: DESCRIPTION["hyp"][name] for name in ("obj_pw", "cls_pw", "anchor_t")}
    shape = {"fl_gamma": case["fl_gamma"], "label_smoothing": case["label_smoothing"], **changes}
    loss = DetectionLoss(LossSettings(**hyp, **shape), anchors=ANCHORS, num_classes=case["nc"])
    weights = LossWeights(**{name: DESCRIPTION["hyp"][name] for name in ("box", "obj", "cls")})
    return lambda raw, targets: weights.apply(loss(raw, targets))


def inputs(arrays, number):
    raw = [arrays[f"case{number}_pred{level}"].clone().requires_grad_() for level in range(3)]
    return raw, arrays[f"case{number}_targets"]


def parts(losses):
    return torch.stack([losses["box"], losses["obj"], losses["cls"]])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_losses_and_gradients_are_those_of_the_reference(arrays, case):
    number = case["case"]
    raw, targets = inputs(arrays, number)
    losses = loss_of(case)(raw, targets)
    total = sum(losses.values()) * len(raw[0])
    total.backward()
    torch.testing.assert_close(parts(losses).detach(), arrays[f"case{number}_items_box_obj_cls"], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(total.detach().view(1), arrays[f"case{number}_loss"], rtol=1e-5, atol=0)
    for level, prediction in enumerate(raw):
        expected = arrays[f"case{number}_grad{level}"]
        assert expected.abs().max() > 0
        assert (prediction.grad - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_losses_without_targets_are_those_of_the_reference(arrays, case):
    raw, targets = inputs(arrays, case["case"])
    losses = parts(loss_of(case)(raw, targets[:0])).detach()
    torch.testing.assert_close(losses, arrays[f"case{case['case']}_items_no_targets"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"case{case['case']}")
def test_empty_batch_is_finite_and_has_gradients(arrays, case):
    raw, targets = inputs(arrays, case["case"])
    losses = loss_of(case)(raw, targets[:0])
    sum(losses.values()).backward()
    assert losses["box"] == losses["cls"] == 0 and losses["obj"] > 0
    for prediction in raw:
        assert prediction.grad.isfinite().all()
        assert (prediction.grad[..., 4] > 0).all() and not prediction.grad[..., :4].any()


def test_extreme_logits_stay_finite(arrays):
    raw, targets = inputs(arrays, 0)
    for value in (-80.0, 80.0):
        extreme = [torch.full_like(prediction, value).requires_grad_() for prediction in raw]
        losses = loss_of(CASES[0])(extreme, targets)
        sum(losses.values()).backward()
        assert all(loss.isfinite() for loss in losses.values())
        assert all(prediction.grad.isfinite().all() for prediction in extreme)


def test_half_precision_logits_are_computed_in_float32(arrays):
    raw, targets = inputs(arrays, 0)
    rounded = [prediction.detach().half() for prediction in raw]
    half, full = (
        loss_of(CASES[0])(maps, targets) for maps in (rounded, [prediction.float() for prediction in rounded])
    )
    assert half["box"].dtype == torch.float32
    assert torch.equal(parts(half), parts(full))


def test_order_of_images_does_not_matter(arrays):
    raw, targets = inputs(arrays, 0)
    turned = [prediction.flip(0) for prediction in raw]
    swapped = targets.clone()
    swapped[:, 0] = 2 - swapped[:, 0]
    torch.testing.assert_close(
        parts(loss_of(CASES[0])(turned, swapped)), parts(loss_of(CASES[0])(raw, targets)), rtol=1e-5, atol=1e-6
    )


def test_one_class_has_no_class_loss(arrays):
    raw, targets = inputs(arrays, 1)
    losses = loss_of(CASES[1])(raw, targets)
    assert losses["cls"] == 0 and losses["box"] > 0


def single_cell(**settings):
    """A loss of one level with one anchor of 2 x 2 cells, raw predictions of 4 x 6 cells, and one object.

    The object is in the middle of cell (1, 2), where no neighbour is nearest, and as large as the anchor: logits of 0
    predict its box exactly.
    """
    anchors = torch.tensor([[[2.0, 2.0]]])
    loss = DetectionLoss(LossSettings(**settings), anchors=anchors, num_classes=3)
    targets = torch.tensor([[0, 1, 2.5 / 6, 1.5 / 4, 2 / 6, 2 / 4]])
    return loss, torch.zeros(1, 1, 4, 6, 8), targets


CELLS = 24
BALANCE = 4.0  # of the first level


def softplus(x):
    """Cross entropy of a logit x with the target 0; that of the target 1 is softplus(-x)."""
    return math.log1p(math.exp(x))


def test_the_box_loss_is_one_minus_ciou():
    loss, raw, targets = single_cell()
    assert loss([raw], targets)["box"].item() == pytest.approx(0, abs=1e-5)
    raw[0, 0, 1, 2, 2] = logit = 1.0  # a wider box with the same centre: CIoU has no distance term
    width = 2 * (2 / (1 + math.exp(-logit))) ** 2
    iou = 2 / width
    aspect = 4 / math.pi**2 * (math.atan(1) - math.atan(width / 2)) ** 2
    ciou = iou - aspect**2 / (1 - iou + aspect)
    assert loss([raw], targets)["box"].item() == pytest.approx(1 - ciou, rel=1e-4)
    # The objectness target is that CIoU in the object's cell, and 0 in the others.
    raw[0, 0, 1, 2, 4] = 0.5
    cell = ciou * softplus(-0.5) + (1 - ciou) * softplus(0.5)
    expected = BALANCE * (cell + (CELLS - 1) * softplus(0.0)) / CELLS
    assert loss([raw], targets)["obj"].item() == pytest.approx(expected, rel=1e-4)


def test_the_class_loss_is_the_mean_cross_entropy_of_the_classes():
    loss, raw, targets = single_cell()
    assert loss([raw], targets)["cls"].item() == pytest.approx(math.log(2), rel=1e-5)
    raw[0, 0, 1, 2, 5:] = torch.tensor([0.5, 2.0, -1.0])
    expected = (softplus(0.5) + softplus(-2.0) + softplus(-1.0)) / 3
    assert loss([raw], targets)["cls"].item() == pytest.approx(expected, rel=1e-5)
    raw[0, 0, 0, 0, 5:] = 9.0  # classes count in matched cells only
    assert loss([raw], targets)["cls"].item() == pytest.approx(expected, rel=1e-5)


def test_smoothed_labels_move_half_of_epsilon_to_the_other_side():
    loss, raw, targets = single_cell(label_smoothing=0.2)
    raw[0, 0, 1, 2, 5:] = torch.tensor([0.5, 2.0, -1.0])
    wrong = sum(0.9 * softplus(x) + 0.1 * softplus(-x) for x in (0.5, -1.0))
    right = 0.9 * softplus(-2.0) + 0.1 * softplus(2.0)
    assert loss([raw], targets)["cls"].item() == pytest.approx((wrong + right) / 3, rel=1e-5)


def test_positive_weights_multiply_the_part_of_the_positive_target():
    plain, weighted = (single_cell(**settings) for settings in ({}, {"cls_pw": 3.0, "obj_pw": 2.0}))
    raw, targets = plain[1], plain[2]
    raw[0, 0, 1, 2, 5:] = torch.tensor([0.5, 2.0, -1.0])
    expected = (softplus(0.5) + 3 * softplus(-2.0) + softplus(-1.0)) / 3
    losses = weighted[0]([raw], targets)
    assert losses["cls"].item() == pytest.approx(expected, rel=1e-5)
    objectness = BALANCE * (2 * softplus(0.0) + (CELLS - 1) * softplus(0.0)) / CELLS  # the object's cell has target 1
    assert losses["obj"].item() == pytest.approx(objectness, rel=1e-4)
    assert losses["box"].item() == plain[0]([raw], targets)["box"].item()


def test_focal_loss_weighs_by_alpha_and_certainty():
    loss, raw, targets = single_cell(fl_gamma=1.5)
    logits = (0.5, 2.0, -1.0)
    raw[0, 0, 1, 2, 5:] = torch.tensor(logits)

    def focal(logit, target):
        p_t = 1 / (1 + math.exp(-logit if target else logit))
        return (0.25 if target else 0.75) * (1 - p_t) ** 1.5 * -math.log(p_t)

    expected = sum(focal(logit, index == 1) for index, logit in enumerate(logits)) / 3
    losses = loss([raw], targets)
    assert losses["cls"].item() == pytest.approx(expected, rel=1e-5)
    objectness = BALANCE * (focal(0.0, True) + (CELLS - 1) * focal(0.0, False)) / CELLS
    assert losses["obj"].item() == pytest.approx(objectness, rel=1e-3)


def test_the_later_target_sets_the_objectness_of_a_shared_cell():
    loss, _, _ = single_cell()
    same = [0, 0, 2.5 / 6, 1.5 / 4, 2 / 6, 2 / 4]
    small = [0, 0, 2.5 / 6, 1.5 / 4, 1 / 6, 1 / 4]
    for rows, iou in (([same], 1.0), ([small], 0.25), ([small, same], 1.0), ([same, small], 0.25)):
        raw = torch.zeros(1, 1, 4, 6, 8, requires_grad=True)
        loss([raw], torch.tensor(rows))["obj"].backward()
        # The gradient of the cross entropy at logit 0 is 1/2 - target.
        assert raw.grad[0, 0, 1, 2, 4].item() == pytest.approx(BALANCE * (0.5 - iou) / CELLS, rel=1e-4)


def test_levels_are_balanced_by_their_number():
    for levels, balance in ((3, (4.0, 1.0, 0.4)), (4, (4.0, 1.0, 0.25, 0.06)), (5, (4.0, 1.0, 0.25, 0.06, 0.02))):
        loss = DetectionLoss(LossSettings(), anchors=torch.ones(levels, 1, 2), num_classes=2)
        for level, expected in enumerate(balance):
            raw = [torch.full((1, 1, 2, 3, 7), -80.0) for _ in range(levels)]
            raw[level][..., 4] = 0.0
            value = loss(raw, torch.zeros(0, 6))["obj"].item()
            assert value == pytest.approx(expected * math.log(2), rel=1e-5)


def test_weights_multiply_their_components():
    losses = {"box": torch.tensor(2.0), "obj": torch.tensor(3.0), "cls": torch.tensor(4.0)}
    weighted = LossWeights(box=0.5, obj=2.0, cls=0.25).apply(losses)
    assert {name: value.item() for name, value in weighted.items()} == {"box": 1.0, "obj": 6.0, "cls": 1.0}


def test_weights_scale_with_levels_classes_and_image_size():
    scaled = LossWeights(box=0.05, obj=1.0, cls=0.5).scaled(levels=4, num_classes=20, image_size=320)
    assert scaled.box == pytest.approx(0.0375)
    assert scaled.cls == pytest.approx(0.5 * 20 / 80 * 0.75)
    assert scaled.obj == pytest.approx(0.25 * 0.75)
    assert LossWeights().scaled(levels=3, num_classes=80, image_size=640) == LossWeights()

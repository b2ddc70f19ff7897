import json

import numpy as np
import pytest
import torch

from tests.helpers.data_oracles import REFERENCE
from utils.losses.detection import DetectionLoss, LossSettings

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
    hyp = {name: DESCRIPTION["hyp"][name] for name in ("box", "obj", "cls", "obj_pw", "cls_pw", "anchor_t")}
    shape = {"fl_gamma": case["fl_gamma"], "label_smoothing": case["label_smoothing"], **changes}
    settings = LossSettings(**hyp, **shape)
    options = {"num_classes": case["nc"], "autobalance": case["autobalance"]}
    return DetectionLoss(settings, anchors=ANCHORS, strides=STRIDES, **options)


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
        wanted = arrays[f"case{number}_grad{level}"]
        assert wanted.abs().max() > 0
        assert (prediction.grad - wanted).abs().max() <= 1e-5 * wanted.abs().max()


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


def test_a_perfect_box_costs_nothing_and_a_worse_one_more():
    anchors = torch.tensor([[[2.0, 2.0]]])
    loss = DetectionLoss(LossSettings(box=1.0, obj=1.0, cls=1.0), anchors=anchors, strides=(8,), num_classes=2)
    targets = torch.tensor([[0, 1, 0.5 / 6 + 2 / 6, 0.5 / 4 + 1 / 4, 2 / 6, 2 / 4]])  # the middle of cell (1, 2)
    raw = torch.zeros(1, 1, 4, 6, 7)  # logits of 0 mean the cell's middle and the anchor's size
    perfect = loss([raw], targets)
    assert perfect["box"].item() == pytest.approx(0, abs=1e-5)
    raw[0, 0, 1, 2, 2] = 1.0
    assert loss([raw], targets)["box"] > 0.1
    raw[0, 0, 1, 2, 2], raw[0, 0, 1, 2, 6] = 0.0, 5.0
    assert loss([raw], targets)["cls"] < perfect["cls"]


def test_later_target_decides_the_objectness_of_a_shared_cell():
    anchors = torch.tensor([[[2.0, 2.0]]])
    loss = DetectionLoss(LossSettings(obj=1.0), anchors=anchors, strides=(8,), num_classes=1)
    same = [0, 0, 2.5 / 6, 1.5 / 4, 2 / 6, 2 / 4]
    small = [0, 0, 2.5 / 6, 1.5 / 4, 1 / 6, 1 / 4]
    gradients = []
    for rows in ([same], [small], [small, same], [same, small]):
        raw = torch.zeros(1, 1, 4, 6, 6, requires_grad=True)
        loss([raw], torch.tensor(rows))["obj"].backward()
        gradients.append(raw.grad[..., 4])
    assert not torch.allclose(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[2], gradients[0])
    torch.testing.assert_close(gradients[3], gradients[1])


def test_smoothing_and_focal_and_positive_weights_change_the_loss(arrays):
    raw, targets = inputs(arrays, 0)
    plain = loss_of(CASES[0])(raw, targets)
    smooth = loss_of(CASES[0], label_smoothing=0.1)(raw, targets)
    focal = loss_of(CASES[0], fl_gamma=1.5)(raw, targets)
    assert smooth["obj"] == plain["obj"] and smooth["cls"] != plain["cls"]
    assert focal["obj"] < plain["obj"] and focal["cls"] < plain["cls"] and focal["box"] == plain["box"]


def test_autobalance_leaves_the_middle_level_at_one(arrays):
    raw, targets = inputs(arrays, 3)
    loss = loss_of(CASES[3])
    start = list(loss.balance)
    loss(raw, targets)
    assert start == [4.0, 1.0, 0.4] and loss.balance[1] == 1.0
    assert loss.balance != start and loss.balance == pytest.approx(start, rel=0.01)
    fixed = loss_of(CASES[0])
    fixed(*inputs(arrays, 0))
    assert fixed.balance == start


def test_settings_scale_with_levels_classes_and_size():
    scaled = LossSettings(box=0.05, obj=1.0, cls=0.5, anchor_t=3.0).scaled(levels=4, num_classes=20, image_size=320)
    assert scaled.box == pytest.approx(0.0375)
    assert scaled.cls == pytest.approx(0.5 * 20 / 80 * 0.75)
    assert scaled.obj == pytest.approx(0.25 * 0.75)
    assert scaled.anchor_t == 3.0
    same = LossSettings().scaled(levels=3, num_classes=80, image_size=640)
    assert same == LossSettings()

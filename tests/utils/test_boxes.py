"""Box arithmetic against reference numbers, loops and torchvision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from utils.boxes import cxcywh_to_xyxy, paired_iou, pairwise_iou, xyxy_to_cxcywh

KINDS = {"iou": "IoU", "giou": "GIoU", "diou": "DIoU", "ciou": "CIoU"}
number = st.floats(-1000, 1000, width=32)
length = st.floats(0.5, 500, width=32)
box_cxcywh = st.tuples(number, number, length, length)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def random_boxes(count, dtype=torch.float64):
    return torch.cat((torch.rand(count, 2) * 20, torch.rand(count, 2) * 15 + 0.5), 1).to(dtype)


def overlap_by_hand(first, second):
    """IoU and its penalised forms of two cx, cy, w, h boxes, written out."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = first, second
    w = max(0.0, min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2))
    h = max(0.0, min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2))
    hull_w = max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)
    hull_h = max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    union = aw * ah + bw * bh - w * h
    iou = w * h / union
    diou = iou - ((ax - bx) ** 2 + (ay - by) ** 2) / (hull_w**2 + hull_h**2)
    aspect = 4 / math.pi**2 * (math.atan(aw / ah) - math.atan(bw / bh)) ** 2
    alpha = aspect / (1 - iou + aspect) if aspect else 0.0
    giou = iou - (hull_w * hull_h - union) / (hull_w * hull_h)
    return {"iou": iou, "giou": giou, "diou": diou, "ciou": diou - alpha * aspect}


@pytest.mark.parametrize("kind", KINDS)
def test_paired_iou_agrees_with_the_reference(kind, reference):
    with np.load(reference / "iou.npz") as arrays:
        first, second, expected = (torch.from_numpy(arrays[key]) for key in ("xywh1", "xywh2", KINDS[kind]))
    torch.testing.assert_close(paired_iou(first, second, kind=kind), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(paired_iou(second, first, kind=kind), expected, rtol=0, atol=1e-5)


@quick
@given(first=box_cxcywh, second=box_cxcywh, kind=st.sampled_from(list(KINDS)))
def test_paired_iou_equals_the_formula_written_out(first, second, kind):
    pair = [torch.tensor([box], dtype=torch.float64) for box in (first, second)]
    expected = overlap_by_hand(first, second)[kind]
    assert paired_iou(*pair, kind=kind).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("second", "iou", "giou", "diou"),
    [
        ((2, 3, 4, 6), 1, 1, 1),
        ((4, 3, 4, 6), 1 / 3, 1 / 3, 1 / 3 - 4 / 72),
        ((8, 3, 4, 6), 0, -0.2, -36 / 136),
        ((2, 3, 2, 3), 0.25, 0.25, 0.25),
    ],
)
def test_paired_iou_of_simple_boxes(second, iou, giou, diou):
    first, second = torch.tensor([2.0, 3, 4, 6]), torch.tensor(second, dtype=torch.float32)
    for kind, expected in (("iou", iou), ("giou", giou), ("diou", diou)):
        assert paired_iou(first, second, kind=kind).item() == pytest.approx(expected, abs=1e-6)


def test_paired_iou_is_plain_unless_asked_and_broadcasts():
    first, second = random_boxes(5), random_boxes(3)
    table = paired_iou(first[:, None], second)
    assert table.shape == (5, 3)
    torch.testing.assert_close(table, box_iou(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_and_only_plain_iou_loses_them_apart(kind):
    first = torch.tensor([[2.0, 3, 4, 6], [2, 3, 4, 6], [2, 3, 4, 6]], requires_grad=True)
    second = torch.tensor([[9.0, 13, 2, 5], [2, 3, 4, 6], [3, 5, 5, 2]])
    paired_iou(first, second, kind=kind).sum().backward()
    assert first.grad.isfinite().all()
    assert bool(first.grad[0].any()) is (kind != "iou")
    assert first.grad[2].all()


def test_the_trade_off_of_ciou_is_constant_in_the_gradient():
    first, second = random_boxes(6), random_boxes(6)
    first.requires_grad_()
    aspect = 4 / math.pi**2 * ((first[:, 2] / first[:, 3]).atan() - (second[:, 2] / second[:, 3]).atan()) ** 2
    alpha = (aspect / (1 - paired_iou(first, second) + aspect)).detach()
    (expected,) = torch.autograd.grad((paired_iou(first, second, kind="diou") - alpha * aspect).sum(), first)
    (actual,) = torch.autograd.grad(paired_iou(first, second, kind="ciou").sum(), first)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_without_area_give_finite_numbers(kind):
    empty = torch.zeros(1, 4, requires_grad=True)
    value = paired_iou(empty, torch.zeros(1, 4), kind=kind)
    value.sum().backward()
    assert value.isfinite().all()
    assert empty.grad.isfinite().all()


@quick
@given(boxes=st.lists(box_cxcywh, max_size=5))
def test_conversions_undo_each_other(boxes):
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    np.testing.assert_allclose(xyxy_to_cxcywh(cxcywh_to_xyxy(array)), array, atol=1e-9)
    np.testing.assert_allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(array)), array, atol=1e-9)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_conversions_of_arrays_and_tensors(make):
    centres, corners = make([[[5.0, 7.0, 4.0, 2.0]]]), make([[[3.0, 6.0, 7.0, 8.0]]])
    assert cxcywh_to_xyxy(centres).tolist() == corners.tolist()
    assert xyxy_to_cxcywh(corners).tolist() == centres.tolist()
    assert type(cxcywh_to_xyxy(centres)) is type(centres)
    assert centres.tolist() == [[[5.0, 7.0, 4.0, 2.0]]]


def test_pairwise_iou_equals_torchvision_and_takes_none():
    first, second = cxcywh_to_xyxy(random_boxes(7)), cxcywh_to_xyxy(random_boxes(4))
    np.testing.assert_allclose(pairwise_iou(first.numpy(), second.numpy()), box_iou(first, second).numpy(), atol=1e-6)
    assert pairwise_iou(first[:0].numpy(), second.numpy()).shape == (0, 4)
    assert pairwise_iou(first.numpy(), second[:0].numpy()).shape == (7, 0)


def test_pairwise_iou_of_boxes_that_touch_or_lie_apart_on_both_axes_is_zero():
    first = np.array([[0.0, 0.0, 4.0, 6.0]])
    second = np.array([[4.0, 0.0, 8.0, 6.0], [9.0, 9.0, 10.0, 12.0], [1.0, 7.0, 2.0, 9.0]])
    assert pairwise_iou(first, second).tolist() == [[0, 0, 0]]

"""The detection head: raw maps, and their decoding against a loop."""

import math

import numpy as np
import pytest
import torch

from models.head import Detect, decode
from utils.errors import ConfigError

ANCHORS = ((10, 13, 16, 30, 33, 23), (30, 61, 62, 45, 59, 119))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def decode_by_loop(raw, anchors, stride):
    batch, num_anchors, height, width, numbers = raw.shape
    rows = []
    for b in range(batch):
        for a in range(num_anchors):
            for i in range(height):
                for j in range(width):
                    p = [sigmoid(float(v)) for v in raw[b, a, i, j]]
                    centre = [(2 * p[0] - 0.5 + j) * stride, (2 * p[1] - 0.5 + i) * stride]
                    size = [(2 * p[2]) ** 2 * anchors[a][0] * stride, (2 * p[3]) ** 2 * anchors[a][1] * stride]
                    rows.append([*centre, *size, *p[4:]])
    return np.array(rows).reshape(batch, -1, numbers)


def make_head(num_classes=3, strides=(8, 16)):
    head = Detect(num_classes, ANCHORS, (4, 6))
    head.set_strides(strides, where="test.yaml")
    return head


def two_maps(batch=2):
    return [torch.randn(batch, 4, 6, 10), torch.randn(batch, 6, 3, 5)]


@pytest.mark.parametrize("numbers", [6, 9])
def test_decode_equals_a_loop(numbers):
    raw = torch.randn(2, 3, 4, 7, numbers, dtype=torch.float64) * 3
    anchors = torch.tensor([[1.25, 1.625], [2, 3.75], [4.125, 2.875]], dtype=torch.float64)
    expected = decode_by_loop(raw, anchors.tolist(), 8)
    np.testing.assert_allclose(decode(raw, anchors, 8).numpy(), expected, rtol=1e-13)


def test_decode_reaches_half_a_cell_around_and_four_times_the_anchor():
    raw = torch.full((1, 1, 2, 3, 6), 100.0)
    low, high = decode(-raw, torch.tensor([[2.0, 5.0]]), 10), decode(raw, torch.tensor([[2.0, 5.0]]), 10)
    assert low[0, -1].tolist() == [15, 5, 0, 0, 0, 0]  # column 2, row 1
    assert high[0, -1].tolist() == [35, 25, 80, 200, 1, 1]


def test_raw_maps_hold_each_anchors_numbers_last():
    head = make_head()
    maps = two_maps()
    raw = head.train()(maps)
    assert [tuple(level.shape) for level in raw] == [(2, 3, 6, 10, 8), (2, 3, 3, 5, 8)]
    for conv, level, x in zip(head.m, raw, maps, strict=True):
        y = conv(x)
        for anchor in range(3):
            for number in range(8):
                assert torch.equal(level[:, anchor, :, :, number], y[:, anchor * 8 + number])


def test_evaluation_mode_returns_predictions_of_all_levels_finest_first():
    head = make_head().eval()
    decoded, raw = head(two_maps())
    assert decoded.shape == (2, 3 * (60 + 15), 8)
    levels = [decode(level, head.anchors[i], (8, 16)[i]) for i, level in enumerate(raw)]
    torch.testing.assert_close(decoded, torch.cat(levels, 1))
    torch.testing.assert_close(head.decode(raw), decoded)


def test_inputs_are_not_changed():
    maps = two_maps()
    before = [level.clone() for level in maps]
    make_head().eval()(maps)
    assert len(maps) == 2
    assert all(torch.equal(a, b) for a, b in zip(maps, before, strict=True))


def test_anchors_are_kept_in_units_of_the_stride_and_saved():
    head = make_head()
    expected = torch.tensor(ANCHORS).view(2, 3, 2) / torch.tensor([8, 16]).view(2, 1, 1)
    torch.testing.assert_close(head.anchors, expected)
    assert set(head.state_dict()) == {"anchors", "m.0.weight", "m.0.bias", "m.1.weight", "m.1.bias"}


def test_biases_start_rare():
    head = Detect(3, ANCHORS, (4, 6))
    for conv in head.m:
        torch.nn.init.zeros_(conv.bias)
    head.set_strides((8, 16), where="test.yaml")
    for conv, stride in zip(head.m, (8, 16), strict=True):
        bias = conv.bias.view(3, 8)
        assert bias[:, :4].count_nonzero() == 0
        torch.testing.assert_close(bias[:, 4], torch.full((3,), math.log(8 / (640 / stride) ** 2)))
        torch.testing.assert_close(bias[:, 5:], torch.full((3, 3), math.log(0.6 / (3 - 0.99999))))
        assert conv.bias.requires_grad


def test_strides_in_no_order_are_refused():
    head = Detect(3, [[8, 9], [10, 13], [30, 20]], (4, 6, 8))
    with pytest.raises(ConfigError) as caught:
        head.set_strides((8, 32, 16), where="test.yaml")
    assert caught.value.where == "test.yaml" and "[8, 32, 16]" in caught.value.what


def test_levels_without_anchors_are_refused():
    with pytest.raises(ValueError, match=r"\b3\b.*\b2\b"):
        Detect(3, ANCHORS, (4, 6, 8))


def test_gradients_reach_every_parameter():
    head = make_head().train()
    sum(level.square().sum() for level in head(two_maps())).backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decoded_in_float32(dtype):
    # 640 x 640 px at stride 8: half precision steps by half a pixel from 512 on, bfloat16 by 4.
    raw = (torch.randn(1, 3, 80, 80, 6, generator=torch.Generator().manual_seed(0)) * 2).to(dtype)
    anchors = torch.tensor([[1.2573, 1.6291], [2.0137, 3.7719], [4.1234, 2.8765]])
    found, expected = decode(raw, anchors, 8), decode(raw.double(), anchors.double(), 8)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)
    rounded = decode(raw.double(), anchors.double(), 8).to(dtype).double()
    assert (rounded - expected)[..., :4].abs().max() > 0.1, "the case would show half precision"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_in_half_precision_keeps_its_anchors(dtype):
    head = make_head().eval()
    with torch.no_grad():
        head.anchors *= 1.0371
    kept = head.anchors.clone()
    expected = head.decode([torch.ones(1, 3, 6, 10, 8), torch.ones(1, 3, 3, 5, 8)])
    cast = head.to(dtype)
    assert cast is head and cast.m[0].weight.dtype == dtype and torch.equal(cast.anchors, kept)
    maps = [level.to(dtype) for level in two_maps()]
    with torch.no_grad():
        decoded, raw = cast(maps)
    assert decoded.dtype == torch.float32 and {level.dtype for level in raw} == {dtype}
    assert torch.equal(cast.decode([torch.ones(1, 3, *s, 8, dtype=dtype) for s in ((6, 10), (3, 5))]), expected)
    assert torch.equal(cast.float().anchors, kept)
    assert cast.double().anchors.dtype == torch.float64


def test_in_mixed_precision_boxes_are_float32():
    head = make_head().eval()
    maps = two_maps(1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        decoded, raw = head(maps)
    assert raw[0].dtype == torch.bfloat16 and decoded.dtype == torch.float32
    assert torch.equal(decoded, head.decode(raw))


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_single_precision_is_traced_without_a_cast():
    raw, anchors = torch.randn(1, 2, 3, 5, 7), torch.rand(2, 2)
    graph = torch.jit.trace(lambda maps: decode(maps, anchors, 8), raw).graph
    entry = next(graph.inputs()).debugName()
    kinds = {node.kind() for node in graph.nodes() if entry in [value.debugName() for value in node.inputs()]}
    assert "aten::sigmoid" in kinds and "aten::to" not in kinds

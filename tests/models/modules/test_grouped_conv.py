"""MixConv2d and DWConvTranspose2d: channels, groups and parameters of YOLOv5's."""

import math

import pytest
import torch

from models.modules.grouped_conv import DWConvTranspose2d, MixConv2d, channels_of_equal_weights, equal_channels
from models.yolo import DetectionModel


@pytest.mark.parametrize(("channels", "kernels"), [(16, 2), (33, 2), (64, 3), (7, 3), (40, 4), (1, 1)])
def test_channels_are_shared_as_the_floor_of_evenly_spaced_numbers(channels: int, kernels: int) -> None:
    spaced = torch.linspace(0, kernels - 1e-6, channels, dtype=torch.float64).floor()
    assert equal_channels(channels, kernels) == [int((spaced == kernel).sum()) for kernel in range(kernels)]


def test_shares_may_have_equal_weights() -> None:
    assert channels_of_equal_weights(100, (1, 3)) == [90, 10]
    assert sum(channels_of_equal_weights(17, (1, 3, 5))) == 17


def test_mixed_kernels_give_the_channels_and_the_size() -> None:
    layer = MixConv2d(8, 16, (1, 3, 5), 2).eval()
    assert layer(torch.rand(2, 8, 6, 10)).shape == (2, 16, 3, 5)
    widths = equal_channels(16, 3)
    weights = sum(8 // math.gcd(8, width) * width * k * k for width, k in zip(widths, (1, 3, 5), strict=True))
    assert sum(p.numel() for p in layer.parameters()) == weights + 2 * 16
    with pytest.raises(ValueError, match="too few"):
        MixConv2d(8, 1, (1, 3))


def test_depthwise_transposed_convolution() -> None:
    layer = DWConvTranspose2d(8, 12, 4, 2, 1)
    assert layer.groups == 4 and layer(torch.rand(1, 8, 3, 5)).shape == (1, 12, 6, 10)
    assert sum(p.numel() for p in layer.parameters()) == 8 * 12 // 4 * 16 + 12


def test_rows_of_yamls() -> None:
    value = {
        "nc": 2,
        "width_multiple": 0.25,
        "anchors": [[10, 13], [30, 61]],
        "backbone": [
            [-1, 1, "Conv", [32, 6, 2, 2]],
            [-1, 1, "MixConv2d", [64, [1, 3], 2]],
            [-1, 1, "Conv", [64, 3, 2]],
            [-1, 1, "DWConvTranspose2d", [64, 4, 2, 1]],
        ],
        "head": [[-1, 1, "Conv", [128, 3, 2]], [[3, 4], 1, "Detect", ["nc", "anchors"]]],
    }
    model = DetectionModel(value)
    assert model.head.strides == (4, 8)
    assert sum(p.numel() for p in model.model[1].parameters()) == 8 * 1 + 8 * 9 + 2 * 16
    assert sum(p.numel() for p in model.model[3].parameters()) == 16 * 16 + 16

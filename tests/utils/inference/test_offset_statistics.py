"""Offset statistics of an AKConv layer against a plain loop over its points."""

import math
from dataclasses import replace

import pytest
import torch

from utils.inference.offset_statistics import layer_offsets, mean_offsets
from utils.inference.sampling_points import LayerSampling


def sampling(offset: torch.Tensor, size_hw: tuple[int, int], *, stride: int = 1, points=((0, 0), (1, 0))):
    return LayerSampling(
        name="model.1", offset=offset, points=torch.tensor(points).float(), stride=stride, size_hw=size_hw
    )


@pytest.mark.parametrize("spread", [0.0, 0.3, 4.0, 100.0])
def test_statistics_match_a_loop(spread: float) -> None:
    height, width, stride, points = 5, 8, 2, ((0, 0), (1, 1), (-1, 2))
    offset = spread * torch.randn(2, 6, 3, 4)
    total, outside, initially_outside, inside, left, count = 0.0, 0, 0, 0, 0, 0
    for b in range(2):
        for i in range(3):
            for j in range(4):
                for n, (row, column) in enumerate(points):
                    dy, dx = offset[b, n, i, j].item(), offset[b, 3 + n, i, j].item()
                    y, x = stride * i + row, stride * j + column
                    count += 1
                    total += (abs(dy) + abs(dx)) / 2
                    outside += not (-0.5 <= y + dy <= height - 0.5 and -0.5 <= x + dx <= width - 0.5)
                    initially_outside += not (0 <= y < height and 0 <= x < width)
                    if 0 <= y < height and 0 <= x < width:
                        inside += 1
                        left += not (-1 <= y + dy <= height and -1 <= x + dx <= width)
    offsets = layer_offsets(sampling(offset, (height, width), stride=stride, points=points))
    assert offsets.abs_mean == pytest.approx(total / count, rel=1e-5)
    assert offsets.oob_fraction == pytest.approx(outside / count)
    assert offsets.initial_oob_fraction == pytest.approx(initially_outside / count)
    assert offsets.left_fraction == pytest.approx(left / inside)
    assert offsets.normalized_abs_mean == pytest.approx(offsets.abs_mean / 4.0), "4 px exceed a quarter of 5 px"
    assert offsets.diverged == (spread >= 4)


def test_a_quarter_of_a_large_map_diverges_and_so_does_nan() -> None:
    offset = torch.full((1, 4, 40, 60), 9.0)
    assert not layer_offsets(sampling(offset, (40, 60))).diverged
    assert layer_offsets(sampling(offset + 2, (40, 60))).diverged
    offset[0, 0, 0, 0] = math.nan
    assert layer_offsets(sampling(offset, (40, 60))).diverged


def test_small_maps_and_points_that_start_outside_do_not_diverge() -> None:
    outside = tuple((row, 9) for row in range(13))
    offsets = layer_offsets(sampling(0.1 * torch.randn(1, 26, 2, 2), (2, 2), points=outside))
    assert offsets.oob_fraction == 1 and offsets.left_fraction == 0 and not offsets.diverged
    near = layer_offsets(sampling(torch.full((1, 4, 2, 2), -0.9), (2, 2)))
    assert near.oob_fraction > 0.5 and not near.diverged
    assert layer_offsets(sampling(torch.full((1, 4, 2, 2), -3.1), (2, 2))).left_fraction == 1


def test_the_mean_covers_every_statistic() -> None:
    first = layer_offsets(sampling(torch.full((1, 4, 40, 60), 9.0), (40, 60)))
    second = replace(first, abs_mean=1.0, normalized_abs_mean=0.5, oob_fraction=0.0)
    mean = mean_offsets([first, second])
    assert (mean.abs_mean, mean.normalized_abs_mean) == (5.0, (first.normalized_abs_mean + 0.5) / 2)
    assert (mean.oob_fraction, mean.left_fraction) == (first.oob_fraction / 2, first.left_fraction)

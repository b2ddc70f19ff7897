import itertools

import pytest
import torch

from tests.helpers.data_oracles import slow_matches
from utils.losses.assignment import assign_level

ANCHORS = torch.tensor([[1.25, 1.625], [2.0, 3.75], [4.125, 2.875]], dtype=torch.float64)


def as_rows(matches):
    """Matches in the oracle's format."""
    columns = zip(matches.image, matches.anchor, matches.row, matches.column, matches.classes, strict=True)
    return [(*(int(n) for n in row), *box) for row, box in zip(columns, matches.boxes.tolist(), strict=True)]


def random_targets(count, seed, *, near_border=False):
    draw = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=draw, dtype=torch.float64)
    if near_border:
        centres = torch.where(torch.rand(count, 2, generator=draw) < 0.5, centres * 0.09, 1 - centres * 0.09)
    sizes = torch.exp(torch.rand(count, 2, generator=draw, dtype=torch.float64) * 4.5 - 4.6)
    images, classes = (torch.randint(0, n, (count, 1), generator=draw).double() for n in (4, 7))
    return torch.cat((images, classes, centres, sizes), 1)


@pytest.mark.parametrize("near_border", [False, True])
@pytest.mark.parametrize("size_hw", [(12, 20), (20, 12), (3, 5), (1, 2)])
def test_matches_equal_those_of_a_loop_in_its_order(size_hw, near_border):
    matched = 0
    for seed in range(4):
        targets = random_targets(60, seed, near_border=near_border)
        expected = slow_matches(targets.tolist(), ANCHORS.tolist(), size_hw, 4.0)
        rows = as_rows(assign_level(targets, ANCHORS, size_hw, max_ratio=4.0))
        assert [row[:5] for row in rows] == [tuple(int(v) for v in row[:5]) for row in expected]
        for row, other in zip(rows, expected, strict=True):
            assert row[5:] == pytest.approx(other[5:], abs=1e-9)
        matched += len(rows)
    assert matched > 10


def test_centres_on_cell_borders_and_middles_match_the_cells_of_a_loop():
    size_hw = (4, 6)
    xs, ys = ([i / (4 * n) for i in range(4 * n + 1)] for n in (size_hw[1], size_hw[0]))
    for x, y in itertools.product(xs, ys):
        target = torch.tensor([[0, 2, x, y, 0.3, 0.4]], dtype=torch.float64)
        rows = as_rows(assign_level(target, ANCHORS, size_hw, max_ratio=4.0))
        expected = slow_matches(target.tolist(), ANCHORS.tolist(), size_hw, 4.0)
        assert {row[:5] for row in rows} == {tuple(int(v) for v in row[:5]) for row in expected}
        assert all(0 <= row[2] < 4 and 0 <= row[3] < 6 for row in rows)


def test_a_centre_off_the_borders_matches_no_cell_twice():
    rows = as_rows(assign_level(random_targets(200, 5), ANCHORS, (12, 20), max_ratio=4.0))
    assert len({row[:4] + row[5:] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("centre", "cells"),
    [
        ((2.25, 1.75), {(1, 2), (1, 1), (2, 2)}),
        ((2.75, 1.25), {(1, 2), (1, 3), (0, 2)}),
        ((0.25, 0.25), {(0, 0)}),
        ((5.75, 3.75), {(3, 5)}),
        ((0.25, 3.25), {(3, 0), (2, 0)}),
        ((2.5, 1.5), {(1, 2)}),
    ],
)
def test_an_object_matches_its_cell_and_the_nearest_neighbours_in_the_map(centre, cells):
    target = torch.tensor([[1, 3, centre[0] / 6, centre[1] / 4, 2 / 6, 2 / 4]], dtype=torch.float64)
    matches = assign_level(target, torch.tensor([[2.0, 2.0]], dtype=torch.float64), (4, 6), max_ratio=4.0)
    assert {(int(r), int(c)) for r, c in zip(matches.row, matches.column, strict=True)} == cells
    assert set(matches.image.tolist()) == {1} and set(matches.classes.tolist()) == {3}
    middle = matches.boxes[:, :2] + torch.stack((matches.column, matches.row), 1)
    assert torch.allclose(middle, torch.tensor(centre, dtype=torch.float64).expand_as(middle))
    assert ((matches.boxes[:, :2] >= -0.5) & (matches.boxes[:, :2] <= 1.5)).all(), "sigmoid * 2 - 0.5 cannot reach it"


@pytest.mark.parametrize(("side", "fits"), [(7.9, True), (8.0, False), (0.51, True), (0.5, False)])
def test_an_anchor_matches_if_neither_side_differs_by_the_ratio(side, fits):
    anchors = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    for w, h in ((side, 2.0), (2.0, side)):
        target = torch.tensor([[0, 0, 0.45, 0.45, w / 16, h / 16]], dtype=torch.float64)
        assert (len(assign_level(target, anchors, (16, 16), max_ratio=4.0)) > 0) is fits


def test_no_targets_give_no_matches():
    matches = assign_level(torch.zeros(0, 6), ANCHORS.float(), (4, 6), max_ratio=4.0)
    assert len(matches) == 0 and matches.boxes.shape == (0, 4) and matches.classes.dtype == torch.int64

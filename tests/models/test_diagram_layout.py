"""Boxes and lines of structure diagrams: of random graphs, boxes are apart, and lines cross no box and stay apart."""

import itertools
import random

import pytest

from models.diagram_layout import Point, Rectangle, lay_out, split_columns
from tests.helpers.diagram_geometry import Area, crossed, on_each_other, overlapping


def area(box: Rectangle) -> Area:
    return box.x, box.y, box.x + box.width, box.y + box.height


def random_graph(seed: int):
    """Levels of boxes, the start of the head, and edges; the last boxes are outputs, each beside one source."""
    rng = random.Random(seed)
    count = rng.randint(3, 40)
    levels = [0]
    while len(levels) < count:
        levels.append(min(max(levels[-1] + rng.choice([-1, 0, 0, 0, 1, 1]), 0), 6))
    edges = []
    for t in range(1, count):
        sources = [t - 1 if rng.random() < 0.9 else rng.randrange(t)]
        sources += [rng.randrange(t) for _ in range(rng.choice([0, 0, 0, 1, 1, 2, 5]))]
        edges += [(s, t) for s in sources]
    outputs = [(rng.randrange(1, count), count + number) for number in range(rng.randint(1, 5))]
    columns = [*split_columns(levels, rng.randrange(1, count)), [t for _, t in outputs]]
    return columns, levels + [levels[s] for s, _ in outputs], edges + outputs


def problems(boxes: list[Rectangle], routes: list[list[Point]], edges) -> list[str]:
    areas = [area(box) for box in boxes]
    found = [f"boxes {pair}" for pair in overlapping(areas)]
    for edge, points in zip(edges, routes, strict=True):
        found += [f"{edge} runs through {box}" for box in crossed(points, areas)]
        for (x, y), number in zip((points[0], points[-1]), edge, strict=True):
            left, top, right, bottom = areas[number]
            on_side = x in (left, right) and top < y < bottom
            on_end = y in (top, bottom) and left < x < right
            if not (on_side or on_end):
                found.append(f"{edge} does not touch box {number}")
    for (a, first), (b, second) in itertools.combinations(zip(edges, routes, strict=True), 2):
        distance = 0.3 if a[1] == b[1] else 1.0  # many lines may end at one box
        if a[0] != b[0] and on_each_other(first, second, distance=distance):
            found.append(f"{a} and {b} run along each other")
    return found


@pytest.mark.parametrize("part", range(4))
def test_random_graphs(part: int) -> None:
    corridors = 0
    for seed in range(25 * part, 25 * part + 25):
        columns, levels, edges = random_graph(seed)
        widths = [60.0 + 10 * (number % 3) for number in range(len(columns))]
        boxes, routes = lay_out(columns, levels, edges, widths, left=14, top=40)
        assert not problems(boxes, routes, edges), seed
        by_level = [[box.y for box, level in zip(boxes, levels, strict=True) if level == n] for n in sorted({*levels})]
        assert all(max(upper) < min(lower) for upper, lower in itertools.pairwise(by_level)), seed
        corridors += any(len(points) == 6 for points in routes)
    assert corridors > 5  # the hardest lines occur


def test_columns_begin_where_the_resolution_turns() -> None:
    levels = [0, 1, 2, 3, 3, 3, 2, 1, 1, 2, 2, 3]
    assert split_columns(levels, 5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]
    assert split_columns([0, 1, 1, 0], 0) == [[0, 1, 2], [3]]


def test_a_ladder_has_straight_lines() -> None:
    # Down, then up with a line across on each level, then two outputs.
    columns, levels = [[0, 1, 2], [3, 4, 5], [6, 7]], [1, 2, 3, 3, 2, 1, 3, 1]
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 4), (4, 5), (0, 5), (3, 6), (5, 7)]
    boxes, routes = lay_out(columns, levels, edges, [50, 60, 70], left=10, top=20)
    assert all(len(points) == 2 for points in routes)
    assert [boxes[n].y for n in (0, 1, 2)] == [boxes[n].y for n in (5, 4, 3)]
    assert (boxes[6].y, boxes[7].y) == (boxes[3].y, boxes[5].y)
    assert (boxes[0].x, boxes[0].width, boxes[7].width) == (10, 50, 70)


def test_the_second_of_two_equal_edges_goes_round() -> None:
    edges = [(0, 1), (0, 1), (1, 2)]
    boxes, routes = lay_out([[0, 1], [2]], [1, 1, 1], edges, [50, 50], left=0, top=0)
    assert [len(points) for points in routes] == [2, 4, 2]
    assert not problems(boxes, routes, edges)

"""Interleaved timing by a clock that the test sets."""

import pytest

from utils.benchmarks.timing import Timing, interleave


class Clock:
    """Advances only when an action says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("rotate", "order"),
    [(False, "ab ab ab ab"), (True, "ab ba ab ba")],
)
def test_every_action_runs_once_per_round_in_order(rotate: bool, order: str) -> None:
    clock, calls = Clock(), []

    def action(name: str, seconds: float):
        def run() -> None:
            calls.append(name)
            clock.now += seconds * len(calls)

        return run

    first, second = interleave([action("a", 0.001), action("b", 0.1)], rounds=3, warm_up=1, rotate=rotate, clock=clock)
    assert "".join(calls) == order.replace(" ", "")
    # The n-th call takes n times the action's seconds; the first round warms up.
    positions = {"a": [], "b": []}
    for position, name in enumerate(calls, 1):
        positions[name].append(position)
    assert first.milliseconds == pytest.approx([1.0 * p for p in positions["a"][1:]])
    assert second.milliseconds == pytest.approx([100.0 * p for p in positions["b"][1:]])


def test_a_timing_gives_minimum_median_and_percentile() -> None:
    timing = Timing(tuple(float(value) for value in range(1, 22)))
    assert (timing.minimum, timing.median, timing.p95) == (1, 11, 20)

"""Interleaved timing: every action runs once per round, so that a busy moment affects all of them equally."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Timing:
    """The milliseconds of one action in all rounds."""

    milliseconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """Shortest round."""
        return min(self.milliseconds)

    @property
    def median(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.milliseconds))

    @property
    def p95(self) -> float:
        """95th percentile over the rounds."""
        return float(np.quantile(self.milliseconds, 0.95))


def interleave(
    actions: Sequence[Callable[[], object]],
    *,
    rounds: int,
    device: torch.device | None = None,
    warm_up: int = WARM_UP_ROUNDS,
    rotate: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time actions, each once per round, after `warm_up` rounds that are not timed.

    A CUDA `device` is synchronized before and after each action. With `rotate`, each round starts with the next action.
    `clock` returns seconds.
    """
    on_gpu = device is not None and device.type == "cuda"
    synchronize = functools.partial(torch.cuda.synchronize, device) if on_gpu else lambda: None
    milliseconds: list[list[float]] = [[] for _ in actions]
    for round_index in range(warm_up + rounds):
        first = round_index % len(actions) if rotate else 0
        for index in (*range(first, len(actions)), *range(first)):
            synchronize()
            start = clock()
            actions[index]()
            synchronize()
            if round_index >= warm_up:
                milliseconds[index].append(1000 * (clock() - start))
    return [Timing(tuple(values)) for values in milliseconds]

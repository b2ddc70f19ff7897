"""Parallel work keeps the order, consumes few items ahead, and restores the number of torch's threads."""

import threading
import time

import pytest
import torch

from utils.detection.parallel import parallel_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_keep_the_order_and_items_are_consumed_a_few_ahead(workers: int) -> None:
    consumed: list[int] = []

    def items():
        for item in range(40):
            consumed.append(item)
            yield item

    def work(item: int) -> int:
        time.sleep(0.003 * (item % 3))
        return item * item

    before = torch.get_num_threads()
    for expected, (item, result) in enumerate(parallel_map(work, items(), workers=workers)):
        assert (item, result) == (expected, expected**2)
        assert len(consumed) <= expected + 1 + workers
    assert len(consumed) == 40 and torch.get_num_threads() == before


def test_two_workers_run_at_once_with_one_thread_of_torch_each() -> None:
    barrier = threading.Barrier(2, timeout=60)
    threads = []

    def work(_: int) -> None:
        barrier.wait()
        threads.append(torch.get_num_threads())

    assert len(list(parallel_map(work, range(6), workers=2))) == 6
    assert threads == [1] * 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller_and_stops_the_others(workers: int) -> None:
    before = torch.get_num_threads()

    def work(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    done = []
    with pytest.raises(ValueError, match="item 3"):
        for item, _ in parallel_map(work, range(100), workers=workers):
            done.append(item)
    assert done == [0, 1, 2] and torch.get_num_threads() == before

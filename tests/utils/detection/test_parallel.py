"""Work side by side comes out in order, a few items ahead at most, and leaves torch's threads as they were."""

import threading
import time

import pytest
import torch

from utils.detection.parallel import parallel_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_order_and_items_are_taken_a_few_ahead(workers: int) -> None:
    taken: list[int] = []

    def items():
        for number in range(40):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.003 * (number % 3))
        return number * number

    before = torch.get_num_threads()
    for expected, (item, result) in enumerate(parallel_map(work, items(), workers=workers)):
        assert (item, result) == (expected, expected**2)
        assert len(taken) <= expected + 1 + workers
    assert len(taken) == 40 and torch.get_num_threads() == before


def test_two_are_at_work_at_once_with_one_thread_of_torch_each() -> None:
    meeting = threading.Barrier(2, timeout=60)
    threads = []

    def work(_: int) -> None:
        meeting.wait()
        threads.append(torch.get_num_threads())

    assert len(list(parallel_map(work, range(6), workers=2))) == 6
    assert threads == [1] * 6


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller_and_ends_all(workers: int) -> None:
    before = torch.get_num_threads()

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("not this one")
        return number

    done = []
    with pytest.raises(ValueError, match="not this one"):
        for item, _ in parallel_map(work, range(100), workers=workers):
            done.append(item)
    assert done == [0, 1, 2] and torch.get_num_threads() == before

"""Another process that falls silent is noticed in time, and one that is only slow is not."""

import threading
import time

import pytest
import torch.distributed as dist

from utils import heartbeat
from utils.heartbeat import Heartbeat

INTERVAL = 0.05
TIMEOUT = 0.5


class Group:
    """Heartbeats of several processes, here in threads, and what each reported."""

    def __init__(self, size: int) -> None:
        self.reports: list[list[str]] = [[] for _ in range(size)]
        store = dist.HashStore()
        self.hearts = [
            Heartbeat(store, rank=rank, size=size, timeout=TIMEOUT, on_lost=self.reports[rank].append)
            for rank in range(size)
        ]
        for heart in self.hearts:
            heart.start()

    def stop(self) -> None:
        for heart in self.hearts:
            heart.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", INTERVAL)


def test_nothing_is_reported_while_all_run_nor_after_they_stop() -> None:
    group = Group(3)
    time.sleep(2 * TIMEOUT)
    group.stop()
    time.sleep(2 * TIMEOUT)
    assert group.reports == [[], [], []]


def test_a_silent_process_is_reported_once_by_each_other() -> None:
    group = Group(3)
    started = time.monotonic()
    group.hearts[1].stop()
    while not (group.reports[0] and group.reports[2]):
        assert time.monotonic() - started < 30
        time.sleep(INTERVAL)
    assert time.monotonic() - started >= TIMEOUT - INTERVAL
    time.sleep(TIMEOUT)
    group.stop()
    assert [len(reports) for reports in group.reports] == [1, 0, 1] and group.reports[0] == group.reports[2]
    assert "1 (" in group.reports[0][0] and "of 3" in group.reports[0][0]


class SilentStore(dist.HashStore):
    """A store whose answers stop, as when the link to it is cut, or fail, as when it has ended."""

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.cut, self.error = threading.Event(), error

    def multi_get(self, keys: list[str]) -> list[bytes]:
        if self.cut.is_set():
            if self.error:
                raise dist.DistNetworkError(self.error)
            time.sleep(60)
        return super().multi_get(keys)


@pytest.mark.parametrize("error", ["", "Connection reset by peer"])
def test_a_store_that_does_not_answer_or_has_ended_is_reported(error: str) -> None:
    store, reports = SilentStore(error), []
    heart = Heartbeat(store, rank=0, size=1, timeout=TIMEOUT, on_lost=reports.append)
    heart.start()
    time.sleep(TIMEOUT / 2)
    assert not reports
    store.cut.set()
    deadline = time.monotonic() + 30
    while not reports:
        assert time.monotonic() < deadline
        time.sleep(INTERVAL)
    heart.stop()
    assert error in reports[0]

"""Failures in DataLoader workers: typed errors arrive unchanged, and killed workers are replaced."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.data_oracles import write_data_set
from utils.datasets import loader
from utils.datasets.batching import ShuffledBatches
from utils.datasets.config import load_data_config
from utils.datasets.dataset import DetectionDataset, LoadedSample, SampleKey
from utils.datasets.index import build_index
from utils.datasets.loader import BatchLoader
from utils.errors import DataError, RunError

ROOT = Path(__file__).resolve().parents[3]
SIZE = 64


class Faulty(DetectionDataset):
    """A data set with a bug."""

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        if key.index == 3:
            raise RuntimeError("no DataLoader worker can do this")
        return super().__getitem__(key)


class Deadly(DetectionDataset):
    """A data set that kills every process that reads from it."""

    def __getitem__(self, key: SampleKey) -> LoadedSample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def loader_of(root: Path, workers: int, kind: type[DetectionDataset] = DetectionDataset) -> BatchLoader:
    index = build_index(load_data_config(str(root / "data.yaml")), "train", use_cache=False)
    dataset = kind(index, image_size=SIZE)
    return BatchLoader(dataset, ShuffledBatches(6, batch_size=2, image_size=SIZE, seed=1), workers=workers)


def test_deleted_image_is_the_same_error_with_and_without_workers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_data_set(tmp_path, count=6)
    loaders = [loader_of(tmp_path, workers) for workers in (0, 1, 2)]
    (tmp_path / "images/train/p3.png").unlink()
    errors = []
    for batches in loaders:
        with pytest.raises(DataError) as caught:
            list(batches)
        errors.append((str(caught.value), caught.value.exit_code, caught.value.what, caught.value.where))
    assert errors[0] == errors[1] == errors[2] and "\n" not in errors[0][0] and errors[0][1] == 2
    assert errors[0][3] == str(tmp_path / "images/train/p3.png") and not caplog.records


def test_batches_before_the_deleted_image_still_arrive(tmp_path: Path) -> None:
    write_data_set(tmp_path, count=6)
    loaders = [loader_of(tmp_path, workers) for workers in (0, 2)]
    (tmp_path / "images/train/p3.png").unlink()
    received: list[list[bytes]] = [[], []]
    for batches, contents in zip(loaders, received, strict=True):
        with pytest.raises(DataError):
            contents.extend(batch.images.numpy().tobytes() for batch in batches)
    assert received[0] == received[1]


def test_bug_in_a_worker_is_not_a_dead_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path, count=6)
    with pytest.raises(RuntimeError, match="no DataLoader worker can do this"):
        list(loader_of(tmp_path, 1, Faulty))
    assert not caplog.records


def test_killed_worker_is_replaced_and_no_batch_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path, count=6)
    before = set(multiprocessing.active_children())
    whole = [batch.images.numpy().tobytes() for batch in loader_of(tmp_path, 0)]
    received = []
    for i, batch in enumerate(loader_of(tmp_path, 1)):
        received.append(batch.images.numpy().tobytes())
        if i == 0:
            for child in set(multiprocessing.active_children()) - before:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
    assert received == whole and [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.slow
def test_workers_that_always_die_are_a_run_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_WORKER_DEATHS", 1)  # torch takes five seconds to notice each
    write_data_set(tmp_path, count=6)
    with pytest.raises(RunError) as caught:
        list(loader_of(tmp_path, 1, Deadly))
    assert "1" in caught.value.what.split() and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise ValueError"])
def test_program_that_exits_in_the_middle_of_a_pass_terminates(ending: str, tmp_path: Path) -> None:
    write_data_set(tmp_path, count=6)
    program = (
        "import sys; from pathlib import Path; from tests.utils.datasets.test_loader import loader_of\n"
        f"batches = iter(loader_of(Path(sys.argv[1]), 1)); next(batches)\n{ending}"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, timeout=60)
    assert result.returncode == (3 if "exit" in ending else 1)


@pytest.mark.slow
def test_abandoned_pass_leaves_no_process_and_does_not_block(tmp_path: Path) -> None:
    write_data_set(tmp_path, count=6)
    before = set(multiprocessing.active_children())
    holder = [iter(loader_of(tmp_path, 1))]
    next(holder[0])
    holder.append(holder)  # type: ignore[arg-type]
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 1
    del holder
    begun = time.monotonic()
    gc.collect()
    assert time.monotonic() - begun < 4
    for process in started:
        process.join(timeout=10)
        assert not process.is_alive()

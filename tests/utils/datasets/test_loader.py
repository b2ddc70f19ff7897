"""Failures in data processes: the project's own errors come through as they are, a killed process is made good."""

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
from utils.datasets.dataset import DetectionDataset, LoadedSample, SampleRef
from utils.datasets.index import build_index
from utils.datasets.loader import BatchLoader
from utils.errors import DataError, RunError

ROOT = Path(__file__).resolve().parents[3]
SIZE = 64


class Faulty(DetectionDataset):
    """A data set with a fault in its program."""

    def __getitem__(self, ref: SampleRef) -> LoadedSample:
        if ref.index == 3:
            raise RuntimeError("no DataLoader worker can do this")
        return super().__getitem__(ref)


class Deadly(DetectionDataset):
    """A data set that kills every process that reads it."""

    def __getitem__(self, ref: SampleRef) -> LoadedSample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def loader_of(root: Path, workers: int, kind: type[DetectionDataset] = DetectionDataset) -> BatchLoader:
    index = build_index(load_data_config(str(root / "data.yaml")), "train", use_cache=False)
    dataset = kind(index, image_size=SIZE)
    return BatchLoader(dataset, ShuffledBatches(6, batch_size=2, image_size=SIZE, seed=1), workers=workers)


def test_a_image_that_vanishes_is_told_in_the_same_line_with_and_without_data_processes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_data_set(tmp_path, count=6)
    loaders = [loader_of(tmp_path, workers) for workers in (0, 1, 2)]
    (tmp_path / "images/train/p3.png").unlink()
    told = []
    for batches in loaders:
        with pytest.raises(DataError, match=r"p3\.png: cannot be read \(No such file or directory\)") as caught:
            list(batches)
        told.append((str(caught.value), caught.value.exit_code, caught.value.what, caught.value.where))
    assert told[0] == told[1] == told[2] and "\n" not in told[0][0] and told[0][1] == 2
    assert "died" not in caplog.text


def test_batches_before_the_vanished_image_still_come(tmp_path: Path) -> None:
    write_data_set(tmp_path, count=6)
    loaders = [loader_of(tmp_path, workers) for workers in (0, 2)]
    (tmp_path / "images/train/p3.png").unlink()
    came: list[list[bytes]] = [[], []]
    for batches, own in zip(loaders, came, strict=True):
        with pytest.raises(DataError):
            own.extend(batch.images.numpy().tobytes() for batch in batches)
    assert came[0] == came[1]


def test_a_fault_of_the_program_is_no_dead_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path, count=6)
    with pytest.raises(RuntimeError, match="no DataLoader worker can do this"):
        list(loader_of(tmp_path, 1, Faulty))
    assert "died" not in caplog.text


def test_a_killed_data_process_is_started_anew_and_no_batch_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_data_set(tmp_path, count=6)
    before = set(multiprocessing.active_children())
    whole = [batch.images.numpy().tobytes() for batch in loader_of(tmp_path, 0)]
    came = []
    for number, batch in enumerate(loader_of(tmp_path, 1)):
        came.append(batch.images.numpy().tobytes())
        if number == 0:
            for child in set(multiprocessing.active_children()) - before:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
    assert came == whole and "a data process died" in caplog.text


@pytest.mark.slow
def test_data_processes_that_always_die_end_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_LOSSES", 1)  # torch takes five seconds to notice each
    write_data_set(tmp_path, count=6)
    with pytest.raises(RunError, match="data processes: died 1 times in a row") as caught:
        list(loader_of(tmp_path, 1, Deadly))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["sys.exit(3)", "raise ValueError"])
def test_a_program_that_ends_in_the_middle_of_a_pass_does_end(ending: str, tmp_path: Path) -> None:
    write_data_set(tmp_path, count=6)
    program = (
        "import sys; from pathlib import Path; from tests.utils.datasets.test_loader import loader_of\n"
        f"batches = iter(loader_of(Path(sys.argv[1]), 1)); next(batches)\n{ending}"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT, capture_output=True, timeout=60)
    assert result.returncode == (3 if "exit" in ending else 1)


@pytest.mark.slow
def test_a_pass_that_is_broken_off_and_collected_leaves_no_process_and_costs_no_wait(tmp_path: Path) -> None:
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

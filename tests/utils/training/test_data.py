"""Loaders of a training run: memory for cached images, batches that are too small, and rectangular batches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import write_data_set
from tests.helpers.faulty_data import FaultySet
from tests.helpers.training_runs import train_options
from utils.datasets.config import load_data_config
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.distributed import DistributedContext
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options.hyperparameters import Hyperparameters
from utils.training import data as training_data
from utils.training.data import TrainingData, load_training_data


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO", logger=LOGGER.name)


def load(data: Path, context: DistributedContext | None = None, **changes: object) -> TrainingData:
    options = train_options(data, data.parent, **changes)
    context = context or DistributedContext()
    dataset = load_data_config(str(data))
    return load_training_data(dataset, options, Hyperparameters(), image_size=64, stride=32, context=context)


def cache_bytes(loaded: TrainingData) -> int:
    return loaded.train_loader.dataset.cache.max_bytes


def held_images(dataset: DetectionDataset) -> set[int]:
    """Indices of the images that the dataset's cache returns without loading them."""
    loaded = []
    for index in range(len(dataset)):
        dataset.cache.get(index, lambda i: loaded.append(i) or np.zeros((1, 1, 3), np.uint8))
    return set(range(len(dataset))) - set(loaded)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_worker_fills_its_own_cache(workers: int, data: Path) -> None:
    """The reason to count workers for --cache ram: no cached image is shared between processes."""
    loaded = load(data, cache="ram", workers=workers, batch_size=2)
    list(loaded.train_loader)
    expected = set() if workers else set(range(len(loaded.train)))
    assert held_images(loaded.train_loader.dataset) == expected


def test_the_cache_holds_exactly_the_bytes_of_all_images(data: Path) -> None:
    loaded = load(data, cache="ram", workers=0, batch_size=2)
    dataset = loaded.train_loader.dataset
    total = sum(dataset.original(index).image.nbytes for index in range(len(loaded.train)))
    assert total <= cache_bytes(loaded) <= 1.02 * total
    for index in range(len(loaded.train)):
        dataset[SampleKey(index=index, epoch=0, size_hw=(64, 64))]
    assert held_images(dataset) == set(range(len(loaded.train)))


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2)])
def test_caches_of_all_workers_stay_within_half_the_available_memory(
    workers: int, ranks: int, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(training_data, "available_workers", lambda requested: requested)
    processes = ranks * max(workers, 1)
    settings = {"cache": "ram", "workers": workers, "batch_size": 2, "context": DistributedContext(size=ranks)}

    def warnings(available: int) -> tuple[int, int]:
        caplog.clear()
        monkeypatch.setattr(training_data, "_available_memory", lambda: available)
        size = cache_bytes(load(data, **settings))
        return size, sum(record.levelname == "WARNING" for record in caplog.records)

    needed, warned = warnings(10**9)
    assert warned == 0
    assert warnings(int(2 * needed * processes * 1.01)) == (needed, 0)
    available = int(2 * needed * processes * 0.99)
    size, warned = warnings(available)
    assert processes * size <= available / 2 and warned == 1


def test_only_the_processes_on_this_machine_count(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "_available_memory", lambda: 10**5)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    loaded = load(data, cache="ram", workers=0, batch_size=4, context=DistributedContext(size=4))
    assert cache_bytes(loaded) == 25_000


@pytest.mark.parametrize(("batch_size", "size"), [(3, 2), (4, 3), (16, 16)])
def test_a_batch_that_the_processes_cannot_share_is_refused(batch_size: int, size: int, data: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(data, batch_size=batch_size, context=DistributedContext(size=size))
    assert caught.value.where == "--batch-size" and str(size) in caught.value.fix


def test_rectangular_training_of_square_images_is_without_mosaic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_set(tmp_path, count=4)
    for path in tmp_path.glob("images/*/*.png"):
        Image.new("RGB", (50, 50)).save(path)
    loaded = load(tmp_path / "data.yaml", rect=True)
    monkeypatch.setattr(loaded.train_loader.dataset, "_mosaic", lambda *_: pytest.fail("a mosaic"))
    assert [batch.images.shape for batch in loaded.train_loader] == [(4, 3, 64, 64)]


def test_what_spoils_the_metrics_is_said_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = FaultySet(tmp_path)
    data.write_rows("val", 0, "".join(f"0 0.5 0.5 0.{100 + i} 0.5\n" for i in range(301)))
    for index in range(10):
        data.label("train", index).unlink()
    load(data.yaml, workers=0, batch_size=2)
    crowded, missing = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "10 of 16" in missing + crowded and "301" in missing + crowded
    caplog.clear()
    data.write_yaml(val="images/train")
    load(data.yaml, workers=0, batch_size=2)
    assert sum("16 of 16" in r.getMessage() for r in caplog.records if r.levelname == "WARNING") == 1


def test_a_val_without_objects_is_said_before_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = FaultySet(tmp_path)
    data.rewrite("val", lambda row: [])
    load(data.yaml, workers=0, batch_size=2)
    assert [str(data.yaml) in r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [True]

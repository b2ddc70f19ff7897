"""What a run is put together from: memory for images, anchors, and layers that are frozen."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from tests.helpers.data_oracles import write_data_set
from tests.test_end_to_end import options
from utils.datasets.config import load_data_config
from utils.datasets.dataset import SampleKey
from utils.distributed import DistributedContext
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.training import setup
from utils.training.run import run_training
from utils.training.setup import TrainingData, build_model, check_anchors, choose_config, training_data


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO", logger=LOGGER.name)


def parts(data: Path, team: DistributedContext | None = None, **changes: object) -> TrainingData:
    return training_data(
        load_data_config(str(data)),
        options(data, data.parent, **changes),
        hyperparameters=Hyperparameters(),
        image_size=64,
        stride=32,
        team=team or DistributedContext(),
    )


def kept_bytes(data: TrainingData) -> int:
    return data.train_batches.dataset.cache.max_bytes


def test_every_data_process_fills_a_cache_of_its_own(data: Path) -> None:
    """What the check of --cache goes by: nothing that one process holds is held by another, or by this one."""
    loaded = parts(data, cache="ram", workers=2, batch_size=2)
    dataset = loaded.train_batches.dataset
    list(loaded.train_batches)
    assert dataset.cache._bytes == 0, "images of the workers came to this process"
    for index in range(len(loaded.train)):
        dataset[SampleKey(index=index, epoch=0, size_hw=(64, 64))]
    assert dataset.cache._bytes == sum(dataset.original(index).image.nbytes for index in range(len(loaded.train)))


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (1, 1), (2, 1), (0, 2), (2, 2)])
def test_cached_images_of_all_processes_stay_within_half_the_free_memory(
    workers: int, ranks: int, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(setup, "available_workers", lambda wanted: wanted)
    processes = ranks * max(workers, 1)
    wanted = {"cache": "ram", "workers": workers, "batch_size": 2, "team": DistributedContext(size=ranks)}
    monkeypatch.setattr(setup, "_available_memory", lambda: 10**9)
    needed = kept_bytes(parts(data, **wanted))
    assert "only a part" not in caplog.text and f"in each of {processes} data processes" in caplog.text
    monkeypatch.setattr(setup, "_available_memory", lambda: int(2 * needed * processes * 1.01))
    assert kept_bytes(parts(data, **wanted)) == needed and "only a part" not in caplog.text
    free = int(2 * needed * processes * 0.99)
    monkeypatch.setattr(setup, "_available_memory", lambda: free)
    assert processes * kept_bytes(parts(data, **wanted)) <= free / 2 and "only a part" in caplog.text


def test_of_several_machines_only_the_processes_of_this_one_count(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_available_memory", lambda: 10**5)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert kept_bytes(parts(data, cache="ram", workers=0, batch_size=4, team=DistributedContext(size=4))) == 25_000


def counted(tmp_path: Path, anchors: object) -> str:
    """A recipe with the given `anchors`."""
    path = tmp_path / "hyp.yaml"
    path.write_text(Path("data/hyps/hyp.scratch-low.yaml").read_text() + f"anchors: {anchors}\n")
    return str(path)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[3])


@pytest.mark.parametrize(("anchors", "count"), [(3.6, 4), (3.412, 3), (2.5, 2), (100, 100)])
def test_a_count_of_anchors_is_rounded(anchors: float, count: int, tmp_path: Path) -> None:
    wanted = options(tmp_path, tmp_path, hyp=counted(tmp_path, anchors))
    config, _ = choose_config(wanted, load_hyperparameters(wanted.hyp))
    assert config.anchors == count
    anchors_wh = DetectionModel(config, nc=2).head.anchors
    assert anchors_wh.shape == (3, count, 2) and anchors_wh.isfinite().all() and (anchors_wh > 0).all()


@pytest.mark.parametrize("anchors", [101, 100_000_000, 1e300])
def test_too_many_anchors_are_refused_in_one_line(anchors: float, tmp_path: Path) -> None:
    wanted = options(tmp_path, tmp_path, hyp=counted(tmp_path, anchors))
    said = re.escape(f"hyp.yaml: anchors is {anchors:g} per level, more than 100")
    with pytest.raises(ConfigError, match=said) as caught:
        choose_config(wanted, load_hyperparameters(wanted.hyp))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def with_count(tmp_path: Path) -> str:
    """A model yaml whose anchors are a count."""
    text = Path("models/yolov5n.yaml").read_text()
    head, rest = text.split("anchors:\n")
    path = tmp_path / "counted.yaml"
    path.write_text(f"{head}anchors: 3\n{rest[rest.index('backbone:') :]}")
    return str(path)


def test_anchors_to_be_fitted_and_noautoanchor_exclude_each_other(tmp_path: Path) -> None:
    for changes, named in (
        ({"hyp": "hyp.VOC.yaml"}, "hyp.VOC.yaml"),
        ({"cfg": with_count(tmp_path)}, "counted.yaml"),
    ):
        wanted = options(tmp_path, tmp_path, noautoanchor=True, **changes)
        with pytest.raises(ConfigError, match=f"--noautoanchor: keeps .*{named}.*3 per level") as caught:
            choose_config(wanted, load_hyperparameters(wanted.hyp))
        assert "\n" not in str(caught.value)
        choose_config(replace(wanted, noautoanchor=False), load_hyperparameters(wanted.hyp))
    choose_config(options(tmp_path, tmp_path, noautoanchor=True), Hyperparameters())


def test_too_few_objects_to_fit_anchors_to_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path, count=5)
    loaded = parts(tmp_path / "data.yaml", cfg="yolov5n.yaml")
    config = load_model_config("yolov5n.yaml")
    for anchors, warned in ((config.anchors, False), (3, True)):
        caplog.clear()
        model = DetectionModel(config.with_anchors(anchors), nc=2)
        before = model.head.anchors.clone()
        check_anchors(model, loaded.train, image_size=64, max_ratio=4.0, seed=0)
        assert torch.equal(model.head.anchors, before)
        assert bool(re.search(r"5 objects .* 9 anchors.* 8 to 128 px", caplog.text)) is warned


def test_placeholders_are_those_of_before_up_to_fifteen_and_finite_beyond() -> None:
    config = load_model_config("yolov5n.yaml")
    for count in (1, 3, 5):
        model = DetectionModel(config.with_anchors(count), nc=2)
        sides = (model.head.anchors * torch.tensor(model.head.strides).view(-1, 1, 1)).reshape(-1, 2)
        expected = 8 * 2 ** (np.arange(3 * count) / 2)
        np.testing.assert_allclose(sides.numpy(), np.stack((expected, expected), 1), rtol=1e-6)
    sides = DetectionModel(config.with_anchors(60), nc=2).head.anchors
    assert float(sides.max()) * 32 == pytest.approx(1024)


def built(freeze: Iterable[int], config: ModelConfig | None = None) -> DetectionModel:
    config = config or load_model_config("yolov5n.yaml")
    return build_model(config, names=("a", "b"), content=None, weights="", freeze=freeze)[0]


@pytest.mark.parametrize("freeze", [(-1,), (26,), (10**6,), (0, 25), (-1, 3), (3, -2)])
def test_layers_that_there_are_not_are_refused(freeze: tuple[int, ...]) -> None:
    said = rf"--freeze: names layers that there are not \(got {' '.join(map(str, freeze))}\)\. Fix: .*0 to 24"
    with pytest.raises(ConfigError, match=said):
        built(freeze)


@pytest.mark.parametrize("freeze", [(25,), tuple(range(25))])
def test_freezing_every_layer_is_refused(freeze: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"--freeze: leaves nothing to train of the 25 layers of yolov5n\.yaml"):
        built(freeze)


def test_all_but_the_head_may_be_frozen() -> None:
    for freeze, free in (((24,), {24}), ((0,), set(range(25))), ((0, 3), set(range(25)) - {0, 3})):
        model = built(freeze)
        found = {int(name.split(".")[1]) for name, p in model.named_parameters() if p.requires_grad}
        assert found == {n for n in free if list(model.model[n].parameters())}


def test_the_whole_way_ends_before_a_folder_is_made(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--freeze"):
        run_training(options(data, tmp_path, freeze=(25,)))
    assert not os.listdir(tmp_path)


def test_rectangular_training_of_square_images_is_without_mosaic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_set(tmp_path, count=4)
    for path in tmp_path.glob("images/*/*.png"):
        Image.new("RGB", (50, 50)).save(path)
    loaded = parts(tmp_path / "data.yaml", rect=True)
    monkeypatch.setattr(loaded.train_batches.dataset, "_mosaic", lambda *_: pytest.fail("a mosaic"))
    assert [batch.images.shape for batch in loaded.train_batches] == [(4, 3, 64, 64)]

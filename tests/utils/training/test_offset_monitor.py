"""Monitoring of AKConv's offsets: measured images, warnings, and the columns of results.csv, also of an old run."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.helpers.random_model import random_model
from tests.helpers.training_runs import train_options
from utils.inference.offset_statistics import LayerOffsets
from utils.inference.sampling_points import akconv_layers
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.structures import Batch
from utils.training.offset_monitor import FROZEN_EPOCHS, OffsetMonitor, offset_means, offset_warnings
from utils.training.results_csv import COLUMNS, OFFSET_COLUMNS
from utils.training.run import run_training
from utils.weights.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)


def layer(name: str = "model.1", **values: float) -> LayerOffsets:
    defaults = {"abs_mean": 0.2, "oob_fraction": 0.1, "initial_oob_fraction": 0.0}
    return LayerOffsets(
        **{"name": name, **defaults, "left_fraction": 0.0, "normalized_abs_mean": 0.1, **values}  # type: ignore[arg-type]
    )


def test_columns_are_means_over_layers_and_nan_without_layers() -> None:
    layers = [layer(abs_mean=0.25, oob_fraction=0.5), layer(abs_mean=0.75, oob_fraction=0.0)]
    assert offset_means(layers) == (0.5, 0.25)
    assert all(math.isnan(value) for value in offset_means([]))


def test_frozen_offsets_are_reported_from_the_tenth_epoch() -> None:
    frozen = [layer(abs_mean=0.001), layer("model.3", abs_mean=0.009)]
    assert offset_warnings(frozen, epoch=FROZEN_EPOCHS - 2, offset_lr=0.1) == {}
    warnings = offset_warnings(frozen, epoch=FROZEN_EPOCHS - 1, offset_lr=0.1)
    assert list(warnings) == ["frozen"]
    assert re.findall(r"\d[\d.e-]*\d|\d", warnings["frozen"]) == ["9", "2", "0.01", "0.009", "0.1"]
    assert offset_warnings([*frozen, layer(abs_mean=0.02)], epoch=50, offset_lr=0.1) == {}
    assert offset_warnings([], epoch=50, offset_lr=1) == {}


@pytest.mark.parametrize(
    "values",
    [{"normalized_abs_mean": 1.2}, {"left_fraction": 0.6}, {"abs_mean": math.nan, "normalized_abs_mean": math.nan}],
)
def test_diverged_offsets_are_reported_with_the_worst_layer(values: dict[str, float]) -> None:
    layers = [layer(), layer("model.9", **values), layer("model.5", normalized_abs_mean=1.1)]
    warnings = offset_warnings(layers[: 2 if "left_fraction" in values else 3], epoch=0, offset_lr=1.0)
    assert list(warnings) == ["diverged"] and "model.9" in warnings["diverged"]
    assert "offset_lr" in warnings["diverged"] and "0.1" in warnings["diverged"]


def batch(seed: int) -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Batch(images=images, targets=torch.zeros(0, 6), indices=[0, 1])


@pytest.mark.parametrize("batches", [1, 5, 8, 9, 40])
def test_up_to_eight_images_spread_over_the_split_are_measured(batches: int) -> None:
    model = random_model("yolov5n-AKConv.yaml", 3)
    sizes = []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    monitor = OffsetMonitor(model, offset_lr=1.0)
    for _ in range(2):  # the second validation replaces the first
        sizes.clear()
        for batch_index in range(batches):
            monitor.record_offsets(batch_index, batches, batch(batch_index))
    assert sizes == [1] * min(batches, 8)
    assert [measured.name for measured in monitor.layers()] == list(akconv_layers(model))
    assert monitor.pop_columns()[0] == 0 and all(math.isnan(value) for value in monitor.pop_columns())


def test_each_kind_of_warning_is_emitted_once(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model("yolov5n-AKConv.yaml", 3)
    monitor = OffsetMonitor(model, offset_lr=0.0)
    emitted: list[str] = []
    for epoch in range(FROZEN_EPOCHS + 3):
        monitor.record_offsets(0, 1, batch(0))
        emitted += monitor.warn(epoch, emitted=emitted)
        assert (emitted == ["frozen"]) == (epoch + 1 >= FROZEN_EPOCHS)
    for akconv in akconv_layers(model).values():
        akconv.p_conv.bias.data.fill_(1e4)
    for epoch in range(3):
        monitor.record_offsets(0, 1, batch(0))
        emitted += monitor.warn(epoch, emitted=emitted)
    assert emitted == ["frozen", "diverged"] and len(caplog.records) == 2


def test_a_model_without_akconv_is_not_run() -> None:
    model = random_model("yolov5n.yaml", 3)
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    monitor = OffsetMonitor(model, offset_lr=1.0)
    monitor.record_offsets(0, 1, batch(0))
    assert monitor.layers() == [] and monitor.warn(99, emitted=()) == []


def options(data: Path, project: Path, **changes: object) -> TrainOptions:
    return train_options(data, project, **{"cfg": "yolov5n-AKConv.yaml", "epochs": 2, "imgsz": 64, **changes})


def test_results_have_offset_columns_and_a_run_from_before_them_resumes(data: Path, tmp_path: Path) -> None:
    result = run_training(options(data, tmp_path))
    assert result is not None
    table = pd.read_csv(result.run_dir / "results.csv")
    magnitude, oob_fraction = OFFSET_COLUMNS
    assert tuple(table.columns) == COLUMNS and (table[magnitude] > 0).all()
    assert table[oob_fraction].between(0, 1).all()
    last = result.run_dir / "weights/last.pt"
    content = load_checkpoint(last)
    content.pop("schema")
    del content["progress"]["emitted_warnings"]
    content["progress"]["rows"] = [
        {key: value for key, value in row.items() if key not in OFFSET_COLUMNS} for row in content["progress"]["rows"]
    ]
    save_checkpoint(last, content)
    run_training(TrainOptions(resume=str(last), epochs=3), {"resume", "epochs"})
    resumed = pd.read_csv(result.run_dir / "results.csv")
    assert tuple(resumed.columns) == COLUMNS
    assert resumed[magnitude].isna().tolist() == [True, True, False]
    assert load_checkpoint(last)["progress"]["emitted_warnings"] == []


def test_the_columns_of_a_model_without_akconv_are_empty(data: Path, tmp_path: Path) -> None:
    result = run_training(options(data, tmp_path, cfg="yolov5n.yaml", epochs=1))
    assert result is not None
    table = pd.read_csv(result.run_dir / "results.csv")
    assert tuple(table.columns) == COLUMNS and table[list(OFFSET_COLUMNS)].isna().to_numpy().all()
    assert (result.run_dir / "results.csv").read_text().splitlines()[1].endswith(",,")

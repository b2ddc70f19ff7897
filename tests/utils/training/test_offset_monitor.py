"""The offsets of a training: two columns that say how far points moved, and a word where they never do, or too far."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.random_model import lively_model
from utils.inference.offset_statistics import LayerOffsets
from utils.inference.sampling_points import akconv_layers
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.plots.curves import plot_results
from utils.structures import Batch
from utils.training.offset_monitor import (
    STILL_EPOCHS,
    OffsetMonitor,
    offset_columns,
    offset_warnings,
)
from utils.training.results_csv import COLUMNS, columns_of, write_results
from utils.training.run import run_training
from utils.training.state import TrainState
from utils.weights.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

OWN = ("akconv/offset_abs_mean", "akconv/oob_fraction")


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)


def layer(name: str = "model.1", **values: float) -> LayerOffsets:
    return LayerOffsets(
        **{
            "name": name,
            "magnitude": 0.2,
            "oob_fraction": 0.1,
            "initial_oob_fraction": 0.0,
            "left_fraction": 0.0,
            "normalized_magnitude": 0.1,
            **values,
        }
    )


def test_columns_are_means_over_layers_and_empty_without_any() -> None:
    row = offset_columns([layer(magnitude=0.25, oob_fraction=0.5), layer(magnitude=0.75, oob_fraction=0.0)])
    assert row == {"akconv/offset_abs_mean": 0.5, "akconv/oob_fraction": 0.25} and tuple(row) == OWN == COLUMNS[-2:]
    assert all(math.isnan(value) for value in offset_columns([]).values())


def test_offsets_that_never_move_or_explode_are_told_with_a_remedy() -> None:
    still = [layer(magnitude=0.001), layer("model.3", magnitude=0.009)]
    assert offset_warnings(still, epoch=STILL_EPOCHS - 2, offset_lr=0.1) == {}
    (text,) = offset_warnings(still, epoch=STILL_EPOCHS - 1, offset_lr=0.1).values()
    assert "still sample their initial shape" in text and "raise offset_lr" in text and "now 0.1" in text
    assert (
        offset_warnings([*still, layer(magnitude=0.02)], epoch=50, offset_lr=0.1)
        == {}
        == offset_warnings([], epoch=50, offset_lr=1)
    )
    for broken in (
        {"normalized_magnitude": 1.2},
        {"left_fraction": 0.6},
        {"magnitude": math.nan, "normalized_magnitude": math.nan},
    ):
        found = offset_warnings([layer(), layer("model.9", **broken), layer("model.5")], epoch=0, offset_lr=1.0)
        assert list(found) == ["exploded"] and "1 of 3 AKConv layers" in found["exploded"]
        assert (
            "worst model.9" in found["exploded"]
            and "lower offset_lr in --hyp (now 1), e.g. to 0.1" in (found["exploded"])
        )


def batch(number: int) -> Batch:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
    return Batch(images=images, targets=torch.zeros(0, 6), indices=[0, 1])


@pytest.mark.parametrize("batches", [1, 5, 8, 9, 40])
def test_a_few_images_spread_over_the_split_are_measured(batches: int) -> None:
    model = lively_model("yolov5n-AKConv.yaml", 3)
    sizes = []
    model.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    record = OffsetMonitor(model, offset_lr=1.0)
    for _ in range(2):  # a validation that was broken off leaves nothing behind
        sizes.clear()
        for number in range(batches):
            record.look(number, batches, batch(number))
    assert sizes == [1] * min(batches, 8)
    assert [one.name for one in record.layers()] == list(akconv_layers(model))
    assert record.columns()["akconv/offset_abs_mean"] == 0 and math.isnan(record.columns()["akconv/offset_abs_mean"])


def test_each_trouble_is_told_once(caplog) -> None:
    model = lively_model("yolov5n-AKConv.yaml", 3)
    record = OffsetMonitor(model, offset_lr=0.0)
    told: list[str] = []
    for epoch in range(STILL_EPOCHS + 3):
        record.look(0, 1, batch(0))
        told += record.warn(epoch, told=told)
        assert (told == ["still"]) == (epoch + 1 >= STILL_EPOCHS)
    for one in akconv_layers(model).values():
        one.p_conv.bias.data.fill_(1e4)
    for epoch in range(3):
        record.look(0, 1, batch(0))
        told += record.warn(epoch, told=told)
    assert told == ["still", "exploded"] and len(caplog.records) == 2


def test_a_model_without_akconv_costs_nothing() -> None:
    model = lively_model("yolov5n.yaml", 3)
    model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    record = OffsetMonitor(model, offset_lr=1.0)
    record.look(0, 1, batch(0))
    assert record.layers() == [] and record.warn(99, told=()) == []


# In a training.


def options(data: Path, project: Path, **changes: object) -> TrainOptions:
    settings = {"cfg": "yolov5n-AKConv.yaml", "epochs": 2, "batch_size": 4, "imgsz": 64, "workers": 0, "noplots": True}
    return TrainOptions(data=str(data), project=str(project), device="cpu", **{**settings, **changes})


def test_results_tell_of_akconv_and_an_old_checkpoint_goes_on(data: Path, tmp_path: Path) -> None:
    run = run_training(options(data, tmp_path)).run_dir
    table = pd.read_csv(run / "results.csv")
    assert tuple(table.columns) == COLUMNS and (table["akconv/offset_abs_mean"] > 0).all()
    assert table["akconv/oob_fraction"].between(0, 1).all()
    # As if written by a program that knew nothing of this.
    last = run / "weights/last.pt"
    content = load_checkpoint(last)
    content.pop("schema")
    del content["progress"]["told"]
    content["progress"]["rows"] = [
        {key: value for key, value in row.items() if key not in OWN} for row in content["progress"]["rows"]
    ]
    save_checkpoint(last, content)
    run_training(TrainOptions(resume=str(last), epochs=3), {"resume", "epochs"})
    resumed = pd.read_csv(run / "results.csv")
    assert tuple(resumed.columns) == COLUMNS
    assert resumed["akconv/offset_abs_mean"].isna().tolist() == [True, True, False]
    assert load_checkpoint(last)["progress"]["told"] == []


def test_a_model_without_akconv_leaves_the_columns_empty(data: Path, tmp_path: Path) -> None:
    run = run_training(options(data, tmp_path, cfg="yolov5n.yaml", epochs=1)).run_dir
    table = pd.read_csv(run / "results.csv")
    assert tuple(table.columns) == COLUMNS and table[list(OWN)].isna().to_numpy().all()
    assert (run / "results.csv").read_text().splitlines()[1].endswith(",,")


def test_results_of_both_kinds_are_written_and_drawn(tmp_path: Path) -> None:
    old = {name: 0.5 for name in COLUMNS[:-2]}
    rows = [{**old, "epoch": 0}, {**old, "epoch": 1, OWN[0]: 0.25, OWN[1]: 0.0}]
    write_results(rows, tmp_path / "results.csv")
    assert pd.read_csv(tmp_path / "results.csv")[OWN[0]].tolist() == pytest.approx([math.nan, 0.25], nan_ok=True)
    plot_results(columns_of(rows), tmp_path / "results.png")
    assert np.isnan(columns_of(rows)[OWN[1]][0]) and (tmp_path / "results.png").stat().st_size > 1000
    assert TrainState.from_dict({"epoch": 2, "rows": rows}).told == []

"""Callbacks: the events of a run in their order, with their values; and what TensorBoard gets."""

import csv
import math
import sys
import types
from pathlib import Path

import pytest

from tests.helpers.training_runs import train_options
from utils.errors import ConfigError
from utils.training import callbacks
from utils.training.callbacks import TensorBoard, make_callbacks, register_callback, require_tensorboard
from utils.training.run import run_training
from utils.weights.checkpoint import load_checkpoint

PLUGIN = """
from utils.training.callbacks import Callback, register_callback
EVENTS = []

@register_callback
class Recorder(Callback):
    def on_train_start(self, trainer):
        assert trainer.model is trainer.state.model
        EVENTS.append(("train_start", trainer.run_dir, trainer.state.progress.epoch))
    def on_train_epoch_end(self, trainer, losses):
        EVENTS.append(("train_epoch_end", dict(losses)))
    def on_fit_epoch_end(self, trainer, row):
        EVENTS.append(("fit_epoch_end", dict(row)))
    def on_model_save(self, trainer, path):
        EVENTS.append(("model_save", path))
    def on_train_end(self, trainer):
        EVENTS.append(("train_end", trainer.state.progress.epoch))
"""


@pytest.mark.slow
def test_all_events_are_called_in_order_with_their_values(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_REGISTERED", {})
    plugin = tmp_path / "recorder_of_a_test.py"
    plugin.write_text(PLUGIN)
    run = run_training(train_options(data, tmp_path, epochs=2, imgsz=64, cfg="yolov5n.yaml", plugins=(str(plugin),)))
    assert run is not None
    events = sys.modules["plugin_recorder_of_a_test"].EVENTS
    weights = run.run_dir / "weights"
    rows = load_checkpoint(weights / "last.pt")["progress"]["rows"]
    losses = [{name: row[f"train/{name}_loss"] for name in ("box", "obj", "cls")} for row in rows]
    best = [run.summary["best_epoch"] >= epoch for epoch in range(2)]
    expected = [("train_start", run.run_dir, 0)]
    for epoch in range(2):
        expected.append(("train_epoch_end", losses[epoch]))
        expected += [("model_save", weights / "best.pt")] if best[epoch] else []
        expected += [("model_save", weights / "last.pt"), ("fit_epoch_end", rows[epoch])]
    expected.append(("train_end", 2))
    assert [event[0] for event in events] == [event[0] for event in expected]
    assert [repr(event) for event in events] == [repr(event) for event in expected]  # rows may hold nan
    with (run.run_dir / "results.csv").open() as file:
        written = list(csv.DictReader(file))
    for row, cells in zip(rows, written, strict=True):
        assert set(cells) == set(row) and math.isnan(row["akconv/oob_fraction"])
        shown = {name: float(cell or "nan") for name, cell in cells.items()}
        assert shown == pytest.approx(row, rel=1e-5, nan_ok=True)


def test_registered_classes_get_a_new_instance_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_REGISTERED", {})
    kind = register_callback(type("Recorder", (callbacks.Callback,), {}))
    register_callback(kind)
    first, second = (make_callbacks(tmp_path, tensorboard=False) for _ in range(2))
    assert [type(callback) for callback in first] == [kind] and first[0] is not second[0]


class Writer:
    """Stands in for TensorBoard's writer."""

    def __init__(self, folder: str) -> None:
        self.folder, self.scalars, self.flushed, self.closed = folder, [], 0, False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def flush(self) -> None:
        self.flushed += 1

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_every_finite_value_of_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(callbacks, "_REGISTERED", {})
    (board,) = make_callbacks(tmp_path, tensorboard=True)
    assert isinstance(board, TensorBoard) and board.writer.folder == str(tmp_path / "tensorboard")
    board.on_fit_epoch_end(None, {"epoch": 3, "val/box_loss": 0.5, "metrics/recall": math.nan, "x/lr0": 0.01})
    assert board.writer.scalars == [("val/box_loss", 0.5, 3), ("x/lr0", 0.01, 3)] and board.writer.flushed == 1
    board.on_train_end(None)
    assert board.writer.closed


def test_a_missing_tensorboard_is_an_error_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError) as caught:
        run_training(train_options(data, tmp_path / "runs", tensorboard=True))
    assert caught.value.where == "--tensorboard" and not (tmp_path / "runs").exists()
    with pytest.raises(ConfigError):
        require_tensorboard()

"""Options of training runs that take seconds, and a signal sent to a run in a given batch."""

import os
import signal
from pathlib import Path

import pytest

from utils.options import TrainOptions
from utils.training import epoch

ROOT = Path(__file__).resolve().parents[2]
# A detector that trains in a second, as a yaml.
SMALL_MODEL = """nc: 80
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[1, 2], 1, Detect, [nc, anchors]]
"""
# It draws random numbers while it trains, which a run that is interrupted must draw again.
DROPOUT_MODEL = SMALL_MODEL.replace(
    "  - [[1, 2], 1, Detect", "  - [-1, 1, nn.Dropout2d, [0.5]]\n  - [[1, 3], 1, Detect"
)


def train_options(data: Path, project: Path, **changes: object) -> TrainOptions:
    """Options of a run on the CPU with 3 epochs of 96 x 96 images, without plots."""
    settings: dict[str, object] = {
        "cfg": "yolov5n-akconv.yaml",
        "data": str(data),
        "epochs": 3,
        "batch_size": 4,
        "imgsz": 96,
        "device": "cpu",
        "workers": 0,
        "project": str(project),
        "noplots": True,
    }
    return TrainOptions(**{**settings, **changes})  # type: ignore[arg-type]


def stop_in_batch(monkeypatch: pytest.MonkeyPatch, batch: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal in the n-th batch, from 1, that it trains from now on."""
    count, set_rates = [0], epoch.set_rates

    def count_batches(*arguments: object) -> None:
        count[0] += 1
        if count[0] == batch:
            os.kill(os.getpid(), number)
        set_rates(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(epoch, "set_rates", count_batches)

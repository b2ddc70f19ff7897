"""Shared fixtures: hyperparameters with few batches per optimizer step, and runs that are not interrupted."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.target_process import finish, start, train_arguments
from tests.helpers.training_runs import ROOT


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hyperparameters, with `dropout.yaml`, a model that draws random numbers, beside them.

    Mosaic and mixup; 2 batches per step and 3 per epoch, so that gradients are pending at the end of most epochs.
    """
    text = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    text = re.sub(r"warmup_epochs: \S+", "warmup_epochs: 0", text).replace("mixup: 0.0", "mixup: 0.5")
    path = tmp_path_factory.mktemp("hyp") / "hyp.yaml"
    path.write_text(text + "nbs: 8\n")
    model = (ROOT / "models/yolov5n-AKConv.yaml").read_text()
    detect = "  - [[17, 20, 23], 1, Detect"
    dropout = model.replace(detect, "  - [-1, 1, nn.Dropout2d, [0.5]]\n" + detect.replace("23", "24"))
    assert dropout != model
    path.with_name("dropout.yaml").write_text(dropout)
    return path


@pytest.fixture(scope="session")
def uninterrupted(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return the folder of an uninterrupted run with a number of epochs."""
    runs: dict[int, Path] = {}

    def run(epochs: int) -> Path:
        if epochs not in runs:
            folder = tmp_path_factory.mktemp("uninterrupted")
            finish(start(folder, *train_arguments(data, recipe, epochs=epochs)))
            runs[epochs] = folder / "runs/train/exp"
        return runs[epochs]

    return run

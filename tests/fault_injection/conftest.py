"""What the tests of this folder share: a recipe of few steps, and runs that nothing happens to."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.target_process import finish, start, words_of
from tests.test_end_to_end import ROOT


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mosaic and mixup; 2 batches a step, 3 an epoch, so that gradients are pending at most epochs' ends."""
    text = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    text = re.sub(r"warmup_epochs: \S+", "warmup_epochs: 0", text).replace("mixup: 0.0", "mixup: 0.5")
    path = tmp_path_factory.mktemp("hyp") / "hyp.yaml"
    path.write_text(text + "nbs: 8\n")
    return path


@pytest.fixture(scope="session")
def left_alone(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Call it with a number of epochs for the folder of a run that nothing happened to."""
    known: dict[int, Path] = {}

    def run(epochs: int) -> Path:
        if epochs not in known:
            folder = tmp_path_factory.mktemp("alone")
            finish(start(folder, *words_of(data, recipe, epochs=epochs)))
            known[epochs] = folder / "runs/train/exp"
        return known[epochs]

    return run

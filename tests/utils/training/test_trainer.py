"""The loop over epochs: when it validates and saves, and --image-weights from the first validation on."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.training_runs import train_options
from utils.datasets.batching import ShuffledBatches
from utils.training.run import run_training
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
SMALL = {"cfg": "yolov5n.yaml", "imgsz": 64}


def test_image_weights_follow_the_last_validation(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights: list[np.ndarray | None] = []
    set_epoch = ShuffledBatches.set_epoch

    def record(self: ShuffledBatches, epoch: int, **arguments: object) -> None:
        weights.append(arguments["weights"])  # type: ignore[arg-type]
        set_epoch(self, epoch, **arguments)  # type: ignore[arg-type]

    ap = np.array([0.99, 0.0, 0.99, 0.99, 0.99, 0.99])
    monkeypatch.setattr("utils.training.trainer.class_ap", lambda *_: ap.tolist())
    monkeypatch.setattr(ShuffledBatches, "set_epoch", record)
    result = run_training(train_options(data, tmp_path, epochs=2, image_weights=True, **SMALL))
    assert result is not None and load_checkpoint(result.run_dir / "weights/last.pt")["progress"]["class_ap"] == list(
        ap
    )
    first, second = weights
    assert first is not None and second is not None and len(first) == len(second) == 10
    ratio = (second / second.sum()) / (first / first.sum())
    assert ratio.max() > 3 * ratio.min() and (second > 0).all()
    weights.clear()
    run_training(train_options(data, tmp_path, epochs=1, **SMALL))
    assert weights == [None]


@pytest.mark.parametrize(
    ("changes", "validated", "files"),
    [
        ({}, 3, ["best.pt", "last.bak.pt", "last.pt"]),
        ({"noval": True}, 1, ["best.pt", "last.bak.pt", "last.pt"]),
        ({"nosave": True}, 3, ["best.pt", "last.pt"]),
        ({"nosave": True, "save_period": 2}, 3, ["best.pt", "epoch2.pt", "last.pt"]),
    ],
)
def test_epochs_are_validated_and_saved_as_the_flags_say(
    changes: dict[str, object],
    validated: int,
    files: list[str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    epochs: list[int] = []
    validate = Trainer.validate

    def record(self: Trainer) -> Evaluation:
        epochs.append(self.state.progress.epoch)
        return validate(self)

    monkeypatch.setattr(Trainer, "validate", record)
    result = run_training(train_options(data, tmp_path, **SMALL, **changes))
    assert result is not None and epochs == list(range(3))[-validated:]
    assert sorted(path.name for path in (result.run_dir / "weights").iterdir()) == files
    assert load_checkpoint(result.run_dir / "weights/last.pt")["progress"]["epoch"] == 3

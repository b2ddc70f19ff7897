"""A batch with a non-finite loss, gradient or image is skipped, reported, and never affects a saved file."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.tiny_data import TINY_DATA
from tests.helpers.training_runs import train_options
from utils.errors import ConfigError, RunError
from utils.losses.detection import DetectionLoss
from utils.options.hyperparameters import Hyperparameters
from utils.training import epoch
from utils.training.epoch import MAX_SKIPPED
from utils.training.run import run_training
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


class _CorruptGradient(torch.autograd.Function):
    """Identity with a corrupted gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: float) -> torch.Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.value, None


def corrupt_batches(monkeypatch: pytest.MonkeyPatch, kind_of: Callable[[int], tuple[str, float] | None]) -> list[int]:
    """Corrupt the image, the loss or the gradient of some batches, counted from 1; return the list of these batches."""
    call, scale, count, corrupted = DetectionLoss.__call__, epoch.scale_pixels, [0], []

    def corrupt_image(*arguments: object) -> torch.Tensor:
        images = scale(*arguments)  # type: ignore[arg-type]
        count[0] += 1
        kind, value = kind_of(count[0]) or ("", 0.0)
        if kind:
            corrupted.append(count[0])
        if kind == "image":
            images[-1, 1, 2, 3] = value
        return images

    def corrupt_loss(
        self: DetectionLoss, raw: list[torch.Tensor], targets: torch.Tensor, **more: Any
    ) -> dict[str, torch.Tensor]:
        losses = call(self, raw, targets, **more)
        kind, value = kind_of(count[0]) or ("", 0.0)
        if not raw[0].requires_grad or kind not in ("loss", "gradient"):
            return losses
        box = raw[0].sum() * value if kind == "loss" else _CorruptGradient.apply(losses["box"], value)
        return {**losses, "box": box}

    # Validation imports scale_pixels itself and is not affected.
    monkeypatch.setattr(epoch, "scale_pixels", corrupt_image)
    monkeypatch.setattr(DetectionLoss, "__call__", corrupt_loss)
    return corrupted


def finite(value: object) -> bool:
    """Whether all tensors inside nested containers are finite."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(finite(item) for item in inner)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_batches_are_skipped_reported_and_never_saved(
    value: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    corrupted = corrupt_batches(monkeypatch, lambda number: ("loss", value) if number % 3 == 2 else None)
    with caplog.at_level("WARNING", logger="akyolo"):
        result = run_training(train_options(data, tmp_path, epochs=4))
    assert result is not None and len(corrupted) == 4
    warnings = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(warnings) == 4 and all(".jpg" in message and "box" in message for message in warnings)
    note = json.loads((result.run_dir / "skipped_batch.json").read_text())
    assert note["epoch"] == 3 and note["batch"] == 1 and len(note["images"]) == 4
    assert finite(load_checkpoint(result.run_dir / "weights/last.pt"))


@pytest.mark.parametrize(("injected", "epochs"), [(9, 5), pytest.param(100, 56, marks=pytest.mark.long)])
@pytest.mark.parametrize("optimizer", ["SGD", pytest.param("AdamW", marks=pytest.mark.long)])
def test_every_checkpoint_is_finite_whatever_is_injected(
    injected: int,
    epochs: int,
    optimizer: str,
    data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, values = random.Random(0), [float("nan"), float("inf"), -float("inf")]
    batches = rng.sample(range(1, 3 * epochs), injected)
    kinds = {n: (("image", "loss", "gradient")[i % 3], values[i // 3 % 3]) for i, n in enumerate(batches)}
    corrupted, save, files = corrupt_batches(monkeypatch, kinds.get), Trainer._save, []

    def save_and_check(self: Trainer, evaluation: Evaluation | None) -> None:
        save(self, evaluation)
        for path in self.checkpoints.folder.glob("*.pt"):
            assert finite(load_checkpoint(path)), path
        files.append(len(list(self.checkpoints.folder.glob("*.pt"))))

    monkeypatch.setattr(Trainer, "_save", save_and_check)
    changes = {"hyp": str(recipe), "optimizer": optimizer, "epochs": epochs, "imgsz": 64}
    run = run_training(train_options(data, tmp_path, **changes))
    assert run is not None and sorted(corrupted) == sorted(batches)
    assert len(files) == epochs and files[-1] == 3  # best.pt, last.pt and its backup


def test_only_bad_batches_in_a_row_end_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimizer does not step in between, since a step takes 64 images; the mean loss is that of good batches."""
    corrupted = corrupt_batches(monkeypatch, lambda number: ("loss", float("nan")) if number % 2 else None)
    loss, seen = DetectionLoss.__call__, []

    def record(
        self: DetectionLoss, raw: list[torch.Tensor], targets: torch.Tensor, **more: Any
    ) -> dict[str, torch.Tensor]:
        losses = loss(self, raw, targets, **more)
        if raw[0].requires_grad and bool(losses["box"].isfinite()):
            seen.append(float(losses["box"].detach()))
        return losses

    monkeypatch.setattr(DetectionLoss, "__call__", record)
    result = run_training(train_options(data, tmp_path, epochs=2, batch_size=1, imgsz=64, cfg="yolov5n.yaml"))
    assert result is not None and (len(corrupted), len(seen)) == (10, 10)
    row = result.run_dir.joinpath("results.csv").read_text().splitlines()[1].split(",")
    box_weight = Hyperparameters().box
    assert float(row[1]) == pytest.approx(box_weight * np.mean(seen[:5]), rel=1e-4)


def test_a_bad_gradient_is_attributed_to_its_own_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Although the optimizer would have stepped batches later, in the next epoch."""
    corrupt_batches(monkeypatch, lambda number: ("gradient", float("inf")) if number == 3 else None)
    with caplog.at_level("WARNING", logger="akyolo"):
        run_training(train_options(data, tmp_path, epochs=2))
    (warning,) = (record.message for record in caplog.records if "skipped" in record.message)
    assert "epoch 0, batch 2" in warning and "gradient" in warning


def test_ten_bad_batches_in_a_row_end_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupted = corrupt_batches(monkeypatch, lambda number: ("loss", float("nan")) if number > 3 else None)
    with pytest.raises(RunError) as caught:
        run_training(train_options(data, tmp_path, epochs=9))
    assert caught.value.exit_code == 1 and len(corrupted) == MAX_SKIPPED
    assert all(part in caught.value.what for part in (str(MAX_SKIPPED), "box nan", ".jpg"))


@pytest.mark.parametrize("images", [1, *(pytest.param(number, marks=pytest.mark.long) for number in (2, 3))])
def test_tiny_data_sets_train_or_are_refused(images: int, tmp_path: Path) -> None:
    yaml = tmp_path / "few.yaml"
    yaml.write_text(TINY_DATA.replace("train: 10", f"train: {images}").replace("val: 6", "val: 1"))
    trained = 0
    for batch in (1, 2, 3):
        for side in (32, 64, 96):
            try:
                run = run_training(
                    train_options(yaml, tmp_path, imgsz=side, batch_size=batch, epochs=1, cfg="yolov5n.yaml")
                )
            except ConfigError as error:
                assert side == 32 and error.where == "--imgsz 32"
                continue
            trained += 1
            assert run is not None and np.isfinite(run.summary["training_seconds"])
    assert trained >= 6

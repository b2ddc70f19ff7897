"""A loss, a gradient or an image that is no number is skipped, named, and never reaches a saved file."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY_DATA
from tests.test_end_to_end import options
from utils.errors import ConfigError, RunError
from utils.losses.detection import DetectionLoss
from utils.training import trainer as module
from utils.training.run import run_training
from utils.training.trainer import MAX_SKIPPED, Trainer
from utils.validation.evaluate import Evaluation
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


class _Spoilt(torch.autograd.Function):
    """The number itself, whose gradient is not one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: float) -> torch.Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] * ctx.value, None


def poisoned(monkeypatch: pytest.MonkeyPatch, kind_of: Callable[[int], tuple[str, float] | None]) -> list[int]:
    """Spoil the image, the loss or the gradient of some batches, counted from 1; return those spoilt."""
    call, scale, count, spoilt = DetectionLoss.__call__, module.scale_pixels, [0], []

    def spoil_image(*words: object) -> torch.Tensor:
        images = scale(*words)  # type: ignore[arg-type]
        count[0] += 1
        kind, value = kind_of(count[0]) or ("", 0.0)
        if kind:
            spoilt.append(count[0])
        if kind == "image":
            images[-1, 1, 2, 3] = value
        return images

    def spoil_loss(self: DetectionLoss, raw: list[torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = call(self, raw, targets)
        kind, value = kind_of(count[0]) or ("", 0.0)
        if not raw[0].requires_grad or kind not in ("loss", "gradient"):
            return losses
        box = raw[0].sum() * value if kind == "loss" else _Spoilt.apply(losses["box"], value)
        return {**losses, "box": box}

    # Validation scales its images by itself, not by the trainer's name for it.
    monkeypatch.setattr(module, "scale_pixels", spoil_image)
    monkeypatch.setattr(DetectionLoss, "__call__", spoil_loss)
    return spoilt


def finite(value: object) -> bool:
    """Whether all tensors within are numbers."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return all(finite(item) for item in inner)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_batches_are_skipped_named_and_never_saved(
    value: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt = poisoned(monkeypatch, lambda number: ("loss", value) if number % 3 == 2 else None)
    with caplog.at_level("WARNING", logger="akyolo"):
        result = run_training(options(data, tmp_path, epochs=4))
    assert result is not None and len(spoilt) == 4
    assert caplog.text.count("skipped: the loss is not finite") == 4 and ".jpg" in caplog.text
    note = json.loads((result.run_dir / "skipped_batch.json").read_text())
    assert note["epoch"] == 3 and note["batch"] == 1 and len(note["images"]) == 4
    assert finite(load_checkpoint(result.run_dir / "weights/last.pt"))


@pytest.mark.parametrize(("injected", "epochs"), [(9, 5), pytest.param(100, 56, marks=pytest.mark.long)])
@pytest.mark.parametrize("optimizer", ["SGD", pytest.param("AdamW", marks=pytest.mark.long)])
def test_whatever_is_injected_every_checkpoint_is_finite(
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
    spoilt, save, looked = poisoned(monkeypatch, kinds.get), Trainer._save, []

    def save_and_look(self: Trainer, evaluation: Evaluation | None) -> None:
        save(self, evaluation)
        for path in self.checkpoints.folder.glob("*.pt"):
            assert finite(load_checkpoint(path)), path
        looked.append(len(list(self.checkpoints.folder.glob("*.pt"))))

    monkeypatch.setattr(Trainer, "_save", save_and_look)
    words = {"hyp": str(recipe), "optimizer": optimizer, "epochs": epochs, "imgsz": 64}
    run = run_training(options(data, tmp_path, **words))
    assert run is not None and sorted(spoilt) == sorted(batches)
    assert len(looked) == epochs and looked[-1] == 3  # best.pt, last.pt and the one before


def test_only_bad_batches_in_a_row_end_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step comes between them, as 64 images make one; the means are of the good ones."""
    spoilt = poisoned(monkeypatch, lambda number: ("loss", float("nan")) if number % 2 else None)
    loss, seen = DetectionLoss.__call__, []

    def listen(self: DetectionLoss, raw: list[torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = loss(self, raw, targets)
        if raw[0].requires_grad and bool(losses["box"].isfinite()):
            seen.append(float(losses["box"].detach()))
        return losses

    monkeypatch.setattr(DetectionLoss, "__call__", listen)
    result = run_training(options(data, tmp_path, epochs=2, batch_size=1, imgsz=64, cfg="yolov5n.yaml"))
    assert result is not None and (len(spoilt), len(seen)) == (10, 10)
    row = result.run_dir.joinpath("results.csv").read_text().splitlines()[1].split(",")
    assert float(row[1]) == pytest.approx(np.mean(seen[:5]), rel=1e-4)


def test_a_bad_gradient_is_blamed_on_its_own_batch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Although its step would have come batches later, in the next epoch."""
    poisoned(monkeypatch, lambda number: ("gradient", float("inf")) if number == 3 else None)
    with caplog.at_level("WARNING", logger="akyolo"):
        run_training(options(data, tmp_path, epochs=2))
    assert caplog.text.count("epoch 0, batch 2 skipped: a gradient is not finite") == caplog.text.count("skipped") == 1


def test_ten_bad_batches_in_a_row_end_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = poisoned(monkeypatch, lambda number: ("loss", float("nan")) if number > 3 else None)
    with pytest.raises(RunError, match=r"10 batches in a row .*box nan.*\.jpg") as caught:
        run_training(options(data, tmp_path, epochs=9))
    assert caught.value.exit_code == 1 and len(spoilt) == MAX_SKIPPED


@pytest.mark.parametrize("images", [1, *(pytest.param(number, marks=pytest.mark.long) for number in (2, 3))])
def test_tiny_data_sets_train_or_say_why_not(images: int, tmp_path: Path) -> None:
    yaml = tmp_path / "few.yaml"
    yaml.write_text(TINY_DATA.replace("train: 10", f"train: {images}").replace("val: 6", "val: 1"))
    trained = 0
    for batch in (1, 2, 3):
        for side in (32, 64, 96):
            try:
                run = run_training(options(yaml, tmp_path, imgsz=side, batch_size=batch, epochs=1, cfg="yolov5n.yaml"))
            except ConfigError as error:
                assert side == 32 and "batch norm" in str(error)
                continue
            trained += 1
            assert run is not None and np.isfinite(run.summary["training_seconds"])
    assert trained >= 6

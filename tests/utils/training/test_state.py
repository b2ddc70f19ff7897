"""What last.pt holds and how it is restored: round trip, checkpoints of version 0.1.0, backups."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from models.config import ModelConfig
from models.yolo import DetectionModel
from utils.distributed import DistributedContext
from utils.errors import CheckpointError
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.training.ema import ModelEma
from utils.training.optim import build_optimizer, parameter_groups
from utils.training.resume_checks import check_run, find_run, validate_checkpoint
from utils.training.state import CheckpointFolder, Progress, TrainState, load_last, set_aside_earlier_run, to_builtin
from utils.weights.checkpoint import content_hash, load_checkpoint, save_checkpoint

MODEL = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "AKConv", [8, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}
ROW = {"epoch": 0, "train/box_loss": 0.25, "akconv/mean_offset": 0.5, "akconv/outside": 0.125}
CURRENT_ROW = {"epoch": 0, "train/box_loss": 0.25, "akconv/offset_abs_mean": 0.5, "akconv/oob_fraction": 0.125}


def train_state(seed: int) -> TrainState:
    torch.manual_seed(seed)
    model = DetectionModel(ModelConfig.from_dict(MODEL, name="small.yaml"))
    model = model.to(memory_format=torch.channels_last)
    groups = parameter_groups(model, weight_decay=0.01, offset_lr=0.1)
    return TrainState(
        options=TrainOptions(optimizer="AdamW"),
        hyperparameters=Hyperparameters(),
        names=("ring", "cross"),
        image_size=64,
        dataset="fingerprint",
        model=model,
        ema=ModelEma(model),
        optimizer=build_optimizer("AdamW", groups, lr=0.01, momentum=0.9),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        context=DistributedContext(),
    )


def step(state: TrainState) -> None:
    """Take an optimizer step, and leave another batch's gradients pending."""
    for update in (True, False):
        raw = state.model.train()(torch.rand(2, 3, 32, 48))
        sum(level.sum() for level in raw).backward()
        if update:
            state.optimizer.step()
            state.optimizer.zero_grad()
            state.ema.update(state.model)


@pytest.fixture
def trained() -> TrainState:
    state = train_state(0)
    step(state)
    state.progress = Progress(epoch=1, batch=2, means={"box": 0.5, "obj": 1.0, "cls": 0.25}, counted=2, rows=[ROW])
    return state


def as_written_by_0_1_0(content: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint with the keys that version 0.1.0 wrote."""
    progress = {name: value for name, value in content["progress"].items() if name != "emitted_warnings"}
    return {**content, "progress": {**progress, "rows": [ROW], "told": ["still", "exploded"]}}


def test_a_saved_state_is_restored_to_the_bit(trained: TrainState, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", trained.state_dict())
    content = load_checkpoint(tmp_path / "last.pt")
    check_run(content, "last.pt")
    other = train_state(1)
    other.load_state_dict(validate_checkpoint(content, other, batches=3, path="last.pt"))
    expected, restored = trained.state_dict(), other.state_dict()
    assert set(restored) == set(expected) and restored["progress"]["batch"] == 2
    for name in set(expected) - {"progress"}:
        assert content_hash(restored[name]) == content_hash(expected[name]), name
    for parameter in other.model.parameters():  # in the memory layout that sums were computed in
        assert parameter.grad is not None and parameter.grad.stride() == parameter.stride()
        assert other.optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


def test_a_checkpoint_of_version_0_1_0_is_restored(trained: TrainState) -> None:
    content = as_written_by_0_1_0(trained.state_dict())
    check_run(content, "last.pt")
    other = train_state(1)
    other.load_state_dict(validate_checkpoint(content, other, batches=3, path="last.pt"))
    assert other.progress.emitted_warnings == ["frozen", "diverged"] and other.progress.rows == [CURRENT_ROW]
    assert (other.progress.epoch, other.progress.batch, other.progress.counted) == (1, 2, 2)
    assert "told" not in other.state_dict()["progress"] and "told" in content["progress"]


def test_best_pt_holds_the_averaged_model_without_training_state(trained: TrainState) -> None:
    assert set(trained.model_dict()) == {
        *("config", "config_name", "names", "ema", "options", "hyperparameters", "epoch", "image_size")
    }
    assert trained.model_dict()["epoch"] == 1


def test_mean_losses_are_those_of_all_batches() -> None:
    progress = Progress(means=dict.fromkeys(("box", "obj"), 0.0), skipped=4)
    for box, obj in ((1.0, 8.0), (2.0, 4.0), (6.0, 0.0)):
        progress.add_losses({"box": box, "obj": obj})
    assert progress.means == pytest.approx({"box": 3.0, "obj": 4.0})
    assert (progress.counted, progress.skipped) == (3, 0)
    progress.finish_epoch({"epoch": 0})
    assert (progress.epoch, progress.batch, progress.means, progress.rows) == (1, 0, {}, [{"epoch": 0}])


@pytest.mark.parametrize(
    ("patience", "best_epoch", "epoch", "expected"),
    [(0, 0, 99, False), (3, -1, 99, False), (3, 1, 4, False), (3, 1, 5, True), (1, 1, 2, False), (1, 1, 3, True)],
)
def test_patience_counts_epochs_since_the_best(patience: int, best_epoch: int, epoch: int, expected: bool) -> None:
    assert Progress(epoch=epoch, best_epoch=best_epoch).out_of_patience(patience) is expected


@pytest.mark.parametrize("backup", ["last.bak.pt", "last.prev.pt"])
def test_a_damaged_checkpoint_is_replaced_by_its_backup(backup: str, trained: TrainState, tmp_path: Path) -> None:
    content = trained.state_dict()
    save_checkpoint(tmp_path / backup, content)
    (tmp_path / "last.pt").write_bytes((tmp_path / backup).read_bytes()[:-100])
    loaded, path = load_last(tmp_path / "last.pt")
    assert path.name == backup and loaded["progress"]["epoch"] == 1
    (tmp_path / backup).unlink()
    with pytest.raises(CheckpointError) as caught:
        load_last(tmp_path / "last.pt")
    assert str(tmp_path / "last.pt") in str(caught.value.where)


def test_writing_last_pt_keeps_the_previous_one(trained: TrainState, tmp_path: Path) -> None:
    saved: list[Path] = []
    folder = CheckpointFolder(tmp_path / "weights", on_save=saved.append)
    for epochs in (1, 2):
        trained.progress.epoch = epochs
        folder.write_last(trained.state_dict(), epochs=epochs)
    assert [path.name for path in saved] == ["last.pt", "last.pt"] and folder.saved_epochs == 2
    names = ("last.pt", "last.bak.pt")
    assert [load_checkpoint(tmp_path / "weights" / name)["epoch"] for name in names] == [2, 1]


def test_an_earlier_run_of_the_folder_cannot_be_resumed(trained: TrainState, tmp_path: Path) -> None:
    set_aside_earlier_run(tmp_path / "new")
    folder = CheckpointFolder(tmp_path / "exp/weights", on_save=lambda _: None)
    folder.write("best.pt", trained.model_dict())
    for _ in range(2):
        folder.write_last(trained.state_dict(), epochs=1)
    for name in ("summary.json", "results.csv", "opt.yaml"):
        (tmp_path / "exp" / name).write_text("{}")
    set_aside_earlier_run(tmp_path / "exp")
    left = sorted(path.name for path in (tmp_path / "exp").rglob("*.*"))
    assert left == ["best.pt", "last.earlier.pt", "opt.yaml"]
    assert load_checkpoint(tmp_path / "exp/weights/last.earlier.pt")["progress"]
    with pytest.raises(CheckpointError):
        find_run(TrainOptions(resume="newest", project=str(tmp_path)), frozenset())
    with pytest.raises(CheckpointError):
        find_run(TrainOptions(resume=str(tmp_path / "exp")), frozenset())


def test_only_options_that_may_change_are_accepted_at_resume(trained: TrainState, tmp_path: Path) -> None:
    path = tmp_path / "run/weights/last.pt"
    save_checkpoint(path, {**trained.state_dict(), "progress": to_builtin(vars(Progress()))})
    options = TrainOptions(resume=str(path), epochs=7, batch_size=3, workers=1)
    resumed, _, run_dir = find_run(options, frozenset({"resume", "epochs", "workers"}))
    assert (resumed.epochs, resumed.workers, resumed.batch_size) == (7, 1, TrainOptions().batch_size)
    assert run_dir == (tmp_path / "run").resolve() and math.isclose(resumed.seed, 0)
    with pytest.raises(Exception) as caught:
        find_run(options, frozenset({"resume", "batch_size"}))
    assert caught.value.exit_code == 2 and "--batch-size" in str(caught.value)

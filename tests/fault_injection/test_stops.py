"""A run stopped at any point of an epoch saves and resumes to the same bits; a run in progress is not resumed."""

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.target_process import fingerprints
from tests.helpers.training_runs import stop_in_batch, train_options
from utils.errors import CheckpointError, ConfigError, RunStopped
from utils.locks import FolderLock
from utils.options import TrainOptions
from utils.training.run import run_training
from utils.training.trainer import Trainer
from utils.validation.evaluate import Evaluation
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(
    request: pytest.FixtureRequest, data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Folder of a run that was not interrupted."""
    project = tmp_path_factory.mktemp("uninterrupted")
    changes = {"hyp": str(recipe), "cfg": str(recipe.with_name("dropout.yaml")), "optimizer": request.param}
    run_training(train_options(data, project, name=request.param, **changes))
    return project / request.param


MOMENTS = ("mid-epoch", "pending gradients", "last batch", "validation")
SHORT = [("SGD", "pending gradients"), ("SGD", "validation"), ("AdamW", "pending gradients")]
STOPS = [
    pytest.param(optimizer, moment, marks=() if (optimizer, moment) in SHORT else pytest.mark.long)
    for optimizer in ("SGD", "AdamW")
    for moment in MOMENTS
]


@pytest.mark.parametrize(("uninterrupted", "moment"), STOPS, indirect=["uninterrupted"])
def test_a_stopped_run_resumes_to_the_same_bits(
    moment: str, uninterrupted: Path, data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = {"mid-epoch": 4, "pending gradients": 5, "last batch": 6, "validation": 99}[moment]
    validate = Trainer.validate

    def stopped_validation(self: Trainer) -> Evaluation:
        if moment == "validation" and self.state.progress.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return validate(self)

    changes = {"hyp": str(recipe), "cfg": str(recipe.with_name("dropout.yaml")), "optimizer": uninterrupted.name}
    with monkeypatch.context() as patch:
        stop_in_batch(patch, batches)
        patch.setattr(Trainer, "validate", stopped_validation)
        with pytest.raises(RunStopped) as stopped:
            run_training(train_options(data, tmp_path, name="part", **changes))
    assert stopped.value.exit_code == (130 if moment == "validation" else 143)
    last = tmp_path / "part/weights/last.pt"
    assert str(last) in stopped.value.fix
    assert bool(load_checkpoint(last)["gradients"][0]) == (moment == "pending gradients")
    run_training(TrainOptions(resume=str(last)), {"resume"})
    assert fingerprints(tmp_path / "part") == fingerprints(uninterrupted)


def test_a_damaged_checkpoint_is_replaced_by_its_backup(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(train_options(data, tmp_path, name="part", hyp=str(recipe), epochs=2))
    last = tmp_path / "part/weights/last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with caplog.at_level("WARNING", logger="akyolo"):
        run_training(TrainOptions(resume=str(last), epochs=3), {"resume", "epochs"})
    assert str(last.with_name("last.bak.pt")) in caplog.text
    assert load_checkpoint(last)["progress"]["epoch"] == 3


def test_a_run_in_progress_is_not_resumed(data: Path, recipe: Path, tmp_path: Path) -> None:
    run_training(train_options(data, tmp_path, name="part", hyp=str(recipe), epochs=1))
    lock = FolderLock(tmp_path / "part")
    with pytest.raises(ConfigError) as caught:
        run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})
    assert caught.value.where == str(tmp_path / "part") and str(os.getpid()) in caught.value.what
    lock.release()
    run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})


def test_a_run_killed_in_its_last_evaluation_is_evaluated_when_resumed(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An extended run has a summary too, but of fewer epochs."""
    options = train_options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml")
    run_training(options)
    last = tmp_path / "part/weights/last.pt"
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.run._finish", lambda *_: None)
        run_training(TrainOptions(resume=str(last), epochs=2), {"resume", "epochs"})
    result = run_training(TrainOptions(resume=str(last)), {"resume"})
    assert result is not None and result.summary["epochs"] == 2
    with pytest.raises(CheckpointError) as caught:
        run_training(TrainOptions(resume=str(last)), {"resume"})
    assert caught.value.where == str(last) and "2 epochs" in caught.value.what


def test_a_checkpoint_moved_without_its_run_resumes_in_a_weights_folder_only(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(train_options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml"))
    (tmp_path / "else/a").mkdir(parents=True)
    loose = tmp_path / "else/a/last.pt"
    loose.write_bytes((tmp_path / "part/weights/last.pt").read_bytes())
    with pytest.raises(CheckpointError) as caught:
        run_training(TrainOptions(resume=str(loose), epochs=2), {"resume", "epochs"})
    assert caught.value.where == str(loose)
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["a"]
    loose.parent.rename(tmp_path / "else/weights")
    with caplog.at_level("WARNING", logger="akyolo"):
        result = run_training(
            TrainOptions(resume=str(tmp_path / "else/weights/last.pt"), epochs=1), {"resume", "epochs"}
        )
    assert result is not None and result.run_dir == (tmp_path / "else").resolve()
    assert str(tmp_path / "else/weights/best.pt") in caplog.text


def test_changed_numerics_are_reported(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(train_options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml"))
    monkeypatch.setattr("utils.training.state.numerics_fingerprint", lambda: {"torch": "99.0"})
    with caplog.at_level("WARNING", logger="akyolo"):
        run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})
    assert "torch 99.0" in caplog.text


def test_a_run_without_patience_left_saves_last_pt_even_with_nosave(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_epoch = Trainer._finish_epoch

    def first_is_best(self: Trainer, epoch: int, losses: dict[str, float], evaluation: Evaluation | None) -> None:
        finish_epoch(self, epoch, losses, evaluation)
        self.state.progress.best_epoch = 0

    monkeypatch.setattr(Trainer, "_finish_epoch", first_is_best)
    run_training(train_options(data, tmp_path, epochs=9, patience=2, nosave=True, cfg="yolov5n.yaml", imgsz=64))
    assert load_checkpoint(tmp_path / "exp/weights/last.pt")["progress"]["epoch"] == 3

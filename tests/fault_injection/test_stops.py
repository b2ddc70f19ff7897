"""Asked to stop at any moment of an epoch, a run saves, and goes on to the same bits; a living run is left alone."""

import signal
from pathlib import Path

import pytest

from tests.helpers.target_process import fingerprints
from tests.test_end_to_end import options
from utils.errors import CheckpointError, ConfigError, RunStopped
from utils.files import FolderLock
from utils.options import TrainOptions
from utils.training.run import run_training
from utils.training.trainer import Trainer
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to."""
    project = tmp_path_factory.mktemp("whole")
    run_training(options(data, project, name=request.param, hyp=str(recipe), optimizer=request.param))
    return project / request.param


MOMENTS = ("mid-epoch", "pending gradients", "last batch", "validation")
SHORT = [("SGD", "pending gradients"), ("SGD", "validation"), ("AdamW", "pending gradients")]
STOPS = [
    pytest.param(optimizer, moment, marks=() if (optimizer, moment) in SHORT else pytest.mark.long)
    for optimizer in ("SGD", "AdamW")
    for moment in MOMENTS
]


@pytest.mark.parametrize(("whole", "moment"), STOPS, indirect=["whole"])
def test_a_stopped_run_goes_on_to_the_same_bits(
    moment: str, whole: Path, data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = {"mid-epoch": 4, "pending gradients": 5, "last batch": 6, "validation": 99}[moment]
    step, validate, seen = Trainer._train_batch, Trainer.validate, [0]

    def train_batch(self: Trainer, *words: object) -> int:
        side = step(self, *words)  # type: ignore[arg-type]
        seen[0] += 1
        if seen[0] == batches:
            self.stop.signal = signal.SIGTERM
        return side

    def judge(self: Trainer) -> object:
        if moment == "validation" and self.progress.epoch == 1:
            self.stop.signal = signal.SIGINT
        return validate(self)

    words = {"hyp": str(recipe), "optimizer": whole.name}
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_batch", train_batch)
        patch.setattr(Trainer, "validate", judge)
        with pytest.raises(RunStopped, match=r"--resume .*last\.pt") as stopped:
            run_training(options(data, tmp_path, name="part", **words))
    assert stopped.value.exit_code == (130 if moment == "validation" else 143)
    last = tmp_path / "part/weights/last.pt"
    assert bool(load_checkpoint(last)["gradients"][0]) == (moment == "pending gradients")
    run_training(TrainOptions(resume=str(last)), {"resume"})
    assert fingerprints(tmp_path / "part") == fingerprints(whole)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(options(data, tmp_path, name="part", hyp=str(recipe), epochs=2))
    last = tmp_path / "part/weights/last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with caplog.at_level("WARNING", logger="akyolo"):
        run_training(TrainOptions(resume=str(last), epochs=3), {"resume", "epochs"})
    assert "last.bak.pt, one epoch earlier" in caplog.text
    assert load_checkpoint(last)["progress"]["epoch"] == 3


def test_a_living_run_is_not_resumed_by_another(data: Path, recipe: Path, tmp_path: Path) -> None:
    run_training(options(data, tmp_path, name="part", hyp=str(recipe), epochs=1))
    lock = FolderLock(tmp_path / "part")
    with pytest.raises(ConfigError, match=r"is in use by pid \d+"):
        run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})
    lock.release()
    run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})


def test_a_run_killed_in_its_last_judgement_is_judged_when_it_goes_on(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A summary of fewer epochs, as an extended run has, is none of these."""
    words = options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml")
    run_training(words)
    last = tmp_path / "part/weights/last.pt"
    with monkeypatch.context() as patch:
        patch.setattr("utils.training.run._finish", lambda trainer: None)
        run_training(TrainOptions(resume=str(last), epochs=2), {"resume", "epochs"})
    result = run_training(TrainOptions(resume=str(last)), {"resume"})
    assert result is not None and result.summary["epochs"] == 2
    with pytest.raises(CheckpointError, match="has finished its 2 epochs"):
        run_training(TrainOptions(resume=str(last)), {"resume"})


def test_a_checkpoint_brought_alone_goes_on_beside_itself_only(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_training(options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml"))
    (tmp_path / "else/a").mkdir(parents=True)
    loose = tmp_path / "else/a/last.pt"
    loose.write_bytes((tmp_path / "part/weights/last.pt").read_bytes())
    with pytest.raises(CheckpointError, match="outside its run's folder"):
        run_training(TrainOptions(resume=str(loose), epochs=2), {"resume", "epochs"})
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["a"]
    loose.parent.rename(tmp_path / "else/weights")
    with caplog.at_level("WARNING", logger="akyolo"):
        result = run_training(
            TrainOptions(resume=str(tmp_path / "else/weights/last.pt"), epochs=1), {"resume", "epochs"}
        )
    assert result is not None and "judging last.pt" in caplog.text


def test_other_arithmetic_is_told(
    data: Path, recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(options(data, tmp_path, name="part", hyp=str(recipe), epochs=1, cfg="yolov5n.yaml"))
    monkeypatch.setattr("utils.training.saving.numerics_fingerprint", lambda: {"torch": "99.0"})
    with caplog.at_level("WARNING", logger="akyolo"):
        words = TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2)
        run_training(words, {"resume", "epochs"})
    assert "now torch 99.0" in caplog.text


def test_patience_leaves_a_last_checkpoint_even_with_nosave(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Trainer._record

    def first_is_best(self: Trainer, epoch: int, losses: object, evaluation: object) -> None:
        record(self, epoch, losses, evaluation)  # type: ignore[arg-type]
        self.progress.best_epoch = 0

    monkeypatch.setattr(Trainer, "_record", first_is_best)
    run_training(options(data, tmp_path, epochs=9, patience=2, nosave=True, cfg="yolov5n.yaml", imgsz=64))
    assert load_checkpoint(tmp_path / "exp/weights/last.pt")["progress"]["epoch"] == 3

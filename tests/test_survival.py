"""A run survives what happens to runs: stopped, killed or short of a worker anywhere, it ends with the same bits."""

import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY_DATA
from tests.test_end_to_end import ROOT, options
from utils.engine.checkpoint import content_hash, load_checkpoint, save_checkpoint
from utils.engine.options import TrainOptions
from utils.engine.trainer import MAX_SKIPPED, Trainer
from utils.engine.training_run import run_training
from utils.errors import ConfigError, RunError, RunStopped
from utils.files import FolderLock, keep_previous, make_run_dir
from utils.losses.detection import DetectionLoss

PARTS = ("model", "ema", "optimizer", "gradients")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mosaic and mixup; 2 batches a step, 3 an epoch, so that gradients are pending at most epochs' ends."""
    text = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    text = re.sub(r"warmup_epochs: \S+", "warmup_epochs: 0", text).replace("mixup: 0.0", "mixup: 0.5")
    path = tmp_path_factory.mktemp("hyp") / "hyp.yaml"
    path.write_text(text + "nbs: 8\n")
    return path


def fingerprints(run: Path) -> dict[str, str]:
    """Hashes of all that a run leaves behind for the next epoch, and of its results."""
    content = load_checkpoint(run / "weights/last.pt")
    best = content_hash(load_checkpoint(run / "weights/best.pt")["ema"])
    return {part: content_hash(content[part]) for part in PARTS} | {
        "best": best,
        "rows": (run / "results.csv").read_text(),
    }


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run that nothing happened to."""
    project = tmp_path_factory.mktemp("whole")
    run_training(options(data, project, name=request.param, hyp=str(recipe), optimizer=request.param))
    return project / request.param


MOMENTS = ("mid-epoch", "pending gradients", "last batch", "validation")
STOPS = [
    *(("SGD", moment) for moment in MOMENTS),
    ("AdamW", "pending gradients"),
    *(pytest.param("AdamW", moment, marks=pytest.mark.long) for moment in MOMENTS if moment != "pending gradients"),
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


def start(folder: Path, *words: object, prefix: tuple[str, ...] = (sys.executable,)) -> subprocess.Popen[str]:
    """Start train.py in a process group of its own."""
    return subprocess.Popen(
        [*prefix, str(ROOT / "train.py"), *map(str, words)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def words_of(data: Path, recipe: Path, *, workers: int = 0, epochs: int = 6) -> tuple[object, ...]:
    return (
        *("--cfg", "yolov5n-akconv.yaml", "--data", data, "--hyp", recipe, "--epochs", epochs, "--imgsz", 64),
        *("--batch-size", 4, "--device", "cpu", "--workers", workers, "--noplots"),
    )


def orphans(group: int) -> list[str]:
    """Processes of a group that are still there and no zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(stat.parent.name)
    return found


def survive(
    folder: Path, words: tuple[object, ...], interrupt: Callable[[subprocess.Popen[str], float], None], times: int
) -> int:
    """Start a run, interrupt it at seeded moments, go on with it until it ends; return how often it was interrupted."""
    rng = random.Random(0)
    run = folder / "runs/train/exp"
    hits = 0
    for attempt in range(20 * times):
        resume = (run / "weights/last.pt").exists() or (run / "weights/last.prev.pt").exists()
        process = start(folder, *(("--resume", "--noplots") if resume else (*words, "--exist-ok")))
        if attempt < times:
            interrupt(process, rng.uniform(0.0, 1.5))
        _, complaint = process.communicate(timeout=240)
        assert not orphans(process.pid)
        if process.returncode == 0:
            return hits
        hits += 1
        assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 143, 130), complaint[-2000:]
    raise AssertionError("the run never ended")


def after_first_save(folder: Path) -> None:
    deadline = time.monotonic() + 200
    while not (folder / "runs/train/exp/weights/last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def left_alone(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    process = start(folder, *words_of(data, recipe))
    _, complaint = process.communicate(timeout=240)
    assert process.returncode == 0, complaint[-2000:]
    return folder / "runs/train/exp"


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.long)])
def test_killed_anywhere_it_ends_with_the_same_bits(
    times: int, left_alone: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    def kill(process: subprocess.Popen[str], wait: float) -> None:
        after_first_save(tmp_path)
        time.sleep(wait if times == 3 else 4 * wait)
        os.killpg(process.pid, signal.SIGKILL)

    assert survive(tmp_path, words_of(data, recipe), kill, times) >= 1
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(left_alone)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
def test_asked_to_stop_it_saves_and_says_how_to_go_on(
    number: int, times: int, left_alone: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    def ask(process: subprocess.Popen[str], wait: float) -> None:
        after_first_save(tmp_path)
        # Only after the imports does the program know of signals.
        time.sleep(wait if times == 1 else 4 + 2 * wait)
        os.killpg(process.pid, number)

    survive(tmp_path, words_of(data, recipe, workers=2), ask, times)
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(left_alone)


def test_killed_workers_are_started_anew(left_alone: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *words_of(data, recipe, workers=2))
    killed: set[int] = set()

    def hunt() -> None:
        while process.poll() is None and len(killed) < 3:
            for child in children(process.pid) - killed:
                time.sleep(0.3)
                try:
                    os.kill(child, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed.add(child)
                break
            time.sleep(0.1)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    _, complaint = process.communicate(timeout=240)
    hunter.join()
    assert process.returncode == 0 and killed, complaint[-2000:]
    assert fingerprints(tmp_path / "runs/train/exp") == fingerprints(left_alone)
    assert not orphans(process.pid)


def children(parent: int) -> set[int]:
    """Data processes of a run: children that run python's own code, not its resource tracker."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and b"train.py" in command:
            found.add(int(stat.parent.name))
    return found


def torchrun(*more: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *more)


def test_two_processes_do_what_one_does(data: Path, recipe: Path, tmp_path: Path) -> None:
    words = (*words_of(data, recipe, epochs=2), "--optimizer", "SGD")
    runs = {}
    for name, prefix, more in (("one", (sys.executable,), ()), ("two", torchrun(), ("--sync-bn",))):
        process = start(tmp_path, *words, *more, "--name", name, prefix=prefix)
        _, complaint = process.communicate(timeout=280)
        assert process.returncode == 0, complaint[-3000:]
        runs[name] = load_checkpoint(tmp_path / "runs/train" / name / "weights/last.pt")
    assert sorted(path.name for path in (tmp_path / "runs/train").iterdir()) == ["one", "two"]
    one, two = runs["one"], runs["two"]
    assert len(two["gradients"]) == 2
    # In single precision, on maps of two by two cells, rounding grows at every step; how exactly two processes agree is
    # shown in float64 in tests/utils/engine/test_distributed.py.
    before = torch.cat([value.flatten() for value in one["model"].values() if value.is_floating_point()])
    after = torch.cat([value.flatten() for value in two["model"].values() if value.is_floating_point()])
    assert (before - after).norm() / before.norm() < 5e-3
    for row, other in zip(one["progress"]["rows"], two["progress"]["rows"], strict=True):
        for part in ("box", "obj", "cls"):
            assert row[f"train/{part}_loss"] == pytest.approx(other[f"train/{part}_loss"], rel=5e-3)


@pytest.mark.long
def test_a_killed_rank_is_made_good_by_a_restart(data: Path, recipe: Path, tmp_path: Path) -> None:
    words = words_of(data, recipe, epochs=6)
    for name, times in (("calm", 0), ("struck", 3)):
        process = start(tmp_path, *words, "--name", name, prefix=torchrun("--max-restarts", "5"))
        for _ in range(times):
            after = tmp_path / "runs/train" / name / "weights/last.pt"
            deadline = time.monotonic() + 200
            while not (after.exists() and len(children(process.pid)) == 2) and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(8)
            ranks = sorted(children(process.pid))
            if ranks:
                os.kill(ranks[-1], signal.SIGKILL)
        _, complaint = process.communicate(timeout=280)
        assert process.returncode == 0, complaint[-3000:]
    assert fingerprints(tmp_path / "runs/train/struck") == fingerprints(tmp_path / "runs/train/calm")


def poisoned(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool], value: float) -> list[int]:
    """Spoil the loss of some batches; return the numbers of those spoilt."""
    call, count, spoilt = DetectionLoss.__call__, [0], []

    def spoil(self: DetectionLoss, raw: list[torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = call(self, raw, targets)
        if not raw[0].requires_grad:
            return losses
        count[0] += 1
        if bad(count[0]):
            spoilt.append(count[0])
            losses = {**losses, "box": raw[0].sum() * value}
        return losses

    monkeypatch.setattr(DetectionLoss, "__call__", spoil)
    return spoilt


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_bad_batches_are_skipped_named_and_never_saved(
    value: float, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt = poisoned(monkeypatch, lambda number: number % 3 == 2, value)
    with caplog.at_level("WARNING", logger="akyolo"):
        result = run_training(options(data, tmp_path, epochs=4))
    assert result is not None and len(spoilt) == 4
    assert caplog.text.count("skipped: the loss is not finite") == 4 and ".jpg" in caplog.text
    note = json.loads((result.run_dir / "nan_step.json").read_text())
    assert note["epoch"] == 3 and note["batch"] == 1 and len(note["pictures"]) == 4
    content = load_checkpoint(result.run_dir / "weights/last.pt")
    for part in ("model", "ema"):
        assert all(bool(v.isfinite().all()) for v in content[part].values() if v.is_floating_point())


def test_bad_weights_in_a_batch_do_not_spoil_the_statistics(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.engine import trainer as module

    scale, count = module.scale_pixels, [0]

    def spoil(*words: object) -> torch.Tensor:
        images = scale(*words)  # type: ignore[arg-type]
        count[0] += 1
        return images * float("nan") if count[0] == 2 else images

    monkeypatch.setattr(module, "scale_pixels", spoil)
    run = run_training(options(data, tmp_path, epochs=1))
    assert run is not None
    model = load_checkpoint(run.run_dir / "weights/last.pt")["model"]
    assert all(bool(v.isfinite().all()) for v in model.values() if v.is_floating_point())


def test_ten_bad_batches_in_a_row_end_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt = poisoned(monkeypatch, lambda number: number > 3, float("nan"))
    with pytest.raises(RunError, match=r"10 batches in a row .*box nan.*\.jpg") as caught:
        run_training(options(data, tmp_path, epochs=9))
    assert caught.value.exit_code == 1 and len(spoilt) == MAX_SKIPPED


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
    assert "last.prev.pt, one epoch earlier" in caplog.text
    assert load_checkpoint(last)["progress"]["epoch"] == 3


def test_many_runs_at_once_choose_many_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(64) as pool:
        folders = list(pool.map(lambda _: make_run_dir(str(tmp_path), "exp", exist_ok=False), range(64)))
    assert len(set(folders)) == 64 and all(folder.is_dir() for folder in folders)


@pytest.mark.parametrize("pictures", [1, *(pytest.param(number, marks=pytest.mark.long) for number in (2, 3))])
def test_tiny_data_sets_train_or_say_why_not(pictures: int, tmp_path: Path) -> None:
    yaml = tmp_path / "few.yaml"
    yaml.write_text(TINY_DATA.replace("train: 10", f"train: {pictures}").replace("val: 6", "val: 1"))
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


FILE_CALLS = ("open", "fsync", "replace", "link", "unlink")


def break_file_call(patch: pytest.MonkeyPatch, number: int, code: int) -> list[int]:
    """Let the n-th call that changes files fail; return a list whose one number counts the calls."""
    from utils import files

    count = [0]

    def breaking(real: Callable[..., object]) -> Callable[..., object]:
        def call(*words: object, **named: object) -> object:
            count[0] += 1
            if count[0] == number:
                raise OSError(code, os.strerror(code))
            return real(*words, **named)

        return call

    for name in FILE_CALLS:
        patch.setattr(files.os, name, breaking(getattr(os, name)))
    return count


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_every_failing_file_call_of_a_save_leaves_a_checkpoint(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a broken one, at the n-th call, for every n until a save goes through."""
    last = tmp_path / "weights/last.pt"
    save_checkpoint(last, {"epoch": 0, "value": torch.arange(1000.0)})
    saved = 0
    for number in range(1, 40):
        with monkeypatch.context() as patch:
            count = break_file_call(patch, number, code)
            try:
                keep_previous(last)
                save_checkpoint(last, {"epoch": number, "value": torch.arange(1000.0)})
                saved = number
            except RunError as error:
                assert "\n" not in str(error) and len(str(error)) < 400
        assert load_checkpoint(last)["epoch"] in (saved, number)
        assert not list(tmp_path.rglob("*.tmp")), number
        if count[0] < number:
            return
    raise AssertionError("no save ever went through")


def test_a_full_disk_ends_the_run_with_one_line_and_a_good_checkpoint(data: Path, tmp_path: Path) -> None:
    """The files of the run may grow to 12 MB: results and best.pt fit, the whole last.pt does not."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000_000, 12_000_000))

    words = ("--cfg", "yolov5n.yaml", "--data", data, "--epochs", 2, "--imgsz", 64, "--batch-size", 4, "--workers", 0)
    process = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, words), "--device", "cpu", "--noplots"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=240,
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert process.returncode == 1 and len(lines) == 1 and "cannot be written" in lines[0], process.stderr[-2000:]
    assert not list((tmp_path / "runs").rglob("*.tmp"))
    assert load_checkpoint(tmp_path / "runs/train/exp/weights/best.pt")["epoch"] == 1


def test_a_living_run_is_not_resumed_by_another(data: Path, recipe: Path, tmp_path: Path) -> None:
    run_training(options(data, tmp_path, name="part", hyp=str(recipe), epochs=1))
    lock = FolderLock(tmp_path / "part")
    with pytest.raises(ConfigError, match=r"is in use by pid \d+"):
        run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})
    lock.release()
    run_training(TrainOptions(resume=str(tmp_path / "part/weights/last.pt"), epochs=2), {"resume", "epochs"})

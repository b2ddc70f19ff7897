"""--resume of intact checkpoints with invalid content: a one-line error with exit code 2, never a traceback."""

import copy
import dataclasses
import os
import random
import re
import signal
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.training_runs import ROOT, stop_in_batch, train_options
from utils.errors import CheckpointError, ConfigError, DetectorError, RunStopped
from utils.inference.autoshape import create_detector
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.training.epoch import EpochTrainer
from utils.training.results_csv import columns_of, format_duration, write_results
from utils.training.resume_checks import matches_type
from utils.training.run import run_training
from utils.training.state import Progress
from utils.weights.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow

SMALL_MODEL = """nc: 80
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, AKConv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[1, 2], 1, Detect, [nc, anchors]]
"""
OPTIMIZERS = ("SGD", "AdamW")
MUTANTS = int(os.environ.get("AKCONV_CASES", "80")) // len(OPTIMIZERS)
ODD: tuple[Callable[[], Any], ...] = (
    lambda: None,
    lambda: True,
    lambda: -1,
    lambda: 3,
    lambda: 10**30,
    lambda: -(2**70),
    lambda: 0.5,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: "",
    lambda: "many",
    lambda: "a\0\n\ud800",
    lambda: b"raw",
    lambda: [],
    lambda: [1],
    lambda: ["a", None],
    lambda: (),
    lambda: {},
    lambda: {"a": 1},
    lambda: {1: {2: 3}},
    lambda: torch.zeros(()),
    lambda: torch.zeros(0),
    lambda: torch.zeros(3, 2),
    lambda: torch.full((5,), float("nan")),
    lambda: torch.zeros(4, dtype=torch.uint8),
    lambda: torch.ones(2, 3, 5, dtype=torch.int64),
    lambda: torch.zeros(1, dtype=torch.bool),
)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def content(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run stopped in its second epoch, each batch an optimizer step."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "small.yaml").write_text(SMALL_MODEL)
    text = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    (folder / "hyp.yaml").write_text(text + "nbs: 4\n")
    changes = {"cfg": str(folder / "small.yaml"), "hyp": str(folder / "hyp.yaml"), "imgsz": 64}
    with pytest.MonkeyPatch.context() as patch:
        stop_in_batch(patch, 4)
        with pytest.raises(RunStopped):
            run_training(train_options(data, folder, name="run", optimizer=request.param, **changes))
    return load_checkpoint(folder / "run/weights/last.pt")


@pytest.fixture
def one_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a resumed run use all of its state once, then stop."""
    progress_line = EpochTrainer._progress_line

    def stop(self: EpochTrainer, *arguments: Any) -> str:
        progress = self.state.progress
        write_results(progress.rows, tmp_path / "results.csv")
        columns_of(progress.rows)
        format_duration(progress.seconds)
        progress.out_of_patience(3)
        os.kill(os.getpid(), signal.SIGTERM)
        return progress_line(self, *arguments)

    monkeypatch.setattr(EpochTrainer, "_progress_line", stop)


def resume(content: dict[str, Any], folder: Path) -> DetectorError:
    """Write a checkpoint, resume it for one batch, and return the error with which the run ended."""
    path = folder / "run/weights/last.pt"
    path.with_name("last.bak.pt").unlink(missing_ok=True)
    save_checkpoint(path, {key: value for key, value in content.items() if key != "schema"})
    with pytest.raises(DetectorError) as error:
        run_training(TrainOptions(resume=str(path), device="cpu"), {"resume", "device"})
    return error.value


def assert_refused(error: DetectorError, *, where: str = "last.pt") -> None:
    assert isinstance(error, (CheckpointError, ConfigError)) and error.exit_code == 2, error
    assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000 and str(error).isprintable()
    assert error.fix and where in f"{error.where}: {error.what}"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside nested mappings and lists."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield (*path, key)
            yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy of nested values after a call of `change(container, key)` at a path."""
    value = copy.deepcopy(value) if len(path) == 1 else copy.copy(value)
    value = list(value) if isinstance(value, tuple) else value
    if len(path) == 1:
        change(value, path[0])
    else:
        value[path[0]] = changed(value[path[0]], path[1:], change)
    return value


def mutant(content: dict[str, Any], rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Change one value: its type, its shape, or whether it exists; all parts of the content with equal probability."""
    part = rng.choice([key for key in content if key != "schema"])
    inside = [place for place in places(content[part], (part,)) if part not in ("model", "ema") or len(place) == 2]
    place = rng.choice([(part,), *inside]) if rng.random() < 0.85 or not inside else (part,)
    kind = rng.choice(("odd", "odd", "odd", "missing", "shape", "more"))
    description = [kind]

    def change(container: Any, key: Any) -> None:
        value = container[key]
        if kind == "missing":
            del container[key]
        elif kind == "shape" and isinstance(value, Tensor):
            container[key] = rng.choice((value[None], value.flatten()[:1], value.repeat(2, *[1] * (value.ndim - 1))))
        elif kind == "more" and isinstance(value, (dict, list)):
            if isinstance(value, dict):
                value[rng.choice(("more", 7, 10**6))] = rng.choice(ODD)()
            else:
                value.append(rng.choice(ODD)())
        else:
            number = rng.randrange(len(ODD))
            description.append(str(number))
            container[key] = ODD[number]()

    result = changed(content, place, change)
    return f"{place} {' '.join(description)}", result


def test_an_unchanged_checkpoint_resumes(content: dict[str, Any], one_batch: None, tmp_path: Path) -> None:
    assert isinstance(resume(content, tmp_path), RunStopped)


def test_mutated_checkpoints_are_one_line_errors(content: dict[str, Any], one_batch: None, tmp_path: Path) -> None:
    rng = random.Random(0)
    refused = 0
    for _ in range(MUTANTS):
        name, hostile = mutant(content, rng)
        try:
            error = resume(hostile, tmp_path)
        except pytest.fail.Exception:
            raise AssertionError(f"{name}: the run ended without an error") from None
        except Exception as other:
            raise AssertionError(f"{name}: {type(other).__name__}: {other}") from other
        if not isinstance(error, RunStopped):
            refused += 1
            assert error.exit_code == 2 and len(str(error).splitlines()) == 1 and len(str(error)) < 1000, (name, error)
    assert refused > MUTANTS / 2


WRONG = {
    "epoch": lambda c: c["progress"].update(epoch=[1]),
    "rows of text": lambda c: c["progress"].update(rows=["epoch 0"]),
    "rows with text": lambda c: c["progress"]["rows"][0].update({"train/box_loss": "low"}),
    "rows without number": lambda c: c["progress"]["rows"][0].pop("epoch"),
    "seconds": lambda c: c["progress"].update(seconds=float("nan")),
    "means": lambda c: c["progress"].update(means={}),
    "batch": lambda c: c["progress"].update(batch=10**9),
    "unknown progress": lambda c: c["progress"].update(colour="red"),
    "optimizer": lambda c: c.update(optimizer=[1, 2]),
    "optimizer groups": lambda c: c["optimizer"].update(param_groups=c["optimizer"]["param_groups"][:1]),
    "optimizer rate": lambda c: c["optimizer"]["param_groups"][0].update(lr="fast"),
    "optimizer parameter": lambda c: c["optimizer"]["state"].update({10**6: {}}),
    "optimizer state": lambda c: _reshape(c["optimizer"]["state"][0]),
    "model": lambda c: _reshape(c["model"]),
    "model missing": lambda c: c["model"].popitem(),
    "model not finite": lambda c: next(iter(c["model"].values())).fill_(float("nan")),
    "ema": lambda c: c.update(ema={"a": 3}),
    "gradients": lambda c: c.update(gradients={}),
    "gradient shape": lambda c: c["gradients"][0].update({"model.0.conv.weight": torch.zeros(3)}),
    "gradient name": lambda c: c["gradients"][0].update({"model.9": torch.zeros(3)}),
    "updates": lambda c: c.update(updates="7"),
    "scaler": lambda c: c.update(scaler=None),
    "options": lambda c: c.update(options=["--epochs"]),
    "option": lambda c: c["options"].update(batch_size="4"),
    "optimizer's name": lambda c: c["options"].update(optimizer="LION"),
    "freeze": lambda c: c["options"].update(freeze=[]),
    "hyperparameters": lambda c: c["hyperparameters"].update(lr0=[0.1]),
    "hyperparameter": lambda c: c["hyperparameters"].pop("lr0"),
    "config": lambda c: c["config"].update(backbone="Conv"),
    "names": lambda c: c["names"].append("more"),
    **{
        f"no {key}": lambda c, key=key: c.pop(key)
        for key in (
            *("config", "config_name", "names", "ema", "options", "hyperparameters", "model", "updates", "optimizer"),
            *("scaler", "gradients", "progress", "dataset"),
        )
    },
}


def _reshape(tensors: dict[str, Any]) -> None:
    name = next(name for name, tensor in tensors.items() if isinstance(tensor, Tensor) and tensor.ndim)
    tensors[name] = tensors[name].flatten()[:1]


@pytest.mark.parametrize("wrong", WRONG)
def test_invalid_content_is_refused(wrong: str, content: dict[str, Any], one_batch: None, tmp_path: Path) -> None:
    hostile = copy.deepcopy(content)
    WRONG[wrong](hostile)
    error = resume(hostile, tmp_path)
    assert_refused(error)
    assert not (tmp_path / "run/weights/last.bak.pt").exists(), "nothing is written"


def test_another_number_of_processes_is_refused(content: dict[str, Any], one_batch: None, tmp_path: Path) -> None:
    error = resume({**content, "gradients": content["gradients"] * 2}, tmp_path)
    assert_refused(error, where="--resume")
    assert re.findall(r"\d+", error.what) == ["2", "1"]


def test_a_data_set_with_other_classes_is_refused(content: dict[str, Any], data: Path, tmp_path: Path) -> None:
    text = data.read_text().replace("spiral]", "spiral, more]").replace("path: shapes", f"path: {data.parent}/shapes")
    (tmp_path / "more.yaml").write_text("\n".join(line for line in text.splitlines() if "generator" not in line))
    hostile = {**content, "options": {**content["options"], "data": str(tmp_path / "more.yaml")}}
    assert_refused(resume(hostile, tmp_path))


def test_weights_to_start_from_are_checked_too(content: dict[str, Any], data: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    for wrong in ({"ema": [1]}, {"ema": {"a": 1}}, {"ema": {3: torch.zeros(1)}}):
        save_checkpoint(path, {key: value for key, value in {**content, **wrong}.items() if key != "schema"})
        for start in (
            lambda: run_training(train_options(data, tmp_path, weights=str(path), cfg="yolov5n.yaml")),
            lambda: create_detector("yolov5n.yaml", weights=path, device="cpu"),
        ):
            with pytest.raises(CheckpointError) as caught:
                start()
            assert caught.value.where == str(path)
    save_checkpoint(path, {key: value for key, value in {**content, "names": 3}.items() if key != "schema"})
    assert create_detector("yolov5n.yaml", weights=path, device="cpu", classes=2).names == {0: "class0", 1: "class1"}


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (3, int, True),
        (True, int, False),
        (True, bool, True),
        (3, float, True),
        (10**400, float, False),
        (float("nan"), float, True),
        ("3", float, False),
        ([1, 2], tuple[int, ...], True),
        ([1, "2"], tuple[int, ...], False),
        ([], list[float], True),
        ({"a": 1.0}, dict[str, float], True),
        ({"a": [1.0]}, dict[str, float], False),
        ({1: 1.0}, dict[str, float], False),
        (["a"], list[dict[str, float]], False),
    ],
)
def test_values_match_the_types_of_fields(value: object, hint: Any, expected: bool) -> None:
    assert matches_type(value, hint) is expected


def test_every_stored_field_has_a_type_that_is_checked() -> None:
    for kind in (TrainOptions, Hyperparameters, Progress):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            default = field.default if field.default is not dataclasses.MISSING else None
            if default is not None:
                assert matches_type(default, hints[field.name]), field.name

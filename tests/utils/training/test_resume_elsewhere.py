"""A run is resumed and evaluated in another working directory than it was started in, and where its data has moved."""

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers.data_oracles import write_data_set
from tests.helpers.training_runs import train_options
from utils.errors import ConfigError
from utils.options import TrainOptions, ValOptions
from utils.strict_yaml import load_yaml
from utils.training.run import run_training
from utils.validation.run import run_evaluation
from utils.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

MODEL = """nc: 2
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
backbone: [[-1, 1, Conv, [8, 3, 2]], [-1, 1, Conv, [8, 3, 2]], [-1, 1, Elsewhere, [16, 3, 2]]]
head: [[[1, 2], 1, Detect, [nc, anchors]]]
"""
PLUGIN = """from models.common import Conv
from models.registry import register

@register("in_out")
class Elsewhere(Conv):
    pass
"""


def resume(last: Path, **changes: object) -> int:
    """Resume a run and return its number of epochs."""
    result = run_training(TrainOptions(resume=str(last), **changes), given=("resume", *changes))  # type: ignore[arg-type]
    assert result is not None
    return int(result.summary["epochs"])


def test_a_run_is_resumed_and_evaluated_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "set", count=4)
    (tmp_path / "tiny.yaml").write_text(MODEL)
    (tmp_path / "elsewhere.py").write_text(PLUGIN)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    names = {"cfg": "tiny.yaml", "plugins": ("elsewhere.py",), "imgsz": 64}
    run_training(train_options(Path("set"), Path("runs"), epochs=1, **names))
    last = tmp_path / "runs/exp/weights/last.pt"
    assert load_yaml(tmp_path / "runs/exp/opt.yaml")["data"] == "set"  # as typed
    options = load_checkpoint(last)["options"]
    stored = [options["data"], options["cfg"], *options["plugins"]]
    assert stored == [str(tmp_path / name) for name in ("set/data.yaml", "tiny.yaml", "elsewhere.py")]

    monkeypatch.chdir(tmp_path / "other")
    assert resume(last.parent.parent, epochs=2) == 2  # the run's folder
    evaluation = run_evaluation(
        ValOptions(weights=(str(last),), project=str(tmp_path / "val"), workers=0, noplots=True)
    )
    assert len(evaluation.images) == 4

    shutil.move(tmp_path / "set", tmp_path / "moved")
    with pytest.raises(ConfigError) as caught:
        resume(last, epochs=3)
    assert caught.value.where == str(last) and str(tmp_path / "set") in caught.value.what
    assert resume(last, epochs=3, data=os.path.relpath(tmp_path / "moved/data.yaml")) == 3
    assert load_checkpoint(last)["options"]["data"] == str(tmp_path / "moved/data.yaml")

    (tmp_path / "moved/labels/train/p0.txt").write_text("1 .5 .5 .1 .1\n")
    with pytest.raises(ConfigError) as caught:
        resume(last, epochs=4)
    assert caught.value.where == str(tmp_path / "moved/data.yaml")

"""--fraction: training on a part of the images that is drawn by the seed."""

from pathlib import Path

import pytest

from tests.helpers.target_process import fingerprints
from tests.helpers.training_runs import DROPOUT_MODEL, stop_in_batch, train_options
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.errors import ConfigError, RunStopped
from utils.files import load_json
from utils.options import TrainOptions
from utils.training.run import run_training


@pytest.mark.parametrize("value", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError) as error:
        TrainOptions(fraction=value)
    assert error.value.where == "--fraction"


@pytest.mark.slow
def test_a_run_trains_on_the_drawn_images_and_resumes_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text(DROPOUT_MODEL)
    settings = {"cfg": str(tmp_path / "small.yaml"), "imgsz": 64, "epochs": 2, "fraction": 0.72, "seed": 3}
    whole = run_training(train_options(data, tmp_path, name="whole", **settings)).run_dir
    summary = load_json(whole / "summary.json")
    drawn = build_index(load_data_config(str(data)), "train").fraction(0.72, seed=3)
    assert (summary["fraction"], summary["training_images"]) == (0.72, 7)
    assert summary["training_objects"] == len(drawn.labels)
    assert load_json(whole / "env.json")["dataset"] == drawn.fingerprint()
    with monkeypatch.context() as patch:
        stop_in_batch(patch, 3)  # of two per epoch
        with pytest.raises(RunStopped):
            run_training(train_options(data, tmp_path, name="part", **settings))
    last = str(tmp_path / "part/weights/last.pt")
    run_training(TrainOptions(resume=last), {"resume"})
    assert fingerprints(tmp_path / "part") == fingerprints(whole)
    with pytest.raises(ConfigError) as error:
        run_training(TrainOptions(resume=last, fraction=0.5), {"resume", "fraction"})
    assert error.value.where == "--resume" and "--fraction" in error.value.what


def test_a_fraction_without_images_ends_before_a_folder_is_made(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run_training(train_options(data, tmp_path / "runs", fraction=0.01))
    assert error.value.where == "--fraction" and not (tmp_path / "runs").exists()

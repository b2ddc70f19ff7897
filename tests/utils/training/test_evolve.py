"""Evolution of hyperparameters: ranges, reproducibility, and resumption after a stop."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.training_runs import stop_in_batch, train_options
from utils.errors import ConfigError, RunError, RunStopped
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.training import evolve
from utils.training.evolve import RANGES, Generation, next_hyperparameters, read_table, run_evolution

pytestmark = pytest.mark.slow


def generation(index: int, fitness: float, hyperparameters: Hyperparameters) -> Generation:
    return Generation(index=index, fitness=fitness, map50=fitness, map50_95=fitness, hyperparameters=hyperparameters)


def test_mutations_stay_in_their_ranges_and_follow_the_best() -> None:
    initial = Hyperparameters()
    assert next_hyperparameters(initial, [], seed=0) is initial
    good, bad = replace(initial, degrees=30.0), replace(initial, degrees=0.0)
    failed = replace(initial, degrees=45.0)
    past = [
        generation(0, 0.1, bad),
        generation(1, 0.9, good),
        generation(2, float("nan"), failed),
    ]
    unchanged = 0
    for seed in range(200):
        child = next_hyperparameters(initial, past, seed=seed)
        assert child == next_hyperparameters(initial, past, seed=seed)
        for key, (low, high) in RANGES.items():
            assert low <= getattr(child, key) <= high
        assert child.lr0 == initial.lr0 and child.box == initial.box
        unchanged += child.degrees == 30.0
    assert unchanged > 60, "most children keep most values of the best parent"


def test_a_search_resumes_and_writes_table_hyperparameters_and_plot(data: Path, tmp_path: Path) -> None:
    common = {"cfg": "yolov5n.yaml", "epochs": 1, "imgsz": 64, "exist_ok": True}
    run_evolution(train_options(data, tmp_path, name="parts", evolve=1, **common))
    first = (tmp_path / "parts/evolve.csv").read_text()
    folder = run_evolution(train_options(data, tmp_path, name="parts", evolve=2, **common))
    assert (folder / "evolve.csv").read_text().startswith(first)
    table = pd.read_csv(folder / "evolve.csv")
    assert table["generation"].tolist() == [0, 1] and np.isfinite(table["fitness"]).all()
    assert any(table[key][0] != table[key][1] for key in RANGES)
    best = load_hyperparameters(str(folder / "hyp_evolve.yaml"))
    row = table.loc[table["fitness"].idxmax()]
    assert all(getattr(best, key) == pytest.approx(row[key]) for key in RANGES)
    assert (folder / "evolve.png").stat().st_size > 5000


def test_a_failed_training_makes_a_bad_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RunError("epoch 0", "the loss is not finite")

    monkeypatch.setattr(evolve, "run_training", fail)
    with pytest.raises(RunError) as caught:
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path, evolve=2, name="bad"))
    assert caught.value.where == str(tmp_path / "bad") and len(read_table(tmp_path / "bad/evolve.csv")) == 2
    with pytest.raises(ConfigError) as refused:
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path, evolve=2, noval=True))
    assert refused.value.where == "--evolve"


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evolve, "plot_evolution", lambda *_: None)


SHORT = {"cfg": "yolov5n.yaml", "epochs": 1, "imgsz": 64}


def test_a_table_is_read_exactly(without_plots: None, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    past = []
    for number in range(50):
        values = replace(Hyperparameters(), **{key: float(rng.uniform(*RANGES[key])) for key in RANGES})
        past.append(replace(generation(number, float(rng.random()), values), map50=float(rng.random())))
    evolve._write(tmp_path, past)
    assert read_table(tmp_path / "evolve.csv") == past
    for damaged in ("generation,fitness\n0,0.5\n", "generation\nx\n", "\x00", "a,b\n1,2,3\n"):
        (tmp_path / "evolve.csv").write_text(damaged)
        with pytest.raises(ConfigError) as caught:
            read_table(tmp_path / "evolve.csv")
        assert caught.value.where == str(tmp_path / "evolve.csv")


@pytest.mark.long
def test_a_stopped_evolution_says_how_to_resume_and_resumes(
    without_plots: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninterrupted = run_evolution(train_options(data, tmp_path, name="uninterrupted", evolve=2, **SHORT))
    stop_in_batch(monkeypatch, 5)
    (tmp_path / "search").mkdir()
    options = train_options(data, tmp_path, name="search", evolve=2, **SHORT)
    with pytest.raises(RunStopped) as caught:
        run_evolution(options)
    assert re.findall(r"\d+", caught.value.what) == ["1", "0", "2", "3"]  # generation, epoch, batches of
    assert caught.value.exit_code == 143 and "--resume" not in str(caught.value)
    assert "--name search2 --exist-ok" in caught.value.fix
    assert len(read_table(tmp_path / "search2/evolve.csv")) == 1
    again = replace(options, name="search2", exist_ok=True)
    stop_in_batch(monkeypatch, 1)
    with pytest.raises(RunStopped) as caught:
        run_evolution(again)
    assert "--name" not in caught.value.fix
    folder = run_evolution(again)
    assert (folder / "evolve.csv").read_text() == (uninterrupted / "evolve.csv").read_text()


def test_finished_generations_that_are_not_in_the_table_are_not_trained_again(
    without_plots: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = train_options(data, tmp_path, name="search", evolve=2, exist_ok=True, **SHORT)
    folder = run_evolution(options)
    table = (folder / "evolve.csv").read_text()
    trained, run_training = [], evolve.run_training

    def record(*arguments: object, layers: bool) -> object:
        trained.append(arguments[0].name)  # type: ignore[attr-defined]
        assert layers == (arguments[0].name == "generation0")  # type: ignore[attr-defined]
        return run_training(*arguments, layers=layers)  # type: ignore[arg-type]

    monkeypatch.setattr(evolve, "run_training", record)
    (folder / "evolve.csv").unlink()
    run_evolution(options)
    assert (folder / "evolve.csv").read_text() == table and not trained
    (folder / "evolve.csv").unlink()
    run_evolution(replace(options, seed=1))
    assert trained == ["generation1"], "only the initial hyperparameters are the same with another seed"
    (folder / "evolve.csv").unlink()
    (folder / "generation0/summary.json").write_text("{}")
    run_evolution(replace(options, seed=1, evolve=1))
    assert trained == ["generation1", "generation0"]


def test_several_processes_are_refused_before_a_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError) as caught:
        run_evolution(train_options(tmp_path / "any.yaml", tmp_path / "runs", evolve=2))
    assert caught.value.where == "--evolve" and "2" in caught.value.what and not (tmp_path / "runs").exists()

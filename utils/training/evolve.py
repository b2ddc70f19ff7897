"""--evolve: a genetic search for augmentation hyperparameters, with a short training per generation.

Each generation mutates one of the best sets of hyperparameters so far, chosen by fitness. It depends on the seed, its
index and the table before it alone, so an interrupted evolution resumes where it was.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import ConfigError, RunError, RunStopped
from utils.files import load_json, make_run_dir, write_csv
from utils.log import LOGGER
from utils.metrics.average_precision import fitness
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, check_hyperparameters, load_hyperparameters
from utils.plots.curves import plot_evolution
from utils.strict_yaml import dump_yaml
from utils.training.run import run_training
from utils.training.state import BACKUPS, LAST, SUMMARY

# Smallest and largest value of each evolved hyperparameter.
RANGES: dict[str, tuple[float, float]] = {
    "hsv_h": (0.0, 0.1),
    "hsv_s": (0.0, 0.9),
    "hsv_v": (0.0, 0.9),
    "degrees": (0.0, 45.0),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.9),
    "shear": (0.0, 10.0),
    "perspective": (0.0, 0.001),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
}
PARENTS = 5
MUTATION_PROBABILITY = 0.4
MUTATION_STD = 0.25  # as a fraction of the range
TABLE, BEST = "evolve.csv", "hyp_evolve.yaml"
RESULTS = ("fitness", "mAP_0.5", "mAP_0.5:0.95")  # columns of the table


@dataclass(frozen=True)
class Generation:
    """Hyperparameters and the results of the best epoch; these are NaN if the training failed."""

    index: int  # from 0, which has the initial hyperparameters
    fitness: float
    map50: float
    map50_95: float
    hyperparameters: Hyperparameters


def next_hyperparameters(initial: Hyperparameters, past: Sequence[Generation], *, seed: int) -> Hyperparameters:
    """Return the next generation's hyperparameters: the initial ones, then mutations of the best."""
    best = sorted(_finite(past), key=lambda g: -g.fitness)[:PARENTS]
    if not best:
        return initial
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, len(past), 2))))
    weights = np.array([g.fitness for g in best]) - min(g.fitness for g in best) + 1e-6
    parent = best[int(rng.choice(len(best), p=weights / weights.sum()))].hyperparameters
    values = {key: getattr(parent, key) for key in RANGES}
    mutated = [key for key in RANGES if rng.random() < MUTATION_PROBABILITY] or [str(rng.choice(list(RANGES)))]
    for key in mutated:
        low, high = RANGES[key]
        values[key] = round(float(np.clip(values[key] + rng.normal(0, MUTATION_STD * (high - low)), low, high)), 6)
    return replace(parent, **values)


def run_evolution(options: TrainOptions) -> Path:
    """Evolve hyperparameters; `--evolve 300 --epochs 10 --name search --exist-ok` resumes an earlier evolution.

    The returned folder holds `evolve.csv`, `hyp_evolve.yaml` (the best), `evolve.png`, and a run for each generation.

    Raises:
        DetectorError: the input is invalid. A failed training only makes a bad generation.
        RunStopped: Ctrl-C or SIGTERM; says how to resume.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:  # before each of them creates a folder
        what = f"runs in one process (torchrun started {processes})"
        raise ConfigError("--evolve", what, fix="start without torchrun")
    if options.resume or options.noval:
        fix = "use --name with --exist-ok to resume an evolution"
        raise ConfigError("--evolve", "cannot be combined with --resume or --noval", fix=fix)
    initial = load_hyperparameters(options.hyp)
    folder = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    past = read_table(folder / TABLE)
    LOGGER.info(f"Evolution: {folder}, {len(past)} of {options.evolve} generations done")
    while len(past) < options.evolve:
        past.append(_train_generation(options, initial, past, folder))
        _write(folder, past)
    best = max(_finite(past), key=lambda g: g.fitness, default=None)
    if best is None:
        raise RunError(folder, "no generation could be trained", fix="train once without --evolve to see why")
    LOGGER.info(
        f"Best of {len(past)}: generation {best.index}, mAP50 {best.map50:.3f}, mAP50-95 {best.map50_95:.3f}\n"
        f"Hyperparameters: {folder / BEST}\nTable: {folder / TABLE}\nPlot: {folder / 'evolve.png'}"
    )
    return folder


def _train_generation(
    options: TrainOptions, initial: Hyperparameters, past: Sequence[Generation], folder: Path
) -> Generation:
    """Train the next generation, or resume or read it if the program ended before it was in the table."""
    index = len(past)
    hyperparameters = next_hyperparameters(initial, past, seed=options.seed)
    name = f"generation{index}"
    hyp, run = folder / f"hyp_{name}.yaml", folder / name
    last = run / "weights" / LAST
    dump_hyperparameters(hyperparameters, hyp)
    started = _has_hyperparameters(run, hyp)
    LOGGER.info(f"\nGeneration {index} of {options.evolve}")
    results = _results(run / SUMMARY) if started else None
    try:
        if results is not None:
            LOGGER.info(f"Already trained: {run}")
        else:
            saved = any(path.is_file() for path in (last, *map(last.with_name, BACKUPS)))
            if started and saved and not (run / SUMMARY).is_file():
                run_training(replace(options, evolve=0, resume=str(last)), ("resume",), layers=not index)
            else:
                new: dict[str, Any] = {"hyp": str(hyp), "project": str(folder), "name": name, "exist_ok": True}
                run_training(replace(options, evolve=0, noplots=True, **new), layers=not index)
            results = _results(run / SUMMARY)
    except RunStopped as error:
        # Resuming the generation alone, as the training suggests, would not continue the evolution.
        again = "" if options.exist_ok else f" and --name {folder.relative_to(options.project)} --exist-ok"
        what, fix = f"in generation {index}, {error.what}", f"resume with the same command{again}"
        raise RunStopped(error.where, what, fix=fix, exit_code=error.exit_code) from error
    except RunError as error:
        LOGGER.warning(f"generation {index} failed: {error}")
    map50, map50_95 = results or (math.nan, math.nan)
    return Generation(index, fitness(map50, map50_95), map50, map50_95, hyperparameters)


def _has_hyperparameters(run: Path, hyp: Path) -> bool:
    """Whether a run was started with these hyperparameters; if not, it belongs to an earlier evolution."""
    try:
        return load_hyperparameters(str(run / "hyp.yaml")) == load_hyperparameters(str(hyp))
    except ConfigError:
        return False


def _results(summary: Path) -> tuple[float, float] | None:
    """Return mAP50 and mAP50-95 from a finished run's summary; None if there is none."""
    try:
        content = load_json(summary)
        return float(content["map50"]), float(content["map50_95"])
    except (ConfigError, KeyError, TypeError, ValueError):
        return None


def _finite(generations: Iterable[Generation]) -> list[Generation]:
    """Return the generations whose training did not fail."""
    return [g for g in generations if np.isfinite(g.fitness)]


def dump_hyperparameters(hyperparameters: Hyperparameters, path: Path) -> None:
    """Write a yaml that --hyp accepts."""
    dump_yaml(path, {key: value for key, value in asdict(hyperparameters).items() if key != "anchors" or value})


def read_table(path: Path) -> list[Generation]:
    """Return the generations of an earlier evolution; none without a table. A damaged one is a ConfigError."""
    if not path.is_file():
        return []
    names, past = {field.name for field in fields(Hyperparameters)}, []
    try:
        reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        if "generation" not in (reader.fieldnames or ()):
            raise KeyError("generation")
        for row in reader:  # Python parses a float exactly, which a resumed evolution needs
            values = {key: float(value) for key, value in row.items() if key in names}
            score, map50, map50_95 = (float(row[name]) for name in RESULTS)
            hyperparameters = check_hyperparameters(values, where=str(path))
            past.append(Generation(int(row["generation"]), score, map50, map50_95, hyperparameters))
        return past
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(path, f"is not an evolution table ({error})", fix="choose another --name") from error


def _write(folder: Path, past: Sequence[Generation]) -> None:
    """Write table, best hyperparameters and plot."""
    header = ["generation", *RESULTS, *asdict(past[0].hyperparameters)]
    rows = [[g.index, g.fitness, g.map50, g.map50_95, *asdict(g.hyperparameters).values()] for g in past]
    write_csv(folder / TABLE, [header, *rows])
    finite = _finite(past)
    if finite:
        dump_hyperparameters(max(finite, key=lambda g: g.fitness).hyperparameters, folder / BEST)
        values = {key: [getattr(g.hyperparameters, key) for g in finite] for key in RANGES}
        plot_evolution(values, [g.fitness for g in finite], folder / "evolve.png")

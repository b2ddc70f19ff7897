"""--evolve: a small genetic search over the augmentation's hyperparameters, in short trainings of their own.

Each generation takes one of the best recipes so far, weighted by fitness, and changes some of its numbers. A generation
is a function of the seed, its number and the table before it, so a search that is stopped goes on where it was.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from utils.training.state import BACKUPS, SUMMARY

# Lowest and highest value of what is searched: the augmentation, as FEATURES of the family list it.
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
CHANGE_PROBABILITY = 0.4
CHANGE = 0.25  # standard deviation of a change, as a share of the range
TABLE = "evolve.csv"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One recipe and what came of it.

    Attributes:
        number: from 0, which is the recipe given.
        fitness: 0.1 mAP50 + 0.9 mAP50-95 of the best epoch; NaN if the training failed.
        map50: of the best epoch.
        map50_95: of the best epoch.
        recipe: all hyperparameters.
    """

    number: int
    fitness: float
    map50: float
    map50_95: float
    recipe: Hyperparameters


def next_recipe(start: Hyperparameters, past: list[Generation], *, seed: int) -> Hyperparameters:
    """Return the recipe of the next generation: that given, then changed ones of the best.

    Args:
        start: the recipe the search begins with.
        past: generations so far.
        seed: of the search.
    """
    good = sorted((g for g in past if np.isfinite(g.fitness)), key=lambda g: -g.fitness)[:PARENTS]
    if not past or not good:
        return start
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, len(past), 2))))
    weights = np.array([g.fitness for g in good]) - min(g.fitness for g in good) + 1e-6
    parent = good[int(rng.choice(len(good), p=weights / weights.sum()))].recipe
    values = {key: getattr(parent, key) for key in RANGES}
    chosen = [key for key in RANGES if rng.random() < CHANGE_PROBABILITY] or [str(rng.choice(list(RANGES)))]
    for key in chosen:
        low, high = RANGES[key]
        values[key] = round(float(np.clip(values[key] + rng.normal(0, CHANGE * (high - low)), low, high)), 6)
    return replace(parent, **values)


def run_evolution(options: TrainOptions, given: Iterable[str] = ()) -> Path:
    """Search as the options say: `--evolve 300 --epochs 10 --name search --exist-ok` goes on with an earlier search.

    Returns:
        The search's folder: `evolve.csv`, `hyp_evolve.yaml` (the best recipe), `evolve.png`, and a run per generation.

    Raises:
        DetectorError: something in the input is wrong. A training that fails counts as a bad recipe.
        RunStopped: Ctrl-C or SIGTERM; says how to go on.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:  # before each of them makes a folder of its own
        what = f"runs in one process (torchrun started {processes})"
        raise ConfigError("--evolve", what, fix="start without torchrun")
    if options.resume or options.noval:
        raise ConfigError("--evolve", "works without --resume and --noval", fix="use --name with --exist-ok to go on")
    start = load_hyperparameters(options.hyp)
    folder = make_run_dir(options.project, options.name, exist_ok=options.exist_ok)
    past = read_table(folder / TABLE)
    LOGGER.info(f"Search: {folder}, {len(past)} of {options.evolve} generations done")
    while len(past) < options.evolve:
        past.append(_generation(options, start, past, folder))
        _write(folder, past)
    best = max((g for g in past if np.isfinite(g.fitness)), key=lambda g: g.fitness, default=None)
    if best is None:
        raise RunError(folder, "no generation could be trained", fix="train once without --evolve to see why")
    LOGGER.info(
        f"Best of {len(past)}: generation {best.number}, mAP50 {best.map50:.3f}, mAP50-95 {best.map50_95:.3f}\n"
        f"Its recipe: {folder / 'hyp_evolve.yaml'}\nTable: {folder / TABLE}\nImage: {folder / 'evolve.png'}"
    )
    return folder


def _generation(options: TrainOptions, start: Hyperparameters, past: list[Generation], folder: Path) -> Generation:
    """Train the next recipe, or go on with it if the program ended before it was in the table."""
    number = len(past)
    recipe = next_recipe(start, past, seed=options.seed)
    name = f"generation{number}"
    hyp = dump_recipe(recipe, folder / f"hyp_{name}.yaml")
    run, last = folder / name, folder / name / "weights" / "last.pt"
    begun = _was_given(run, hyp)
    LOGGER.info(f"\nGeneration {number} of {options.evolve}")
    finished = _finished(run, number, recipe) if begun else None
    if finished is not None:
        LOGGER.info(f"Trained before: {run}")
        return finished
    saved = any(path.is_file() for path in (last, *map(last.with_name, BACKUPS)))
    try:
        if begun and saved and not (run / SUMMARY).is_file():
            result = run_training(replace(options, evolve=0, resume=str(last)), ("resume",))
        else:
            result = run_training(
                replace(options, evolve=0, hyp=str(hyp), project=str(folder), name=name, exist_ok=True, noplots=True)
            )
    except RunStopped as error:
        # To resume the generation alone, as the training advises, would leave the search where it is.
        again = "" if options.exist_ok else f" and --name {folder.relative_to(options.project)} --exist-ok"
        what, fix = f"in generation {number}, {error.what}", f"go on with the same command{again}"
        raise RunStopped(error.where, what, fix=fix, exit_code=error.exit_code) from error
    except RunError as error:
        LOGGER.warning(f"generation {number} failed: {error}")
        return Generation(number=number, fitness=np.nan, map50=np.nan, map50_95=np.nan, recipe=recipe)
    if result is None:
        raise ConfigError("--evolve", "runs in one process", fix="start without torchrun")
    evaluation = result.evaluation
    return Generation(
        number=number,
        fitness=evaluation.fitness,
        map50=evaluation.metrics.map50,
        map50_95=evaluation.metrics.map50_95,
        recipe=recipe,
    )


def _was_given(run: Path, hyp: Path) -> bool:
    """Whether a run was begun with this recipe; another one is left by another search in the same folder."""
    try:
        return load_hyperparameters(str(run / "hyp.yaml")) == load_hyperparameters(str(hyp))
    except ConfigError:
        return False


def _finished(run: Path, number: int, recipe: Hyperparameters) -> Generation | None:
    """Return what came of a run that was trained to its end, by its summary; None if it was not."""
    try:
        summary = load_json(run / SUMMARY)
        map50, map50_95 = float(summary["map50"]), float(summary["map50_95"])
    except (ConfigError, KeyError, TypeError, ValueError):
        return None
    return Generation(number=number, fitness=fitness(map50, map50_95), map50=map50, map50_95=map50_95, recipe=recipe)


def dump_recipe(recipe: Hyperparameters, path: Path) -> Path:
    """Write a recipe as a hyperparameter yaml that --hyp takes."""
    values = {key: value for key, value in asdict(recipe).items() if key != "anchors" or value}
    dump_yaml(path, values)
    return path


def read_table(path: Path) -> list[Generation]:
    """Return the generations of an earlier search; none without a table.

    Raises:
        ConfigError: the table is damaged.
    """
    if not path.is_file():
        return []
    try:
        with io.StringIO(path.read_text(encoding="utf-8")) as text:
            reader = csv.DictReader(text)
            if "generation" not in (reader.fieldnames or ()):
                raise KeyError("generation")
            return [_read_row(row, path) for row in reader]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ConfigError(path, f"is no table of a search ({error})", fix="choose another --name") from error


def _read_row(row: dict[str, str], path: Path) -> Generation:
    """Return one generation. Python reads a number to its last bit, as a search that goes on needs it."""
    recipe = {key: float(row[key]) for key in row if key in Hyperparameters.__dataclass_fields__}
    return Generation(
        number=int(row["generation"]),
        fitness=float(row["fitness"]),
        map50=float(row["mAP_0.5"]),
        map50_95=float(row["mAP_0.5:0.95"]),
        recipe=check_hyperparameters(recipe, where=str(path)),
    )


def _write(folder: Path, past: list[Generation]) -> None:
    """Write table, best recipe and image."""
    rows = [[g.number, g.fitness, g.map50, g.map50_95, *asdict(g.recipe).values()] for g in past]
    write_csv(folder / TABLE, [["generation", "fitness", "mAP_0.5", "mAP_0.5:0.95", *asdict(past[0].recipe)], *rows])
    finite = [g for g in past if np.isfinite(g.fitness)]
    if finite:
        dump_recipe(max(finite, key=lambda g: g.fitness).recipe, folder / "hyp_evolve.yaml")
        searched = {key: [getattr(g.recipe, key) for g in finite] for key in RANGES}
        plot_evolution(searched, [g.fitness for g in finite], folder / "evolve.png")

"""compare.py's work: train several models alike with several seeds, and say which is better, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex, build_index
from utils.engine.assemble import open_data
from utils.engine.comparison import (
    DECIDING,
    ModelScores,
    compare_with_first,
    gather,
    learning_warnings,
    seed_warnings,
    size_warnings,
)
from utils.engine.comparison_cost import inference_cost, standing_cost
from utils.engine.comparison_notes import heading, overlaps
from utils.engine.comparison_outputs import own_command, write_findings, write_pictured_report
from utils.engine.comparison_plan import SUMMARY, PlannedRun, plan_runs
from utils.engine.comparison_runs import FailedRun, finish_runs
from utils.engine.comparison_tables import Findings
from utils.engine.contestants import (
    Contestant,
    config_file,
    differing_recipe,
    differing_rows,
    from_configs,
    hyp_file,
    keep_configs,
    require_buildable,
)
from utils.engine.finished_weights import from_weights, trained_otherwise, unfinished
from utils.engine.judgements import Judgement, figures_of, image_size_of, judge_checkpoint
from utils.engine.options import CompareOptions
from utils.engine.plugins import load_plugins
from utils.engine.report_sampling import SamplingPicture, sampling_pictures
from utils.engine.runtime import describe_environment, select_device
from utils.engine.sweep import variants
from utils.errors import RunError
from utils.log import LOGGER, optional
from utils.metrics.bootstrap import draw_resamples

RESAMPLES = 1000
RESAMPLING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A model whose runs are at hand: its best checkpoints, one for each seed, and the seeds as far as known."""

    contestant: Contestant
    checkpoints: tuple[Path, ...]
    seeds: tuple[int | None, ...]

    @property
    def image_size(self) -> int:
        """Side of the pictures that the model was trained with."""
        return image_size_of(self.checkpoints[0])


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """What all steps of a comparison share."""

    options: CompareOptions
    folder: Path
    data: DataConfig
    val: DatasetIndex
    device: torch.device


def run_comparison(options: CompareOptions) -> Path:
    """Train every model that is not trained yet, judge all, and write table, JSON and picture.

    Returns:
        The comparison's folder.

    Raises:
        DetectorError: something in the input is wrong (before anything is written).
        RunError: runs failed; what the others tell is written, and finished runs are kept for the next call.
    """
    device = select_device(options.device)
    load_plugins(options.plugins)
    folder = Path(options.project) / options.name
    contestants = _contestants(options, folder)
    data = open_data(options.data)
    taken = [contestant.label for contestant in contestants]
    contestants += from_weights(options.weights, names=data.names, taken=taken)
    val = build_index(data, "val")
    runs = plan_runs(options, contestants, folder)
    keep_configs(folder, contestants)
    failed = finish_runs(runs, jobs=options.jobs)
    ready = _ready(contestants, runs, failed)
    if ready:
        stage = _Stage(options=options, folder=folder, data=data, val=val, device=device)
        _present(stage, contestants, ready, runs, failed)
    if failed:
        names = ", ".join(f"{f.run.folder.name} ({f.reason.split('. Fix: ')[0]})" for f in failed)
        raise RunError(
            folder,
            f"{len(failed)} of {len(runs)} runs failed: {names}",
            fix="mend what their logs tell and give the same command; finished runs are not repeated",
        )
    return folder


def _contestants(options: CompareOptions, folder: Path) -> list[Contestant]:
    """Return the models to train, with those of --sweep; nothing is written yet."""
    contestants = from_configs(options.cfg, hyps=options.hyp)
    if not options.sweep:
        return contestants
    base, taken = contestants[-1], [contestant.label for contestant in contestants]
    for variant in variants(base.config, options.sweep, hyperparameters=base.hyperparameters, taken=taken):
        require_buildable(variant.config)
        same_numbers = variant.hyperparameters == base.hyperparameters
        contestants.append(
            Contestant(
                label=variant.label,
                cfg=str(config_file(folder, variant.label)),  # where `keep_configs` puts it
                config=variant.config,
                hyp=base.hyp if same_numbers else str(hyp_file(folder, variant.label)),
                hyperparameters=variant.hyperparameters,
            )
        )
    return contestants


def _ready(contestants: Sequence[Contestant], runs: Sequence[PlannedRun], failed: Sequence[FailedRun]) -> list[_Ready]:
    """Return the models that have a run at hand."""
    lost = {failure.run.folder for failure in failed}
    ready = []
    for contestant in contestants:
        own = [run for run in runs if run.model == contestant.label and run.folder not in lost]
        checkpoints = contestant.weights or tuple(run.best for run in own)
        if checkpoints:
            seeds = contestant.seeds or tuple(run.seed for run in own)
            ready.append(_Ready(contestant=contestant, checkpoints=checkpoints, seeds=seeds))
    return ready


def _present(
    stage: _Stage,
    contestants: Sequence[Contestant],
    ready: Sequence[_Ready],
    runs: Sequence[PlannedRun],
    failed: Sequence[FailedRun],
) -> None:
    """Judge the runs, compare the models, and write what came of it."""
    judged = _judgements(stage, ready)
    models = _scores(stage, ready, judged)
    baseline = contestants[0].label
    warnings = [*size_warnings(stage.val, stage.data.names), *seed_warnings(models), *learning_warnings(models)]
    present = [one.contestant for one in ready]
    warnings += [*unfinished(present, summary=SUMMARY), *trained_otherwise(present)]
    warnings += overlaps(stage.options.data, stage.val, present)
    if stage.options.jobs > 1 and runs:
        warnings.append(
            f"Up to {stage.options.jobs} trainings ran side by side; their seconds are those of a full house."
        )
    absent = [c.label for c in contestants if c.label not in [model.label for model in models]]
    if absent:
        warnings.append(f"No run of {', '.join(absent)} came to its end; the tables do without.")
    if baseline in absent:
        warnings.append(f"The baseline {baseline} is missing, so there is nothing to take differences from.")
    if len({one.image_size for one in ready}) > 1:
        warnings.append("The models look at pictures of different sizes; cost and accuracy go with that too.")
    findings = Findings(
        heading=heading(stage.options, stage.val, present, device=stage.device),
        models=models,
        pairs=[] if baseline in absent else compare_with_first(models, images=len(stage.val)),
        costs=_costs(stage, ready),
        warnings=warnings,
        failed=failed,
        resamples=RESAMPLES,
        settings={
            c.label: [*differing_rows(c.config, contestants[0].config), *differing_recipe(c, contestants[0])]
            for c in contestants[1:]
            if c.label not in absent
        },
        commands=[own_command(), *(run.command() for run in runs)],
        environment=describe_environment(stage.device),
    )
    checkpoints = [one.checkpoints for one in ready]
    best = [own[int(model.figures[DECIDING].points.argmax())] for model, own in zip(models, checkpoints, strict=True)]
    labels, names = [model.label for model in models], stage.data.names
    sampling: list[SamplingPicture] = []
    with optional():
        sampling = sampling_pictures(labels, best, val=stage.val, names=names, folder=stage.folder)
    overview = write_findings(
        findings, stage.options, checkpoints=checkpoints, val=stage.val, folder=stage.folder, sampling=sampling
    )
    with optional():
        write_pictured_report(
            findings, judged, names=names, val=stage.val, folder=stage.folder, overview=overview, sampling=sampling
        )


def _judgements(stage: _Stage, ready: Sequence[_Ready]) -> list[list[Judgement]]:
    """Judge every run of every model."""
    LOGGER.info(f"\nJudging {sum(len(one.checkpoints) for one in ready)} runs on {len(stage.val)} pictures")
    return [
        [
            judge_checkpoint(
                checkpoint,
                stage.val,
                batch_size=2 * stage.options.batch_size,
                workers=stage.options.workers,
                device=stage.device,
                keep=stage.folder / "judged" / f"{one.contestant.label}-{number}.npz",
            )
            for number, checkpoint in enumerate(one.checkpoints)
        ]
        for one in ready
    ]


def _scores(stage: _Stage, ready: Sequence[_Ready], judged: Sequence[Sequence[Judgement]]) -> list[ModelScores]:
    """Resample the figures of every run, with the same resamples for all."""
    weights = draw_resamples(len(stage.val), RESAMPLES, seed=RESAMPLING_SEED)
    return [
        gather(
            one.contestant.label,
            [figures_of(judgement, weights, stage.data.names) for judgement in own],
            finished=not one.contestant.cfg,
            seed_numbers=one.seeds,
        )
        for one, own in zip(ready, judged, strict=True)
    ]


def _costs(stage: _Stage, ready: Sequence[_Ready]) -> list[dict[str, Any]]:
    """Return what each model costs."""
    firsts = [one.checkpoints[0] for one in ready]
    sizes = [one.image_size for one in ready]
    timings = inference_cost(firsts, sizes, device=stage.device)
    return [
        {**standing_cost(one.checkpoints, image_size=size), **timing}
        for one, size, timing in zip(ready, sizes, timings, strict=True)
    ]

"""compare.py's work: train several models alike with several seeds, and say which is better, at what cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from utils.comparison.candidates import (
    Candidate,
    from_configs,
    keep_configs,
    require_buildable,
)
from utils.comparison.checks import heading, overlaps, require_objects, selected_on_eval_split
from utils.comparison.config_diff import differing_recipe, differing_rows, options_of, training_commands
from utils.comparison.cost import inference_cost, model_cost
from utils.comparison.data import changed_datasets, require_same_data
from utils.comparison.figures import draw_figures
from utils.comparison.folder import choose_folder, record_of
from utils.comparison.jobs import FailedRun, finish_runs
from utils.comparison.plan import SUMMARY, PlannedRun, plan_runs, swept_candidate
from utils.comparison.predictions import (
    eval_image_size,
    evaluate_checkpoint,
    excluded_by_size,
    resampled_metrics,
    support_by_class,
)
from utils.comparison.report import ComparisonResult, command_line, write_reports, write_results
from utils.comparison.statistics import (
    ModelScores,
    collect_scores,
    compare_with_baseline,
    score_warnings,
    support_warnings,
)
from utils.comparison.sweep import SweepVariant, variants
from utils.comparison.trained_runs import doubts, from_weights, one_class, reject_unsupported_options
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import class_names, open_data
from utils.errors import RunError
from utils.inference.class_mapping import distinct_names
from utils.log import LOGGER, optional
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet
from utils.options import CompareOptions
from utils.plugins import load_plugins
from utils.runtime import describe_environment, select_device
from utils.training.state import plain

RESAMPLES = 1000
RESAMPLING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A model whose runs are at hand: its best checkpoints, one for each seed, and the seeds as far as known.

    It is judged on images whose longer side has `image_size` pixels.
    """

    candidate: Candidate
    checkpoints: tuple[Path, ...]
    seeds: tuple[int | None, ...]
    image_size: int


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """What all steps of a comparison share."""

    options: CompareOptions
    folder: Path
    names: tuple[str, ...]
    val: DatasetIndex
    device: torch.device
    asked_size: int


def run_comparison(options: CompareOptions, given: Collection[str] = ()) -> Path:
    """Train every model that is not trained yet, judge all, and write table, JSON and image.

    Args:
        options: of compare.py.
        given: names of those that were given: with `imgsz` among them, finished weights are judged at that size too;
            without `name`, a comparison with others or with other settings gets a folder of its own.

    Returns:
        The comparison's folder.

    Raises:
        DetectorError: something in the input is wrong (before anything is written).
        RunError: runs failed; what the others tell is written, and finished runs are kept for the next call.
        RunStopped: Ctrl-C or SIGTERM during the trainings, which are kept as far as they came.
    """
    reject_unsupported_options(options, given)
    device = select_device(options.device)
    load_plugins(options.plugins)
    yamls = from_configs(options.cfg, hyps=options.hyp)
    swept = _swept(options, yamls)
    data = open_data(options.data)
    finished = from_weights(
        options.weights, names=data.names, taken=[*(one.label for one in yamls), *(one.label for one in swept)]
    )
    single_class = one_class([*yamls, *finished], data.names)
    val = build_index(data, options.task)
    require_objects(val, data_file=data.file, split=options.task)
    record = record_of(options, [*yamls, *swept], finished)
    folder = choose_folder(options, record, named="name" in given)
    candidates = [*yamls, *(swept_candidate(variant, yamls[-1], folder) for variant in swept), *finished]
    runs = plan_runs(options, candidates, folder)
    require_same_data(runs, data)
    keep_configs(folder, candidates)
    record.write(folder)
    failed = finish_runs(runs, jobs=options.jobs)
    asked_size = options.imgsz if "imgsz" in given else 0
    ready = _ready(candidates, runs, failed, asked_size)
    if ready:
        names = distinct_names(class_names(data, single_class=single_class))
        own = folder if options.task == "val" else folder / options.task  # beside what was found on the other split
        stage = _Stage(options=options, folder=own, names=names, val=val, device=device, asked_size=asked_size)
        _present(stage, candidates, ready, runs, failed)
    if failed:
        told = ", ".join(f"{f.run.folder.name} ({f.reason.split('. Fix: ')[0]})" for f in failed)
        raise RunError(
            folder,
            f"{len(failed)} of {len(runs)} runs failed: {told}",
            fix="mend what their logs tell and give the same command; finished runs are not repeated",
        )
    return folder


def _swept(options: CompareOptions, yamls: Sequence[Candidate]) -> list[SweepVariant]:
    """Return the variants of the last model by --sweep."""
    if not options.sweep:
        return []
    base, taken = yamls[-1], [candidate.label for candidate in yamls]
    found = variants(base.config, options.sweep, hyperparameters=base.hyperparameters, taken=taken)
    for variant in found:
        require_buildable(variant.config)
    return found


def _ready(
    candidates: Sequence[Candidate], runs: Sequence[PlannedRun], failed: Sequence[FailedRun], asked_size: int
) -> list[_Ready]:
    """Return the models that have a run at hand; with `asked_size` 0, each is judged at its own size."""
    lost = {failure.run.folder for failure in failed}
    ready = []
    for candidate in candidates:
        own = [run for run in runs if run.model == candidate.label and run.folder not in lost]
        checkpoints = candidate.weights or tuple(run.best for run in own)
        if checkpoints:
            seeds = candidate.seeds or tuple(run.seed for run in own)
            size = eval_image_size(checkpoints[0], asked_size)
            ready.append(_Ready(candidate=candidate, checkpoints=checkpoints, seeds=seeds, image_size=size))
    return ready


def _present(
    stage: _Stage,
    candidates: Sequence[Candidate],
    ready: Sequence[_Ready],
    runs: Sequence[PlannedRun],
    failed: Sequence[FailedRun],
) -> None:
    """Judge the runs, compare the models, and write what came of it."""
    judged = _judgements(stage, ready)
    models = _scores(stage, ready, judged)
    baseline = candidates[0].label
    support = support_by_class(judged[0][0], stage.names)
    warnings = [*support_warnings(len(stage.val), stage.names, support), *score_warnings(models)]
    present = [one.candidate for one in ready]
    planned = plain(asdict(runs[0].options)) if runs else {}
    warnings += [*doubts(present, summary=SUMMARY, planned=planned), *changed_datasets(present)]
    warnings += overlaps(stage.options.data, stage.val, present)
    if stage.options.task == "test":
        warnings += selected_on_eval_split(stage.options.data, stage.val, present)
    if stage.options.jobs > 1 and runs:
        warnings.append(
            f"Up to {stage.options.jobs} trainings ran side by side; their seconds are those of a full house."
        )
    absent = [c.label for c in candidates if c.label not in [model.label for model in models]]
    if absent:
        warnings.append(f"No run of {', '.join(absent)} came to its end; the tables do without.")
    if baseline in absent:
        warnings.append(f"The baseline {baseline} is missing, so there is nothing to take differences from.")
    judged_at = [one.image_size for one in ready] if stage.asked_size and stage.options.weights else []
    if len({one.image_size for one in ready}) > 1:
        warnings.append("The models look at images of different sizes; cost and accuracy go with that too.")
    costs, noise = _costs(stage, ready)
    findings = ComparisonResult(
        header=heading(stage.options, stage.val, present, device=stage.device, judged_at=judged_at),
        models=models,
        pairs=[] if baseline in absent else compare_with_baseline(models, images=len(stage.val)),
        costs=costs,
        timing_noise=noise,
        support=support,
        excluded=excluded_by_size(judged[0][0], stage.names),
        weight_files={one.candidate.label: one.checkpoints for one in ready if one.candidate.weights},
        warnings=warnings,
        failed=failed,
        resamples=RESAMPLES,
        config_diffs={
            c.label: [
                *differing_rows(c.config, candidates[0].config),
                *differing_recipe(c, candidates[0], (options_of(c, planned), options_of(candidates[0], planned))),
            ]
            for c in candidates[1:]
            if c.label not in absent
        },
        commands=[command_line(), *(run.command() for run in runs), *training_commands(present)],
        environment=describe_environment(stage.device),
    )
    checkpoints = [one.checkpoints for one in ready]
    write_results(findings, stage.options, checkpoints=checkpoints, val=stage.val, folder=stage.folder)
    images = draw_figures(
        findings, judged, checkpoints=checkpoints, names=stage.names, val=stage.val, folder=stage.folder
    )
    with optional():
        write_reports(findings, images, folder=stage.folder)


def _judgements(stage: _Stage, ready: Sequence[_Ready]) -> list[list[EvaluatedSet]]:
    """Judge every run of every model."""
    LOGGER.info(f"\nJudging {sum(len(one.checkpoints) for one in ready)} runs on {len(stage.val)} images")
    return [
        [
            evaluate_checkpoint(
                checkpoint,
                stage.val,
                image_size=one.image_size,
                batch_size=2 * stage.options.batch_size,
                workers=stage.options.workers,
                device=stage.device,
                cache=stage.folder / "predictions" / f"{one.candidate.label}-{number}.npz",
            )
            for number, checkpoint in enumerate(one.checkpoints)
        ]
        for one in ready
    ]


def _scores(stage: _Stage, ready: Sequence[_Ready], judged: Sequence[Sequence[EvaluatedSet]]) -> list[ModelScores]:
    """Resample the figures of every run, with the same resamples for all."""
    weights = draw_resamples(len(stage.val), RESAMPLES, seed=RESAMPLING_SEED)
    return [
        collect_scores(
            one.candidate.label,
            [resampled_metrics(judgement, weights, stage.names) for judgement in own],
            fixed_weights=not one.candidate.cfg,
            seeds=one.seeds,
        )
        for one, own in zip(ready, judged, strict=True)
    ]


def _costs(stage: _Stage, ready: Sequence[_Ready]) -> tuple[list[dict[str, Any]], tuple[float, float]]:
    """Return what each model costs, and the noise of its inference times."""
    firsts = [one.checkpoints[0] for one in ready]
    sizes = [one.image_size for one in ready]
    timings, noise = inference_cost(firsts, sizes, device=stage.device)
    costs = [
        {**model_cost(one.checkpoints, image_size=size), **timing}
        for one, size, timing in zip(ready, sizes, timings, strict=True)
    ]
    return costs, noise

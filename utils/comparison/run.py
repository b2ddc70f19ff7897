"""compare.py: train several models with several seeds, evaluate them, and report which is better and at what cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.comparison.candidates import Candidate, ToTrain, differing_settings, from_configs, header, write_configs
from utils.comparison.checks import (
    is_single_class,
    provenance_warnings,
    reject_unsupported_options,
    require_objects,
    require_same_data,
)
from utils.comparison.cost import measure_costs
from utils.comparison.figures import draw_figures
from utils.comparison.jobs import FailedRun, finish_runs
from utils.comparison.plan import Manifest, PlannedRun, choose_folder, plan_runs, training_commands
from utils.comparison.predictions import evaluate_run, excluded_by_size, resampled_metrics, support_by_class
from utils.comparison.report import ComparisonResult, command_line, write_reports, write_results
from utils.comparison.statistics import (
    ModelScores,
    collect_scores,
    compare_with_baseline,
    score_warnings,
    support_warnings,
)
from utils.comparison.sweep import sweep_variants
from utils.comparison.trained_runs import TrainedRuns, from_weights, read_run
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import class_names, open_data, round_image_size
from utils.errors import RunError
from utils.inference.class_mapping import distinct_names
from utils.log import LOGGER, optional
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet
from utils.options import CompareOptions
from utils.plugins import load_plugins
from utils.runtime import describe_environment, select_device

RESAMPLES = 1000
RESAMPLING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """The models with a finished run, the image size of each, and the split that they are evaluated on."""

    options: CompareOptions
    folder: Path
    models: Sequence[TrainedRuns]
    image_sizes: Sequence[int]
    names: tuple[str, ...]
    split: DatasetIndex
    device: torch.device


def run_comparison(options: CompareOptions, given: Collection[str] = ()) -> Path:
    """Train all models that are not trained yet, evaluate all, and write tables, JSON, images and reports.

    Args:
        options: of compare.py.
        given: names of the options that the user gave. With `imgsz`, finished weights are evaluated at that size as
            well; without `name`, a comparison of other models or with other settings gets a folder of its own.

    Returns:
        The comparison's folder.

    Raises:
        DetectorError: the input is wrong (before anything is written).
        RunError: runs failed. The results of the others are written, and finished runs are kept for the next call.
        RunStopped: Ctrl-C or SIGTERM during the trainings, which have saved their state.
    """
    reject_unsupported_options(options, given)
    device = select_device(options.device)
    load_plugins(options.plugins)
    to_train = from_configs(options.cfg, hyps=options.hyp)
    if options.sweep:
        to_train += sweep_variants(to_train[-1], options.sweep, taken=[model.label for model in to_train])
    data = open_data(options.data)
    finished = from_weights(options.weights, names=data.names, taken=[model.label for model in to_train])
    candidates: list[Candidate] = [*to_train, *finished]
    single_class = is_single_class(candidates, data.names)
    split = build_index(data, options.task)
    require_objects(split, data_file=data.file, split=options.task)
    manifest = Manifest.of(options, to_train, finished)
    folder = choose_folder(Path(options.project), options.name, manifest, named="name" in given)
    runs = plan_runs(options, to_train, folder)
    require_same_data(runs, data)
    write_configs(folder, to_train)
    manifest.write(folder)
    failed = finish_runs(runs, jobs=options.jobs)
    models = [*_trained_models(to_train, runs, failed), *finished]
    if models:
        firsts = [model.runs[0] for model in models]
        if "imgsz" in given:
            sizes = [round_image_size(options.imgsz, run.max_stride) for run in firsts]
        else:
            sizes = [run.image_size for run in firsts]
        evaluation = _Evaluation(
            options=options,
            folder=folder if options.task == "val" else folder / options.task,
            models=models,
            image_sizes=sizes,
            names=distinct_names(class_names(data, single_class=single_class)),
            split=split,
            device=device,
        )
        _evaluate(evaluation, candidates, runs, failed, size_given="imgsz" in given)
    if failed:
        reasons = ", ".join(f"{f.run.folder.name} ({f.reason.split('. Fix: ')[0]})" for f in failed)
        raise RunError(
            folder,
            f"{len(failed)} of {len(runs)} runs failed: {reasons}",
            fix="fix the errors in the logs and rerun; finished runs are skipped",
        )
    return folder


def _trained_models(
    to_train: Sequence[ToTrain], runs: Sequence[PlannedRun], failed: Sequence[FailedRun]
) -> list[TrainedRuns]:
    """Read the runs that the comparison has trained; models without a finished run are left out."""
    lost = {failure.run.folder for failure in failed}
    models = []
    for model in to_train:
        paths = [run.best for run in runs if run.model == model.label and run.folder not in lost]
        if paths:
            finished = TrainedRuns(
                label=model.label,
                runs=tuple(map(read_run, paths)),
                config=model.config,
                hyperparameters=model.hyperparameters,
                is_finished_weights=False,
            )
            models.append(finished)
    return models


def _evaluate(
    evaluation: _Evaluation,
    candidates: Sequence[Candidate],
    runs: Sequence[PlannedRun],
    failed: Sequence[FailedRun],
    *,
    size_given: bool,
) -> None:
    """Evaluate the models, compare them, and write the results."""
    options, folder, models, split = evaluation.options, evaluation.folder, evaluation.models, evaluation.split
    evaluated = _evaluate_runs(evaluation)
    scores = _resampled_scores(evaluation, evaluated)
    support = support_by_class(evaluated[0][0], evaluation.names)
    labels = [model.label for model in models]
    absent = [candidate.label for candidate in candidates if candidate.label not in labels]
    baseline = candidates[0].label
    pairs = [] if baseline in absent else compare_with_baseline(scores, images=len(split))
    warnings = [
        *support_warnings(len(split), evaluation.names, support),
        *score_warnings(scores),
        *provenance_warnings(models, split, task=options.task),
    ]
    if options.jobs > 1 and runs:
        warnings.append(f"Timings of training were measured under parallel load (up to {options.jobs} jobs).")
    if absent:
        warnings.append(f"No finished run of {', '.join(absent)}; the tables leave it out.")
    if baseline in absent:
        warnings.append(f"The baseline {baseline} is missing, so there are no differences.")
    if len(set(evaluation.image_sizes)) > 1:
        warnings.append("The models are evaluated at different image sizes, which also affects cost and accuracy.")
    costs, noise = measure_costs(models, evaluation.image_sizes, device=evaluation.device)
    evaluated_at = evaluation.image_sizes if size_given and options.weights else ()
    result = ComparisonResult(
        header=header(options, split, models, device=evaluation.device, evaluated_at=evaluated_at),
        models=models,
        scores=scores,
        pairs=pairs,
        costs=costs,
        timing_noise=noise,
        support=support,
        excluded=excluded_by_size(evaluated[0][0], evaluation.names),
        warnings=warnings,
        failed=failed,
        resamples=RESAMPLES,
        config_diffs={model.label: differing_settings(model, models[0]) for model in models[1:]},
        commands=[command_line(), *(run.command() for run in runs), *training_commands(models)],
        environment=describe_environment(evaluation.device),
    )
    write_results(result, options, val=split, folder=folder)
    figures = draw_figures(result, evaluated, names=evaluation.names, val=split, folder=folder)
    with optional():
        write_reports(result, figures, folder=folder)


def _evaluate_runs(evaluation: _Evaluation) -> list[list[EvaluatedSet]]:
    """Evaluate every run of every model, or read its predictions of an earlier call."""
    count = sum(len(model.runs) for model in evaluation.models)
    LOGGER.info(f"\nEvaluating {count} checkpoints on {len(evaluation.split)} images")
    return [
        [
            evaluate_run(
                run,
                evaluation.split,
                image_size=size,
                batch_size=2 * evaluation.options.batch_size,
                workers=evaluation.options.workers,
                device=evaluation.device,
                cache=evaluation.folder / "predictions" / f"{model.label}-{index}.npz",
            )
            for index, run in enumerate(model.runs)
        ]
        for model, size in zip(evaluation.models, evaluation.image_sizes, strict=True)
    ]


def _resampled_scores(evaluation: _Evaluation, evaluated: Sequence[Sequence[EvaluatedSet]]) -> list[ModelScores]:
    """Return the metrics of every run, on the same resamples of the images for all."""
    weights = draw_resamples(len(evaluation.split), RESAMPLES, seed=RESAMPLING_SEED)
    return [
        collect_scores(
            model.label,
            [resampled_metrics(run, weights, evaluation.names) for run in runs],
            fixed_weights=model.is_finished_weights,
            seeds=tuple(run.seed for run in model.runs),
        )
        for model, runs in zip(evaluation.models, evaluated, strict=True)
    ]

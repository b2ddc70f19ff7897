"""compare.py: train several models with several seeds, evaluate them, and report which is better and at what cost."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from utils.comparison.ablation import ablation_effects
from utils.comparison.ablation_design import Ablation, plan_ablation
from utils.comparison.candidates import (
    ToTrain,
    differing_settings,
    from_configs,
    header,
    named_labels,
    write_configs,
)
from utils.comparison.checks import (
    is_single_class,
    provenance_warnings,
    reject_unsupported_options,
    require_objects,
    require_same_data,
    require_trainable,
)
from utils.comparison.contact_sheets import draw_detections
from utils.comparison.cost import measure_costs
from utils.comparison.data_sets import DataSet, finished_models, open_data_sets, overlap_warnings
from utils.comparison.error_analysis import error_metrics
from utils.comparison.figures import draw_figures
from utils.comparison.jobs import FailedRun, finish_runs
from utils.comparison.joint_report import write_joint_results
from utils.comparison.paper_figures import draw_paper_figures
from utils.comparison.plan import Manifest, PlannedRun, choose_folder, plan_runs, training_commands
from utils.comparison.predictions import (
    coco_ranks,
    evaluate_run,
    excluded_by_size,
    resampled_metrics,
    support_by_class,
)
from utils.comparison.report import SHEETS, write_reports, write_results
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import collect_scores, compare_with_baseline, score_warnings, support_warnings
from utils.comparison.sweep import sweep_variants
from utils.comparison.trained_runs import TrainedRuns, read_run
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.split_checks import split_warnings
from utils.datasets.splits import class_names, round_image_size
from utils.errors import RunError
from utils.inference.class_mapping import distinct_names
from utils.locks import FolderLock
from utils.log import LOGGER, optional
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.object_size import COCO_SCALE, TINY_SCALE
from utils.options import CompareOptions
from utils.plugins import load_plugins
from utils.runtime import describe_environment, select_device

RESAMPLES = 1000
RESAMPLING_SEED = 0


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """What is evaluated on one data set."""

    options: CompareOptions  # of this data set alone
    data_set: DataSet
    labels: Mapping[str, str]  # of all models in the report, by label of their files; the first is the baseline
    finished: Sequence[TrainedRuns]  # on this data set, given by --weights
    split: DatasetIndex
    names: tuple[str, ...]  # of the classes, unique


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """What is compared on one data set, and where its runs and results are."""

    evaluation: _Evaluation
    runs: Sequence[PlannedRun]
    failed: Sequence[FailedRun]
    device: torch.device
    folder: Path  # of the results on the split
    ablation: Ablation | None


def run_comparison(options: CompareOptions, given: Collection[str] = ()) -> Path:
    """Train all models that are not trained yet, evaluate all, write tables, JSON, images and reports into a folder.

    Among the options that the user gave, `imgsz` lets finished weights be evaluated at that size as well; without
    `name`, a comparison of other models or with other settings gets a folder of its own. Each of several data sets has
    a folder in it, with runs and reports of its own; the joint results are beside these folders.

    Raises:
        DetectorError: the input is wrong (before anything is written), or another comparison uses the folder.
        RunError: runs failed. The results of the others are written, and finished runs are kept for the next call.
        RunStopped: Ctrl-C or SIGTERM during the trainings, which have saved their state.
    """
    reject_unsupported_options(options, given)
    device = select_device(options.device)
    load_plugins(options.plugins)
    to_train = from_configs(options.cfg, hyps=options.hyp)
    if options.sweep:
        to_train += sweep_variants(to_train[-1], options.sweep, taken=[model.label for model in to_train])
    variants, ablation = plan_ablation(options, to_train)
    to_train += variants
    sets = open_data_sets(options.data)
    finished = finished_models(options.weights, sets, taken=[model.label for model in to_train])
    labels = named_labels([*to_train, *(next(iter(model.values())) for model in finished)], options.names)
    evaluations = [_prepare(options, sets, index, to_train, finished, labels) for index in range(len(sets))]
    all_finished = [model for of_sets in finished for model in of_sets.values()]
    manifest = Manifest.of(options, to_train, all_finished)
    folder = choose_folder(Path(options.project), options.name, manifest, named="name" in given)
    with contextlib.ExitStack() as stack:
        stack.callback(FolderLock(folder).release)
        titles = [data_set.label for data_set in sets] if len(sets) > 1 else [""]
        folders = [folder / title for title in titles]
        planned = [
            plan_runs(evaluation.options, to_train, folder / title, data_set=title)
            for evaluation, title in zip(evaluations, titles, strict=True)
        ]
        for data_set, its_runs in zip(sets, planned, strict=True):
            require_same_data(its_runs, data_set.config)
        for of_set in folders:
            write_configs(of_set, to_train)
        manifest.write(folder)
        runs = [run for its_runs in planned for run in its_runs]
        failed = finish_runs(runs, jobs=options.jobs)
        results: dict[str, ComparisonResult] = {}  # by label of the data set
        for evaluation, of_set, its_runs in zip(evaluations, folders, planned, strict=True):
            its_failed = [failure for failure in failed if failure.run in its_runs]
            models = [*_trained_models(to_train, its_runs, its_failed), *evaluation.finished]
            if models:
                comparison = _Comparison(
                    evaluation=evaluation,
                    runs=its_runs,
                    failed=its_failed,
                    device=device,
                    folder=of_set if options.task == "val" else of_set / options.task,
                    ablation=ablation.labelled(labels) if ablation else None,
                )
                results[evaluation.data_set.label] = _evaluate(comparison, models, size_given="imgsz" in given)
        if len(sets) > 1 and results:
            warnings = overlap_warnings(sets, [evaluation.split.paths.tolist() for evaluation in evaluations])
            write_joint_results(
                results,
                options,
                labels=list(labels.values()),
                warnings=warnings,
                failed=failed,
                folder=folder if options.task == "val" else folder / options.task,
            )
        if failed:
            reasons = ", ".join(f"{f.run.title} ({f.reason.split('. Fix: ')[0]})" for f in failed)
            what = f"{len(failed)} of {len(runs)} runs failed: {reasons}"
            raise RunError(folder, what, fix="fix the errors in the logs and rerun; finished runs are skipped")
    return folder


def _prepare(
    options: CompareOptions,
    sets: Sequence[DataSet],
    index: int,
    to_train: Sequence[ToTrain],
    finished: Sequence[Mapping[int, TrainedRuns]],
    labels: Mapping[str, str],
) -> _Evaluation:
    """Check what is to be evaluated on a data set, given by its index, before anything is written."""
    data_set = sets[index]
    data, task = data_set.config, options.task
    of_set = [model[index] for model in finished if index in model]
    single_class = is_single_class([*to_train, *of_set], data.names, trained=options.single_cls)
    require_trainable(to_train, options, num_classes=1 if single_class else len(data.names))
    split = build_index(data, task, use_cache=not options.no_label_cache, strict=options.strict)
    require_objects(split, data_file=data.file, split=task)
    for warning in split_warnings(data, split, task):
        LOGGER.warning(warning)
    return _Evaluation(
        options=options.of_data_set(data_set.name),
        data_set=data_set,
        labels=labels,
        finished=of_set,
        split=split,
        names=distinct_names(class_names(data, single_class=single_class)),
    )


def _trained_models(
    to_train: Sequence[ToTrain], runs: Sequence[PlannedRun], failed: Sequence[FailedRun]
) -> list[TrainedRuns]:
    """Read the runs that the comparison has trained; models without a finished run are left out."""
    lost = {failure.run.folder for failure in failed}
    models = []
    for model in to_train:
        finished = [read_run(run.best) for run in runs if run.model == model.label and run.folder not in lost]
        if finished:
            trained = TrainedRuns(
                label=model.label,
                runs=tuple(finished),
                config=model.config,
                hyperparameters=model.hyperparameters,
                is_finished_weights=False,
            )
            models.append(trained)
    return models


def _evaluate(comparison: _Comparison, models: Sequence[TrainedRuns], *, size_given: bool) -> ComparisonResult:
    """Evaluate the models, at the size of --imgsz if it was given, compare them, and write the results."""
    evaluation, folder, device = comparison.evaluation, comparison.folder, comparison.device
    options, split, names = evaluation.options, evaluation.split, evaluation.names
    sizes = [
        round_image_size(options.imgsz, model.runs[0].max_stride) if size_given else model.runs[0].image_size
        for model in models
    ]
    LOGGER.info(f"\nEvaluating {sum(len(model.runs) for model in models)} checkpoints on {len(split)} images")
    evaluate_one = partial(evaluate_run, batch_size=2 * options.batch_size, workers=options.workers, device=device)
    evaluated = [
        [
            evaluate_one(run, split, image_size=size, cache=folder / "predictions" / f"{model.label}-{index}.npz")
            for index, run in enumerate(model.runs)
        ]
        for model, size in zip(models, sizes, strict=True)
    ]
    models = [replace(model, label=evaluation.labels[model.label]) for model in models]
    weights = draw_resamples(len(split), RESAMPLES, seed=RESAMPLING_SEED)  # the same for all models
    scale, ranks = TINY_SCALE if options.tiny else COCO_SCALE, coco_ranks(split)
    scores = [
        collect_scores(
            model.label,
            [
                resampled_metrics(run, weights, names, image_ranks=ranks, scale=scale) | error_metrics(run, weights)
                for run in runs
            ],
            fixed_weights=model.is_finished_weights,
            seeds=tuple(run.seed for run in model.runs),
        )
        for model, runs in zip(models, evaluated, strict=True)
    ]
    support = support_by_class(evaluated[0][0], names, scale)
    baseline_exists = models[0].label == next(iter(evaluation.labels.values()))
    costs, noise = measure_costs(models, sizes, split.paths.tolist(), device=device)
    command = f"python {Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"
    result = ComparisonResult(
        header=header(options, split, models, device=device, sizes=set(sizes if size_given else ())),
        val=split,
        names=names,
        models=models,
        scores=scores,
        pairs=compare_with_baseline(scores, images=len(split)) if baseline_exists else [],
        ablation=ablation_effects(comparison.ablation, scores, images=len(split)) if comparison.ablation else None,
        costs=costs,
        timing_noise=noise,
        size_scale=scale,
        support=support,
        excluded=excluded_by_size(evaluated[0][0], names, scale),
        warnings=[
            *support_warnings(len(split), names, support),
            *score_warnings(scores),
            *provenance_warnings(models, split, task=options.task),
            *_warnings(comparison, models, sizes),
        ],
        failed=comparison.failed,
        resamples=RESAMPLES,
        config_diffs={model.label: differing_settings(model, models[0]) for model in models[1:]},
        commands=[command, *(run.command() for run in comparison.runs), *training_commands(models)],
        environment=describe_environment(device),
    )
    write_results(result, options, folder=folder)
    figures = {
        **draw_paper_figures(result, evaluated, folder=folder, formats=options.figures, lang=options.lang),
        **draw_figures(result, evaluated, folder=folder),
    }
    figures[SHEETS] = draw_detections(result, evaluated, folder=folder, browse=options.browse)
    with optional():
        write_reports(result, figures, folder=folder)
    return result


def _warnings(comparison: _Comparison, models: Sequence[TrainedRuns], sizes: Sequence[int]) -> list[str]:
    """Return warnings about missing models and about conditions that are not the same for all."""
    labels = [model.label for model in models]
    baseline, *others = comparison.evaluation.labels.values()
    absent = ", ".join(label for label in (baseline, *others) if label not in labels)
    jobs = comparison.evaluation.options.jobs
    warnings = {
        f"Timings of training were measured under parallel load (up to {jobs} jobs).": jobs > 1 and comparison.runs,
        f"No finished run of {absent}; the tables leave it out.": absent,
        f"The baseline {baseline} is missing, so there are no differences.": baseline not in labels,
        "The models are evaluated at different image sizes, which also affects cost and accuracy.": len(set(sizes)) > 1,
    }
    return [warning for warning, applies in warnings.items() if applies]

"""compare.py: train several models with several seeds, evaluate them, and report which is better and at what cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
    condition_warnings,
    is_single_class,
    provenance_warnings,
    reject_unsupported_options,
    require_objects,
    require_same_data,
    require_trainable,
    require_writable_paper,
    score_warnings,
    support_warnings,
)
from utils.comparison.contact_sheets import draw_detections
from utils.comparison.cost import measure_costs
from utils.comparison.data_sets import DataSet, finished_models, open_data_sets, overlap_warnings
from utils.comparison.error_analysis import error_metrics
from utils.comparison.figures import draw_figures
from utils.comparison.jobs import FailedRun, failure_of_all, finish_runs, trained_models
from utils.comparison.joint_report import compare_jointly, write_joint_results
from utils.comparison.paper import write_comparison, write_joint_comparison
from utils.comparison.paper_figures import draw_paper_figures
from utils.comparison.plan import Manifest, PlannedRun, choose_folder, commands_of, plan_runs
from utils.comparison.predictions import (
    coco_ranks,
    evaluate_models,
    excluded_by_size,
    resampled_metrics,
    support_by_class,
)
from utils.comparison.report import FIGURES, SHEETS, write_reports, write_results
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import collect_scores, compare_with_baseline
from utils.comparison.sweep import sweep_variants
from utils.comparison.trained_runs import TrainedRuns
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.letterbox import round_image_size
from utils.datasets.split_checks import split_warnings
from utils.datasets.splits import class_names
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
class _SetToCompare:
    """A data set of the comparison, and what is evaluated on it."""

    options: CompareOptions  # of this data set alone
    data_set: DataSet
    finished: Sequence[TrainedRuns]  # given by --weights
    split: DatasetIndex
    names: tuple[str, ...]  # of the classes, unique


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
    ablation = ablation.labelled(labels) if ablation else None
    compared = [
        _prepare(options, data_set, to_train, [model[index] for model in finished if index in model])
        for index, data_set in enumerate(sets)
    ]
    require_writable_paper(options)
    manifest = Manifest.of(options, to_train, [model for of_sets in finished for model in of_sets.values()])
    folder = choose_folder(Path(options.project), options.name, manifest, named="name" in given)
    lock = FolderLock(folder)
    try:
        runs = []
        for one in compared:
            planned = plan_runs(one.options, to_train, folder / one.data_set.folder, data_set=one.data_set.folder)
            require_same_data(planned, one.data_set.config)
            runs += planned
        for data_set in sets:
            write_configs(folder / data_set.folder, to_train)
        manifest.write(folder)
        failed = finish_runs(runs, jobs=options.jobs)
        results: dict[str, ComparisonResult] = {}  # by label of the data set
        of_task = "" if options.task == "val" else options.task
        for one in compared:
            planned = [run for run in runs if run.data_set == one.data_set.folder]
            its_failed = [failure for failure in failed if failure.run in planned]
            models = [*trained_models(to_train, planned, its_failed), *one.finished]
            if models:
                results[one.data_set.label] = _evaluate(
                    one,
                    models,
                    runs=planned,
                    failed=its_failed,
                    labels=labels,
                    ablation=ablation,
                    device=device,
                    size_given="imgsz" in given,
                    folder=folder / one.data_set.folder / of_task,
                )
        if len(sets) > 1 and results:
            warnings = overlap_warnings(sets, [one.split.paths.tolist() for one in compared])
            joint = compare_jointly(results, list(labels.values()), warnings=warnings, failed=failed)
            drawn = write_joint_results(joint, options, folder=folder / of_task)
            if options.paper:
                with optional():
                    write_joint_comparison(joint, options, figures=drawn)
        if failed:
            raise failure_of_all(failed, folder, count=len(runs))
    finally:
        lock.release()
    return folder


def _prepare(
    options: CompareOptions, data_set: DataSet, to_train: Sequence[ToTrain], finished: Sequence[TrainedRuns]
) -> _SetToCompare:
    """Check what is to be evaluated on a data set, before anything is written."""
    data, task = data_set.config, options.task
    single_class = is_single_class([*to_train, *finished], data.names, trained=options.single_cls)
    require_trainable(to_train, options, num_classes=1 if single_class else len(data.names))
    split = build_index(data, task, use_cache=not options.no_label_cache, strict=options.strict)
    require_objects(split, data_file=data.file, split=task)
    for warning in split_warnings(data, split, task):
        LOGGER.warning(warning)
    return _SetToCompare(
        options=options.of_data_set(data_set.name, data_set.label),
        data_set=data_set,
        finished=finished,
        split=split,
        names=distinct_names(class_names(data, single_class=single_class)),
    )


def _evaluate(
    compared: _SetToCompare,
    models: Sequence[TrainedRuns],
    *,
    runs: Sequence[PlannedRun],
    failed: Sequence[FailedRun],
    labels: Mapping[str, str],
    ablation: Ablation | None,
    device: torch.device,
    size_given: bool,
    folder: Path,
) -> ComparisonResult:
    """Evaluate the models of one data set, compare them, and write the results into a folder.

    `labels` are those of all models in the report, the baseline first, by label of their files. The size is that of
    --imgsz if it was given, or else that of each training.
    """
    options, split, names = compared.options, compared.split, compared.names
    sizes = [
        round_image_size(options.imgsz, model.runs[0].max_stride) if size_given else model.runs[0].image_size
        for model in models
    ]
    settings: dict[str, Any] = {"batch_size": 2 * options.batch_size, "workers": options.workers, "device": device}
    evaluated = evaluate_models(models, sizes, split, cache=folder / "predictions", **settings)
    models = [replace(model, label=labels[model.label]) for model in models]
    weights = draw_resamples(len(split), RESAMPLES, seed=RESAMPLING_SEED)  # the same for all models
    scale, ranks = TINY_SCALE if options.tiny else COCO_SCALE, coco_ranks(split)
    scores = [
        collect_scores(
            model.label,
            [
                resampled_metrics(run, weights, names, image_ranks=ranks, scale=scale) | error_metrics(run, weights)
                for run in of_model
            ],
            fixed_weights=model.is_finished_weights,
            seeds=tuple(run.seed for run in model.runs),
        )
        for model, of_model in zip(models, evaluated, strict=True)
    ]
    support = support_by_class(evaluated[0][0], names, scale)
    baseline_exists = models[0].label == next(iter(labels.values()))
    costs, noise = measure_costs(models, sizes, split.paths.tolist(), device=device)
    result = ComparisonResult(
        header=header(options, split, models, device=device, sizes=set(sizes if size_given else ())),
        val=split,
        names=names,
        models=models,
        scores=scores,
        pairs=compare_with_baseline(scores, images=len(split)) if baseline_exists else [],
        ablation=ablation_effects(ablation, scores, images=len(split)) if ablation else None,
        costs=costs,
        timing_noise=noise,
        size_scale=scale,
        support=support,
        excluded=excluded_by_size(evaluated[0][0], names, scale),
        warnings=[
            *support_warnings(len(split), names, support),
            *score_warnings(scores),
            *provenance_warnings(models, split, task=options.task),
            *condition_warnings(models, list(labels.values()), sizes, jobs=options.jobs if runs else 1),
        ],
        failed=failed,
        resamples=RESAMPLES,
        config_diffs={model.label: differing_settings(model, models[0]) for model in models[1:]},
        commands=commands_of(runs, models),
        environment=describe_environment(device),
    )
    write_results(result, options, folder=folder)
    figures = {
        **draw_paper_figures(result, evaluated, folder=folder, formats=options.figure_formats, lang=options.lang),
        **draw_figures(result, evaluated, folder=folder),
    }
    figures[SHEETS] = draw_detections(result, evaluated, folder=folder, browse=options.browse)
    with optional():
        write_reports(result, figures, folder=folder)
    if options.paper:
        with optional():
            write_comparison(result, options, Path(options.paper), figures=figures[FIGURES])
    return result

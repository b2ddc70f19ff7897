"""The result of a comparison, and what results.json holds of it; docs/statistics.md lists its fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from utils.comparison.ablation import AblationEffects
from utils.comparison.jobs import FailedRun
from utils.comparison.predictions import ALL, MetricKey, SupportByName
from utils.comparison.statistics import ALL_TITLES, PRIMARY_METRIC, Contrast, ModelComparison, ModelScores
from utils.comparison.trained_runs import TrainedRuns
from utils.datasets.index import DatasetIndex
from utils.metrics.object_size import COCO_SCALE, SizeScale
from utils.options import CompareOptions

DIFFERENCE_FIELDS = "value low high standard_error degrees_of_freedom p_value image_variance covers_seeds".split()


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The result of a comparison; models are in the order of the command line, the first is the baseline."""

    header: str  # the settings in a sentence or two
    val: DatasetIndex  # the evaluated split
    names: Sequence[str]  # of the classes, unique
    models: Sequence[TrainedRuns]  # their finished runs
    scores: Sequence[ModelScores]  # their metrics
    pairs: Sequence[ModelComparison]  # every further model against the baseline; empty if the baseline is missing
    costs: Sequence[Mapping[str, Any]]  # of each model, by the keys of `COST_COLUMNS`
    ablation: AblationEffects | None = None  # of --ablation
    warnings: Sequence[str] = ()  # sentences
    failed: Sequence[FailedRun] = ()  # training runs that failed
    # by label of each further model, differences of its configuration from the baseline's
    config_diffs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    commands: Sequence[str] = ()  # command lines that reproduce the comparison
    environment: Mapping[str, Any] = field(default_factory=dict)  # of the machine
    resamples: int = 0  # bootstrap resamples of the validation images
    support: SupportByName = field(default_factory=dict)  # of each class and size, see `support_by_class`
    excluded: Sequence[str] = ()  # classes that are excluded from the mean of an object size
    # relative difference between two copies of a model, at most, in median and p95 of inference time
    timing_noise: tuple[float, float] = (0.0, 0.0)
    size_scale: SizeScale = COCO_SCALE  # of the object sizes


def results_content(result: ComparisonResult, options: CompareOptions) -> dict[str, Any]:
    """Return the content of results.json."""
    rows = [
        {
            "model": score.label,
            "seeds": len(score.seeds),
            "seed_numbers": list(score.seeds),
            "checkpoints": [str(run.path) for run in model.runs],
            "transferred_fraction": model.transferred_fraction,
            "training_images": [run.training_images for run in model.runs],
            "training_objects": [run.training_objects for run in model.runs],
            **cost,
            **{name: float(score.metrics[ALL, "", name].points.mean()) for name in ALL_TITLES},
            "metrics": [
                _json_row(key, mean=float(of.points.mean()), std=math.sqrt(of.seed_variance), runs=of.points.tolist())
                for key, of in score.metrics.items()
            ],
        }
        for score, model, cost in zip(result.scores, result.models, result.costs, strict=True)
    ]
    return {
        "options": options.as_json(),
        "environment": result.environment,
        "validation": {"split": options.task, "images": len(result.val), "objects": len(result.val.labels)},
        "resamples": result.resamples,
        "results": rows,
        "comparisons": [_comparison_json(pair) for pair in result.pairs],
        "correction": "Holm" if len(result.pairs) > 1 else None,
        "ablation": _ablation_json(result.ablation) if result.ablation else None,
        "warnings": list(result.warnings),
        "failed": [{"run": f.run.folder.name, "exit_code": f.exit_code, "reason": f.reason} for f in result.failed],
        "commands": list(result.commands),
    }


def _comparison_json(pair: ModelComparison) -> dict[str, Any]:
    return {"model": pair.model, "baseline": pair.baseline, "sentence": pair.sentence, **contrast_json(pair)}


def _ablation_json(result: AblationEffects) -> dict[str, Any]:
    on = {label: [name for name in result.ablation.switches if name in on] for label, on in result.ablation.on.items()}
    effects = [
        {"switches": effect.switches, "weights": effect.weights, "pairs": effect.pairs, **contrast_json(effect)}
        for effect in result.effects
    ]
    return {"switches": result.ablation.switches, "models": on, "effects": effects}


def contrast_json(of: Contrast) -> dict[str, Any]:
    """Return the verdict on the primary metric, what would make it significant, and all differences."""
    verdict = of.verdicts[PRIMARY_METRIC]
    differences = [
        _json_row(
            key,
            **{name: getattr(difference, name) for name in DIFFERENCE_FIELDS},
            p_value_corrected=of.verdicts[key].p_value if key in of.verdicts else None,
            significance=of.marks[key],
            seed_variance=sum(difference.seed_variances),
        )
        for key, difference in of.differences.items()
    ]
    return {
        "verdict": verdict.decision,
        "extra_seeds": verdict.extra_seeds,
        "images_factor": verdict.images_factor,
        "detectable_difference": verdict.detectable,
        "differences": differences,
    }


def _json_row(key: MetricKey, **values: object) -> dict[str, Any]:
    return {"group": key[0], "name": key[1], "metric": key[2], **finite(values)}


def finite(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the values with None for numbers that are not finite, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

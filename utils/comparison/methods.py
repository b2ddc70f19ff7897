"""The methods and results of a comparison as a paper states them; what its result does not hold is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.comparison.ablation import METRICS
from utils.comparison.cost import DETECTION_NMS, ROUNDS, TIMED_IMAGES, WARM_UP_ROUNDS
from utils.comparison.joint_report import JointResult
from utils.comparison.predictions import COCO, MetricKey
from utils.comparison.result import ComparisonResult
from utils.comparison.sentences import Writer
from utils.comparison.statistics import (
    COST_COLUMNS,
    PRIMARY_METRIC,
    RELIABLE_IMAGES,
    RELIABLE_OBJECTS,
    RELIABLE_SET_IMAGES,
    Contrast,
    mean_and_std,
    p_value_text,
)
from utils.comparison.training_facts import Facts, training_facts
from utils.document import Block, BulletList, Section
from utils.inference.nms import EVALUATION_NMS
from utils.metrics.significance import BETTER, INCONCLUSIVE, MIN_IMAGES, SIGNIFICANCE_LEVEL, WORSE
from utils.options import CompareOptions

MAX_CLASSES = 20  # that are listed by name
RELIABLE_RUNS = 3
SIGNS = {BETTER: "positive", WORSE: "negative"}
METRIC_ORDER = dict(reversed(METRICS.items()))  # the primary one first


def methods_sections(result: ComparisonResult, options: CompareOptions, lang: str = "en") -> list[Section]:
    """Return data, models, training, evaluation, timing, statistics, environment, results and limitations as text."""
    say = Writer(lang)
    training = {model.label: training_facts(model, say) for model in result.models if model.args}
    blocks: dict[str, list[Block]] = {
        "data": _data(result, options, say),
        "models": [_models(result, say)],
        "training": _training(result, training, say),
        "evaluation": [_evaluation(result, say)],
        "time": [_timing(result, say)],
        "statistics": [_statistics(result, say)],
        "environment": [_environment(result, say)],
        "results": [BulletList(_results(result, say))],
        "limits": _limits(result, options, training, say),
    }
    empty = ("", BulletList([]))
    known = {title: [block for block in of_title if block not in empty] for title, of_title in blocks.items()}
    sections = [Section(say(title), of_title) for title, of_title in known.items() if of_title]
    return [Section(say("title"), [], level=1), *sections]


def joint_results_sections(joint: JointResult, lang: str = "en") -> list[Section]:
    """Return the mean difference of each model from the baseline over several data sets, and mean effects, as text."""
    say = Writer(lang)
    lines = []
    for key, metric in METRIC_ORDER.items():
        for model, one in joint.comparisons.items():
            names = {"metric": metric, "model": model, "baseline": joint.labels[0], "sets": say.listed(one.of_sets)}
            lines.append(say("joint_difference", **names, difference=_difference(one, key, say)))
        for switches, one in joint.effects:
            lines.append(say("joint_effect", metric=metric, **_effect(switches, one, key, say)))
    means = say.paragraph(
        say("joint_means", level=SIGNIFICANCE_LEVEL),
        say("holm", len(joint.comparisons)) if len(joint.comparisons) > 1 else "",
        say("holm_effects", len(joint.effects)) if len(joint.effects) > 1 else "",
    )
    return [Section(say("results"), [means, BulletList(lines)], level=1)]


def _data(result: ComparisonResult, options: CompareOptions, say: Writer) -> list[Block]:
    """Return data set, evaluated split and what the models were trained on."""
    name, names = _data_name(options.data[0]), result.names
    classes = say("one_class") if len(names) == 1 else say("classes", len(names))
    objects = say("objects", len(result.val.labels))
    if len(names) <= MAX_CLASSES:
        counts = [f"{key[1]} {count.objects}" for key, count in result.support.items() if key[0] == "class"]
        classes, objects = say.remark(classes, say.listed(names)), say.remark(objects, say.listed(counts))
    split = say("split", split=say(options.task), images=len(result.val), objects=objects)
    facts = {}
    for model in result.models:
        other, fraction = _data_name(model.data), model.args.get("fraction", 1)
        facts[model.label] = {
            "other_data": say("other_data", "" if other == name else other),
            "images": say(
                "images",
                images=_span([run.training_images for run in model.runs], say),
                objects=_span([run.training_objects for run in model.runs], say),
            ),
            "fraction": say("fraction", fraction=f"{100 * fraction:.3g}") if fraction < 1 else "",
        }
    return [say.paragraph(say("set", data=name, classes=classes), split), *_grouped(facts, say)]


def _data_name(file: str) -> str:
    """Return the name of a data set by its yaml, or its folder as many are called data.yaml; empty without a file."""
    path = Path(file)
    return path.parent.name or path.stem if path.stem == "data" else path.stem


def _span(values: Sequence[int | None], say: Writer) -> str:
    """Return a number or a range; empty if a value is unknown."""
    known = sorted({value for value in values if value is not None})
    return "" if None in values else say("range", known[0], known[-1]) if len(known) > 1 else str(known[0])


def _grouped(facts: Mapping[str, Facts], say: Writer, opening: str = "") -> list[Block]:
    """Return the sentences that hold for all models, then those of single models by their label."""
    first = next(iter(facts.values()), {})
    common = {key: text for key, text in first.items() if all(other[key] == text for other in facts.values())}
    own = {label: (text for key, text in of.items() if key not in common) for label, of in facts.items()}
    items = [say("of_model", label, say.paragraph(*texts)) for label, texts in own.items()]
    text = say.paragraph(*common.values())
    return [say.paragraph(opening, text) if text else "", BulletList([item for item in items if item])]


def _models(result: ComparisonResult, say: Writer) -> str:
    models = []
    for model, cost in zip(result.models, result.costs, strict=True):
        size = {key: COST_COLUMNS[key][1].format(cost[key]) for key in ("parameters", "gflops") if key in cost}
        models.append(say.remark(model.label, say("model", **size)))
    return say.paragraph(say("covered", say.listed(models)), say("gflops", _image_sizes(result, say)))


def _image_sizes(result: ComparisonResult, say: Writer) -> str:
    return say.listed(sorted({cost["image_size"] for cost in result.costs if "image_size" in cost}))


def _training(result: ComparisonResult, facts: Mapping[str, Facts], say: Writer) -> list[Block]:
    """Return the settings of all trainings and those of single models."""
    unknown = [model.label for model in result.models if model.label not in facts]
    several = len(result.models) > 1
    models = result.models
    order = several and not any(one.is_finished_weights or one.args.get("image_weights") for one in models)
    opening = say("settings", say.listed(facts)) if several else ""
    last = say.paragraph(say("order") if order else "", say("unknown", say.listed(unknown)))
    return [*_grouped(facts, say, opening), last]


def _evaluation(result: ComparisonResult, say: Writer) -> str:
    scale, groups = result.size_scale, {key[0] for key in result.scores[0].metrics}
    limits = say.listed(f"{math.sqrt(limit):.0f}²" for limit in scale.limits)
    return say.paragraph(
        say("size", _image_sizes(result, say)),
        say("nms", **vars(EVALUATION_NMS)),
        say("metrics"),
        say("areas", limits=limits, names=say.listed(map(say, scale.names))) if groups & {"size", COCO} else "",
        say("coco") if COCO in groups else "",
    )


def _device(result: ComparisonResult, say: Writer) -> str:
    """Return the device of evaluation and timing; empty if unknown."""
    name = result.environment.get("gpu") or result.environment.get("device", "")
    return say("cpu", **result.environment) if name == "cpu" else str(name)


def _timing(result: ComparisonResult, say: Writer) -> str:
    """Return how inference was timed, and the times; empty if unknown."""
    times = []
    for model, cost in zip(result.models, result.costs, strict=True):
        if cost.get("inference_ms") is not None:
            times.append(f"{model.label} " + say("ms", **cost))
    images, rounds = min(TIMED_IMAGES, len(result.val)), {"rounds": ROUNDS, "warm_up": WARM_UP_ROUNDS}
    method = say("timing", device=_device(result, say), images=images, **rounds, **vars(DETECTION_NMS))
    return say.paragraph(method, say("times", say.listed(times)), say("noise", result.timing_noise[0])) if times else ""


def _statistics(result: ComparisonResult, say: Writer) -> str:
    """Return what values are and, if there are differences, what their intervals and p-values mean."""
    pairs, effects = result.pairs, result.ablation.effects if result.ablation else ()
    if not pairs and not effects:
        return say("means")
    difference = (pairs[0] if pairs else effects[0]).differences[PRIMARY_METRIC]
    fixed = all(scores.fixed_weights for scores in result.scores)
    single = [scores.label for scores in result.scores if len(scores.seeds) == 1]
    if difference.covers_seeds:  # which is the same for all of them
        scope = [say("seeds_covered"), say("borrowed", say.listed(single))]
    else:
        scope = [say("images_covered", difference.num_images - 1), say("fixed_weights" if fixed else "no_verdict")]
    return say.paragraph(
        say("means"),
        say("baseline", pairs[0].baseline) if pairs else "",
        say("bootstrap", images=difference.num_images, resamples=result.resamples),
        *scope,
        say("level", level=SIGNIFICANCE_LEVEL, images=MIN_IMAGES) if difference.covers_seeds or fixed else "",
        say("primary"),
        say("holm", len(pairs)) if len(pairs) > 1 else "",
        say("effects") if effects else "",
        say("holm_effects", len(effects)) if len(effects) > 1 else "",
    )


def _environment(result: ComparisonResult, say: Writer) -> str:
    system = str(result.environment.get("platform", "")).partition("-")[0]
    values = {**result.environment, "device": _device(result, say), "system": system}
    return say.paragraph(*(say(key, **values) for key in ("software", "hardware", "git")))


def _results(result: ComparisonResult, say: Writer) -> list[str]:
    """Return the difference of each model from the baseline, without them each model's values, and effects."""
    values = {scores.label: {key: mean_and_std(scores, key) for key in METRIC_ORDER} for scores in result.scores}
    lines = []
    for pair in result.pairs:
        for key, metric in METRIC_ORDER.items():
            names = {"metric": metric, "model": pair.model, "baseline": pair.baseline}
            numbers = {"value": values[pair.model][key], "base": values[pair.baseline][key]}
            lines.append(say("difference", **names, **numbers, difference=_difference(pair, key, say)))
    if not result.pairs:
        for label, of_model in values.items():
            lines += [say("value", metric=METRICS[key], model=label, value=text) for key, text in of_model.items()]
        lines.append(say("no_baseline" if len(result.models) > 1 or result.failed else "one_model"))
    for effect in result.ablation.effects if result.ablation else ():
        for key, metric in METRIC_ORDER.items():
            lines.append(say("effect", metric=metric, **_effect(effect.switches, effect, key, say)))
    return lines


def _effect(switches: Sequence[str], of: Contrast, key: MetricKey, say: Writer) -> dict[str, str]:
    """Return the name of an effect and its value; an interaction is not a gain or a loss, but positive or negative."""
    kind = {1: "main_effect", 2: "interaction"}.get(len(switches), "together")
    difference = _difference(of, key, say, signed=len(switches) > 1)
    return {"title": say(kind, " × ".join(switches)), "difference": difference}


def _difference(of: Contrast, key: MetricKey, say: Writer, *, signed: bool = False) -> str:
    """Return a difference with interval, p-value and verdict, which if `signed` is about the sign alone."""
    difference, verdict, p_value = of.differences[key], of.verdicts[key], p_value_text(of.verdicts[key])
    if not math.isfinite(difference.low):
        return say("no_interval", difference.value)
    values: dict[str, Any] = {"value": difference.value, "low": difference.low, "high": difference.high}
    decision = SIGNS.get(verdict.decision, verdict.decision) if signed else verdict.decision
    if decision == INCONCLUSIVE and difference.low * difference.high > 0:
        decision = "not_clearly"
    values["p"] = p_value if p_value[0] == "<" else f"= {p_value}"
    return say("interval", **values, verdict=say(decision)) if key == PRIMARY_METRIC else say("interval_only", **values)


def _limits(
    result: ComparisonResult, options: CompareOptions, training: Mapping[str, Facts], say: Writer
) -> list[Block]:
    """Return what limits the conclusions. Warnings are in English, so that other languages only count them."""
    rare = [
        name
        for (group, name), count in result.support.items()
        if group == "class" and (count.objects < RELIABLE_OBJECTS or count.images < RELIABLE_IMAGES)
    ]
    few = [scores.label for scores in result.scores if 1 < len(scores.seeds) < RELIABLE_RUNS]
    interrupted = [run.name for model in result.models for run in model.runs if run.interrupted]
    failed = [failure.run.folder.name for failure in result.failed]
    here = [model for model in result.models if _data_name(model.data) in ("", _data_name(options.data[0]))]
    selected = options.task == "val" and any(training.get(model.label, {}).get("best") for model in here)
    text = say.paragraph(
        say("scope"),
        say("selected") if selected else "",
        say("few_images", RELIABLE_SET_IMAGES) if len(result.val) < RELIABLE_SET_IMAGES else "",
        say("few_objects", objects=RELIABLE_OBJECTS, images=RELIABLE_IMAGES, names=say.listed(rare)),
        say("excluded", say.listed(dict.fromkeys(text.rsplit(" of ", 1)[0] for text in result.excluded))),
        say("few_runs", RELIABLE_RUNS, say.listed(few)),
        say("interrupted", say.listed(interrupted)),
        say("failed", say.listed(failed)),
        say("warnings", len(result.warnings)) if result.warnings else "",
    )
    return [text, BulletList(list(result.warnings) if say.lang == "en" else [])]

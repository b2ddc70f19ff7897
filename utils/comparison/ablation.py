"""What the switches of an ablation do: main effects and interactions with intervals and verdicts, and the tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.comparison.ablation_design import Ablation
from utils.comparison.predictions import ALL, MetricKey
from utils.comparison.statistics import (
    COST_COLUMNS,
    METRIC_TITLES,
    PRIMARY_METRIC,
    Contrast,
    ModelComparison,
    ModelScores,
    decide_contrasts,
    mean_and_std,
    p_value_text,
)
from utils.document import Block, Section, Table
from utils.metrics.paired_difference import contrast
from utils.metrics.significance import BETTER, WORSE

TICKS, ASCII_TICKS = ("✓", "\N{EN DASH}"), ("x", "-")
METRICS: dict[MetricKey, str] = {(ALL, "", metric): METRIC_TITLES[metric] for metric in ("map50", "map50_95")}
COSTS = ("parameters", "gflops")
VERDICTS = {BETTER: "more together", WORSE: "less together"}  # of interactions
NOTE = "{}: the switch is on; {}: off. Mean ± standard deviation over seeds."
DIFFERENCE_NOTE = " In brackets the 95 % interval of the difference from {}."
EFFECTS_NOTE = (
    "The effect of a switch is the mean difference between models that differ in it alone; Pairs is their number. "
    "The interaction A x B is how much larger the effect of A is with B than without. p-values, verdicts and asterisks "
    "are Holm-corrected for {} effects, the intervals are not (docs/statistics.md)."
)


@dataclass(frozen=True, kw_only=True)
class Effect(Contrast):
    """A contrast of the models of an ablation."""

    switches: tuple[str, ...]  # one: its effect, two: their interaction, more: all together beyond the sum of effects
    weights: Mapping[str, float]  # by label of the models that count
    pairs: int  # of models, or for an interaction pairs of pairs, over which it is the mean


@dataclass(frozen=True, kw_only=True)
class AblationEffects:
    """An ablation and what came out."""

    ablation: Ablation
    effects: Sequence[Effect]  # main effects, then interactions; those that the finished models can estimate


def effect_weights(ablation: Ablation) -> list[tuple[tuple[str, ...], dict[str, float], int]]:
    """Return the effects that the models can estimate: switches, weight of each model, and number of pairs.

    The weights of a main effect are 1 / n for the models with the switch of the n pairs that differ in it alone, and
    -1 / n for those without; those of an interaction combine four models each. If there are no interactions among
    three switches or more, the combination of all is compared with the sum of the effects of each alone.
    """
    labels = {on: label for label, on in ablation.on.items()}
    effects = []
    for names in (*itertools.combinations(ablation.switches, 1), *itertools.combinations(ablation.switches, 2)):
        parts = [frozenset(part) for n in range(len(names) + 1) for part in itertools.combinations(names, n)]
        groups = [[on | part for part in parts] for on in labels if not on & set(names)]
        complete = [group for group in groups if all(on in labels for on in group)]
        weights: dict[str, float] = {}
        for group in complete:
            for on, part in zip(group, parts, strict=True):
                weights[labels[on]] = (-1) ** (len(names) - len(part)) / len(complete)
        if complete:
            effects.append((names, weights, len(complete)))
    alone, together = [frozenset((name,)) for name in ablation.switches], frozenset(ablation.switches)
    has_interactions = any(len(names) == 2 for names, _, _ in effects)
    if len(alone) > 2 and not has_interactions and all(on in labels for on in (frozenset(), together, *alone)):
        weights = {labels[on]: -1.0 for on in alone}
        weights |= {labels[together]: 1.0, labels[frozenset()]: len(alone) - 1.0}
        effects.append((ablation.switches, weights, 1))
    return effects


def ablation_effects(ablation: Ablation, scores: Sequence[ModelScores], *, images: int) -> AblationEffects:
    """Estimate the effects of an ablation from the models that have scores, on a number of images."""
    by_label = {model.label: model for model in scores}
    on = {label: names for label, names in ablation.on.items() if label in by_label}
    finished = Ablation(switches=ablation.switches, on=on)
    weights = effect_weights(finished)
    differences = [
        {
            key: contrast(
                [by_label[label].metrics[key] for label in of],
                list(of.values()),
                num_images=images,
                variance_donors=[model.metrics[key] for model in scores],
            )
            for key in METRICS
        }
        for _, of, _ in weights
    ]
    titles = [_title(names) for names, _, _ in weights]
    decided = decide_contrasts(differences, titles, fixed_weights=all(by_label[label].fixed_weights for label in on))
    effects = [
        Effect(**vars(one), switches=names, weights=of, pairs=pairs)
        for one, (names, of, pairs) in zip(decided, weights, strict=True)
    ]
    return AblationEffects(ablation=finished, effects=effects)


def _title(switches: Sequence[str]) -> str:
    return " x ".join(switches) if len(switches) < 3 else "all together, beyond the sum"


def effect_verdict(switches: Sequence[str], effect: Contrast) -> str:
    """Return the verdict on the primary metric in a word or two; an interaction is not better or worse."""
    decision = effect.verdicts[PRIMARY_METRIC].decision
    return decision if len(switches) == 1 else VERDICTS.get(decision, decision)


def ablation_table(
    ablation: Ablation,
    scores: Sequence[ModelScores],
    pairs: Sequence[ModelComparison],
    costs: Sequence[Mapping[str, Any]],
    *,
    ticks: tuple[str, str] = TICKS,
) -> Table:
    """Return the baseline and the models of an ablation: switches, accuracy, cost, difference from the baseline."""
    differences = {pair.model: pair.text(PRIMARY_METRIC) for pair in pairs}
    rows = []
    for index, (model, cost) in enumerate(zip(scores, costs, strict=True)):
        on = ablation.on.get(model.label)
        if on is None and index > 0:
            continue
        marks = ["" if on is None else ticks[name not in on] for name in ablation.switches]
        metrics = [mean_and_std(model, key) for key in METRICS]
        costs_of_model = [COST_COLUMNS[key][1].format(cost[key]) for key in COSTS]
        rows.append([model.label, *marks, *metrics, *costs_of_model, differences.get(model.label, "")])
    cost_titles = [COST_COLUMNS[key][0] for key in COSTS]
    return Table(
        header=["Model", *ablation.switches, *METRICS.values(), *cost_titles, "Difference in mAP50-95"], rows=rows
    )


def effect_table(effects: Sequence[Effect]) -> Table:
    """Return the effects with their intervals, and the verdicts on the primary metric."""
    rows = [
        [
            effect.title,
            str(effect.pairs),
            *map(effect.text, METRICS),
            p_value_text(effect.verdicts[PRIMARY_METRIC]),
            effect_verdict(effect.switches, effect),
        ]
        for effect in effects
    ]
    p_title = "p (Holm)" if len(effects) > 1 else "p"
    header = ["Effect", "Pairs", *METRICS.values(), p_title, "Verdict on mAP50-95"]
    return Table(header=header, rows=rows)


def ablation_sections(
    result: AblationEffects,
    scores: Sequence[ModelScores],
    pairs: Sequence[ModelComparison],
    costs: Sequence[Mapping[str, Any]],
) -> list[Section]:
    """Return the section of an ablation in the report."""
    note = NOTE.format(*TICKS) + (DIFFERENCE_NOTE.format(scores[0].label) if pairs else "")
    blocks: list[Block] = [note, ablation_table(result.ablation, scores, pairs, costs)]
    if result.effects:
        blocks += [EFFECTS_NOTE.format(len(result.effects)), effect_table(result.effects)]
    return [Section("Ablation", blocks)]

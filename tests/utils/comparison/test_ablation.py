"""Effects of an ablation's switches from scores, and their tables."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.random_runs import COST, NAMES
from utils.comparison.ablation import (
    Effect,
    ablation_effects,
    ablation_sections,
    ablation_table,
    effect_table,
    effect_verdict,
    effect_weights,
)
from utils.comparison.ablation_design import Ablation, combinations
from utils.comparison.report import report_sections, write_results
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import ALL_TITLES, PRIMARY_METRIC, ModelScores, compare_with_baseline
from utils.document import Table
from utils.log import LOGGER
from utils.metrics.paired_difference import Scores
from utils.metrics.significance import BETTER, INCONCLUSIVE, WORSE
from utils.options import CompareOptions

IMAGES = 40


def ablation_of(switches: str, design: str = "factorial") -> Ablation:
    on = {"+".join(["net", *names]): frozenset(names) for names in combinations(switches, design)}
    return Ablation(switches=tuple(switches), on=on)


def scores_of(label: str, value: float, *, seeds: int = 3, spread: float = 0.004) -> ModelScores:
    """Scores around a value, the same spread for all models; the images matter little."""
    generator = np.random.default_rng(sum(map(ord, label)))
    points = value + spread * np.linspace(-1, 1, seeds) if seeds > 1 else np.array([value])
    resampled = points[:, None] + 0.002 * generator.standard_normal((seeds, 300))
    keys = [("all", "", metric) for metric in ALL_TITLES]
    metrics = dict.fromkeys(keys, Scores(points=points, resampled=resampled))
    return ModelScores(label=label, fixed_weights=False, metrics=metrics, seeds=tuple(range(seeds)))


def effects_of(values: dict[str, float], switches: str = "AB", design: str = "factorial", **settings) -> list[Effect]:
    ablation = ablation_of(switches, design)
    scores = [scores_of(label, values["".join(label.split("+")[1:])], **settings) for label in ablation.on]
    return list(ablation_effects(ablation, scores, images=IMAGES).effects)


def test_weights_of_a_factorial_are_those_of_the_textbook():
    a, b, both = effect_weights(ablation_of("AB"))
    assert a == (("A",), {"net": -0.5, "net+A": 0.5, "net+B": -0.5, "net+A+B": 0.5}, 2)
    assert b[1] == {"net": -0.5, "net+B": 0.5, "net+A": -0.5, "net+A+B": 0.5}
    assert both == (("A", "B"), {"net": 1, "net+A": -1, "net+B": -1, "net+A+B": 1}, 1)
    three = {names: (weights, pairs) for names, weights, pairs in effect_weights(ablation_of("ABC"))}
    assert list(three) == [("A",), ("B",), ("C",), ("A", "B"), ("A", "C"), ("B", "C")]
    # Regression on all columns of the design, with codes 0 and 1 and centred products, as an independent oracle.
    design = ablation_of("ABC")
    values = np.random.default_rng(0).normal(size=8)
    codes = np.array([[name in on for name in "ABC"] for on in design.on.values()]) - 0.5
    products = np.stack([codes[:, i] * codes[:, j] for i, j in ((0, 1), (0, 2), (1, 2))], 1)
    fitted = np.linalg.lstsq(np.column_stack([np.ones(8), codes, products, codes.prod(1)]), values, rcond=None)[0]
    by_label = dict(zip(design.on, values, strict=True))
    found = [sum(w * by_label[label] for label, w in weights.items()) for weights, _ in three.values()]
    assert found == pytest.approx(fitted[1:7]) and [pairs for _, pairs in three.values()] == [4, 4, 4, 2, 2, 2]


def test_weights_of_other_designs_use_the_pairs_that_there_are():
    a, b, c, together = effect_weights(ablation_of("ABC", "one-at-a-time"))
    assert a == (("A",), {"net": -1, "net+A": 1}, 1) and (b[2], c[2]) == (1, 1)
    assert together[0] == ("A", "B", "C")
    assert together[1] == {"net+A+B+C": 1, "net": 2, "net+A": -1, "net+B": -1, "net+C": -1}
    assert [names for names, _, _ in effect_weights(ablation_of("AB", "one-at-a-time"))] == [("A",), ("B",), ("A", "B")]
    first, second = effect_weights(ablation_of("AB", "cumulative"))
    assert (first[1], second[1]) == ({"net": -1, "net+A": 1}, {"net+A": -1, "net+A+B": 1})
    partial = replace(ablation_of("AB"), on={k: v for k, v in ablation_of("AB").on.items() if k != "net+B"})
    assert [(names, pairs) for names, _, pairs in effect_weights(partial)] == [(("A",), 1), (("B",), 1)]
    assert effect_weights(Ablation(switches=("A",), on={"net": frozenset()})) == []


def test_effects_have_the_values_intervals_and_verdicts_of_their_contrasts():
    a, b, both = effects_of({"": 0.3, "A": 0.4, "B": 0.28, "AB": 0.43})
    differences = [effect.differences[PRIMARY_METRIC] for effect in (a, b, both)]
    assert [one.value for one in differences] == pytest.approx([0.125, 0.005, 0.05])
    assert all(one.low < one.value < one.high and one.covers_seeds for one in differences)
    assert differences[0].num_runs == (3, 3, 3, 3)
    # Four models share the seed variance 0.004^2, each with the weight 1/4, beside a little image variance.
    assert differences[0].standard_error == pytest.approx(math.sqrt(0.004**2 / 3), rel=0.1)
    assert differences[0].degrees_of_freedom > 6, "more than a single pair has"
    words = [effect_verdict(effect.switches, effect) for effect in (a, b, both)]
    assert words[:2] == [BETTER, INCONCLUSIVE] and a.marks[PRIMARY_METRIC] and not b.marks[PRIMARY_METRIC]
    assert both.verdicts[PRIMARY_METRIC].decision == BETTER and words[2] not in (BETTER, WORSE, INCONCLUSIVE)
    assert a.verdicts[PRIMARY_METRIC].p_value > differences[0].p_value, "corrected"
    (alone,) = effects_of({"": 0.3, "A": 0.4}, "A")
    assert alone.differences[PRIMARY_METRIC].value == pytest.approx(0.1)


def test_one_run_each_gives_no_verdict():
    effects = effects_of({"": 0.3, "A": 0.4, "B": 0.28, "AB": 0.43}, seeds=1)
    assert {effect_verdict(effect.switches, effect) for effect in effects} == {INCONCLUSIVE}
    assert not any(effect.differences[PRIMARY_METRIC].covers_seeds for effect in effects)


@pytest.fixture(scope="module")
def result() -> ComparisonResult:
    """A baseline, two switches without their combination, and a model that has nothing to do with them."""
    design = ablation_of("AB")
    labels = ["plain", *design.on, "other"]
    values = [0.2, 0.3, 0.4, 0.28, 0.43, 0.5]
    scores = [scores_of(label, value) for label, value in zip(labels, values, strict=True)]
    scores = [one for one in scores if one.label != "net+B"]
    return ComparisonResult(
        header="h",
        val=index_of(["a.png"] * IMAGES, [0] * IMAGES, [1] * IMAGES),
        names=NAMES,
        models=[trained_model(score.label, is_finished_weights=False) for score in scores],
        scores=scores,
        pairs=compare_with_baseline(scores, images=IMAGES),
        costs=[COST] * len(scores),
        ablation=ablation_effects(design, scores, images=IMAGES),
    )


def test_the_table_has_the_baseline_first_and_ticks(result):
    effects = result.ablation
    table = ablation_table(effects.ablation, result.scores, result.pairs, result.costs, ticks=("x", "-"))
    assert table.header[:3] == ["Model", "A", "B"] and len({len(row) for row in [table.header, *table.rows]}) == 1
    assert [row[:3] for row in table.rows] == [
        ["plain", "", ""],
        ["net", "-", "-"],
        ["net+A", "x", "-"],
        ["net+A+B", "x", "x"],
    ]
    assert table.rows[0][-1] == "" and table.rows[2][-1].startswith("+0.200***") and "1,000" in table.rows[2]
    rows = effect_table(effects.effects).rows
    assert [row[:2] for row in rows] == [["A", "1"], ["B", "1"]] and rows[0][-1] == BETTER
    without = ablation_table(effects.ablation, result.scores, [], result.costs)
    assert {row[-1] for row in without.rows} == {""} and {row[1] for row in without.rows[1:]} == {"✓", "\N{EN DASH}"}


def test_the_report_and_the_results_hold_the_ablation(result, tmp_path, monkeypatch, caplog):
    (section,) = ablation_sections(result.ablation, result.scores, result.pairs, result.costs)
    assert [type(block) for block in section.blocks] == [str, Table, str, Table]
    headings = [one.heading for one in report_sections(result, {})]
    assert headings.index("Ablation") == headings.index("Differences") + 1
    assert "Ablation" not in [one.heading for one in report_sections(replace(result, ablation=None), {})]
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    caplog.set_level("INFO")
    write_results(result, CompareOptions(cfg=("a.yaml", "b.yaml")), folder=tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())["ablation"]
    assert content["switches"] == ["A", "B"] and content["models"] == {"net": [], "net+A": ["A"], "net+A+B": ["A", "B"]}
    first = content["effects"][0]
    assert (first["switches"], first["weights"], first["pairs"]) == (["A"], {"net": -1, "net+A": 1}, 1)
    primary = next(one for one in first["differences"] if one["metric"] == "map50_95")
    assert primary["low"] < primary["value"] < primary["high"] and primary["p_value_corrected"] >= primary["p_value"]
    assert primary["significance"] == result.ablation.effects[0].marks[PRIMARY_METRIC] != ""
    assert "| net+A " in caplog.text and first["verdict"] == BETTER


@pytest.mark.parametrize(("encoding", "tick"), [("utf-8", "✓"), ("gbk", " x "), ("ascii", " x ")])
def test_a_terminal_without_check_marks_gets_letters(result, tmp_path, monkeypatch, caplog, encoding, tick):
    class Terminal:
        def __init__(self) -> None:
            self.encoding = encoding

        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    caplog.set_level("INFO")
    monkeypatch.setattr("sys.stdout", Terminal())
    write_results(result, CompareOptions(cfg=("a.yaml", "b.yaml")), folder=tmp_path)
    row = next(line for line in caplog.text.splitlines() if line.startswith("| net+A+B") and tick in line)
    assert row.count(tick) == 2
    assert "✓" in Path(tmp_path / "compare.md").read_text(encoding="utf-8")

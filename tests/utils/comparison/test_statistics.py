"""Judged images to figures, differences, words, tables and images."""

import json
import math
import re
from base64 import b64encode
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from utils.comparison.checks import overlapping_images
from utils.comparison.figures import curves_of, draw_comparison
from utils.comparison.html import ReportFigures, ReportImage
from utils.comparison.outputs import write_reports
from utils.comparison.predictions import resampled_metrics
from utils.comparison.report import ComparisonResult, markdown
from utils.comparison.statistics import (
    PRIMARY_METRIC,
    collect_scores,
    compare_with_baseline,
    learning_warnings,
    model_json,
    pair_json,
    seed_warnings,
    shared_seeds,
    support_warnings,
)
from utils.comparison.tables import cost_table, detail_tables, difference_table, seed_table
from utils.datasets.index import DatasetIndex
from utils.metrics.average_precision import precision_recall
from utils.metrics.bootstrap import draw_resamples
from utils.metrics.evaluated_set import EvaluatedSet, ImageEvaluation
from utils.metrics.object_size import restrict_to_size

NAMES = ("cat", "dog", "cow")
COST = {"parameters": 1000, "gflops": 1.5, "sampling_gflops": 0.0, "inference_ms": 3.0, "inference_ms_p95": 4.0}


def images(seed: int, *, noise: float = 6.0, count: int = 24) -> list[ImageEvaluation]:
    """Labels of many sizes, the same for every seed, and detections near them."""
    truth, rng = np.random.default_rng(99), np.random.default_rng(seed)
    found = []
    for index in range(count):
        n = int(truth.integers(1, 5))
        corner, side = truth.uniform(0, 300, (n, 2)), truth.uniform(15, 160, (n, 2))
        labels = np.concatenate((corner, corner + side), 1)
        kinds = truth.integers(0, 3, n)
        boxes = np.concatenate((labels + rng.normal(0, noise, (n, 4)), rng.uniform(0, 100, (3, 4)).cumsum(1)))
        classes = np.concatenate((kinds, rng.integers(0, 3, 3)))
        scores = np.concatenate((rng.uniform(0.3, 1, n), rng.uniform(0, 0.6, 3)))
        order = np.argsort(-scores)
        boxes, classes, scores = boxes[order], classes[order], scores[order]
        found.append(image_evaluation(boxes, scores, classes, labels, kinds, image_id=index))
    return found


def scores_of(label: str, seeds: list[int], *, noise: float):
    weights = draw_resamples(24, 200, seed=0)
    return collect_scores(
        label,
        [resampled_metrics(EvaluatedSet.concatenate(images(s, noise=noise)), weights, NAMES) for s in seeds],
        fixed_weights=False,
    )


@pytest.fixture(scope="module")
def models():
    return [
        scores_of("plain", [1, 2, 3], noise=6),
        scores_of("sharp", [4, 5, 6], noise=2),
        scores_of("alike", [7, 8, 9], noise=6),
    ]


def test_figures_are_those_of_the_validator():
    shown = images(3)
    figures = resampled_metrics(EvaluatedSet.concatenate(shown), draw_resamples(24, 3, seed=0), NAMES)
    expected = precision_recall(EvaluatedSet.concatenate(shown))
    assert figures["all", "", "map50"][0] == pytest.approx(expected.map50, abs=1e-12)
    assert figures["all", "", "map50_95"][0] == pytest.approx(expected.map50_95, abs=1e-12)
    for number, name in enumerate(NAMES):
        assert figures["class", name, "map50_95"][0] == pytest.approx(expected.ap[number].mean(), abs=1e-12)
        assert figures["class", name, "map50"][0] == pytest.approx(expected.ap[number, 0], abs=1e-12)
    weights = draw_resamples(24, 3, seed=0)
    repeated = [shown[i] for i in np.repeat(np.arange(24), weights[1])]
    assert figures["all", "", "map50_95"][2] == pytest.approx(
        precision_recall(EvaluatedSet.concatenate(repeated)).map50_95, abs=1e-12
    )


def test_sizes_share_out_all_labels_and_perfect_detections_are_perfect_for_each():
    judgement = EvaluatedSet.concatenate(images(3, noise=0))
    parts = [restrict_to_size(judgement, number)[0] for number in range(3)]
    assert sum(len(part.label_classes) for part in parts) == len(judgement.label_classes)
    assert min(len(part.label_classes) for part in parts) > 0
    figures = resampled_metrics(judgement, draw_resamples(24, 2, seed=0), NAMES)
    for size in ("medium", "large"):  # of small ones no class has enough
        assert figures["size", size, "map50"][0] > 0.8


def test_the_better_model_is_found_and_the_equal_one_is_not(models):
    sharp, alike = compare_with_baseline(models, images=24)
    assert sharp.verdicts[PRIMARY_METRIC].decision == "better" and sharp.words.startswith("sharp is better than plain")
    assert alike.verdicts[PRIMARY_METRIC].decision == "inconclusive"
    assert sharp.verdicts[PRIMARY_METRIC].p_value >= sharp.differences[PRIMARY_METRIC].p_value
    assert set(sharp.differences) == set(models[0].metrics) and ("size", "medium", "map50") in sharp.differences


def test_tables_and_json_say_what_was_found(models):
    pairs = compare_with_baseline(models, images=24)
    findings = ComparisonResult(
        header="h", models=models, pairs=pairs, costs=[COST] * 3, commands=["python compare.py"]
    )
    text = markdown(findings, Path())
    for part in ("## Verdict", "Holm", "| medium", "| dog", "sharp - plain", "± ", "python compare.py", "better"):
        assert part in text, part
    assert "p, Holm" in difference_table(pairs) and "p, Holm" not in difference_table(pairs[:1])
    assert "+0.0%" in cost_table(models, [COST] * 3) and detail_tables(models, pairs, "nothing") == []
    content = json.loads(json.dumps([pair_json(pair) for pair in pairs] + [model_json(m) for m in models]))
    deciding = next(d for d in content[0]["differences"] if (d["group"], d["figure"]) == ("all", "map50_95"))
    assert deciding["low"] < deciding["value"] < deciding["high"] and len(content[2][0]["runs"]) == 3


def test_both_figures_are_told_per_class_and_per_size(models):
    pairs = compare_with_baseline(models, images=24)
    amounts = {("class", "dog"): (41, 17), ("size", "medium"): (9, 7)}
    told = {"support": amounts, "excluded": ["cow of large (1 in 1)"], "timing_noise": (0.02, 0.145)}
    findings = ComparisonResult(header="h", models=models, pairs=pairs, costs=[COST] * 3, **told)
    assert "without those with fewer than 5 objects" in markdown(findings, Path())
    assert "cow of large (1 in 1)" in markdown(findings, Path()) and "2.0% in the median" in markdown(findings, Path())
    for title, group, name in (("Per class", "class", "dog"), ("Per object size", "size", "medium")):
        section = markdown(findings, Path()).split(f"## {title}\n")[1].split("\n## ")[0]
        tables = [part for part in section.split("\n\n") if part.startswith("|")]
        for part, figure, head in zip(tables, ("map50", "map50_95"), ("mAP50", "mAP50-95"), strict=True):
            row = next(line for line in part.splitlines() if line.startswith(f"| {name}"))
            mean = models[0].metrics[group, name, figure].points.mean()
            assert part.startswith(f"| {head} ") and f"| {mean:.3f} ± " in row
            assert "objects in images" in part and " in ".join(map(str, amounts[group, name])) in row
            assert f"{pairs[1].differences[group, name, figure].value:+.3f} [" in row


def test_both_reports_show_the_same_images_and_those_of_an_earlier_judgement_go(models, tmp_path):
    names = ("compare.png", "examples/sharp-1.jpg", "sampling/sharp.jpg", "sampling/old.jpg", "examples/notes.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    overview, example, sampling = (ReportImage(path=tmp_path / name, caption=f"of {name}") for name in names[:3])
    findings = ComparisonResult(
        header="h", models=models, pairs=compare_with_baseline(models, images=24), costs=[COST] * 3
    )
    images = ReportFigures(overview=[overview], examples=[example], sampling=[sampling])
    write_reports(findings, images, folder=tmp_path)
    text, page = ((tmp_path / f).read_text(encoding="utf-8") for f in ("compare.md", "report.html"))
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == re.findall("<h2>(.*?)</h2>", page)
    for heading, name, after in (
        ("At a glance", names[0], "Accuracy"),
        ("Where they differ most", names[1], "Where AKConv samples"),
        ("Where AKConv samples", names[2], "Commands"),
    ):
        assert f"## {heading}\n\n![of {name}]({name})\n\nof {name}\n\n## {after}\n" in text
        assert f">{heading}</h2>\n<figure>" in page and f'{b64encode(name.encode()).decode()}" alt="of {name}"' in page
    assert [(tmp_path / name).exists() for name in names] == [True, True, True, False, True]
    write_reports(findings, ReportFigures(), folder=tmp_path)
    assert [(tmp_path / name).exists() for name in names] == [False, False, False, False, True]
    assert "![" not in (tmp_path / "compare.md").read_text() and "<img" not in (tmp_path / "report.html").read_text()


def test_missing_costs_are_left_out(models):
    costs = [{**COST, "training_seconds": None}, {**COST, "training_seconds": 12.0}, COST]
    assert "Training s" in cost_table(models, costs) and "Inference GB" not in cost_table(models, costs)


@pytest.mark.slow
def test_the_image_shows_models_curves_and_intervals(models, tmp_path):
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    (run / "results.csv").write_text("metrics/mAP_0.5,train/box_loss\n0.1,0.2\n,0.1\n0.3,0.05\n")
    pairs = compare_with_baseline(models, images=24)
    for number, shown in enumerate((pairs, [])):
        findings = ComparisonResult(header="", models=models, pairs=shown, costs=[COST] * 3)
        path = tmp_path / f"{number}.png"
        draw_comparison(findings, [[run / "weights/best.pt"] * 2, [], []], path)
        assert cv2.imread(str(path)).std() > 5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"  epoch,   metrics/mAP_0.5,  train/box_loss\n  0, 0.1, inf\n", ""),
        (b"", "No columns"),
        (b"metrics/mAP_0.5,train/box_loss\n0.1,broken\n", "broken"),
        (b"\xff\xfe\x00metrics", "decode"),
        (b'metrics/mAP_0.5\n0.1\n0.2,0.3,0.4\n"', "Expected"),
    ],
)
def test_curves_of_another_program_are_read_or_left_out(content, told, tmp_path, caplog):
    (tmp_path / "results.csv").write_bytes(content)
    curves = curves_of([[tmp_path / "weights/best.pt"]])
    if told:
        (message,) = [record.getMessage() for record in caplog.records]
        assert curves == {} and told in message and "results.csv cannot be read" in message and "\n" not in message
    else:
        assert curves["mAP50"][0].values.tolist() == [0.1] and np.isnan(curves["training box loss"][0].values).all()


def index_of(paths, labels, counts) -> DatasetIndex:
    return DatasetIndex(
        paths=np.array([str(p) for p in paths]),
        sizes_hw=np.full((len(paths), 2), 64, np.int32),
        labels=np.array([(label, 0.5, 0.5, 0.2, 0.2) for label in labels], np.float32).reshape(-1, 5),
        starts=np.cumsum([0, *counts]),
    )


def test_small_validation_sets_are_warned_of():
    plenty = index_of(range(60), [0, 1] * 60, [2] * 60)
    assert support_warnings(plenty, NAMES[:2]) == []
    (warning,) = support_warnings(index_of(range(49), [0, 1] * 49, [2] * 49), NAMES[:2])
    assert "49 images" in warning and "fewer than 50 images" in warning
    (warning,) = support_warnings(index_of(range(60), [0] * 60 + [1] * 40, [1] * 59 + [41]), NAMES[:2])
    assert "dog with 40 objects in 1 images" in warning and "cat" not in warning


def test_classes_without_any_object_are_warned_of():
    index = index_of(range(60), [0, 2] * 60, [2] * 60)
    (warning,) = support_warnings(index, NAMES)
    assert "(no object at all of dog)" in warning
    (warning,) = support_warnings(index, [*NAMES, *"abcdef"])
    assert "no object at all of dog, a, b, c, d and 2 more)" in warning
    assert support_warnings(index, ["object"]) == [], "all classes as one"
    sizes = {("class", "cat"): (1, 1), ("size", "small"): (29, 20), ("size", "large"): (40, 10)}
    (warning,) = support_warnings(index_of(range(60), [0, 1] * 60, [2] * 60), NAMES[:2], sizes)
    assert "(small ones with 29 objects in 20 images)" in warning


def test_images_trained_on_are_found_by_their_bytes(tmp_path):
    for name, content in (("a", b"12"), ("b", b"34"), ("c", b"12"), ("d", b"56"), ("e", b"789")):
        (tmp_path / name).write_bytes(content)
    train, val = (index_of([tmp_path / n for n in names], [], [0] * len(names)) for names in ("ab", "cde"))
    assert overlapping_images(train, val) == [str(tmp_path / "c")]
    assert overlapping_images(val, train) == [str(tmp_path / "a")]


def test_few_seeds_and_models_that_learned_nothing_are_warned_of(models):
    one, two = scores_of("one", [1], noise=6), scores_of("two", [1, 2], noise=6)
    assert seed_warnings(models) == [] and learning_warnings(models) == []
    assert "not the luck of the seed" in seed_warnings([one, one])[0]
    assert "of one, two:" in seed_warnings([one, two, models[0]])[0]
    assert "next to nothing" in learning_warnings([scores_of("noise", [1], noise=400)])[0]


def test_runs_of_one_seed_stand_side_by_side(models):
    first, second, third = (
        replace(model, seeds=seeds) for model, seeds in zip(models, [(0, 1, 2), (1, 2, 7), (None, 1, 9)], strict=True)
    )
    assert shared_seeds([first, second, third]) == [1, 2] and shared_seeds(models) == []
    lines = seed_table([first, second, third]).splitlines()
    one, two = first.of_seed(1), second.of_seed(1)
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["seed 1", "seed 2"]
    assert f"{one:.3f} | {two:.3f} ({two - one:+.3f})" in " ".join(lines[2].split())
    assert lines[3].rstrip(" |").endswith("-") and third.of_seed(2) is None
    assert seed_table([first, third]) == "" and seed_table(models) == "", "a single shared seed tells nothing"
    (warning,) = seed_warnings([first, second])
    assert "the same seeds (plain 0, 1, 2; sharp 1, 2, 7)" in warning and seed_warnings([first, models[1]]) == []


def test_one_seed_each_leaves_the_interval_but_not_the_verdict():
    pair = compare_with_baseline([scores_of("a", [1], noise=9), scores_of("b", [2], noise=1)], images=24)[0]
    difference = pair.differences[PRIMARY_METRIC]
    assert difference.low > 0 and not difference.covers_seeds and all(map(math.isnan, difference.seed_variances))
    assert pair.verdicts[PRIMARY_METRIC].decision == "inconclusive" and "--seeds" in pair.words

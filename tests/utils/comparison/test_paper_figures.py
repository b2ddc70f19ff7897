"""The figures of whole comparisons for print: files, numbers behind them, languages, and texts that do not touch."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.helpers.comparison_results import synthetic_result
from tests.helpers.rendered_svg import CHROMIUM, text_faults
from utils.comparison import paper_figures
from utils.comparison.paper_figures import PaperFigures, draw_paper_figures
from utils.comparison.report import FIGURES, OVERVIEW
from utils.errors import RunError
from utils.metrics.average_precision import precision_recall
from utils.plots.figure import save_figure, save_formats

SHORT = ["yolov5n", "模型甲"]
LONG = [
    *("yolov5n-baseline-trained-from-scratch-on-blood-cells", "yolov5n-AKConv-num_param-5-depthwise-offsets", "$3$"),
    *("a_b", "yolov5n-AKConv-num_param-5-depthwise-offsets-centred-and-more-of-it", "f"),
]
CURVE_FILES = ("PR_curve", "F1_curve", "P_curve", "R_curve")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> PaperFigures:
    result, evaluated = synthetic_result(["old", "new"], tmp_path_factory.mktemp("runs"), seeds=2)
    return PaperFigures(result=result, evaluated=evaluated)


@pytest.mark.slow
def test_every_figure_is_an_image_a_vector_file_and_numbers(figures, tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("old.svg", "notes.txt"):
        (tmp_path / "figures" / name).write_text("earlier")
    images = draw_paper_figures(figures.result, figures.evaluated, folder=tmp_path, formats=("svg", "pdf"))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = ("curves", "training", "trade_off", "differences", "classes", "confusion")
    assert names == {
        "notes.txt",
        *(f"{name}.{suffix}" for name in (*drawn, *CURVE_FILES) for suffix in ("png", "svg", "pdf")),
        *(f"{name}.csv" for name in (*drawn[1:], *CURVE_FILES)),
    }
    assert [image.path.stem for image in images[FIGURES]] == list(drawn) and len(images[OVERVIEW]) == 1
    assert cv2.imread(str(tmp_path / "figures/PR_curve.png")).shape[1] in (1003, 1004), "85 mm at 300 dpi"
    assert all(cv2.imread(str(image.path)).std() > 5 for image in (*images[FIGURES], *images[OVERVIEW]))
    again = save_formats(figures.draw_trade_off()[0], tmp_path / "again.png", ["svg"]).with_suffix(".svg")
    assert again.read_bytes() == (tmp_path / "figures/trade_off.svg").read_bytes(), "no dates, no random names"


def test_curves_are_means_over_classes_of_every_run(figures):
    for name, attribute in zip(
        CURVE_FILES, ("precision_by_recall", "f1_curve", "precision_curve", "recall_curve"), strict=True
    ):
        panel = figures.panels[name]
        for runs, evaluated in zip(panel.runs, figures.evaluated, strict=True):
            for run, one in zip(runs, evaluated, strict=True):
                expected = getattr(precision_recall(one), attribute).mean(0)[:: paper_figures.EVERY]
                defined = np.isfinite(run)
                np.testing.assert_allclose(run[defined], expected[defined])
                assert defined.all() or name == "P_curve"
        assert (panel.x[0], panel.x[-1]) == (0, 1)
    _, rows = figures.draw_panel("F1_curve")
    assert next(iter(rows)) == [
        "confidence",
        *(f"{m} {of}" for m in ("old", "new") for of in ("mean", "lowest", "highest")),
    ]


def test_the_numbers_behind_the_figures_are_those_of_the_tables(figures, tmp_path):
    result, folder = figures.result, tmp_path
    for name in ("differences", "classes", "confusion", "trade_off", "training"):
        figure, rows = getattr(figures, f"draw_{name}")()
        assert isinstance(figure, Figure)
        paper_figures.write_csv(folder / f"{name}.csv", rows)
    (pair,) = result.pairs
    of_all = pair.differences["all", "", "map50_95"]
    row = table(folder / "differences.csv")[-1]
    assert row["metric"] == "mAP50-95" and float(row["low"]) == of_all.low and float(row["difference"]) == of_all.value
    classes = {(row["class"], row["model"]): row for row in table(folder / "classes.csv")}
    dog = pair.differences["class", "dog", "map50_95"]
    assert float(classes["dog", "new"]["high"]) == dog.high and classes["dog", "old"]["high"] == ""
    cost = table(folder / "trade_off.csv")
    assert [float(row["parameters, millions"]) for row in cost] == [1.76, 1.85]
    counts = np.zeros((2, 4, 4))
    names = [*result.names, "background"]
    for row in table(folder / "confusion.csv"):
        at = ["old", "new"].index(row["model"]), names.index(row["predicted"]), names.index(row["true"])
        counts[at] = float(row["count over runs"])
    labels = np.bincount(result.val.labels[:, 0].astype(int), minlength=3)
    np.testing.assert_array_equal(counts[:, :, :3].sum(1), [2 * labels] * 2)  # every label once in each run
    assert {row["panel"] for row in table(folder / "training.csv")} == set(figures.training)


def test_a_comparison_without_baseline_runs_or_classes_has_the_figures_it_can_have(tmp_path):
    result, evaluated = synthetic_result(["one"], tmp_path, seeds=1)
    (scores,) = result.scores
    overall = {key: of for key, of in scores.metrics.items() if key[0] == "all"}
    single = replace(result, models=[replace(result.models[0], runs=(replace(result.models[0].runs[0], folder=None),))])
    without = PaperFigures(result=replace(single, scores=[replace(scores, metrics=overall)]), evaluated=evaluated)
    assert without.draw_differences() is None and without.draw_classes() is None and without.draw_training() is None
    assert without.draw_curves() is not None and without.draw_trade_off() is not None


def test_a_page_shows_the_classes_that_differ_most(figures, monkeypatch):
    monkeypatch.setattr(paper_figures, "max_classes", lambda models: 2)
    keys = [key for key in figures.result.scores[0].metrics if key[0] == "class" and key[2] == "map50_95"]
    changes = {key[1]: abs(figures.result.pairs[0].differences[key].value) for key in keys}
    least = min(changes, key=changes.__getitem__)
    figure, rows = figures.draw_classes()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [n for n in changes if n != least]
    assert len(list(rows)) == 1 + 2 * len(changes), "the file has all"


def test_a_figure_that_cannot_be_written_leaves_the_others(figures, tmp_path, monkeypatch, caplog):
    written = []

    def save(drawn: object, path: Path, formats: object) -> Path:
        if path.stem == "training":
            raise RunError(path, "cannot be written", fix="free space")
        written.append(path.stem)
        return path

    monkeypatch.setattr(paper_figures, "_save", save)
    monkeypatch.setattr(PaperFigures, "draw_overview", lambda self, path: written.append("overview"))
    for name in ("curves", "classes", "confusion"):
        monkeypatch.setattr(PaperFigures, f"draw_{name}", lambda self: None)
    images = draw_paper_figures(figures.result, figures.evaluated, folder=tmp_path)
    assert written == ["overview", "trade_off", "differences", *CURVE_FILES] and len(caplog.records) == 1
    assert [image.path.stem for image in images[FIGURES]] == ["trade_off", "differences"]


@pytest.mark.slow
def test_chinese_figures_have_no_english_words(figures):
    chinese = replace(figures, lang="zh")
    allowed = {"P", "R", "F1", "mAP50", "mAP75", "mAP50-95", "GFLOPs", "old", "new", "", *figures.result.names}
    drawn = [getattr(chinese, f"draw_{name}")() for name in paper_figures.CAPTIONS]
    for figure, _ in drawn:
        texts = {text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)}
        words = {text for text in texts if text.isascii() and any(map(str.isalpha, text))}
        assert words <= allowed, words
    captions = [chinese.caption(name) for name in paper_figures.CAPTIONS]
    assert not any(caption.isascii() or "{" in caption for caption in captions)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_no_texts_touch_in_a_browser(tmp_path):
    drawings = []
    for lang, names, classes in (
        ("zh", SHORT, ("红细胞", "白细胞", "血小板")),
        ("en", LONG, ("RBC", LONG[0], "Platelets")),
    ):
        result, evaluated = synthetic_result(names, tmp_path / lang / "runs", seeds=2, classes=classes)
        of = PaperFigures(result=result, evaluated=evaluated, lang=lang)
        drawn = {name: getattr(of, f"draw_{name}")()[0] for name in paper_figures.CAPTIONS}
        drawn |= {"PR_curve": of.draw_panel("PR_curve")[0]}
        drawings += [save_figure(figure, tmp_path / lang / f"{name}.svg") for name, figure in drawn.items()]
    assert text_faults(drawings, tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_texts_that_touch_are_found(tmp_path):
    figure = Figure(figsize=(3, 2))
    for x, text in ((0.3, "left"), (0.33, "right"), (0.97, "outside")):
        figure.text(x, 0.5, text)
    figure.savefig(tmp_path / "a.svg")
    faults = text_faults([tmp_path / "a.svg"], tmp_path)
    assert len(faults) == 2 and "left" in faults[0] and "right" in faults[0] and "outside" in faults[1]

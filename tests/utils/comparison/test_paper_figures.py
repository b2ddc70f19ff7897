"""The figures of whole comparisons for print: files, numbers behind them, languages, and texts that do not touch."""

import csv
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.helpers.comparison_results import synthetic_result
from tests.helpers.rendered_svg import CHROMIUM, text_faults
from utils.comparison import paper_figures
from utils.comparison.paper_figures import CURVES, SHOWN, Drawing, PaperFigures, draw_paper_figures
from utils.comparison.report import FIGURES, OVERVIEW
from utils.errors import RunError
from utils.metrics.average_precision import precision_recall
from utils.plots.figure import save_figure, save_formats

SHORT = ["yolov5n", "模型甲"]
LONG = [
    *("yolov5n-baseline-trained-from-scratch-on-blood-cells", "yolov5n-AKConv-num_param-5-depthwise-offsets", "$3$"),
    *("a_b", "yolov5n-AKConv-num_param-5-depthwise-offsets-centred-and-more-of-it", "f"),
]


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
    assert names == {
        "notes.txt",
        *(f"{name}.{suffix}" for name in (*SHOWN, *CURVES) for suffix in ("png", "svg", "pdf")),
        *(f"{name}.csv" for name in (*SHOWN[1:], *CURVES)),
    }
    assert [image.path.stem for image in images[FIGURES]] == list(SHOWN) and len(images[OVERVIEW]) == 1
    assert cv2.imread(str(tmp_path / "figures/PR_curve.png")).shape[1] in (1003, 1004), "85 mm at 300 dpi"
    assert all(cv2.imread(str(image.path)).std() > 5 for image in (*images[FIGURES], *images[OVERVIEW]))
    drawing = figures.draw_trade_off()
    again = save_formats(drawing.figure, tmp_path / "again.png", ["svg"], title=drawing.caption).with_suffix(".svg")
    assert again.read_bytes() == (tmp_path / "figures/trade_off.svg").read_bytes(), "no dates, no random names"
    assert ElementTree.parse(again).getroot().findtext("{http://www.w3.org/2000/svg}title") == drawing.caption


def test_curves_are_means_over_classes_of_every_run(figures):
    for name, attribute in zip(
        CURVES, ("precision_by_recall", "f1_curve", "precision_curve", "recall_curve"), strict=True
    ):
        for runs, evaluated in zip(figures.curves[name], figures.evaluated, strict=True):
            for run, one in zip(runs, evaluated, strict=True):
                expected = getattr(precision_recall(one), attribute).mean(0)[:: paper_figures.EVERY]
                defined = np.isfinite(run)
                np.testing.assert_allclose(run[defined], expected[defined])
                assert defined.all() or name == "P_curve"
    numbers = figures.draw_curve("F1_curve").numbers
    assert list(numbers) == [
        "confidence threshold",
        *(f"{m} {of}" for m in ("old", "new") for of in ("mean", "lowest", "highest")),
    ]
    steps = precision_recall(figures.evaluated[0][0]).confidences[:: paper_figures.EVERY]
    np.testing.assert_allclose(numbers["confidence threshold"], steps, atol=1e-5)
    np.testing.assert_allclose(numbers["new highest"], figures.curves["F1_curve"][1].max(0), atol=1e-5)


def test_the_numbers_behind_the_figures_are_those_of_the_tables(figures, tmp_path):
    result, folder = figures.result, tmp_path
    for name in SHOWN[1:]:
        numbers = getattr(figures, f"draw_{name}")().numbers
        numbers.to_csv(folder / f"{name}.csv", index=False)
    (pair,) = result.pairs
    of_all = pair.differences["all", "", "map50_95"]
    row = table(folder / "differences.csv")[-1]
    assert row["metric"] == "mAP50-95" and float(row["low"]) == of_all.low and float(row["difference"]) == of_all.value
    classes = {(row["class"], row["model"]): row for row in table(folder / "classes.csv")}
    dog = pair.differences["class", "dog", "map50_95"]
    assert float(classes["dog", "new"]["high"]) == dog.high and classes["dog", "old"]["high"] == ""
    cost = table(folder / "trade_off.csv")
    assert [float(row["parameters, millions"]) for row in cost] == [1.76, 1.85]
    points = result.scores[1].metrics["all", "", "map50_95"].points
    assert float(cost[1]["mAP50-95 lowest"]) == points.min() and cost[0]["GFLOPs: on the Pareto front"] == "True"
    points = result.scores[1].metrics["class", "dog", "map50_95"].points
    assert float(classes["dog", "new"]["mAP50-95 highest"]) == points.max()
    counts = np.zeros((2, 4, 4))
    names = [*result.names, "background"]
    for row in table(folder / "confusion.csv"):
        at = ["old", "new"].index(row["model"]), names.index(row["predicted"]), names.index(row["true"])
        counts[at] = float(row["count over runs"])
    labels = np.bincount(result.val.labels[:, 0].astype(int), minlength=3)
    np.testing.assert_array_equal(counts[:, :, :3].sum(1), [2 * labels] * 2)  # every label once in each run
    training = table(folder / "training.csv")
    assert {row["panel"] for row in training} == set(figures.training)
    assert {(row["model"], row["run"]) for row in training} == {(m, r) for m in ("old", "new") for r in "01"}
    assert {(row["panel"], row["split"]) for row in training} >= {("mAP50", "validation"), ("box loss", "training")}


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
    drawing = figures.draw_classes()
    assert [tick.get_text() for tick in drawing.figure.axes[0].get_yticklabels()] == [n for n in changes if n != least]
    assert len(drawing.numbers) == 2 * len(changes), "the file has all"
    assert "2 of 3" in drawing.caption


def test_a_figure_that_cannot_be_written_leaves_the_others(figures, tmp_path, monkeypatch, caplog):
    written = []

    def save(drawing: object, path: Path, formats: object) -> Path:
        if path.stem == "training":
            raise RunError(path, "cannot be written", fix="free space")
        written.append(path.stem)
        return path

    monkeypatch.setattr(paper_figures, "_save", save)
    monkeypatch.setattr(PaperFigures, "draw_overview", lambda self: Drawing(Figure(), "overview"))
    monkeypatch.setattr(PaperFigures, "draw_curve", lambda self, name: Drawing(Figure(), name))
    for name in ("curves", "classes", "confusion"):
        monkeypatch.setattr(PaperFigures, f"draw_{name}", lambda self: None)
    images = draw_paper_figures(figures.result, figures.evaluated, folder=tmp_path)
    assert written == ["compare", "trade_off", "differences", *CURVES] and len(caplog.records) == 1
    assert [image.path.stem for image in images[FIGURES]] == ["trade_off", "differences"]


@pytest.mark.parametrize(("seeds", "words"), [((0, 1), "2 seeds"), ((None, 1), "2 runs"), ((0,), "One run")])
def test_captions_say_on_how_many_images_and_runs_and_what_ranges_and_intervals_are(figures, seeds, words):
    scores = [replace(of, seeds=seeds) for of in figures.result.scores]
    of = PaperFigures(result=replace(figures.result, scores=scores), evaluated=figures.evaluated)
    captions = {name: getattr(of, f"draw_{name}")().caption for name in ("curves", "trade_off", "differences")}
    assert all("24 images" in caption for caption in captions.values())
    assert words in captions["curves"] and words in captions["trade_off"] and "IoU 0.5" in captions["curves"]
    assert ("band" in captions["curves"], "error bars" in captions["trade_off"]) == (len(seeds) > 1,) * 2
    assert "old" in captions["differences"] and "95 % intervals over images and seeds" in captions["differences"]


@pytest.mark.slow
def test_chinese_figures_have_no_english_words_and_no_letters_below_six_points(figures):
    chinese = replace(figures, lang="zh")
    allowed = {"P", "R", "F1", "mAP50", "mAP75", "mAP50-95", "GFLOPs", "old", "new", "", *figures.result.names}
    for drawing in (getattr(chinese, f"draw_{name}")() for name in (*SHOWN, "overview")):
        texts = [text for text in drawing.figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
        words = {
            text.get_text() for text in texts if text.get_text().isascii() and any(map(str.isalpha, text.get_text()))
        }
        assert words <= allowed, words
        assert min(text.get_fontsize() for text in texts) >= 6
        assert not drawing.caption.isascii() and "{" not in drawing.caption


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(
    ("lang", "names", "classes", "seeds"),
    [
        ("en", SHORT[:1], ("RBC", "WBC"), 1),
        ("zh", SHORT, ("红细胞", "白细胞", "血小板"), 2),
        ("en", LONG, ("RBC", LONG[0], "Platelets"), 2),
        ("zh", LONG, ("红细胞", LONG[0], "血小板"), 2),
        ("en", [*SHORT, "c"], [f"class {i}" for i in range(30)], 2),
        ("en", [f"m{i}" for i in range(8)], [f"class {i}" for i in range(80)], 2),
    ],
    ids=["one", "short", "long", "long-zh", "30-classes", "8-models-80-classes"],
)
def test_no_texts_touch_in_a_browser(lang, names, classes, seeds, tmp_path):
    result, evaluated = synthetic_result(names, tmp_path / "runs", seeds=seeds, classes=classes, images=60)
    of = PaperFigures(result=result, evaluated=evaluated, lang=lang)
    drawn = [getattr(of, f"draw_{name}")() for name in ("overview", *SHOWN)] + [of.draw_curve(name) for name in CURVES]
    figures = [drawing.figure for drawing in drawn if drawing is not None]
    paths = [save_figure(figure, tmp_path / f"{index}.svg") for index, figure in enumerate(figures)]
    assert text_faults(paths, tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_texts_that_touch_are_found(tmp_path):
    figure = Figure(figsize=(3, 2))
    for x, text in ((0.3, "left"), (0.33, "right"), (0.97, "outside")):
        figure.text(x, 0.5, text)
    figure.savefig(tmp_path / "a.svg")
    faults = text_faults([tmp_path / "a.svg"], tmp_path)
    assert len(faults) == 2 and "left" in faults[0] and "right" in faults[0] and "outside" in faults[1]

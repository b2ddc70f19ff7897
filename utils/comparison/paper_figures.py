"""The figures of a comparison as papers print them: compare.png, and in `figures/` each as images and as numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from utils.comparison.predictions import MetricKey
from utils.comparison.report import FIGURES, OVERVIEW
from utils.comparison.result import ComparisonResult
from utils.comparison.results_curves import read_curves
from utils.comparison.statistics import ALL_TITLES, METRIC_TITLES, PRIMARY_METRIC, ModelScores
from utils.document import Block, Image
from utils.files import atomic_write
from utils.log import optional
from utils.metrics.average_precision import precision_recall
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.evaluated_set import EvaluatedSet
from utils.plots.class_bars import class_bars, max_classes
from utils.plots.comparison import overview
from utils.plots.curve_comparison import METRIC_AXES, Curve, band, metric_curves, training_curves
from utils.plots.figure import save_formats
from utils.plots.forest import MAX_LETTERS, ForestRow, forest
from utils.plots.matrices import confusions
from utils.plots.style import model_names
from utils.plots.trade_off import pareto_front, trade_off
from utils.plots.translations import caption

FOLDER = "figures"
OVERVIEW_FILE = "compare.png"
SHOWN = ("curves", "training", "trade_off", "differences", "classes", "confusion")  # in the report
CURVES = {  # fields of `PrecisionRecall`
    "PR_curve": "precision_by_recall",
    "F1_curve": "f1_curve",
    "P_curve": "defined_precision",
    "R_curve": "recall_curve",
}
COSTS = {  # key: title and unit
    "gflops": ("GFLOPs", 1.0),
    "inference_ms": ("inference, ms per image", 1.0),
    "parameters": ("parameters, millions", 1e6),
}
OVERVIEW_CURVES = ("mAP50", "mAP50-95", "box loss")
EVERY = 3  # of a curve's 1000 points, the first and the last among them
SPREAD = ["mean", "lowest", "highest"]  # columns, of the runs
MAP_SPREAD = [f"mAP50-95 {of}" for of in SPREAD]
INTERVAL = ["difference", "low", "high"]


@dataclass(frozen=True)
class Drawing:
    """A figure, what it shows, and the numbers in it."""

    figure: Figure
    caption: str
    numbers: pd.DataFrame | None = None


@dataclass(frozen=True, kw_only=True)
class PaperFigures:
    """Draws each figure of a comparison; a method returns None if there is nothing to draw."""

    result: ComparisonResult
    evaluated: Sequence[Sequence[EvaluatedSet]]  # of each model, one per run
    lang: str = "en"

    @property
    def labels(self) -> list[str]:
        """Names of the models."""
        return [model.label for model in self.result.models]

    @cached_property
    def accuracy(self) -> np.ndarray:
        """(models, 3): mean, lowest and highest mAP50-95 of the runs of each model."""
        return np.concatenate([_spread(scores, [PRIMARY_METRIC]) for scores in self.result.scores])

    @cached_property
    def costs(self) -> dict[str, list[float]]:
        """Costs of the models by title, nan where unknown."""
        costs = pd.DataFrame(list(self.result.costs)).reindex(columns=list(COSTS)).astype(float)
        known = costs.dropna(axis="columns", how="all")
        return {title: (known[key] / unit).tolist() for key, (title, unit) in COSTS.items() if key in known}

    @cached_property
    def facts(self) -> dict[str, object]:
        """What captions say about the comparison."""
        seeds = [of.seeds for of in self.result.scores]
        counts, sizes = sorted(set(map(len, seeds))), sorted({cost["image_size"] for cost in self.result.costs})
        known = all(None not in of and len(set(of)) == len(of) for of in seeds)
        covers_seeds = all(pair.differences[PRIMARY_METRIC].covers_seeds for pair in self.result.pairs)
        facts: dict[str, object] = {
            "images": len(self.result.val),
            "baseline": self.labels[0],
            "pixels": "-".join(map(str, sizes)),
            "count": "-".join(map(str, counts)),
        }
        facts["runs"] = caption("seeds" if known else "runs", self.lang, **facts)
        for shape in ("bands", "bars"):
            facts[shape] = caption("one run" if counts == [1] else shape, self.lang, **facts)
        facts["intervals"] = caption("intervals with seeds" if covers_seeds else "intervals", self.lang)
        return facts

    @cached_property
    def training(self) -> dict[str, list[Curve]]:
        """Training curves by title."""
        return read_curves(self.result.models)

    @cached_property
    def differences(self) -> dict[str, list[ForestRow]]:
        """Differences from the baseline, by title of the metric; empty without a baseline."""
        names = model_names(self.labels, max_letters=MAX_LETTERS)
        rows: dict[str, list[ForestRow]] = {}
        for metric, title in ALL_TITLES.items():
            for index, pair in enumerate(self.result.pairs, 1):
                of = pair.differences["all", "", metric]
                row = ForestRow(label=names[index], value=of.value, low=of.low, high=of.high, series=index)
                rows.setdefault(title, []).append(row)
        return rows

    @cached_property
    def curves(self) -> dict[str, list[np.ndarray]]:
        """Curves (runs, k) of each model, mean over classes, by name of the file."""
        metrics = [[precision_recall(run) for run in runs] for runs in self.evaluated]
        return {
            name: [np.stack([getattr(run, field).mean(0)[::EVERY] for run in runs]) for runs in metrics]
            for name, field in CURVES.items()
        }

    def draw_overview(self) -> Drawing:
        """Draw training curves, differences with intervals, and accuracy over cost on one page."""
        figure = overview(
            self.labels,
            curves={title: self.training[title] for title in OVERVIEW_CURVES if title in self.training},
            differences={title: self.differences.get(title, ()) for title in METRIC_TITLES.values()},
            accuracy=self.accuracy,
            costs=self.costs,
            note=self.result.header.split(". ")[0] if self.lang == "en" else "",
            lang=self.lang,
        )
        return Drawing(figure, caption("overview", self.lang, **self.facts))

    def draw_curves(self, *names: str) -> Drawing:
        """Draw the four curves on one page, or those with these names."""
        curves = {name: self.curves[name] for name in names or CURVES}
        figure = metric_curves(self.labels, curves, lang=self.lang)
        return Drawing(figure, caption("curves", self.lang, **self.facts))

    def draw_curve(self, name: str) -> Drawing:
        """Draw one of the four curves, a column wide."""
        of_models = self.curves[name]
        numbers = pd.DataFrame({METRIC_AXES[name][0]: np.linspace(0, 1, of_models[0].shape[1])})
        for label, runs in zip(self.labels, of_models, strict=True):
            numbers[[f"{label} {of}" for of in SPREAD]] = np.stack(band(runs), 1)
        return replace(self.draw_curves(name), numbers=numbers.round(5))

    def draw_training(self) -> Drawing | None:
        """Draw accuracy and losses over epochs."""
        numbers = [
            (title, curve.split, self.labels[curve.model], curve.run, epoch, value)
            for title, curves in self.training.items()
            for curve in curves
            for epoch, value in enumerate(curve.values.tolist())
        ]
        if not numbers:
            return None
        figure = training_curves(self.labels, self.training, lang=self.lang)
        text = caption("training", self.lang, **self.facts)
        if len({len(curve.values) for curves in self.training.values() for curve in curves}) > 1:
            text += caption("ended", self.lang)
        columns = ["panel", "split", "model", "run", "epoch", "value"]
        return Drawing(figure, text, pd.DataFrame(numbers, columns=columns))

    def draw_trade_off(self) -> Drawing | None:
        """Draw accuracy over each kind of cost."""
        if not self.costs:
            return None
        numbers = pd.DataFrame(self.accuracy, index=self.labels, columns=MAP_SPREAD)
        for title, values in self.costs.items():
            front = pareto_front(values, self.accuracy[:, 0].tolist())
            numbers[title] = values
            numbers[f"{title}: on the Pareto front"] = [index in front for index in range(len(numbers))]
        text = caption("trade_off", self.lang, **self.facts)
        figure = trade_off(self.labels, self.accuracy, self.costs, lang=self.lang)
        return Drawing(figure, text, numbers.reset_index(names="model"))

    def draw_differences(self) -> Drawing | None:
        """Draw the differences of all models and metrics."""
        if not self.differences:
            return None
        numbers = [
            (title, self.labels[row.series], row.value, row.low, row.high)
            for title, rows in self.differences.items()
            for row in rows
        ]
        figure = forest(self.differences, baseline=self.labels[0], lang=self.lang)
        text = caption("differences", self.lang, **self.facts)
        return Drawing(figure, text, pd.DataFrame(numbers, columns=["metric", "model", *INTERVAL]))

    def draw_classes(self) -> Drawing | None:
        """Draw mAP50-95 of each class; of more than fit on a page those with the largest differences."""
        keys = [key for key in self.result.scores[0].metrics if (key[0], key[2]) == ("class", PRIMARY_METRIC[2])]
        if not keys:
            return None
        names = [name for _, name, _ in keys]
        values = np.stack([_spread(scores, keys) for scores in self.result.scores])
        found = [[pair.differences[key] for key in keys] for pair in self.result.pairs]
        differences = np.array([[(d.value, d.low, d.high) for d in of] for of in found]).reshape(-1, len(keys), 3)
        unknown = np.full((len(values) - len(differences), len(keys), 3), np.nan)  # of the baseline
        numbers = pd.DataFrame(
            np.concatenate((values, np.concatenate((unknown, differences))), 2).reshape(-1, 6),
            index=pd.MultiIndex.from_product([self.labels, names], names=["model", "class"]),
            columns=[*MAP_SPREAD, *INTERVAL],
        )
        text = caption("classes", self.lang, **self.facts)
        if found:
            text += caption("class differences", self.lang, **self.facts)
        shown, most = np.arange(len(keys)), max_classes(len(values))
        if len(keys) > most:
            largest = np.abs(differences[:, :, 0]).max(0, initial=0)
            shown = np.sort(np.argsort(-largest, kind="stable")[:most])
            text += caption("largest differences" if found else "first classes", self.lang, shown=most, all=len(keys))
        drawn = [names[i] for i in shown], values[:, shown], differences[:, shown]
        figure = class_bars(self.labels, *drawn, lang=self.lang)
        return Drawing(figure, text, numbers.reset_index())

    def draw_confusion(self) -> Drawing:
        """Draw the matrices of all models, each over all runs."""
        axes = [*self.result.names, "background"]
        matrices = [ConfusionMatrix(len(self.result.names)) for _ in self.evaluated]
        for matrix, runs in zip(matrices, self.evaluated, strict=True):
            for run in runs:
                matrix.add_set(run)
        fractions = np.stack([matrix.normalized() for matrix in matrices])
        counts = np.stack([matrix.counts for matrix in matrices])
        numbers = pd.DataFrame(
            {"count over runs": counts.ravel(), "share of the true class": fractions.ravel()},
            index=pd.MultiIndex.from_product([self.labels, axes, axes], names=["model", "predicted", "true"]),
        )
        thresholds = {"confidence": matrices[0].conf_threshold, "iou": matrices[0].iou_threshold}
        text = caption("confusion", self.lang, **self.facts, **thresholds)
        figure = confusions(self.labels, list(fractions), self.result.names, lang=self.lang)
        return Drawing(figure, text, numbers.reset_index())


def _spread(scores: ModelScores, keys: Sequence[MetricKey]) -> np.ndarray:
    """Return (keys, 3): mean, lowest and highest of the runs."""
    return np.array([(runs.mean(), runs.min(), runs.max()) for runs in (scores.metrics[key].points for key in keys)])


def draw_paper_figures(
    result: ComparisonResult,
    evaluated: Sequence[Sequence[EvaluatedSet]],
    *,
    folder: Path,
    formats: Sequence[str] = ("svg",),
    lang: str = "en",
) -> dict[str, list[Block]]:
    """Draw compare.png and `figures/` in place of earlier ones; what cannot be drawn is a warning.

    `evaluated` holds the predictions of the runs of each model, `formats` are those besides PNG. The four curves are
    drawn together, and each by itself. Images are returned by the heading of their section.
    """
    for path in (folder / OVERVIEW_FILE, *(folder / FOLDER).glob("*.*")):
        if path.suffix in (".png", ".svg", ".pdf", ".csv"):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    figures = PaperFigures(result=result, evaluated=evaluated, lang=lang)
    images: dict[str, list[Block]] = {OVERVIEW: [], FIGURES: []}
    with optional():
        drawing = figures.draw_overview()
        images[OVERVIEW].append(Image(_save(drawing, folder / OVERVIEW_FILE, ()), drawing.caption))
    for name in SHOWN:
        with optional():
            drawn = getattr(figures, f"draw_{name}")()
            if drawn is not None:
                path = _save(drawn, folder / FOLDER / f"{name}.png", formats)
                images[FIGURES].append(Image(path, drawn.caption))
    with optional():
        for name in CURVES:
            _save(figures.draw_curve(name), folder / FOLDER / f"{name}.png", formats)
    return images


def _save(drawing: Drawing, path: Path, formats: Sequence[str]) -> Path:
    if drawing.numbers is not None:
        atomic_write(path.with_suffix(".csv"), drawing.numbers.to_csv(index=False, lineterminator="\n"))
    return save_formats(drawing.figure, path, formats, title=drawing.caption)

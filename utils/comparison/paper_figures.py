"""The figures of a comparison as papers print them: compare.png, and in `figures/` each as images and as numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils.comparison.report import FIGURES, OVERVIEW
from utils.comparison.result import ComparisonResult
from utils.comparison.results_curves import read_curves
from utils.comparison.statistics import ALL_TITLES, METRIC_TITLES, PRIMARY_METRIC
from utils.document import Block, Image
from utils.files import write_csv
from utils.log import optional
from utils.metrics.average_precision import PrecisionRecall, precision_recall
from utils.metrics.confusion import ConfusionMatrix
from utils.metrics.evaluated_set import EvaluatedSet
from utils.plots.class_bars import class_bars, max_classes
from utils.plots.comparison import overview
from utils.plots.curve_comparison import Curve, MetricPanel, band, metric_curves, training_curves
from utils.plots.figure import save_figure, save_formats
from utils.plots.forest import ForestRow, forest
from utils.plots.matrices import confusions
from utils.plots.trade_off import pareto_front, trade_off
from utils.plots.translations import translate

FOLDER = "figures"
OVERVIEW_FILE = "compare.png"
COSTS = {  # key: title and unit
    "gflops": ("GFLOPs", 1.0),
    "inference_ms": ("inference, ms per image", 1.0),
    "parameters": ("parameters, millions", 1e6),
}
OVERVIEW_CURVES = ("mAP50", "mAP50-95", "box loss")
EVERY = 3  # of a curve's 1000 points, the first and the last among them
NOTE_LETTERS = 110
CAPTIONS = {
    "curves": "Precision-recall, F1, precision and recall curves at IoU 0.5, mean over classes. {}",
    "training": "Accuracy and losses over epochs. {}",
    "trade_off": "Accuracy against cost. Error bars: lowest to highest run; filled: on the Pareto front.",
    "differences": "Differences from {} with 95 % intervals.",
    "classes": "mAP50-95 of each class; error bars: lowest to highest run. Right: differences with 95 % intervals.",
    "confusion": "Confusion matrices, each column normalized; detections with a confidence above {}, IoU above {}.",
}
OVERVIEW_CAPTION = "Accuracy and loss over epochs, differences with 95 % intervals, and accuracy over cost"
BAND = "Line: mean over runs; band: lowest to highest run."
Numbers = Iterable[Sequence[object]]  # rows of a CSV file, the header first


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
    def accuracy(self) -> list[np.ndarray]:
        """mAP50-95 of the runs of each model."""
        return [scores.metrics[PRIMARY_METRIC].points for scores in self.result.scores]

    @cached_property
    def costs(self) -> dict[str, list[float]]:
        """Costs of the models by title, nan where unknown."""
        known = {
            title: [math.nan if cost.get(key) is None else float(cost[key]) / unit for cost in self.result.costs]
            for key, (title, unit) in COSTS.items()
        }
        return {title: values for title, values in known.items() if np.isfinite(values).any()}

    @cached_property
    def training(self) -> dict[str, list[Curve]]:
        """Training curves by title."""
        return read_curves(self.result.models)

    @cached_property
    def differences(self) -> dict[str, list[ForestRow]]:
        """Differences from the baseline, by title of the metric."""
        return {
            title: [
                ForestRow(label=pair.model, value=of.value, low=of.low, high=of.high, series=index)
                for index, pair in enumerate(self.result.pairs, 1)
                for of in [pair.differences["all", "", metric]]
            ]
            for metric, title in ALL_TITLES.items()
            if self.result.pairs
        }

    @cached_property
    def panels(self) -> dict[str, MetricPanel]:
        """Curves of every run, mean over classes, by name of the file."""
        metrics = [[precision_recall(run) for run in runs] for runs in self.evaluated]
        x = metrics[0][0].confidences[::EVERY]

        def panel(x_label: str, y_label: str, curve: Callable[[PrecisionRecall], np.ndarray]) -> MetricPanel:
            runs = [np.stack([curve(run).mean(0)[::EVERY] for run in of_model]) for of_model in metrics]
            return MetricPanel(x_label=x_label, y_label=y_label, x=x, runs=runs)

        return {
            "PR_curve": panel("recall", "precision", lambda run: run.precision_by_recall),
            "F1_curve": panel("confidence", "F1", lambda run: run.f1_curve),
            "P_curve": panel("confidence", "precision", lambda run: run.defined_precision),
            "R_curve": panel("confidence", "recall", lambda run: run.recall_curve),
        }

    def draw_overview(self, path: Path) -> Image:
        """Draw training curves, differences with intervals, and accuracy over cost on one page."""
        note = self.result.header if len(self.result.header) <= NOTE_LETTERS else self.result.header.split(". ")[0]
        figure = overview(
            self.labels,
            curves={title: self.training[title] for title in OVERVIEW_CURVES if title in self.training},
            differences={title: self.differences.get(title, ()) for title in METRIC_TITLES.values()},
            accuracy=self.accuracy,
            costs=self.costs,
            note=note,
            lang=self.lang,
        )
        return Image(save_figure(figure, path), translate(OVERVIEW_CAPTION, self.lang))

    def draw_curves(self) -> tuple[Figure, Numbers] | None:
        """Draw the four curves on one page."""
        return metric_curves(self.labels, list(self.panels.values()), lang=self.lang), ()

    def draw_panel(self, name: str) -> tuple[Figure, Numbers]:
        """Draw one of the four curves, a column wide."""
        panel = self.panels[name]
        bands = [column for runs in panel.runs for column in band(list(runs))]
        header = [panel.x_label, *(f"{label} {of}" for label in self.labels for of in ("mean", "lowest", "highest"))]
        figure = metric_curves(self.labels, [panel], lang=self.lang)
        return figure, [header, *np.round(np.column_stack((panel.x, *bands)), 5).tolist()]

    def draw_training(self) -> tuple[Figure, Numbers] | None:
        """Draw accuracy and losses over epochs."""
        rows: list[Sequence[object]] = [("panel", "split", "model", "run", "epoch", "value")]
        for title, curves in self.training.items():
            for run, curve in enumerate(curves):
                split = "validation" if curve.validation or title.startswith("mAP") else "training"
                rows += [
                    (title, split, self.labels[curve.model], run, e, v) for e, v in enumerate(curve.values.tolist())
                ]
        return (training_curves(self.labels, self.training, lang=self.lang), rows) if self.training else None

    def draw_trade_off(self) -> tuple[Figure, Numbers] | None:
        """Draw accuracy over each kind of cost."""
        means = [float(runs.mean()) for runs in self.accuracy]
        fronts = [pareto_front(values, means) for values in self.costs.values()]
        titles = [column for title in self.costs for column in (title, "on the Pareto front")]
        rows: list[Sequence[object]] = [("model", "mAP50-95", "lowest", "highest", *titles)]
        for index, (label, runs) in enumerate(zip(self.labels, self.accuracy, strict=True)):
            costs = [
                cell
                for values, front in zip(self.costs.values(), fronts, strict=True)
                for cell in (values[index], index in front)
            ]
            rows.append((label, means[index], runs.min(), runs.max(), *costs))
        return (trade_off(self.labels, self.accuracy, self.costs, lang=self.lang), rows) if self.costs else None

    def draw_differences(self) -> tuple[Figure, Numbers] | None:
        """Draw the differences of all models and metrics."""
        rows = [
            (title, row.label, row.value, row.low, row.high) for title, of in self.differences.items() for row in of
        ]
        if not rows:
            return None
        figure = forest(self.differences, baseline=self.labels[0], lang=self.lang)
        return figure, [("metric", "model", "difference", "low", "high"), *rows]

    def draw_classes(self) -> tuple[Figure, Numbers] | None:
        """Draw mAP50-95 of each class; of more than fit on a page those with the largest differences."""
        keys = [key for key in self.result.scores[0].metrics if (key[0], key[2]) == ("class", PRIMARY_METRIC[2])]
        if not keys:
            return None
        found = [[pair.differences[key] for key in keys] for pair in self.result.pairs]
        differences = np.array([[(d.value, d.low, d.high) for d in of] for of in found]).reshape(-1, len(keys), 3)
        values = [[scores.metrics[key].points for key in keys] for scores in self.result.scores]
        rows: list[Sequence[object]] = [
            ("class", "model", "mAP50-95", "lowest", "highest", "difference", "low", "high")
        ]
        for index, (_, name, _) in enumerate(keys):
            for model, (label, of_model) in enumerate(zip(self.labels, values, strict=True)):
                runs = of_model[index]
                change = differences[model - 1, index].tolist() if model and len(differences) else ["", "", ""]
                rows.append((name, label, runs.mean(), runs.min(), runs.max(), *change))
        largest = np.abs(differences[:, :, 0]).max(0) if len(differences) else np.zeros(len(keys))
        shown = np.sort(np.argsort(-largest, kind="stable")[: max_classes(len(self.labels))])
        figure = class_bars(
            self.labels,
            [keys[i][1] for i in shown],
            [[of_model[i] for i in shown] for of_model in values],
            list(differences[:, shown]),
            metric=METRIC_TITLES[PRIMARY_METRIC[2]],
            lang=self.lang,
        )
        return figure, rows

    def draw_confusion(self) -> tuple[Figure, Numbers] | None:
        """Draw the matrices of all models, each over all runs."""
        names = self.result.names
        matrices = [ConfusionMatrix(len(names)) for _ in self.evaluated]
        for matrix, runs in zip(matrices, self.evaluated, strict=True):
            for run in runs:
                matrix.add_set(run)
        axes = [*names, "background"]
        rows: list[Sequence[object]] = [("model", "predicted", "true", "count over runs", "share of the true class")]
        for label, matrix in zip(self.labels, matrices, strict=True):
            shares = matrix.normalized()
            rows += [(label, axes[i], axes[j], int(n), shares[i, j]) for (i, j), n in np.ndenumerate(matrix.counts)]
        return confusions(self.labels, [m.normalized() for m in matrices], names, lang=self.lang), rows

    def caption(self, name: str) -> str:
        """Return what a figure shows, in the language of the figures."""
        thresholds = ConfusionMatrix(1)
        values = {
            "curves": [translate(BAND, self.lang)],
            "training": [translate(BAND, self.lang)],
            "differences": self.labels[:1],
            "confusion": [str(thresholds.conf_threshold), str(thresholds.iou_threshold)],
        }
        return translate(CAPTIONS[name], self.lang, *values.get(name, ()))


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
        images[OVERVIEW].append(figures.draw_overview(folder / OVERVIEW_FILE))
    for name in CAPTIONS:
        with optional():
            drawn = getattr(figures, f"draw_{name}")()
            if drawn is not None:
                path = _save(drawn, folder / FOLDER / f"{name}.png", formats)
                images[FIGURES].append(Image(path, figures.caption(name)))
    with optional():
        for name in figures.panels:
            _save(figures.draw_panel(name), folder / FOLDER / f"{name}.png", formats)
    return images


def _save(drawn: tuple[Figure, Numbers], path: Path, formats: Sequence[str]) -> Path:
    figure, rows = drawn[0], list(drawn[1])
    if rows:
        write_csv(path.with_suffix(".csv"), rows)
    return save_formats(figure, path, formats)

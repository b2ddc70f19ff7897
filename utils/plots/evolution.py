"""What a search over hyperparameters found: fitness over each of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from utils.plots.figure import ORANGE, save_figure

COLUMNS = 5


def plot_evolution(searched: Mapping[str, Sequence[float]], fitness: Sequence[float], path: Path | str) -> None:
    """Draw a panel for each hyperparameter, a dot for each generation, the best one ringed.

    Args:
        searched: values of each hyperparameter, one per generation.
        fitness: of each generation.
        path: PNG to write.
    """
    rows = math.ceil(len(searched) / COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 2.3 * rows), layout="constrained")
    best = max(range(len(fitness)), key=lambda i: fitness[i])
    for number, (name, values) in enumerate(searched.items(), 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.scatter(values, fitness, c=range(len(fitness)), cmap="viridis", s=18, alpha=0.8)
        axes.scatter([values[best]], [fitness[best]], s=90, facecolors="none", edgecolors=ORANGE, linewidths=1.6)
        axes.set_title(f"{name} = {values[best]:.3g}", fontsize=9)
        axes.tick_params(labelsize=7)
        if (number - 1) % COLUMNS == 0:
            axes.set_ylabel("fitness", fontsize=8)
    save_figure(figure, path)

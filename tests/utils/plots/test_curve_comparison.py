"""Curves of several models: means, bands, what shows where the runs end, and what distinguishes the models."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from utils.plots.curve_comparison import METRIC_AXES, Curve, band, metric_curves, training_curves
from utils.plots.style import series_colour, series_marker

X = np.linspace(0, 1, 50)


def test_the_band_goes_from_the_lowest_to_the_highest_run_over_common_points():
    mean, low, high = band([np.array([0.1, 0.5, 0.9]), np.array([0.3, 0.3]), np.array([0.2, np.nan])])
    np.testing.assert_allclose(mean, [0.2, np.nan])
    np.testing.assert_allclose((low[0], high[0]), (0.1, 0.3))


def test_models_differ_in_colour_line_and_marker_and_only_several_runs_have_a_band():
    runs = [np.stack([X, X / 2]), (X**2)[None], (X**3)[None]]
    figure = metric_curves(["a", "b", "c"], {"PR_curve": runs})
    axis = figure.axes[0]
    for index, (line, of_model) in enumerate(zip(axis.lines, runs, strict=True)):
        np.testing.assert_allclose(line.get_ydata(), of_model.mean(0))
        assert (line.get_color(), line.get_marker()) == (series_colour(index), series_marker(index))
    patterns = {str(line._unscaled_dash_pattern) for line in axis.lines}
    assert len(patterns) == 3 and len(axis.collections) == 1
    shape = axis.collections[0].get_paths()[0].vertices
    assert shape[:, 1].max() == 1 and to_hex(axis.collections[0].get_facecolor()[0]) == series_colour(0)
    assert figure.get_figwidth() * 25.4 == pytest.approx(85) and figure.dpi == 300
    assert metric_curves(["a"], dict.fromkeys(METRIC_AXES, runs[1:2])).get_figwidth() * 25.4 == pytest.approx(170)


@pytest.mark.parametrize(("lang", "label"), [("en", "precision"), ("zh", "精确率")])
def test_an_empty_curve_says_so_in_the_language_of_the_labels(lang, label):
    empty, some = (metric_curves(["a"], {"PR_curve": [curve]}, lang=lang) for curve in (np.zeros((2, 50)), X[None]))
    assert len(empty.axes[0].texts) == 1 and not some.axes[0].texts
    assert empty.axes[0].get_ylabel() == label


def test_training_and_validation_share_a_panel_and_runs_that_last_longer_go_on_as_thin_lines():
    curves = [
        Curve(model=model, run=run, split=split, values=np.arange(length) + 10.0 * (split == "training") + model)
        for run, length in enumerate((40, 45))
        for model in (0, 1)
        for split in ("training", "validation")
    ]
    figure = training_curves(["a", "b"], {"mAP50": curves[1:2], "box loss": curves})
    lines = figure.axes[1].lines
    means, rest = (
        [line for line in lines if len(line.get_xdata()) == 40],
        [li for li in lines if len(li.get_xdata()) < 40],
    )
    assert [line.get_ydata()[0] for line in means] == [10, 0, 11, 1] and len(rest) == 4
    assert [line.get_linestyle() for line in means] == ["--", "-"] * 2
    assert all(line.get_xdata().tolist() == list(range(39, 45)) for line in rest)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "validation", "training"]


@pytest.mark.parametrize(
    ("title", "values", "scale"),
    [
        ("class loss", (0.2, 0.01), "log"),
        ("class loss", (0.2, 0.03), "linear"),
        ("class loss", (0.2, 0.0), "linear"),
        ("mAP50", (0.001, 0.5), "linear"),
    ],
)
def test_losses_far_apart_have_a_logarithmic_axis(title, values, scale):
    curve = Curve(model=0, run=0, split="validation", values=np.array([*values, np.nan]))
    figure = training_curves(["a"], {title: [curve]})
    assert figure.axes[0].get_yscale() == scale
    assert not any("mathdefault" in tick.get_text() for tick in figure.axes[0].get_yticklabels(which="both"))

"""What distinguishes the models, and that the Chinese table covers the words of figures."""

import itertools
import re

import numpy as np
from matplotlib.colors import to_rgb

from utils.plots.boxes import PALETTE
from utils.plots.style import (
    COLOURS,
    legend_shape,
    mark_every,
    model_entries,
    model_names,
    new_figure,
    series_colour,
    series_line,
    series_marker,
)
from utils.plots.translations import CAPTIONS, CHINESE, translate

# Colours as people see them without one kind of cone, in linear RGB (Machado et al. 2009, severity 1).
DEFICIENCIES = {
    "none": np.eye(3),
    "protan": np.array(((0.1523, 1.0526, -0.2049), (0.1145, 0.7863, 0.0992), (-0.0039, -0.0481, 1.0520))),
    "deutan": np.array(((0.3673, 0.8606, -0.2280), (0.2801, 0.6725, 0.0474), (-0.0118, 0.0429, 0.9689))),
    "tritan": np.array(((1.2555, -0.0767, -0.1788), (-0.0784, 0.9308, 0.1476), (0.0047, 0.6914, 0.3039))),
}


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    to_xyz = np.array(((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)))
    xyz = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / (0.9505, 1, 1.089))
    return np.array((116 * xyz[1] - 16, 500 * (xyz[0] - xyz[1]), 200 * (xyz[1] - xyz[2])))


def linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def test_colours_of_models_and_of_classes_differ_for_any_colour_vision():
    for palette in ([to_rgb(colour) for colour in COLOURS], [np.array(colour) / 255 for colour in PALETTE]):
        for name, matrix in DEFICIENCIES.items():
            seen = [lab(matrix @ linear(np.asarray(colour))) for colour in palette]
            closest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))
            assert closest > 14, name


def test_35_models_have_looks_of_their_own_and_neighbours_differ_in_all_of_them():
    appearances = [(series_colour(i), str(series_line(i))) for i in range(35)]
    assert len(set(appearances)) == 35
    for i in range(34):
        assert (
            appearances[i][0] != appearances[i + 1][0]
            and appearances[i][1] != appearances[i + 1][1]
            and series_marker(i) != series_marker(i + 1)
        )
    assert [mark_every(i, 334)[0] for i in range(5)] == [0, 9, 18, 28, 37] and mark_every(3, 2) == (0, 1)


def test_a_legend_has_as_many_columns_as_its_names_leave_room_for():
    assert legend_shape(["a", "b"], 1)[0] == 2 and legend_shape(["x" * 44, "b"], 1)[0] == 1
    assert legend_shape(["胞" * 22, "b"], 1)[0] == 1, "a Chinese letter is two columns wide"
    assert legend_shape(["a" * 44] * 6, 2)[1] > legend_shape(["a"] * 6, 2)[1]
    heights = [new_figure(2, 50, model_entries(names)).get_figheight() for names in ([], ["a"], ["a" * 44] * 6)]
    assert heights == sorted(set(heights))


def test_names_that_differ_in_the_middle_alone_stay_distinct():
    names = [f"yolov5n-AKConv-with-{n}-points-and-bilinear-interpolation-of-zeros" for n in (3, 5)]
    for letters in (12, 20, 44):
        shown = model_names([*names, "b"], max_letters=letters)
        assert len(set(shown)) == 3 and max(map(len, shown)) <= letters and shown[2] == "b"


def test_words_are_translated_and_names_and_values_kept():
    assert translate("recall", "zh") == "召回率" and translate("recall", "en") == "recall"
    assert translate("mAP50", "zh") == "mAP50" and translate("difference from {}", "zh", "{a}") == "与 {a} 的差值"
    for english, chinese in CHINESE.items():
        assert english.count("{}") == chinese.count("{}") and not chinese.isascii()
    for english, chinese in CAPTIONS.values():
        assert sorted(re.findall("{.*?}", english)) == sorted(re.findall("{.*?}", chinese)) and not chinese.isascii()

"""Contact sheets: which boxes they show, in what order, and in which files."""

import re

import cv2
import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from tests.helpers.results_with_images import result_with_images, run_of
from utils.comparison import contact_sheets
from utils.comparison.contact_sheets import draw_contact_sheets
from utils.comparison.shown_runs import LABEL, by_difference, shown_runs

A, B, C = [10, 10, 30, 20], [50, 30, 90, 50], [5, 40, 25, 58]
NAMES = ("cell", "Blutplättchen")


def image(boxes, confidences, classes=None, labels=(A, B)):
    boxes, labels = (np.array(b, float).reshape(-1, 4) for b in (boxes, labels))
    return image_evaluation(boxes, confidences, classes or [0] * len(boxes), labels, [0] * len(labels))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Crops by file, of two models that agree on the first and the last image."""
    good = [image([A, B], [0.9, 0.8]), image([A, B, C], [0.9, 0.6, 0.5]), image([C, A], [0.9, 0.3])]
    weak = [image([A, B], [0.9, 0.8]), image([A, B], [0.7, 0.2], [1, 0]), image([C, A], [0.9, 0.3])]
    runs = [run_of(good), run_of(weak)]
    result = result_with_images(tmp_path / "images", runs, labels=["good", "a/b:c §"], names=NAMES)
    sheets = []
    original = contact_sheets.contact_sheet
    monkeypatch.setattr(
        contact_sheets, "contact_sheet", lambda crops, legend: sheets.append(crops) or original(crops, legend)
    )
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "9-earlier.jpg").write_bytes(b"")
    _, *images = draw_contact_sheets(result, shown_runs(result, runs), folder=tmp_path / "sheets")
    return dict(zip([image.path.name for image in images], sheets, strict=True)), tmp_path / "sheets"


def test_there_is_a_file_for_each_kind_and_no_earlier_one(drawn):
    crops, folder = drawn
    kinds = ("true-positives", "false-positives", "false-negatives")
    names = [f"{model}-{kind}.jpg" for model in ("1-good", "2-a-b-c-") for kind in kinds]
    assert list(crops) == names and sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert cv2.imread(str(folder / names[0])).shape[1] == 1008


def test_images_on_which_the_models_differ_come_first_and_in_them_what_one_of_them_finds(drawn):
    crops, _ = drawn
    hits = crops["1-good-true-positives.jpg"]
    assert [(crop.name[6:8], crop.caption[-4:]) for crop in hits] == [
        *(("01", "0.90"), ("01", "0.60"), ("00", "0.90"), ("00", "0.80"), ("02", "0.30"))
    ]
    assert [crop.box.tolist() for crop in crops["2-a-b-c--false-negatives.jpg"]] == [A, B, B]
    assert [crop.name[6:8] for crop in crops["1-good-false-negatives.jpg"]] == ["02"]


def test_false_positives_are_called_by_their_kind_and_class(drawn):
    crops, _ = drawn
    assert [crop.caption for crop in crops["2-a-b-c--false-positives.jpg"]] == [
        "Blutplättchen 0.70 classification",
        "cell 0.90 background",
    ]


def test_a_crop_shows_the_box_itself_thick_and_others_only_where_they_overlap(drawn):
    crops, _ = drawn
    wrong = crops["2-a-b-c--false-positives.jpg"][0]
    assert [(outline.box.tolist(), bool(outline.thick)) for outline in wrong.outlines] == [(A, False), (A, True)]
    missed = crops["1-good-false-negatives.jpg"][0]
    assert [(outline.box.tolist(), bool(outline.thick)) for outline in missed.outlines] == [(B, True)]


def test_an_image_has_few_crops_and_a_sheet_too(tmp_path, monkeypatch):
    boxes = [[10 * i, 10, 10 * i + 8, 30] for i in range(9)]
    runs = [run_of([image(boxes, [0.9] * 9, labels=boxes)] * 10)]
    result = result_with_images(tmp_path, runs, labels=["a"], names=["x"])
    shown = []
    monkeypatch.setattr(contact_sheets, "contact_sheet", lambda crops, _: shown.extend(crops) or np.zeros((9, 9, 3)))
    _, only, *none = draw_contact_sheets(result, shown_runs(result, runs), folder=tmp_path / "sheets")
    assert len(shown) == 24 and "24 of 90" in only.caption
    assert [block.split(": ") for block in none] == [["a", "no false positives"], ["a", "no false negatives"]]
    assert max(np.unique([crop.name for crop in shown], return_counts=True)[1]) == 3


def test_the_run_nearest_to_the_mean_is_shown_with_the_mean_f1(tmp_path):
    found, silent = run_of([image([A, B], [0.9, 0.8])]), run_of([image([], [])])
    runs = [[*silent, *found, *silent], found]
    result = result_with_images(tmp_path, runs, labels=["a", "b"], names=NAMES)
    first, second = shown_runs(result, runs)
    assert first.title == "a (seed 1)" and second.title == "b"
    assert [box.kind for box in first.labels[0]] == [LABEL, LABEL] and len(first.detections[0]) == 2
    assert "0.33" in first.caption(0) and "1.00" in second.caption(0)
    assert by_difference([first, second])[1] == pytest.approx([2 / 3], abs=1e-5)

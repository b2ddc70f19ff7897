"""The pages of all images."""

import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from tests.helpers.results_with_images import HEIGHT, WIDTH, result_with_images, run_of
from utils.comparison import browse
from utils.comparison.browse import write_browse
from utils.comparison.shown_runs import shown_runs

A, B, C = [10, 10, 30, 20], [50, 30, 90, 50], [5.25, 40, 25, 58]
NAMES = ("<cell>", "血小板")


class Elements(HTMLParser):
    """All start tags with their attributes, and the text after each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = [("", {}, "")]
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag):
        self.found.append(("", {}, ""))

    def handle_data(self, data):
        tag, attributes, text = self.found[-1]
        self.found[-1] = tag, attributes, text + data

    def of(self, tag):
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


def page(path):
    return Elements(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two models on 61 images with a label; one finds nothing on the last, both err on the second."""
    folder = tmp_path_factory.mktemp("browse")
    label = np.array([A], float)
    right = image_evaluation(label, [0.9], [1], label, [1])
    wrong = image_evaluation(np.array([A, C, B], float), [0.9, 0.8, 0.1], [0, 1, 0], label, [1])
    runs = [run_of([right, wrong, *[right] * 59]), run_of([right, wrong, *[right] * 58, image_evaluation(
        label_boxes=label, label_classes=[1])])]  # fmt: skip
    result = result_with_images(folder / "images", runs, labels=["one & only", "two"], names=NAMES)
    (folder / "browse").mkdir()
    (folder / "browse" / "page-9.html").write_text("of an earlier comparison")
    return write_browse(result, shown_runs(result, runs), folder=folder / "browse").parent


def test_there_are_pages_of_sixty_images_in_files_beside_them(pages):
    assert sorted(path.name for path in pages.glob("*.html")) == ["index.html", "page-2.html"]
    first, second = page(pages / "index.html"), page(pages / "page-2.html")
    assert [len(p.of("section")) for p in (first, second)] == [60, 1]
    sources = {attributes["src"] for p in (first, second) for attributes, _ in p.of("img")}
    assert sources == {f"images/{path.name}" for path in pages.glob("images/*")} and len(sources) == 61
    assert all(attributes["loading"] == "lazy" for attributes, _ in first.of("img"))
    assert cv2.imread(str(pages / first.of("img")[0][0]["src"])).shape == (HEIGHT, WIDTH, 3)


def test_images_on_which_the_models_differ_come_first_with_labels_and_all_models_side_by_side(pages):
    first = page(pages / "index.html")
    assert [text for _, text in first.of("h2")][:3] == ["photo 60 <&>.png", "photo 00 <&>.png", "photo 01 <&>.png"]
    assert [attributes["class"] for attributes, _ in first.of("figure")][:3] == ["m-1", "m0", "m1"]
    captions = [text for _, text in first.of("figcaption")][:3]
    assert captions == ["labels", "one & only, F1 1.00", "two, F1 0.00"]


def test_boxes_have_the_coordinates_of_the_file_and_their_kind(pages):
    first = page(pages / "index.html")
    assert first.of("svg")[0][0]["viewbox"] == f"0 0 {WIDTH} {HEIGHT}"
    groups, rects = (first.of(tag) for tag in ("g", "rect"))
    corners = [[float(rect[key]) for key in ("x", "y", "width", "height")] for rect, _ in rects]
    assert corners[0] == [10, 10, 20, 10]
    # of the first image a label, a true positive, a false negative; each box is followed by its text
    classes = [attributes["class"] for attributes, _ in groups]
    assert classes[:6] == ["c1 k7", "c1 k7", "c1 k5", "c1 k5", "c1 k8", "c1 k8"]
    third = [*classes[12:14:2], *classes[14:17]]
    assert classes[14:17] == classes[17:20], "texts are above all boxes"
    assert third == ["c1 k7", "c1 k8", "c0 k0", "c1 k4"], "without the detection of low confidence"
    assert corners[9] == pytest.approx([5.2, 40, 19.8, 18], abs=0.06)
    assert [text for _, text in first.of("text")][6:10] == ["血小板", "血小板", "<cell> 0.90", "血小板 0.80"]
    titles = [text for _, text in first.of("title")][1:]
    assert titles[8:10] == ["<cell> 0.90, classification", "血小板 0.80, background"]


def test_the_filters_know_which_page_has_what(pages):
    text = (pages / "page-2.html").read_text(encoding="utf-8")
    contents = json.loads(re.search(r"contents = (\[.*?\]), fields", text)[1])
    assert [0, 0, 0] in contents[0] and contents[1] == [[-1, 1, 7], [0, 1, 5], [1, 1, 5]]
    options = page(pages / "index.html").of("option")
    values = [attributes["value"] for attributes, _ in options]
    assert values == ["", "0", "1", "", "0", "1", "", "5", "0", "1", "2", "3", "4", "8"]
    assert "<cell>" in [text for _, text in options] and "one & only" in [text for _, text in options]


def test_pages_need_nothing_from_elsewhere(pages):
    for path in pages.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "//" not in text.replace("</", "") and "src=" in text and "<script src" not in text and "$" not in text


def test_large_images_are_scaled_down_but_their_boxes_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(browse, "IMAGE_PIXELS", 50)
    label = np.array([B], float)
    runs = [run_of([image_evaluation(label, [0.9], [0], label, [0])])]
    result = result_with_images(tmp_path / "images", runs, labels=["a"], names=["all"])
    found = page(write_browse(result, shown_runs(result, runs), folder=tmp_path / "browse"))
    assert cv2.imread(str(tmp_path / "browse" / found.of("img")[0][0]["src"])).shape == (30, 50, 3)
    assert found.of("svg")[0][0]["viewbox"] == "0 0 100 60" and found.of("rect")[0][0]["x"] == "50.0"

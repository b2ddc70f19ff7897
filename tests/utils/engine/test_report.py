import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from utils.datasets.images import write_image
from utils.datasets.index import DatasetIndex
from utils.engine.judgements import Judgement
from utils.engine.report import ReportPicture, to_html, write_report
from utils.engine.report_examples import example_pictures, most_different, picture_scores
from utils.metrics.bootstrap import JudgedSet

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Collects tags and texts, and insists that tags close in the order in which they open."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


MARKDOWN = """# Comparison

Some **bold** words & `code <x>`.

- first
- second <script>alert(1)</script>

| Model | mAP50 |
|-------|------:|
| a | 0.5 |
| b<c | +0.1 [-0.1, +0.3] |

## Accuracy

## Commands

```
python compare.py --cfg a b > c

```
"""


def test_markdown_becomes_html_with_everything_escaped():
    page = checked(to_html(MARKDOWN.replace("> c\n\n", "> c\n")))
    tags = [tag for tag, _ in page.seen]
    assert tags.count("td") == 4 and tags.count("th") == 2 and tags.count("li") == 2 and tags.count("strong") == 1
    assert "script" not in tags and "alert(1)" in page.text and "--cfg a b > c" in page.text and "b<c" in page.text


def test_the_report_needs_nothing_from_elsewhere(tmp_path):
    image = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()
    shown = ReportPicture(content=image, kind="png", caption='a "quoted" <caption>')
    path = write_report(MARKDOWN, title="a & b", overview=shown, examples=[shown], path=tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    checker = checked(page)
    images = [attrs for tag, attrs in checker.seen if tag == "img"]
    assert len(images) == 2 and all(attrs["src"].startswith("data:image/png;base64,") for attrs in images)
    assert images[0]["alt"] == 'a "quoted" <caption>' and not re.search(r"https?://|<script|<link", page)
    assert page.index("At a glance") < page.index(">Accuracy<") < page.index("differ most") < page.index(">Commands<")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in checker.seen


def judgement(hits: list[int], alarms: list[int]) -> Judgement:
    """Three pictures with two objects each: how many are found, and how many false alarms there are."""
    where = np.repeat(np.arange(3), np.add(hits, alarms))
    right = np.concatenate([[True] * h + [False] * a for h, a in zip(hits, alarms, strict=True)]).astype(bool)
    sizes = np.zeros(len(where), np.int8)
    return Judgement(
        judged=JudgedSet(
            images=3,
            detection_images=where,
            scores=np.full(len(where), 0.9),
            classes=np.zeros(len(where), np.int64),
            correct=np.repeat(right[:, None], 10, 1),
            label_images=np.repeat(np.arange(3), 2),
            label_classes=np.zeros(6, np.int64),
        ),
        boxes=np.tile(np.array([5, 5, 30, 20], np.float32), (len(where), 1)),
        own_sizes=sizes,
        claimed=sizes,
        label_sizes=np.zeros(6, np.int8),
    )


def test_pictures_are_ranked_by_the_mean_gain_over_seeds():
    assert picture_scores(judgement([2, 1, 0], [0, 1, 0])) == pytest.approx([1, 0.5, 0])
    assert picture_scores(judgement([2, 1, 0], [0, 1, 0]), confidence=0.95) == pytest.approx([0, 0, 0])
    model, baseline = (
        [judgement([2, 1, 1], [0, 0, 0]), judgement([2, 1, 0], [0, 0, 0])],
        [judgement([0, 1, 2], [0] * 3)],
    )
    found = most_different(model, baseline)
    assert [number for number, _ in found] == [0, 2] and found[0][1] == 1 and found[1][1] < 0


def test_examples_show_labels_baseline_and_model_side_by_side(tmp_path):
    paths = []
    for number in range(3):
        paths.append(str(write_image(tmp_path / f"{number}.png", np.full((40, 60, 3), 90, np.uint8))))
    index = DatasetIndex(
        paths=np.array(paths),
        sizes_hw=np.full((3, 2), (40, 60), np.int32),
        labels=np.tile(np.array([0, 0.5, 0.5, 0.4, 0.4], np.float32), (6, 1)),
        starts=np.array([0, 2, 4, 6]),
    )
    found = example_pictures(
        [judgement([2, 1, 0], [0, 0, 0])],
        [judgement([0, 1, 2], [0] * 3)],
        labels=("new", "old"),
        index=index,
        names=["a"],
    )
    assert len(found) == 2 and "new is better here" in found[0].caption and "old is better here" in found[1].caption
    shown = cv2.imdecode(np.frombuffer(found[0].content, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (40, 3 * 60 + 2 * 8, 3)
    panels = [shown[:, start : start + 60].std() for start in (0, 68, 136)]
    assert panels[0] > 3 and panels[1] < 3 and panels[2] > 3, "the old model found nothing here"

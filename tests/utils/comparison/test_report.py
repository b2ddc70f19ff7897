import base64
import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from utils.comparison.html import ReportImage, write_report
from utils.comparison.report_examples import example_images, image_scores, largest_differences, representative_seed_pair
from utils.comparison.report_markdown import code_block, plain, table, to_html
from utils.datasets.images import write_image
from utils.datasets.index import DatasetIndex
from utils.metrics.evaluated_set import EvaluatedSet

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


def image(folder: Path, size_hw: tuple[int, int], caption: str) -> ReportImage:
    return ReportImage(path=write_image(folder / "a.png", np.zeros((*size_hw, 3), np.uint8)), caption=caption)


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


@pytest.mark.parametrize(
    "name", ["a | b", "<b>bold</b>", "**a** `b`", "_x_ __init__", "a\\|b", "c\\", "&lt;", "[x](y)", "~~"]
)
def test_any_name_stands_in_a_table_as_it_is(name):
    text = table([["Model", "mAP50"], [name, "0.5"], [f"{name} - {name}", "+0.1 [-0.1, +0.3]"]])
    widths = {len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in text.splitlines()}
    assert widths == {4}, "columns as a reader of markdown counts them: bars without a backslash of their own"
    page = to_html(f"{text}\n\n- {plain(name)}: **Note:** `code`")
    cells = [html.unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", page)]
    assert cells == [name, "0.5", f"{name} - {name}", "+0.1 [-0.1, +0.3]"]
    assert html.unescape(page).endswith(f"<ul><li>{name}: <strong>Note:</strong> <code>code</code></li></ul>")


def test_ordinary_names_and_figures_are_written_without_marks():
    rows = [["yolov5n-AKConv-num_param-3", "+0.010 [-0.100, +0.120]"], ["p", "< 0.001"], ["a_b & c's (1)", "±"]]
    assert "\\" not in table(rows) and plain("two\nlines") == "two lines"


def test_commands_with_empty_lines_and_fences_stay_one_block():
    lines = ["python compare.py --name 'a", "", "# b", "", "```", "", "| c |'", "python train.py"]
    page = checked(to_html(f"## Commands\n\n{code_block(lines)}\n\n## Environment\n\ncpu"))
    assert [tag for tag, _ in page.seen] == ["h2", "pre", "code", "h2", "p"]
    assert "\n".join(lines) in page.text


def test_images_are_linked_where_they_are_and_embedded_in_the_page(tmp_path):
    name = "a | b #1 [x"
    path = tmp_path / "examples" / f"{name}.jpg"
    path.parent.mkdir()
    path.write_bytes(b"jpeg")
    shown = ReportImage(path=path, caption=f"{name}: an image")
    text = shown.markdown(tmp_path)
    (alternative, link), caption = (
        re.match(r"!\[((?:[^][\\]|\\.)*)\]\(([^ ()]+)\)", text).groups(),
        text.splitlines()[2],
    )
    assert (tmp_path / unquote(link)) == path and html.unescape(to_html(caption)) == f"<p>{name}: an image</p>"
    assert html.unescape(to_html(alternative)) == f"<p>{name}: an image</p>"
    page = write_report(text, title="t", images=[shown], path=tmp_path / "report.html").read_text(encoding="utf-8")
    assert checked(page).text.count(f"{name}: an image") == 1, "the caption stands once"
    assert f'src="data:image/jpeg;base64,{base64.b64encode(b"jpeg").decode()}" alt="{name}: an image"' in page


def test_the_report_needs_nothing_from_elsewhere(tmp_path):
    shown = image(tmp_path, (4, 6), 'a "quoted" <caption>')
    text = MARKDOWN.replace("## Commands", f"{shown.markdown(tmp_path)}\n\n## Commands")
    path = write_report(text, title="a & b", images=[shown], path=tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    checker = checked(page)
    images = [attrs for tag, attrs in checker.seen if tag == "img"]
    assert len(images) == 1 and images[0]["src"].startswith("data:image/png;base64,")
    assert images[0]["alt"] == 'a "quoted" <caption>' and not re.search(r"https?://|<script|<link", page)
    assert page.index(">Accuracy<") < page.index("<figure>") < page.index(">Commands<")
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in checker.seen


def test_the_report_does_without_a_image_that_could_not_be_written(tmp_path):
    path = write_report(MARKDOWN, title="t", path=tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    assert checked(page).text.count("Accuracy") == 1 and "<img" not in page


LONG = "yolov5n-AKConv-num_param-3-padding-zeros"
WIDE = f"""# Comparison

/some/folder/{"of-a-long-name/" * 8}data.yaml: 6 validation images.

## At a glance

IMAGE

## Accuracy

| Model | Seeds | mAP50 | mAP50-95 |
|-------|------:|------:|---------:|
| {LONG} | 3 | 0.512 ± 0.010 | 0.312 ± 0.010 |

## Per class

| mAP50-95 | {LONG} | {LONG} - yolov5n | {LONG}-2 - yolov5n | {LONG}-3 - yolov5n |
|---|---:|---:|---:|---:|
| red | 0.312 ± 0.010 | +0.010 [-0.100, +0.120] | +0.010 [-0.100, +0.120] | +0.010 [-0.100, +0.120] |

## What differs

- {LONG}: `row 1: AKConv [128, 3, 2] -> AKConv [128, 3, 2, {{'padding': 'zeros'}}]`

## Where they differ most

IMAGE

## Commands

```
python compare.py --cfg {"yolov5n-AKConv.yaml " * 20}
```
"""
# Measured inside a frame, as no browser's own window is as narrow as a phone. A sideways scroll belongs to the parts
# that are made for it, and nothing beside them may stick out.
MEASURE = """<!doctype html><iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"
onload="const d = this.contentDocument, e = d.documentElement;
const free = [...d.querySelectorAll('body *')].filter(x => !x.closest('.scroll, pre'));
document.title = JSON.stringify({{
  inner: this.contentWindow.innerWidth, page: e.scrollWidth,
  out: free.filter(x => x.getBoundingClientRect().right > e.clientWidth + 1).map(x => x.tagName),
  parts: [...d.querySelectorAll('.scroll')].map(x => [x.clientWidth, x.scrollWidth]),
  images: [...d.images].map(x => [x.naturalWidth, x.clientWidth]),
  smallest: Math.min(...[...d.querySelectorAll('p, li, td, th, code, figcaption')].map(
    x => parseFloat(d.defaultView.getComputedStyle(x).fontSize))),
}});"></iframe>"""


def browser() -> str:
    names = ("chromium", "chromium-headless-shell", "google-chrome", "chrome")
    found = os.environ.get("CHROME") or next(filter(None, map(shutil.which, names)), "")
    if not found:
        pytest.skip("no browser: set CHROME to one")
    return found


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_report_without_scrolling_it_sideways(tmp_path: Path, width: int):
    chrome = browser()
    shown = image(tmp_path, (600, 1680), "a wide image")
    text = WIDE.replace("IMAGE", shown.markdown(tmp_path))
    path = write_report(text, title="t", images=[shown, shown], path=tmp_path / "report.html")
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=html.escape(path.read_text(encoding="utf-8"))), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    seen = subprocess.run([chrome, *flags, frame.as_uri()], capture_output=True, text=True, timeout=120).stdout
    measured = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", seen)[0]))
    assert measured["inner"] == width and measured["page"] <= width and measured["out"] == []
    glance, accuracy, classes, examples = measured["parts"]
    assert (glance[1] > glance[0]) == (examples[1] > examples[0]) == (width == 390), (
        "an image stays large enough to read"
    )
    assert (accuracy[1] > accuracy[0]) == (classes[1] > classes[0]) == (width == 390)
    assert all(natural == 1680 and 700 < drawn <= 1152 for natural, drawn in measured["images"])
    assert measured["smallest"] >= 11


def judgement(hits: list[int], alarms: list[int]) -> EvaluatedSet:
    """Three images with two objects each: how many are found, and how many false alarms there are."""
    where = np.repeat(np.arange(3), np.add(hits, alarms))
    right = np.concatenate([[True] * h + [False] * a for h, a in zip(hits, alarms, strict=True)]).astype(bool)
    return EvaluatedSet(
        num_images=3,
        image_ids=where,
        boxes=np.tile(np.array([5, 5, 30, 20], np.float32), (len(where), 1)),
        confidences=np.full(len(where), 0.9),
        classes=np.zeros(len(where), np.int64),
        tp=np.repeat(right[:, None], 10, 1),
        claimed_areas=np.zeros(len(where)),
        label_image_ids=np.repeat(np.arange(3), 2),
        label_classes=np.zeros(6, np.int64),
        label_areas=np.zeros(6),
    )


def test_the_runs_that_are_drawn_are_those_most_like_the_mean():
    ours = [judgement([2, 0, 0], [0] * 3), judgement([1, 0, 0], [0] * 3), judgement([0, 0, 0], [0] * 3)]
    theirs = [judgement([1, 0, 0], [0] * 3), judgement([0, 0, 0], [0] * 3)]
    gain = float(np.mean([1, 2 / 3, 0]) - np.mean([2 / 3, 0]))
    find = {"number": 0, "gain": gain}
    assert representative_seed_pair(ours, theirs, seeds=((None,) * 3, (None,) * 2), **find) == (0, 0), (
        "1 - 2/3 is nearest 0.22"
    )
    assert representative_seed_pair(ours, theirs, seeds=((0, 1, 2), (1, 2)), **find) == (1, 0), (
        "of 2/3 - 2/3 and 0 - 0 the first"
    )
    assert representative_seed_pair(ours, theirs, seeds=((0, 1, 2), (7, 2)), **find) == (2, 1), "the only shared seed"


def test_a_caption_tells_the_f1_of_what_is_drawn_above_it(tmp_path):
    several = [judgement([1, 1, 0], [0] * 3), judgement([2, 1, 0], [0, 0, 1])]
    found = examples(tmp_path, "a", model=several, seeds=((3, 4), (4,)))
    assert "old, new (seed 4) from left to right" in found[0].caption
    assert "F1 0.00 against 1.00. Over all runs new is better here by 0.83." in found[0].caption


def test_images_are_ranked_by_the_mean_gain_over_seeds():
    assert image_scores(judgement([2, 1, 0], [0, 1, 0])) == pytest.approx([1, 0.5, 0])
    assert image_scores(judgement([2, 1, 0], [0, 1, 0]), confidence=0.95) == pytest.approx([0, 0, 0])
    model, baseline = (
        [judgement([2, 1, 1], [0, 0, 0]), judgement([2, 1, 0], [0, 0, 0])],
        [judgement([0, 1, 2], [0] * 3)],
    )
    found = largest_differences(model, baseline)
    assert [number for number, _ in found] == [0, 2] and found[0][1] == 1 and found[1][1] < 0


def examples(
    folder: Path,
    name: str,
    model: Sequence[EvaluatedSet] = (),
    seeds: tuple[tuple[int | None, ...], tuple[int | None, ...]] = ((None,), (None,)),
) -> list[ReportImage]:
    paths = []
    for number in range(3):
        paths.append(str(write_image(folder / f"{number}.png", np.full((40, 60, 3), 90, np.uint8))))
    index = DatasetIndex(
        paths=np.array(paths),
        sizes_hw=np.full((3, 2), (40, 60), np.int32),
        labels=np.tile(np.array([0, 0.5, 0.5, 0.4, 0.4], np.float32), (6, 1)),
        starts=np.array([0, 2, 4, 6]),
    )
    return example_images(
        model or [judgement([2, 1, 0], [0, 0, 0])],
        [judgement([0, 1, 2], [0] * 3)],
        labels=("new", "old"),
        seeds=seeds,
        index=index,
        names=[name, "b"],
        folder=folder,
    )


def test_examples_name_classes_that_no_font_shows_by_number(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "utils.comparison.report_examples.draw_boxes",
        lambda image, _, texts, *__, **___: drawn.append(texts) or image,
    )
    examples(tmp_path, "\ufdd0\U00012000")
    assert drawn[0] == ["0", "0"] and drawn[2] == ["0 0.90", "0 0.90"]


def test_examples_show_labels_baseline_and_model_side_by_side(tmp_path):
    found = examples(tmp_path, "a")
    assert [shown.path.relative_to(tmp_path).as_posix() for shown in found] == [
        "examples/new-1.jpg",
        "examples/new-2.jpg",
    ]
    assert "F1 0.00 against 1.00." in found[0].caption and "F1 1.00 against 0.00." in found[1].caption
    assert "Over all runs" not in found[0].caption, "there is one of each"
    shown = cv2.imread(str(found[0].path))
    assert shown.shape == (40, 3 * 60 + 2 * 8, 3)
    panels = [shown[:, start : start + 60].std() for start in (0, 68, 136)]
    assert panels[0] > 3 and panels[1] < 3 and panels[2] > 3, "the old model found nothing here"

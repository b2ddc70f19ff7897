"""Sections as data to Markdown that shows every name as it is, and to a page that needs no other file."""

import base64
import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from utils.datasets.image_writing import write_image
from utils.document import (
    BulletList,
    CodeBlock,
    Gallery,
    Image,
    Section,
    Table,
    escape_markdown,
    split_columns,
    table_to_markdown,
    table_to_text,
    to_html,
    to_markdown,
)

VOID = {"meta", "img", "br"}
NAMES = ["a | b", "<b>bold</b>", "**a** `b`", "_x_ __init__", "a\\|b", "c\\", "&lt;", "[x](y)", "~~", "<script>", "$x$"]


class Page(HTMLParser):
    """The elements of a page: tag, attributes and text. Tags must close in the order in which they open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.elements = [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append([tag, dict(attrs), ""])
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def texts(self, *tags: str) -> list[str]:
        return [text for tag, _, text in self.elements if tag in tags]

    def tags(self) -> list[str]:
        return [tag for tag, _, _ in self.elements]

    def images(self) -> list[dict[str, str]]:
        return [attributes for tag, attributes, _ in self.elements if tag == "img"]


def unescaped(markdown: str) -> str:
    """Return what a reader of Markdown shows for a line without syntax."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown)


def image(folder: Path, size_hw: tuple[int, int], caption: str) -> Image:
    return Image(write_image(folder / "a.png", np.zeros((*size_hw, 3), np.uint8)), caption)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_shown_as_it_is(name):
    table = Table(header=["Model", name], rows=[[name, "0.5"], [f"{name} - {name}", "+0.1 [-0.1, +0.3]"]])
    lines = table_to_markdown(table).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]] for line in lines]
    assert {len(row) for row in cells} == {2}, "columns as a reader of Markdown counts them"
    rows = [[unescaped(cell.strip()) for cell in line.strip("| ").split(" | ")] for line in (lines[0], *lines[2:])]
    assert rows == [list(table.header), *map(list, table.rows)]
    page = Page(to_html([Section(name, [name, BulletList([name]), table, CodeBlock([name])], level=1)], title=name))
    assert page.texts("title", "h1", "p", "li", "code") == [name] * 5
    assert page.texts("th", "td") == ["Model", name, name, "0.5", f"{name} - {name}", "+0.1 [-0.1, +0.3]"]
    assert not {"script", "b"} & set(page.tags())


def test_ordinary_names_and_numbers_are_written_without_escapes():
    rows = [["yolov5n-AKConv-num_param-3", "+0.010 [-0.100, +0.120]"], ["p", "< 0.001"], ["a_b & c's (1)", "±"]]
    assert "\\" not in table_to_markdown(Table(header=["a", "b"], rows=rows))
    assert escape_markdown("two\nlines") == "two lines"


def test_columns_of_a_table_are_aligned():
    lines = table_to_markdown(Table(header=["Model", "mAP50"], rows=[["a", "0.5"], ["longer", "0.25"]])).splitlines()
    assert lines == ["| Model  | mAP50 |", "|--------|------:|", "| a      |   0.5 |", "| longer |  0.25 |"]


def test_a_terminal_shows_cells_as_they_are():
    table = Table(header=["Model", "mAP50"], rows=[["a_b |", "+0.1***"], ["longer", "+0.25"]])
    lines = ["| Model  |   mAP50 |", "|--------|--------:|", "| a_b |  | +0.1*** |", "| longer |   +0.25 |"]
    assert table_to_text(table).splitlines() == lines
    assert split_columns(table, 22) == [table], "as wide as it is without escapes"


def test_code_with_empty_lines_and_fences_is_one_block(tmp_path):
    lines = ["python compare.py --name 'a", "", "# b", "", "```", "", "| c |'", "python train.py"]
    sections = [Section("Commands", [CodeBlock(lines)]), Section("Environment", ["cpu"])]
    heading, fence, *text, end, _, last, _, cpu = to_markdown(sections, tmp_path).replace("\n\n", "\n", 1).splitlines()
    assert (heading, fence, text, end, last, cpu) == ("## Commands", "````", lines, "````", "## Environment", "cpu")
    page = Page(to_html(sections, title="t"))
    assert [tag for tag in page.tags() if tag in ("h2", "pre", "code", "p")] == ["h2", "pre", "code", "h2", "p"]
    assert page.texts("code") == ["\n".join(lines)]


def test_images_are_linked_in_markdown_and_embedded_in_the_page(tmp_path):
    name = "a | b #1 [x"
    path = tmp_path / "examples" / f"{name}.jpg"
    path.parent.mkdir()
    path.write_bytes(b"jpeg")
    sections = [Section("Examples", [Image(path, f"{name}: an image")])]
    text = to_markdown(sections, tmp_path)
    alternative, link, caption = re.search(r"!\[((?:[^][\\]|\\.)*)\]\(([^ ()]+)\)\n\n(.*)\n$", text).groups()
    assert tmp_path / unquote(link) == path
    assert unescaped(alternative) == unescaped(caption) == f"{name}: an image"
    page = Page(to_html(sections, title="t"))
    assert page.images() == [
        {"src": f"data:image/jpeg;base64,{base64.b64encode(b'jpeg').decode()}", "alt": f"{name}: an image"}
    ]
    assert page.texts("figcaption") == [f"{name}: an image"]


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    shown = image(tmp_path, (4, 6), 'a "quoted" <caption>')
    text = to_html([Section("Comparison", ["header"], level=1), Section("Overview", [shown])], title="a & b")
    page = Page(text)
    assert page.texts("title", "h1", "h2") == ["a & b", "Comparison", "Overview"]
    assert [shown["alt"] for shown in page.images()] == ['a "quoted" <caption>']
    assert not {"script", "link"} & set(page.tags()) and not re.search(r"https?://|url\(", text)
    assert ["meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}, ""] in page.elements


LONG = "yolov5n-AKConv-num_param-3-padding-zeros"
DIFFERENCE = "+0.010 [-0.100, +0.120]"


def wide(shown: Image) -> list[Section]:
    """Return a report with long names and wide tables."""
    accuracy = Table(["Model", "Seeds", "mAP50", "mAP50-95"], [[LONG, "3", "0.512 ± 0.010", "0.312 ± 0.010"]])
    classes = Table(
        ["mAP50-95", LONG, *(f"{LONG}{end} - yolov5n" for end in ("", "-2", "-3"))],
        [["red", "0.312 ± 0.010", *[DIFFERENCE] * 3]],
    )
    return [
        Section("Comparison", [f"/some/folder/{'of-a-long-name/' * 8}data.yaml: 6 validation images."], level=1),
        Section("Overview", [shown]),
        Section("Accuracy", [accuracy]),
        Section("Per class", [classes]),
        Section("Configuration differences", [LONG, CodeBlock(["row 1: AKConv [128, 3, 2] -> AKConv [128, 3, 2, 5]"])]),
        Section("Largest differences", [shown]),
        Section("Commands", [CodeBlock([f"python compare.py --cfg {'yolov5n-AKConv.yaml ' * 20}"])]),
    ]


# Measured inside a frame, as the browser's own window cannot be as narrow as a phone. Only parts that are made for it
# may scroll sideways, and nothing else may stick out.
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
def test_a_browser_shows_the_page_without_scrolling_it_sideways(tmp_path: Path, width: int):
    chrome = browser()
    page = to_html(wide(image(tmp_path, (600, 1680), "a wide image")), title="t")
    frame = tmp_path / "frame.html"
    frame.write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    seen = subprocess.run([chrome, *flags, frame.as_uri()], capture_output=True, text=True, timeout=120).stdout
    measured = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", seen)[0]))
    assert measured["inner"] == width and measured["page"] <= width and measured["out"] == []
    overview, accuracy, classes, examples = (scrolled > visible for visible, scrolled in measured["parts"])
    assert overview == examples == (width == 390), "an image stays large enough to read"
    assert accuracy == classes == (width == 390)
    assert all(natural == 1680 and 700 < drawn <= 1152 for natural, drawn in measured["images"])
    assert measured["smallest"] >= 11


def test_a_gallery_holds_its_images_in_order(tmp_path: Path) -> None:
    images = [Image(write_image(tmp_path / f"{name}.png", np.zeros((4, 6, 3), np.uint8)), name) for name in "ab"]
    sections = [Section("Examples", [Gallery(images)])]
    page = Page(to_html(sections, title="t", extra_style=".gallery { color: red }"))
    assert page.texts("figcaption") == ["a", "b"]
    assert ".gallery { color: red }" in page.texts("style")[0]
    assert re.findall(r"!\[\w\]\((\w\.png)\)", to_markdown(sections, tmp_path)) == ["a.png", "b.png"]


def test_table_of_contents_links_each_section_of_a_long_page():
    names = ["Comparison", "a < b", "Cost", "Cost", "x"]  # two may have the same heading
    page = Page(to_html([Section(name, ["text"], level=1 + bool(i)) for i, name in enumerate(names)], title="t"))
    links = [(attributes["href"], text) for tag, attributes, text in page.elements if tag == "a"]
    headings = {f"#{attributes['id']}": text for tag, attributes, text in page.elements if tag in ("h1", "h2")}
    assert [text for _, text in links] == names[1:] and len(headings) == len(names)
    assert all(headings[target] == text for target, text in links)
    assert "nav" not in Page(to_html([Section(name, ["text"]) for name in names[:2]], title="t")).tags()

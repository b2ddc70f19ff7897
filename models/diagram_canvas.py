"""Elements of an SVG drawing: texts, rectangles, arrows; lengths are in points, 1/72 inch, and y points down."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from models.diagram_layout import Point, Rectangle

MILLIMETRES = 25.4 / 72  # of a point
TEXT = 7.0  # size of text
INK = "#222222"
HATCH = "url(#hatch)"
FONTS = "Arial, Helvetica, 'Liberation Sans', 'Microsoft YaHei', 'PingFang SC', 'Noto Sans CJK SC', sans-serif"
# Widths in Arial in 1/1000 of the size; 556 for what is not listed, 1000 beyond Latin.
ADVANCES = {
    character: width
    for width, characters in (
        *((222, "ijl'|"), (278, " !,./:;I[]\\ft"), (333, "()-r`·"), (389, '*{}"'), (500, "cksvxyzJ"), (584, "+<=>~×")),
        *((611, "FTZ"), (667, "ABEKPSVXY&"), (722, "CDHNRUw"), (778, "GOQ"), (833, "mM"), (889, "%"), (944, "W")),
        *((1000, "…"), (1015, "@")),
    )
    for character in characters
}
BOLD = 1.08  # times as wide
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text_width(text: str, size: float = TEXT, *, bold: bool = False) -> float:
    """Return the width of a text."""
    units = sum(ADVANCES.get(character, 556 if ord(character) < 0x2000 else 1000) for character in text)
    return units / 1000 * size * (BOLD if bold else 1)


def new_drawing(width: float, height: float, title: str) -> Element:
    """Return a white drawing; viewers show the title as a tooltip, screen readers read it."""
    mm = [f"{length * MILLIMETRES:.1f}mm" for length in (width, height)]
    size = {"width": mm[0], "height": mm[1], "viewBox": f"0 0 {_text_of(width)} {_text_of(height)}"}
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size, "font-family": FONTS})
    add(root, "title", title)
    pattern = {"patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)"}
    hatch = add(add(root, "defs"), "pattern", id="hatch", width=2.5, height=2.5, **pattern)
    add(hatch, "rect", width=1.1, height=2.5, fill=INK)
    add(root, "rect", width=width, height=height, fill="#FFFFFF")
    return root


def add(parent: Element, name: str, content: str | None = None, /, **attributes: object) -> Element:
    """Append an element; `stroke_width` is stroke-width, and `class_` is class."""
    values = {key.strip("_").replace("_", "-"): _text_of(value) for key, value in attributes.items()}
    element = ElementTree.SubElement(parent, name, values)
    element.text = None if content is None else _text_of(content)
    return element


def text(
    parent: Element, at: Point, content: str, *, size: float = TEXT, bold: bool = False, **attributes: object
) -> None:
    """Write a text on a baseline that starts at a point, or as `text_anchor` says.

    Its length is fixed, so that it takes no more room in a viewer without the font.
    """
    if content:
        attributes |= {"textLength": text_width(content, size, bold=bold), "lengthAdjust": "spacingAndGlyphs"}
        attributes |= {"font_weight": "bold"} if bold else {}
        add(parent, "text", content, x=at[0], y=at[1], font_size=size, fill=INK, **attributes)


def rectangle(parent: Element, area: Rectangle, fill: str, outline: float = 0) -> None:
    """Draw a filled rectangle, with an outline of a thickness."""
    stroke = {"stroke": INK, "stroke_width": outline} if outline else {}
    add(parent, "rect", **area._asdict(), fill=fill, **stroke)


def arrow(parent: Element, points: Sequence[Point], colour: str, **attributes: object) -> None:
    """Draw a line along the axes that ends in an arrow's head."""
    (x0, y0), (x1, y1) = points[-2:]
    dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
    path = "M" + " L".join(f"{_text_of(x)} {_text_of(y)}" for x, y in points)
    add(parent, "path", d=path, fill="none", stroke=colour, stroke_width=0.8, **attributes)
    head = [(x1, y1), *((x1 - 4 * dx + side * dy, y1 - 4 * dy - side * dx) for side in (1.7, -1.7))]
    add(parent, "polygon", points=" ".join(f"{_text_of(x)},{_text_of(y)}" for x, y in head), fill=colour)


def to_string(root: Element) -> str:
    """Return the SVG file's content."""
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text_of(value: object) -> str:
    """Return an attribute's text: numbers with two decimals at most, without characters that XML does not have."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return NOT_XML.sub("\ufffd", str(value))

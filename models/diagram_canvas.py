"""An SVG drawing of texts, rectangles and arrows; lengths are in points, 1/72 inch, and y points down."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from models.diagram_layout import Point, Rectangle

PAGE = (170.0, 247.0)  # width and height in mm that the margins of A4 leave
MILLIMETRES = 25.4 / 72  # of a point
TEXT = 7.0  # size of text
INK, GREY = "#222222", "#777777"
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


def clip(text: str, width: float, *, bold: bool = False) -> str:
    """Return the beginning of a text that is at most so wide, with an ellipsis if something is cut."""
    if text_width(text, bold=bold) <= width:
        return text
    while text and text_width(text + "…", bold=bold) > width:
        text = text[:-1]
    return text + "…"


class Canvas:
    """An SVG drawing, scaled down to fit A4 within its margins if it is larger; `scale` is the factor."""

    def __init__(self, width: float, height: float, *, title: str) -> None:
        """Begin a white drawing; viewers show the title as a tooltip, screen readers read it."""
        self.scale = min(1.0, PAGE[0] / (width * MILLIMETRES), PAGE[1] / (height * MILLIMETRES))
        mm = [f"{length * self.scale * MILLIMETRES:.1f}mm" for length in (width, height)]
        size = {"width": mm[0], "height": mm[1], "viewBox": f"0 0 {_text_of(width)} {_text_of(height)}"}
        self._root = ElementTree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size})
        self._root.set("font-family", FONTS)
        self.add("title", text=title)
        pattern = {"id": "hatch", "width": 2.5, "height": 2.5, "patternUnits": "userSpaceOnUse"}
        hatch = self.add("pattern", {**pattern, "patternTransform": "rotate(45)"}, parent=self.add("defs"))
        self.add("rect", {"width": 1.1, "height": 2.5, "fill": INK}, parent=hatch)
        self.add("rect", {"width": width, "height": height, "fill": "#FFFFFF"})

    def add(
        self,
        name: str,
        attributes: Mapping[str, object] | None = None,
        *,
        text: str | None = None,
        parent: ElementTree.Element | None = None,
    ) -> ElementTree.Element:
        """Append an element to the drawing or to another element; numbers are written with two decimals."""
        values = {key: _text_of(value) for key, value in (attributes or {}).items()}
        element = ElementTree.SubElement(self._root if parent is None else parent, name, values)
        element.text = None if text is None else _text_of(text)
        return element

    def text(
        self,
        at: Point,
        text: str,
        *,
        size: float = TEXT,
        bold: bool = False,
        anchor: str = "start",
        turned: bool = False,
        parent: ElementTree.Element | None = None,
    ) -> None:
        """Write a text on a baseline at a point, its `start`, `middle` or `end`; `turned` text runs upwards.

        Its length is fixed, so that it takes no more room in a viewer without the font.
        """
        if not text:
            return
        attributes: dict[str, object] = {"x": at[0], "y": at[1], "font-size": size, "text-anchor": anchor, "fill": INK}
        attributes |= {"textLength": text_width(text, size, bold=bold), "lengthAdjust": "spacingAndGlyphs"}
        attributes |= {"font-weight": "bold"} if bold else {}
        attributes |= {"transform": f"rotate(-90 {_text_of(at[0])} {_text_of(at[1])})"} if turned else {}
        self.add("text", attributes, text=text, parent=parent)

    def rectangle(
        self, area: Rectangle, fill: str, *, outline: float = 0, parent: ElementTree.Element | None = None
    ) -> None:
        """Draw a filled rectangle, with an outline of a thickness."""
        place = {"x": area.x, "y": area.y, "width": area.width, "height": area.height, "fill": fill}
        self.add("rect", place | ({"stroke": INK, "stroke-width": outline} if outline else {}), parent=parent)

    def arrow(self, points: Sequence[Point], colour: str, attributes: Mapping[str, object] | None = None) -> None:
        """Draw a line of corners that ends in an arrow's head; `attributes` are further ones of the line."""
        (x0, y0), (x1, y1) = points[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        path = "M" + " L".join(f"{_text_of(x)} {_text_of(y)}" for x, y in points)
        self.add("path", {"d": path, "fill": "none", "stroke": colour, "stroke-width": 0.8, **(attributes or {})})
        head = [(x1, y1), *((x1 - 4 * dx + side * dy, y1 - 4 * dy - side * dx) for side in (1.7, -1.7))]
        self.add("polygon", {"points": " ".join(f"{_text_of(x)},{_text_of(y)}" for x, y in head), "fill": colour})

    def to_string(self) -> str:
        """Return the SVG file's content."""
        ElementTree.indent(self._root, " ")
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"


def _text_of(value: object) -> str:
    """Return an attribute's text: numbers with two decimals at most, without characters that XML does not have."""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return NOT_XML.sub("\ufffd", str(value))

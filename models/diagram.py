"""The structure of a model as a drawing for print: rows as boxes with output shape and parameters, AKConv marked."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import torch
from torch import Tensor, nn

from models import diagram_canvas as svg
from models.config import ModelConfig
from models.diagram_layout import BOX_HEIGHT, Edge, Point, Rectangle, is_parallel, lay_out, split_columns
from models.modules.akconv import AKConv
from models.summary import ModelSummary, summarize
from models.yolo import DetectionModel

PAGE = (170 / 25.4 * 72, 247 / 25.4 * 72)  # width and height in points that the margins of A4 leave
MARGIN, LABELS, HEADER = 4.0, 10.0, 46.0  # around everything; for the labels of strides; above the first boxes
PADDING, STRIPE, LINE = 4.0, 4.0, 8.3  # within a box: at its sides, of AKConv's mark, distance of its lines
SPACE = 6.0  # between the left and the right text of a line
MAX_LETTERS = 28  # of a module or its arguments
TITLE = 10.0  # size of its text
# Colours of Okabe and Ito and tints of their colours. In black and white a hatched stripe marks AKConv.
BLUE = "#0072B2"
FILLS = {"akconv": "#FBEBCB", "detect": "#D9EAF5", "layer": "#F4F4F4", "plain": "#FFFFFF"}
WORDS = {
    "image": ("image", "输入图像"),
    "backbone": ("Backbone", "主干网络"),
    "up": ("Neck, top-down", "颈部（自顶向下）"),
    "down": ("Neck, bottom-up", "颈部（自底向上）"),
    "head": ("Head", "头部"),
    "detect": ("Detection", "检测头"),
    "totals": (
        "{layers} layers, {s.parameters:,} parameters, {s.gflops:.2f} GFLOPs at {size} px{sampling}",
        "共 {layers} 层，参数量 {s.parameters:,}，计算量 {s.gflops:.2f} GFLOPs（输入 {size} 像素{sampling}）",
    ),
    "sampling": (", {:.2f} of which sampling", "，其中采样 {:.2f}"),
    "anchors": ("{} anchors", "{} 个锚框"),
    "row": ("row module ×repeats", "序号 模块 ×重复次数"),
    "args": ("arguments", "参数设置"),
    "output": ("output C×H×W", "输出 C×H×W"),
    "parameters": ("parameters", "参数量"),
    "points": ("contains AKConv of N sampling points", "含 AKConv，N 为采样点数"),
    "skip": ("skip connection", "跳跃连接"),
}


@dataclass(frozen=True, kw_only=True)
class _Box:
    """What a box says."""

    row: int  # layer index; -1 for the image
    kind: str  # key of FILLS
    lines: tuple[tuple[str, str], ...] = ()  # left and right text of each, the first one bold
    level: int = 0  # log2 of its stride, rounded

    @property
    def width(self) -> float:
        """The width that its lines need."""
        texts = [
            sum(svg.text_width(t, bold=n == 0) for t in line) + SPACE * all(line) for n, line in enumerate(self.lines)
        ]
        return max(texts) + 0.5 + 2 * PADDING + STRIPE


def structure_svg(
    model: DetectionModel, size_hw: tuple[int, int] = (640, 640), *, lang: str = "en"
) -> tuple[str, float]:
    """Draw a model for images of a size, whose sides are multiples of the stride, in English ("en") or Chinese ("zh").

    Returns the SVG, whose texts have 7 points, and the factor by which it fits the text area of A4, at most 1.
    """
    words = {key: texts[lang == "zh"] for key, texts in WORDS.items()}
    config, summary = model.config, summarize(model, size_hw)
    boxes = _boxes(model, summary, words)
    first = len(boxes) - len(model.head.m)  # of Detect's boxes
    edges = [(source + 1, spec.index + 1) for spec in config.layers[:-1] for source in spec.sources]
    edges += [(source + 1, first + level) for level, source in enumerate(config.layers[-1].sources)]
    levels = [box.level for box in boxes]
    columns = [*split_columns(levels[:first], config.backbone_length + 1), [*range(first, len(boxes))]]
    headings = [words[_heading(column, levels, edges, config)] for column in columns[:-1]] + [words["detect"]]
    widths = [
        max(svg.text_width(heading, bold=True), *(boxes[number].width for number in column))
        for heading, column in zip(headings, columns, strict=True)
    ]
    areas, routes = lay_out(columns, levels, edges, widths, left=MARGIN + LABELS, top=HEADER)

    skips = [_is_skip(edge, edges) for edge in edges]
    akconv = any(box.kind == "akconv" for box in boxes)
    lines = ((words["row"], "N" if akconv else ""), (words["args"], ""), (words["output"], words["parameters"]))
    legend = _Box(row=-1, kind="layer", lines=lines)
    x, y = MARGIN + LABELS, max(area.y for area in areas) + BOX_HEIGHT + 16  # of the legend
    notes = x + legend.width + 38
    title, totals = config.name.removesuffix(".yaml"), _totals(summary, words)
    ends = [area.x + area.width for area in areas] + [notes + svg.text_width(words["points"])]
    ends += [MARGIN + svg.text_width(title, TITLE, bold=True), MARGIN + svg.text_width(totals)]
    width, height = max(ends) + MARGIN, y + BOX_HEIGHT + MARGIN

    root = svg.new_drawing(width, height, f"{title}: {totals}")
    svg.text(root, (MARGIN, MARGIN + TITLE), title, size=TITLE, bold=True)
    svg.text(root, (MARGIN, MARGIN + TITLE + 11), totals)
    for heading, column in zip(headings, columns, strict=True):
        area = areas[column[0]]
        svg.text(root, (area.x + area.width / 2, HEADER - 6), heading, bold=True, text_anchor="middle")
    _draw_levels(root, levels, areas)
    for (source, target), points, skip in zip(edges, routes, skips, strict=True):
        rows = {"data_from": boxes[source].row, "data_to": boxes[target].row}
        svg.arrow(root, points, BLUE if skip else svg.INK, class_="edge", **rows)
    for dot in _branches(edges, routes):
        svg.add(root, "circle", cx=dot[0], cy=dot[1], r=1.4, fill=svg.INK)
    for box, area in zip(boxes, areas, strict=True):
        _draw_box(root, box, area)
    _draw_box(root, legend, Rectangle(x, y, legend.width, BOX_HEIGHT))
    if akconv:
        _draw_box(root, _Box(row=-1, kind="akconv"), Rectangle(notes - 26, y + 2, 20, 10))
        svg.text(root, (notes, y + 9.5), words["points"])
    if any(skips):
        middle = y + (20 if akconv else 0.5 * BOX_HEIGHT)
        svg.arrow(root, [(notes - 26, middle), (notes - 6, middle)], BLUE)
        svg.text(root, (notes, middle + 2.5), words["skip"])
    return svg.to_string(root), min(1.0, PAGE[0] / width, PAGE[1] / height)


def layer_shapes(model: DetectionModel, size_hw: tuple[int, int]) -> list[tuple[int, ...]]:
    """Return the shape (C, H, W) of each layer's output for one image; one that is not a tensor has ().

    The last ones are those of Detect's levels, (A (5 + classes), H, W).
    """
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        shapes.append(tuple(output.shape[1:]) if isinstance(output, Tensor) else ())

    copied = copy.deepcopy(model).eval()
    for layer in copied.model[:-1]:
        layer.register_forward_hook(note)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a layer may be random
        _, raw = copied(torch.zeros(1, model.in_channels, *size_hw).to(next(model.parameters())))
    return [*shapes, *((level.shape[1] * level.shape[4], *level.shape[2:4]) for level in raw)]


def _boxes(model: DetectionModel, summary: ModelSummary, words: dict[str, str]) -> list[_Box]:
    """Return the boxes of the image, of all rows but Detect, and of Detect's levels, in this order."""
    image = _times((model.in_channels, *summary.size_hw))
    boxes = [_Box(row=-1, kind="plain", lines=((words["image"], ""), (image, "")))]
    *rows, detect = summary.layers
    shapes = layer_shapes(model, summary.size_hw)
    for spec, row, layer, shape in zip(model.config.layers, rows, model.model, shapes, strict=False):
        repeats = max(round(spec.number * model.config.depth_multiple), 1) if spec.number > 1 else 1
        points = sorted({module.num_param for module in layer.modules() if isinstance(module, AKConv)})
        name = f"{row.index} {clip(row.module)}" + (f" ×{repeats}" if repeats > 1 else "")
        lines = (
            (name, f"N = {', '.join(map(str, points))}" if points else ""),
            (clip(row.args), ""),
            (_times(shape), f"{row.parameters:,}" if row.parameters else ""),
        )
        kind = "akconv" if points else "layer" if row.parameters else "plain"
        level = round(math.log2(summary.size_hw[0] / shape[1])) if len(shape) == 3 else boxes[-1].level
        boxes.append(_Box(row=row.index, kind=kind, lines=lines, level=level))
    anchors = words["anchors"].format(model.head.num_anchors)
    for stride, conv, shape in zip(model.head.strides, model.head.m, shapes[len(rows) :], strict=True):
        parameters = f"{sum(parameter.numel() for parameter in conv.parameters()):,}"
        name = f"{detect.index} {detect.module}"
        lines = (name, _pyramid(stride)), (anchors, ""), (_times(shape), parameters)
        boxes.append(_Box(row=detect.index, kind="detect", lines=lines, level=round(math.log2(stride))))
    return boxes


def _totals(summary: ModelSummary, words: dict[str, str]) -> str:
    """Return the line below the title."""
    size, sampling = _times(summary.size_hw[::-1]), summary.sampling_gflops
    extra = words["sampling"].format(sampling) if sampling else ""
    return words["totals"].format(s=summary, layers=len(summary.layers), size=size, sampling=extra)


def clip(text: str) -> str:
    """Return a text, or its beginning with an ellipsis if it is too long for a box."""
    return text if len(text) <= MAX_LETTERS else text[: MAX_LETTERS - 1] + "…"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _pyramid(stride: int) -> str:
    """Return the name of a stride's level, such as P3/8."""
    return f"P{stride.bit_length() - 1}/{stride}" if stride.bit_count() == 1 else f"1/{stride}"


def _heading(column: Sequence[int], levels: Sequence[int], edges: Sequence[Edge], config: ModelConfig) -> str:
    """Return the key of a column's heading: by its direction, or "head" if its rows do not read each other."""
    if column[0] <= config.backbone_length:
        return "backbone"
    source = next(s for s, t in edges if t == column[0])
    step = levels[column[-1]] - levels[source]
    return "head" if is_parallel(column, edges) or not step else "up" if step < 0 else "down"


def _is_skip(edge: Edge, edges: Sequence[Edge]) -> bool:
    """Whether an edge joins an earlier row to one with several inputs."""
    return edge[0] + 1 != edge[1] and sum(t == edge[1] for _, t in edges) > 1


def _branches(edges: Sequence[Edge], routes: Sequence[Sequence[Point]]) -> list[Point]:
    """Return where lines of one source part: corners from which they lead in three directions or more."""
    corners = {(source, point) for (source, _), points in zip(edges, routes, strict=True) for point in points[1:-1]}
    directions: dict[Point, set[tuple[int, int]]] = defaultdict(set)
    for (source, _), points in zip(edges, routes, strict=True):
        for piece, (other, (x, y)) in itertools.product(itertools.pairwise(points), corners):
            (x0, y0), (x1, y1) = piece
            if other == source and (x - x0) * (x - x1) <= 0 and (y - y0) * (y - y1) <= 0:
                directions[x, y] |= {((a > x) - (a < x), (b > y) - (b < y)) for a, b in piece} - {(0, 0)}
    return [point for point in directions if len(directions[point]) > 2]


def _draw_levels(root: Element, levels: Sequence[int], areas: Sequence[Rectangle]) -> None:
    """Name the strides to the left of their boxes."""
    for level in sorted({*levels} - {0}):
        tops = [area.y for area, other in zip(areas, levels, strict=True) if other == level]
        top, height = min(tops), max(tops) + BOX_HEIGHT - min(tops)
        svg.rectangle(root, Rectangle(MARGIN, top, LABELS - 2, height), "#EEEEEE")
        at = MARGIN + 6.4, top + height / 2
        svg.text(root, at, _pyramid(2**level), text_anchor="middle", transform=f"rotate(-90 {at[0]:g} {at[1]:g})")


def _draw_box(root: Element, box: _Box, area: Rectangle) -> None:
    """Draw a box with its texts."""
    group = svg.add(root, "g", class_="box", data_row=box.row)
    is_akconv = box.kind == "akconv"
    svg.rectangle(group, area, FILLS[box.kind], outline=1.1 if is_akconv else 0.6)
    if is_akconv:
        svg.rectangle(group, area._replace(width=STRIPE), svg.HATCH, outline=0.6)
    left, right = area.x + STRIPE + PADDING, area.x + area.width - PADDING
    for number, texts in enumerate(box.lines):
        y = area.y + 7.2 + LINE * number
        svg.text(group, (left, y), texts[0], bold=number == 0)
        svg.text(group, (right, y), texts[1], bold=number == 0, text_anchor="end")

"""The structure of a model as a drawing for print: rows as boxes with output shape and parameters, AKConv marked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.diagram_canvas import HATCH, INK, TEXT, Canvas, clip, text_width
from models.diagram_layout import BOX_HEIGHT, Edge, Point, Rectangle, lay_out, split_columns
from models.modules.akconv import AKConv
from models.summary import ModelSummary, summarize
from models.yolo import DetectionModel

MARGIN, LABELS, HEADER = 4.0, 10.0, 46.0  # around everything; for the labels of strides; above the first boxes
PADDING, STRIPE, LINE = 4.0, 4.0, 8.3  # within a box: at its sides, of AKConv's mark, distance of its lines
MAX_TEXT = 100.0  # width of a box's text, beyond which it is cut
TITLE = 10.0  # size of its text
# Colours of Okabe and Ito and tints of their colours. In black and white a hatched stripe marks AKConv.
BLUE = "#0072B2"
FILLS = {"akconv": "#FBEBCB", "detect": "#D9EAF5", "layer": "#F4F4F4", "plain": "#FFFFFF"}
WORDS = {
    "en": {
        "image": "image",
        "backbone": "Backbone",
        "up": "Neck, top-down",
        "down": "Neck, bottom-up",
        "neck": "Neck",
        "head": "Head",
        "detect": "Detection",
        "totals": "{layers} layers, {parameters:,} parameters, {gflops:.2f} GFLOPs at {width}×{height} px",
        "sampling": ", {sampling:.2f} of which sampling",
        "anchors": "{count} anchors",
        "row": "row module ×repeats",
        "args": "arguments",
        "output": "output C×H×W",
        "parameters": "parameters",
        "points": "contains AKConv of N sampling points",
        "skip": "skip connection",
    },
    "zh": {
        "image": "输入图像",
        "backbone": "主干网络",
        "up": "颈部（自顶向下）",
        "down": "颈部（自底向上）",
        "neck": "颈部",
        "head": "头部",
        "detect": "检测头",
        "totals": "共 {layers} 层，参数量 {parameters:,}，计算量 {gflops:.2f} GFLOPs（输入 {width}×{height} 像素",
        "sampling": "，其中采样 {sampling:.2f}",
        "anchors": "{count} 个锚框",
        "row": "序号 模块 ×重复次数",
        "args": "参数设置",
        "output": "输出 C×H×W",
        "parameters": "参数量",
        "points": "含 AKConv，N 为采样点数",
        "skip": "跳跃连接",
    },
}


@dataclass(frozen=True, kw_only=True)
class _Box:
    """What a box says."""

    row: int  # layer index; -1 for the image
    kind: str  # key of FILLS
    lines: tuple[tuple[str, str], ...]  # left and right text of each, the first one bold
    level: int = 0  # log2 of its stride, rounded

    @property
    def width(self) -> float:
        """The width that its lines need."""
        texts = [sum(text_width(t, bold=not n) + 6 * bool(t) for t in line) - 6 for n, line in enumerate(self.lines)]
        return min(max(texts) + 0.5, MAX_TEXT) + 2 * PADDING + STRIPE


def structure_svg(
    model: DetectionModel, size_hw: tuple[int, int] = (640, 640), *, lang: str = "en"
) -> tuple[str, float]:
    """Draw a model for images of a size, whose sides are multiples of the stride, in English ("en") or Chinese ("zh").

    Returns the SVG, scaled down to fit A4 if its texts of 7 points need more, and the size of its texts in points.
    """
    words, config, summary = WORDS[lang], model.config, summarize(model, size_hw)
    boxes = _boxes(model, summary, layer_shapes(model, size_hw), words)
    first = len(boxes) - len(model.head.m)  # of Detect's boxes
    edges = [(source + 1, spec.index + 1) for spec in config.layers[:-1] for source in spec.sources]
    edges += [(source + 1, first + level) for level, source in enumerate(config.layers[-1].sources)]
    levels = [box.level for box in boxes]
    columns = [*split_columns(levels[:first], [config.backbone_length + 1]), [*range(first, len(boxes))]]
    headings = [words[_heading(column, levels, edges, config)] for column in columns[:-1]] + [words["detect"]]
    widths = [
        max(text_width(heading, bold=True), *(boxes[number].width for number in column))
        for heading, column in zip(headings, columns, strict=True)
    ]
    layout = lay_out(columns, levels, edges, widths, left=MARGIN + LABELS, top=HEADER)

    title, totals = config.name.removesuffix(".yaml"), _totals(summary, words)
    akconv, skip = any(box.kind == "akconv" for box in boxes), any(_is_skip(edge, edges) for edge in edges)
    lines = ((words["row"], "N" if akconv else ""), (words["args"], ""), (words["output"], words["parameters"]))
    sample = _Box(row=-1, kind="layer", lines=lines)
    x, y = MARGIN + LABELS, layout.bottom + 16
    notes = x + sample.width + 38  # the left of the legend's notes
    needed = [
        notes + text_width(words["points"]),
        *(MARGIN + w for w in (text_width(totals), text_width(title, TITLE))),
    ]
    canvas = Canvas(max(layout.width, *needed) + MARGIN, y + BOX_HEIGHT + MARGIN, title=f"{title}: {totals}")
    canvas.text((MARGIN, MARGIN + TITLE), title, size=TITLE, bold=True)
    canvas.text((MARGIN, MARGIN + TITLE + 11), totals)
    for level, (top, bottom) in layout.bands.items():
        if level > 0:
            canvas.rectangle(Rectangle(x=MARGIN, y=top, width=LABELS - 2, height=bottom - top), "#EEEEEE")
            canvas.text((MARGIN + 6.4, (top + bottom) / 2), _pyramid(2**level), anchor="middle", turned=True)
    for heading, column in zip(headings, columns, strict=True):
        area = layout.boxes[column[0]]
        canvas.text((area.x + area.width / 2, HEADER - 6), heading, bold=True, anchor="middle")
    for edge, points in zip(edges, layout.routes, strict=True):
        ends = {"class": "edge", "data-from": boxes[edge[0]].row, "data-to": boxes[edge[1]].row}
        canvas.arrow(points, BLUE if _is_skip(edge, edges) else INK, ends)
    for dot in _branches(edges, layout.routes):
        canvas.add("circle", {"cx": dot[0], "cy": dot[1], "r": 1.4, "fill": INK})
    for number, box in enumerate(boxes):
        _draw_box(canvas, box, layout.boxes[number])
    _draw_box(canvas, sample, Rectangle(x=x, y=y, width=sample.width, height=BOX_HEIGHT))
    if akconv:
        canvas.rectangle(Rectangle(x=notes - 26, y=y + 2, width=20, height=10), FILLS["akconv"], outline=1)
        canvas.rectangle(Rectangle(x=notes - 26, y=y + 2, width=STRIPE, height=10), HATCH)
        canvas.text((notes, y + 9.5), words["points"])
    if skip:
        middle = y + (20 if akconv else 0.5 * BOX_HEIGHT)
        canvas.arrow([(notes - 26, middle), (notes - 6, middle)], BLUE)
        canvas.text((notes, middle + 2.5), words["skip"])
    return canvas.to_string(), canvas.scale * TEXT


def layer_shapes(model: DetectionModel, size_hw: tuple[int, int]) -> list[list[tuple[int, ...]]]:
    """Return the shapes of each layer's outputs without the batch, for one image: (C, H, W) for each map.

    Detect's are one (A (5 + classes), H, W) for each level; an output that is not a tensor has none.
    """
    shapes: list[list[tuple[int, ...]]] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        shapes.append([tuple(output.shape[1:])] if isinstance(output, Tensor) else [])

    handles = [layer.register_forward_hook(note) for layer in model.model[:-1]]
    training, parameter = model.training, next(model.parameters())
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):  # a layer may be random
            _, raw = model.eval()(torch.zeros(1, model.in_channels, *size_hw).to(parameter))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return [*shapes, [(level.shape[1] * level.shape[4], *level.shape[2:4]) for level in raw]]


def _boxes(
    model: DetectionModel, summary: ModelSummary, shapes: Sequence[list[tuple[int, ...]]], words: dict[str, str]
) -> list[_Box]:
    """Return the boxes of the image, of all rows but Detect, and of Detect's levels, in this order."""
    height, width = summary.size_hw
    image = _times((model.in_channels, height, width))
    boxes = [_Box(row=-1, kind="plain", lines=((words["image"], ""), (image, "")))]
    for spec, row, layer, outputs in zip(model.config.layers, summary.layers, model.model, shapes, strict=True):
        if layer is model.head:
            break
        maps = [shape for shape in outputs if len(shape) == 3]
        repeats = max(round(spec.number * model.config.depth_multiple), 1) if spec.number > 1 else 1
        points = sorted({module.num_param for module in layer.modules() if isinstance(module, AKConv)})
        name = f"{row.index} {row.module}" + (f" ×{repeats}" if repeats > 1 else "")
        lines = (
            (name, f"N = {', '.join(map(str, points))}" if points else ""),
            (row.args, ""),
            (", ".join(map(_times, outputs)), f"{row.parameters:,}" if row.parameters else ""),
        )
        kind = "akconv" if points else "layer" if row.parameters else "plain"
        level = round(math.log2(height / maps[0][1])) if maps else boxes[-1].level
        boxes.append(_Box(row=row.index, kind=kind, lines=lines, level=level))
    anchors = words["anchors"].format(count=model.head.num_anchors)
    for stride, conv, shape in zip(model.head.strides, model.head.m, shapes[-1], strict=True):
        parameters = sum(parameter.numel() for parameter in conv.parameters())
        row = summary.layers[-1]
        lines = (f"{row.index} {row.module}", _pyramid(stride)), (anchors, ""), (_times(shape), f"{parameters:,}")
        boxes.append(_Box(row=row.index, kind="detect", lines=lines, level=round(math.log2(stride))))
    return boxes


def _totals(summary: ModelSummary, words: dict[str, str]) -> str:
    """Return the line below the title."""
    height, width = summary.size_hw
    numbers = {"layers": len(summary.layers), "parameters": summary.parameters, "gflops": summary.gflops}
    totals = words["totals"].format(**numbers, width=width, height=height)
    if summary.sampling_gflops:
        totals += words["sampling"].format(sampling=summary.sampling_gflops)
    return totals + "）" * ("（" in totals)


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _pyramid(stride: int) -> str:
    """Return the name of a stride's level, such as P3/8."""
    return f"P{stride.bit_length() - 1}/{stride}" if stride.bit_count() == 1 else f"1/{stride}"


def _heading(column: Sequence[int], levels: Sequence[int], edges: Sequence[Edge], config: ModelConfig) -> str:
    """Return the key of a column's heading: by its direction, or "head" if its rows do not read each other."""
    if column[0] <= config.backbone_length:
        return "backbone"
    if not any(s in column and t in column for s, t in edges):
        return "head"
    step = levels[column[-1]] - levels[column[0]]
    return "up" if step < 0 else "down" if step else "neck"


def _is_skip(edge: Edge, edges: Sequence[Edge]) -> bool:
    """Whether an edge joins an earlier row to one with several inputs."""
    return edge[0] + 1 != edge[1] and sum(t == edge[1] for _, t in edges) > 1


def _branches(edges: Sequence[Edge], routes: Sequence[list[Point]]) -> set[Point]:
    """Return where lines of one source part."""
    arms: dict[tuple[int, Point], set[Point]] = {}
    for (source, _), points in zip(edges, routes, strict=True):
        for point in points[1:-1]:
            arms.setdefault((source, point), set())
    for (source, (x, y)), directions in arms.items():
        for (other, _), points in zip(edges, routes, strict=True):
            for ends in itertools.pairwise(points if other == source else []):
                (left, right), (top, bottom) = (sorted(axis) for axis in zip(*ends, strict=True))
                if left <= x <= right and top <= y <= bottom:
                    directions |= {((a > x) - (a < x), (b > y) - (b < y)) for a, b in ends} - {(0, 0)}
    return {point for (_, point), directions in arms.items() if len(directions) > 2}


def _draw_box(canvas: Canvas, box: _Box, area: Rectangle) -> None:
    """Draw a box with its texts; those that are too long are cut, and stand in full in its tooltip."""
    group = canvas.add("g", {"class": "box", "data-row": box.row})
    canvas.add("title", text=", ".join(text for line in box.lines for text in line if text), parent=group)
    is_akconv = box.kind == "akconv"
    canvas.rectangle(area, FILLS[box.kind], outline=1.1 if is_akconv else 0.6, parent=group)
    if is_akconv:
        stripe = Rectangle(x=area.x, y=area.y, width=STRIPE, height=area.height)
        canvas.rectangle(stripe, HATCH, outline=0.6, parent=group)
    left, right = area.x + STRIPE + PADDING, area.x + area.width - PADDING
    for number, texts in enumerate(box.lines):
        bold, y = number == 0, area.y + 7.2 + LINE * number
        taken = text_width(texts[1], bold=bold) + 6 if texts[1] else 0
        canvas.text((left, y), clip(texts[0], right - left - taken, bold=bold), bold=bold, parent=group)
        canvas.text((right, y), texts[1], bold=bold, anchor="end", parent=group)

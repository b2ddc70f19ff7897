"""Structure diagrams of all model yamls: every row and edge with the right shapes, nothing on anything else."""

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from models.config import MODEL_FOLDER, ModelConfig, load_model_config
from models.diagram import MAX_LETTERS, clip, layer_shapes, structure_svg
from models.diagram_canvas import text_width
from models.modules.akconv import AKConv
from models.registry import register
from models.yolo import DetectionModel
from tests.helpers.diagram_geometry import Area, crossed, on_each_other, overlapping
from tests.helpers.rendered_svg import CHROMIUM, text_faults

# With few channels the sizes s to x differ from n in the number of repeats only.
YAMLS = [
    pytest.param(path.name, marks=pytest.mark.long if re.fullmatch(r"yolov5[smlx]6?(-AKConv)?", path.stem) else ())
    for path in sorted(MODEL_FOLDER.rglob("*.yaml"))
]
SVG = "{http://www.w3.org/2000/svg}"


def small(name: str) -> DetectionModel:
    """A model with all its rows, but few channels, so that a forward pass takes little."""
    config = load_model_config(name)
    width, depth = min(config.width_multiple, 0.125), min(config.depth_multiple, 0.33)
    return DetectionModel(replace(config, width_multiple=width, depth_multiple=depth))


def area_of(rectangle: ElementTree.Element) -> Area:
    x, y, width, height = (float(rectangle.attrib[key]) for key in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def text_area(text: ElementTree.Element) -> Area:
    """Where a text is: from Arial's ascent, 0.905 of the size, to its descent."""
    x, y, size, length = (float(text.attrib[key]) for key in ("x", "y", "font-size", "textLength"))
    start = {"start": 0.0, "middle": length / 2, "end": length}[text.get("text-anchor", "start")]
    if "transform" in text.attrib:
        return x - 0.905 * size, y - start, x + 0.212 * size, y - start + length
    return x - start, y - 0.905 * size, x - start + length, y + 0.212 * size


def line_of(path: ElementTree.Element) -> list[tuple[float, float]]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check_drawing(svg: str) -> ElementTree.Element:
    """Assert that nothing in a drawing lies on anything else or sticks out; return its root."""
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    groups = root.findall(f"{SVG}g[@class='box']")
    boxes = [area_of(group.findall(f"{SVG}rect")[0]) for group in groups]
    assert overlapping(boxes) == []
    for group, box in zip(groups, boxes, strict=True):
        for left, top, right, bottom in map(text_area, group.iter(f"{SVG}text")):
            assert box[0] < left and box[1] < top and right < box[2] and bottom < box[3]
    texts = [text_area(text) for text in root.iter(f"{SVG}text")]
    assert overlapping(texts) == []
    paths = root.findall(f"{SVG}path")
    lines = [line_of(path) for path in paths]
    for line in lines:
        assert crossed(line, [*boxes, *texts]) == []
    for (a, first), (b, second) in itertools.combinations(zip(paths, lines, strict=True), 2):
        if a.get("data-from") != b.get("data-from"):
            assert not on_each_other(first, second, distance=0.3)
    points = [corner for area in [*boxes, *texts] for corner in (area[:2], area[2:])]
    assert all(0 < x < width and 0 < y < height for x, y in [*points, *itertools.chain(*lines)])
    return root


def rows_of(root: ElementTree.Element) -> dict[int, list[list[str]]]:
    """The texts of each row's boxes; Detect has one box for each level."""
    rows: dict[int, list[list[str]]] = {}
    for group in root.findall(f"{SVG}g[@class='box']"):
        texts = [text.text or "" for text in group.iter(f"{SVG}text")]
        rows.setdefault(int(group.attrib["data-row"]), []).append(texts)
    return rows


def expected_shapes(model: DetectionModel, height: int, width: int) -> list[list[str]]:
    """Run the rows one by one, without the model's own forward pass."""
    outputs = {-1: torch.zeros(1, 3, height, width)}
    shapes = []
    model.eval()
    with torch.no_grad():
        for spec, layer in zip(model.config.layers[:-1], model.model, strict=False):
            maps = [outputs[source] for source in spec.sources]
            outputs[spec.index] = layer(maps if spec.module == "Concat" or len(maps) > 1 else maps[0])
            shapes.append(["×".join(map(str, outputs[spec.index].shape[1:]))])
        head = [conv(outputs[s]) for conv, s in zip(model.head.m, model.config.layers[-1].sources, strict=True)]
    return [*shapes, ["×".join(map(str, level.shape[1:])) for level in head]]


@pytest.mark.parametrize("name", YAMLS)
def test_all_models(name: str) -> None:
    model = small(name)
    height, width = 2 * model.max_stride, 3 * model.max_stride
    svg, scale = structure_svg(model, (height, width))
    root, config = check_drawing(svg), model.config
    rows, shapes = rows_of(root), expected_shapes(model, height, width)
    assert rows[-1][0] == ["image", f"3×{height}×{width}"]
    for spec, layer, expected in zip(config.layers, model.model, shapes, strict=True):
        boxes = rows[spec.index]
        assert [box[0].split(" ×")[0] for box in boxes] == [f"{spec.index} {spec.module}"] * len(expected)
        assert [shape for shape in expected for box in boxes if shape in box] == expected
        numbers = [int(text.replace(",", "")) for box in boxes for text in box[-1:] if re.fullmatch("[0-9,]+", text)]
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        assert sum(numbers) == parameters or (parameters == 0 and spec.module == "Concat")
    edges = Counter(
        (int(p.attrib["data-from"]), int(p.attrib["data-to"])) for p in root.findall(f"{SVG}path[@class='edge']")
    )
    assert edges == Counter((source, spec.index) for spec in config.layers for source in spec.sources)
    mm = [float(root.attrib[side].removesuffix("mm")) for side in ("width", "height")]
    points = [float(side) for side in root.attrib["viewBox"].split()[2:]]
    assert [25.4 / 72 * side for side in points] == pytest.approx(mm, abs=0.051)  # so texts of 7 are 7 pt
    assert scale == pytest.approx(min(1, 170 / mm[0], 247 / mm[1]), abs=1e-3)
    assert scale == 1 or name in ("yolov3.yaml", "yolov3-spp.yaml", "yolov5-p7.yaml")  # which are longer than A4


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_akconv_is_marked_with_its_points(lang: str) -> None:
    model = DetectionModel("yolov5n-AKConv.yaml", nc=3)
    svg, _ = structure_svg(model, (64, 96), lang=lang)
    root = check_drawing(svg)
    marked = {}
    for group in root.findall(f"{SVG}g[@class='box']"):
        in_legend = group.attrib["data-row"] == "-1"
        if not in_legend and any(rectangle.get("fill") == "url(#hatch)" for rectangle in group):
            marked[int(group.attrib["data-row"])] = next(t.text for t in group.iter(f"{SVG}text") if "N = " in t.text)
    expected = {
        index: {f"N = {module.num_param}" for module in layer.modules() if isinstance(module, AKConv)}
        for index, layer in enumerate(model.model)
    }
    assert {index: {text} for index, text in marked.items()} == {i: t for i, t in expected.items() if t}
    texts = " ".join(text.text for text in root.iter(f"{SVG}text"))
    assert "1,387,232" in texts or f"{sum(p.numel() for p in model.parameters()):,}" in texts
    assert bool(re.search("[\u4e00-\u9fff]", texts)) == (lang == "zh")
    assert "24×8×12" in texts  # 3 anchors of 5 + 3 numbers


def test_the_model_is_left_as_it_was() -> None:
    model = small("yolov5n.yaml").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    shapes = layer_shapes(model, (64, 32))
    assert shapes[0] == (8, 32, 16) and shapes[-3:] == [(255, 8, 4), (255, 4, 2), (255, 2, 1)]
    assert model.training and not any(layer._forward_hooks for layer in model.model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@register("in_out")
class Named_with_very_many_letters_so_that_no_box_holds_it(nn.Conv2d):  # noqa: N801 - longer than a box
    """A module as of a plugin."""


def odd_model(rows: list, head: list) -> DetectionModel:
    value = {"nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": 1, "backbone": rows, "head": head}
    return DetectionModel(ModelConfig.from_dict(value, name="<a & 'b'> 模型.yaml"))


def test_odd_models() -> None:
    long = "Named_with_very_many_letters_so_that_no_box_holds_it"
    rows = [
        [-1, 1, long, [8, 3, 2, {"padding": 1, "padding_mode": "zeros"}]],
        [-1, 1, "AKConv", [8, 4, 2, {"points": [[0.5, -0.5], [1, 2], [3, 4], [5, 6]]}]],
        [-1, 1, "Contract", [2]],
        [-1, 1, "Expand", [2]],
        [-1, 1, "Expand", [2]],
        [[-1, -1, 0, -1], 1, "Concat", [1]],
        [-1, 1, "nn.AvgPool2d", [3, 2]],
        [5, 2, "Conv", [16, 3, 1]],
    ]
    head = [[[5, 7], 1, "Concat", [1]], [1, 1, "Conv", [8]], [[8, 9, 9], 1, "Detect", ["nc", "anchors"]]]
    model = odd_model(rows, head)
    svg, _ = structure_svg(model, (64, 96))
    root = check_drawing(svg)
    assert root.find(f"{SVG}title").text.startswith("<a & 'b'> 模型: ")
    edges = Counter((p.get("data-from"), p.get("data-to")) for p in root.findall(f"{SVG}path[@class='edge']"))
    assert edges["4", "5"] == 3 and edges["9", "10"] == 2
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert any(text.startswith("0 Named_with") and text.endswith("…") for text in texts)
    assert "7 Conv ×2" in texts


def test_characters_that_xml_does_not_have() -> None:
    model = small("yolov5n.yaml")
    model.config = replace(model.config, name="a\x00\x08\ud800]]>&.yaml")
    root = ElementTree.fromstring(structure_svg(model, (64, 64))[0].encode("utf-8"))
    assert root.find(f"{SVG}title").text.startswith("a\ufffd\ufffd\ufffd]]>&: ")


@pytest.mark.slow
def test_the_drawing_in_the_documentation_is_up_to_date() -> None:
    page = MODEL_FOLDER.parent / "docs/images/yolov5n-AKConv.svg"
    svg, _ = structure_svg(DetectionModel("yolov5n-AKConv.yaml"))
    assert page.read_text(encoding="utf-8") == svg, "write it again by the command in docs/akconv.md"


def test_width_of_texts() -> None:
    assert text_width("") == 0
    assert text_width("128×40×40", 10) == pytest.approx(7 * 5.56 + 2 * 5.84)
    assert text_width("采样", 7) == 14
    assert clip("a" * MAX_LETTERS) == "a" * MAX_LETTERS
    assert clip("a" * (MAX_LETTERS + 1)) == "a" * (MAX_LETTERS - 1) + "…"


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_texts_do_not_overlap_in_a_browser(tmp_path: Path) -> None:
    """Fonts have other heights and widths than estimated; models of full size, since their numbers are longer."""
    paths = []
    for name in sorted(path.stem for path in MODEL_FOLDER.rglob("*.yaml")):
        model = DetectionModel(name) if re.fullmatch("yolov5[nsx](6|-.*)?", name) else small(name)
        for lang in ("en", "zh"):
            svg, _ = structure_svg(model, (model.max_stride, model.max_stride), lang=lang)
            paths.append(tmp_path / f"{name}-{lang}.svg")
            paths[-1].write_text(svg, encoding="utf-8")
    assert text_faults(paths, tmp_path) == []

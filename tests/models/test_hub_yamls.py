"""The further model yamls of YOLOv5 in models/hub: their size by formulas, their strides, and what surrounds them."""

import math
import re

import numpy as np
import pytest
import torch

from models.config import MODEL_FOLDER, SIZES, load_model_config
from models.yolo import DetectionModel, parse_model
from utils.losses.detection import DetectionLoss, LossSettings
from utils.strict_yaml import load_yaml
from utils.weights.transfer import transfer_weights

HUB = MODEL_FOLDER / "hub"
P6 = [f"yolov5{size}6" for size in SIZES]
OTHERS = ("p2", "p34", "p6", "p7", "bifpn", "fpn", "panet")
STRIDES = {
    **dict.fromkeys((*P6, "yolov5-p6"), (8, 16, 32, 64)),
    **{"yolov5-p2": (4, 8, 16, 32), "yolov5-p34": (8, 16), "yolov5-p7": (8, 16, 32, 64, 128), "yolov3-tiny": (16, 32)},
}
PUBLISHED = {"yolov3": 61_949_149, "yolov3-spp": 62_998_749, "yolov3-tiny": 8_852_366, "yolov5-panet": 46_563_709}


def conv(c1: int, c2: int, k: int = 1, groups: int = 1) -> int:
    """Weights of a k x k convolution without bias, and two for each channel's batch norm."""
    return c1 // groups * c2 * k * k + 2 * c2


def ghost(c1: int, c2: int, k: int = 1) -> int:
    return conv(c1, c2 // 2, k) + conv(c2 // 2, c2 // 2, 5, groups=c2 // 2)


def csp(c1: int, c2: int, inner: int) -> int:
    """Three 1x1 convolutions around the inner blocks."""
    return 2 * conv(c1, c2 // 2) + conv(c2, c2) + inner


def bottleneck(c1: int, c2: int, hidden: int) -> int:
    return conv(c1, hidden) + conv(hidden, c2, 3)


def transformer(c: int, n: int) -> int:
    """Per layer q, k, v, the attention's own four projections with biases, and two of the feed-forward net."""
    return c * c + c + n * (3 * c * c + 4 * (c * c + c) + 2 * c * c)


def block(module: str, c1: int, c2: int, n: int, args: list) -> int:
    """Parameters of n repeats of a module from c1 to c2 channels."""
    half = c2 // 2
    if module == "Bottleneck":
        return bottleneck(c1, c2, half) + (n - 1) * bottleneck(c2, c2, half)
    return {
        "Conv": lambda: conv(c1, c2, args[1] if len(args) > 1 else 1),
        "GhostConv": lambda: ghost(c1, c2, args[1]),
        "C3": lambda: csp(c1, c2, n * bottleneck(half, half, half)),
        "C3Ghost": lambda: csp(c1, c2, n * (ghost(half, half // 2) + ghost(half // 2, half))),
        "C3TR": lambda: csp(c1, c2, transformer(half, n)),
        "SPPF": lambda: conv(c1, c1 // 2) + conv(4 * (c1 // 2), c2),
        "SPP": lambda: conv(c1, c1 // 2) + conv((1 + len(args[1])) * (c1 // 2), c2),
    }[module]()


def count(value: dict) -> int:
    """Count a model's parameters from its rows alone."""
    anchors = value["anchors"] if isinstance(value["anchors"], int) else len(value["anchors"][0]) // 2
    channels, total = [], 0
    for source, number, module, args in value["backbone"] + value["head"]:
        sources = source if isinstance(source, list) else [source]
        inputs = [channels[s] for s in sources] if channels else [3]
        if module == "Detect":
            return total + sum(anchors * (5 + value["nc"]) * (c + 1) for c in inputs)
        if module in ("Concat", "nn.Upsample", "nn.MaxPool2d", "nn.ZeroPad2d"):
            channels.append(sum(inputs))
            continue
        width = math.ceil(args[0] * value["width_multiple"] / 8) * 8
        repeats = max(round(number * value["depth_multiple"]), 1) if number > 1 else number
        total += block(module, inputs[0], width, repeats, args)
        channels.append(width)
    raise AssertionError("no head")


def test_all_models_of_yolov5_are_here() -> None:
    special = ("yolov5s-ghost", "yolov5s-transformer", "yolov5s-LeakyReLU", "yolov3", "yolov3-spp", "yolov3-tiny")
    assert {path.stem for path in HUB.glob("*.yaml")} == {*P6, *(f"yolov5-{name}" for name in OTHERS), *special}


@pytest.mark.parametrize("path", sorted(HUB.glob("*.yaml")), ids=lambda path: path.stem)
def test_parameters_are_those_of_the_formulas(path) -> None:
    value, text = load_yaml(path), path.read_text()
    with torch.device("meta"):
        layers = parse_model(load_model_config(path.stem), 3)
    found = sum(parameter.numel() for parameter in layers.parameters())
    assert found == count(value) == PUBLISHED.get(path.stem, found)
    stated = re.search(r"^# ([\d,]+) parameters with 80 classes$", text, re.MULTILINE)
    assert stated and int(stated[1].replace(",", "")) == found
    assert f"--cfg {path.name} " in text


def test_the_formulas_count_the_baselines() -> None:
    sizes = {"n": 1_872_157, "s": 7_235_389, "m": 21_190_557, "l": 46_563_709}
    assert {size: count(load_yaml(MODEL_FOLDER / f"yolov5{size}.yaml")) for size in sizes} == sizes


@pytest.mark.parametrize("name", ["yolov5n6", "yolov5-p2", "yolov5-p34", "yolov5-p7", "yolov5-fpn", "yolov3-tiny"])
def test_strides_and_predictions(name: str) -> None:
    value = {**load_yaml(HUB / f"{name}.yaml"), "width_multiple": 0.125, "depth_multiple": 0.33}
    strides = STRIDES.get(name, (8, 16, 32))
    model = DetectionModel(value, nc=2)
    coarsest = max(*strides, 32)
    assert model.head.strides == strides and model.max_stride == coarsest
    height, width = coarsest, 2 * coarsest
    with torch.no_grad():
        predictions, raw = model.eval()(torch.rand(1, 3, height, width))
    cells = [(height // stride, width // stride) for stride in strides]
    assert [tuple(level.shape) for level in raw] == [(1, 3, h, w, 7) for h, w in cells]
    assert predictions.shape == (1, 3 * sum(h * w for h, w in cells), 7)


@pytest.mark.parametrize("size", "smlx")
def test_multiples_of_the_sizes(size: str) -> None:
    config = load_model_config(f"yolov5{size}6.yaml")
    assert (config.depth_multiple, config.width_multiple) == SIZES[size]
    assert config.layers == load_model_config("hub/yolov5n6.yaml").layers


def test_a_bare_name_in_any_case_and_another_size_are_found() -> None:
    assert load_model_config("YOLOv5n6").name == "yolov5n6.yaml"
    assert load_model_config("models/hub/yolov5-p2.yaml").name == "yolov5-p2.yaml"
    ghost_m = load_model_config("yolov5m-ghost.yaml")
    assert (ghost_m.depth_multiple, ghost_m.width_multiple) == SIZES["m"] and ghost_m.layers[1].module == "GhostConv"


def test_the_loss_weighs_four_and_five_levels() -> None:
    for name, levels in (("yolov5n6", 4), ("yolov5-p7", 5)):
        value = {**load_yaml(HUB / f"{name}.yaml"), "width_multiple": 0.125, "depth_multiple": 0.33}
        model = DetectionModel(value, nc=2)
        loss = DetectionLoss(LossSettings(), anchors=model.head.anchors, num_classes=2)
        image, target = (
            torch.rand(2, 3, 128, 128),
            torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.6], [1, 0, 0.3, 0.6, 0.9, 0.8]]),
        )
        losses = loss(model(image), target)
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in model.head.parameters()), levels


def test_an_akconv_p6_model_starts_from_a_plain_one() -> None:
    value = {**load_yaml(HUB / "yolov5n6.yaml"), "nc": 2}
    plain = DetectionModel(value)
    for row in value["backbone"][1:]:
        if row[2] == "Conv":
            row[2:] = ["AKConv", [row[3][0], 5, 2]]
    model = DetectionModel(value)
    result = transfer_weights(model, plain.state_dict(), source="plain.pt")
    assert result.fraction > 0.9 and not [name for name in result.kept if "p_conv.weight" not in name]
    for one, other in zip(model.head.m, plain.head.m, strict=True):
        assert torch.equal(one.weight, other.weight)
    assert np.isfinite(model.head.anchors.numpy()).all()

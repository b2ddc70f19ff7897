"""Whole networks: built from every yaml, equal to the reference, and refusing what is wrong without executing it."""

import copy
import functools
import json
import random
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from models import build
from models.config import MODEL_FOLDER, ModelConfig, load_model_config
from models.head import decode
from models.modules import AKConv, C3_AKConv
from models.yolo import DetectionModel
from tests.helpers.deterministic_init import fill_
from utils.errors import ConfigError
from utils.strict_yaml import load_yaml

SHIPPED = sorted(path.name for path in MODEL_FOLDER.glob("*.yaml"))
SIZE = (2, 3, 64, 96)
TINY = {
    "nc": 2,
    "channel_multiple": 4,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "AKConv", [8, 3, 2]], [-1, 2, "C3", [8]]],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 0], 1, "Concat", [1]],
        [[4, 2], 1, "Detect", ["nc", "anchors"]],
    ],
}


def tiny(**values):
    return {**copy.deepcopy(TINY), **values}


def tiny_with_row(row):
    """The tiny model with one more row, whose output has to have the size of its input to go unnoticed."""
    value = tiny()
    value["backbone"].insert(1, row)
    value["head"][1][0] = [-1, 0]
    value["head"][2][0] = [5, 3]
    return value


@functools.cache
def summary(folder):
    return json.loads((folder / "model_summary.json").read_text())


def paper_config(num_points):
    """The paper's placement with another number of points, and made a second time out of the baseline."""
    value, baseline = load_yaml(MODEL_FOLDER / "yolov5n-AKConv-paper.yaml"), load_yaml(MODEL_FOLDER / "yolov5n.yaml")
    for row in value["backbone"] + value["head"]:
        if row[2] == "AKConv":
            row[3][1] = num_points
    for row in baseline["backbone"] + baseline["head"]:
        if row[2] == "Conv" and row[3][1:] == [3, 2]:
            row[2:] = ["AKConv", [row[3][0], num_points, 2]]
    assert value == baseline
    return value


def parameters_by_layer(model):
    return [[type(layer).__name__, sum(p.numel() for p in layer.parameters())] for layer in model.model]


def test_every_shipped_config_is_named_by_a_test_here():
    baselines = [f"yolov5{size}.yaml" for size in "nsmlx"]
    large = [f"yolov5{size}-AKConv.yaml" for size in "mlx"]
    assert set(SHIPPED) == {*baselines, *large, *(name for name in SHIPPED if re.match(r"yolov5[ns]", name))}


def test_tiny_models_of_these_tests_build_and_run():
    for value in (tiny(), tiny_with_row([-1, 1, "Conv", [8, 3]])):
        assert DetectionModel(value).head.strides == (2, 4)


@pytest.mark.parametrize("size", "nsmlx")
def test_parameters_of_every_layer_of_the_baselines(size, reference):
    model = DetectionModel(f"yolov5{size}.yaml")
    expected = summary(reference)[f"yolov5{size}"]
    assert parameters_by_layer(model) == expected["layers"]
    assert sum(p.numel() for p in model.parameters()) == expected["params"]
    assert model.head.strides == (8, 16, 32)


def test_parameters_of_every_layer_of_the_akconv_config(reference):
    model = DetectionModel("yolov5n-AKConv.yaml")
    (expected,) = (value for key, value in summary(reference).items() if key.startswith("yolov5n-AKConv"))
    assert parameters_by_layer(model) == expected["layers"]
    assert sum(p.numel() for p in model.parameters()) == expected["params"] == 1_401_527


@pytest.mark.parametrize(("num_points", "total"), [(3, 1_511_521), (5, 1_655_097), (9, 1_942_249), (13, 2_229_401)])
def test_parameters_of_every_layer_of_the_papers_placement(num_points, total, reference):
    model = DetectionModel(paper_config(num_points))
    expected = summary(reference)[f"yolov5n paper placement num_param {num_points}"]
    assert parameters_by_layer(model) == expected["layers"]
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize("name", [name for name in SHIPPED if re.match(r"yolov5[ns]", name)])
def test_shipped_configs_train_and_predict(name):
    model = DetectionModel(name)
    assert model.training
    x = torch.rand(SIZE)
    raw = model(x)
    assert [tuple(level.shape) for level in raw] == [(2, 3, 8, 12, 85), (2, 3, 4, 6, 85), (2, 3, 2, 3, 85)]
    sum(level.square().mean() for level in raw).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        decoded, raw = model.eval()(x)
    assert decoded.shape == (2, 3 * (96 + 24 + 6), 85)
    assert decoded.isfinite().all()
    assert [level.shape[2:4] for level in raw] == [(8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize("name", ["yolov5m-AKConv.yaml", "yolov5l-AKConv.yaml", "yolov5x-AKConv.yaml"])
def test_large_shipped_configs_build(name):
    model = DetectionModel(name)
    assert model.head.strides == (8, 16, 32)
    assert sum(isinstance(layer, AKConv) for layer in model.model) == 8
    assert sum(isinstance(layer, C3_AKConv) for layer in model.model) == 3


@pytest.mark.parametrize("sources", [[4, 2], [2, 4]])
def test_anchors_follow_the_order_of_the_strides(sources):
    """As in YOLOv5, whose yolov5-panet.yaml of version 3 lists the anchors from large to small."""
    head = [*TINY["head"][:2], [sources, 1, "Detect", ["nc", "anchors"]]]
    expected = DetectionModel(tiny(head=head))
    assert expected.head.strides == ((2, 4) if sources == [4, 2] else (4, 2))
    by_stride = {s: a * s for s, a in zip(expected.head.strides, expected.head.anchors, strict=True)}
    for stride, level in ((2, TINY["anchors"][0]), (4, TINY["anchors"][1])):
        torch.testing.assert_close(by_stride[stride].flatten(), torch.tensor(level, dtype=torch.float32))
    turned = DetectionModel(tiny(head=head, anchors=TINY["anchors"][::-1]))
    assert torch.equal(turned.head.anchors, expected.head.anchors)
    assert torch.equal(DetectionModel(turned.config).head.anchors, expected.head.anchors)


def test_a_kernel_may_be_a_pair():
    """As in yolov3.yaml of the versions 4 to 6: `[512, [1, 1]]`."""
    pairs, plain = (DetectionModel(tiny_with_row([-1, 1, "Conv", [8, kernel, 1]])).model[1] for kernel in ([3, 3], 3))
    assert pairs.conv.weight.shape == plain.conv.weight.shape and pairs.conv.padding == (1, 1)
    flat = DetectionModel(tiny_with_row([-1, 1, "Conv", [8, [1, 5], 1]])).model[1]
    assert flat.conv.weight.shape == (8, 8, 1, 5) and flat(torch.rand(1, 8, 6, 4)).shape == (1, 8, 6, 4)


def test_a_row_may_have_an_activation_of_its_own():
    model = DetectionModel(tiny_with_row([-1, 1, "Conv", [8, 3, 1, {"act": "nn.LeakyReLU(0.1)"}]]))
    assert isinstance(model.model[1].act, nn.LeakyReLU) and model.model[1].act.negative_slope == 0.1
    assert isinstance(model.model[0].act, nn.SiLU)
    assert isinstance(DetectionModel(model.config.to_dict()).model[1].act, nn.LeakyReLU)
    csp = DetectionModel(tiny_with_row([-1, 1, "BottleneckCSP", [8, {"csp_act": "nn.LeakyReLU(0.1)"}]])).model[1]
    assert isinstance(csp.act, nn.LeakyReLU) and isinstance(csp.cv1.act, nn.SiLU)
    positional = DetectionModel(tiny_with_row([-1, 1, "Conv", [8, 3, 1, None, 1, 1, "nn.ReLU()"]])).model[1]
    assert isinstance(positional.act, nn.ReLU)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ("Segment", ["segmentation"]),
        ("IDetect", ["YOLOv7"]),
        ("ASFF_Detect", ["unknown", "--plugins"]),
        ("Conv", ["Detect"]),
    ],
)
def test_another_head_is_named(last, words):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny(head=[*TINY["head"][:2], [[4, 2], 1, last, ["nc", "anchors"]]]))
    assert caught.value.where.endswith(f"layer 5 {last}") and all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("module", ["GSConv", "CoordAtt", "Convv", "C2f"])
def test_an_unknown_module_names_the_flag_for_ones_own(module):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny_with_row([-1, 1, module, [8]]))
    assert module in caught.value.where and "--plugins" in caught.value.fix
    assert ("did you mean" in caught.value.fix) or module == "C2f"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"scales": {"n": [0.5, 0.25, 1024]}}, "YOLO11"),
        ({"head": [*TINY["head"][:2], [[4, 2], 1, "Detect", ["nc"]]]}, "YOLO11"),
        ({"names": ["a", "b"]}, "--data"),
        ({"lr0": 0.01}, "--hyp"),
    ],
)
def test_a_yaml_of_another_kind_is_named(change, named):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny(**change))
    assert named in str(caught.value)


def test_a_size_without_a_file_builds_with_its_own_width():
    model = DetectionModel("yolov5s-akconv-neck.yaml")
    assert model.model[0].conv.out_channels == 32
    assert model.config.width_multiple == 0.5


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("residual", {"C3_AKConv": [2, 4, 6, 8]}),
        ("neck", {"AKConv": [10, 14, 18, 21], "C3_AKConv": [13, 17, 20, 23]}),
        ("head", {"AKConv": [24, 25, 26]}),
        ("paper", {"AKConv": [1, 3, 5, 7, 18, 21]}),
    ],
)
def test_placements(name, places):
    config, baseline = load_model_config(f"yolov5n-AKConv-{name}.yaml"), load_model_config("yolov5n.yaml")
    for module in ("AKConv", "C3_AKConv"):
        assert [row.index for row in config.layers if row.module == module] == places.get(module, [])
    if name != "head":
        changed = [new.index for new, old in zip(config.layers, baseline.layers, strict=True) if new != old]
        assert changed == sorted(index for indices in places.values() for index in indices)


@pytest.mark.parametrize("size", ["n", "s"])
def test_forward_equals_the_reference(size, reference):
    with np.load(reference / f"forward_yolov5{size}.npz") as arrays:
        expected = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    model = fill_(DetectionModel(f"yolov5{size}.yaml", nc=4)).eval()
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.no_grad():
            decoded, raw = model(expected["image"].contiguous(memory_format=layout))
        for actual, wanted in zip(
            (decoded, *raw), (expected[name] for name in ("decoded", "raw0", "raw1", "raw2")), strict=True
        ):
            assert actual.shape == wanted.shape
            assert (actual - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_predictions_are_the_decoded_raw_maps():
    model = DetectionModel(tiny()).eval()
    decoded, raw = model(torch.rand(SIZE))
    levels = [decode(level, model.head.anchors[i], (2, 4)[i]) for i, level in enumerate(raw)]
    torch.testing.assert_close(decoded, torch.cat(levels, 1))


def test_images_of_a_batch_do_not_meet():
    model = fill_(DetectionModel(tiny())).eval()
    x = torch.rand(3, 3, 32, 48)
    torch.testing.assert_close(model(x)[0][1:2], model(x[1:2])[0], rtol=1e-4, atol=1e-4)


def test_layers_read_the_maps_that_their_rows_name():
    model = fill_(DetectionModel(tiny())).eval()
    x = torch.rand(SIZE)
    layers = model.model
    first = layers[0](x)
    deep = layers[2](layers[1](first))
    joined = torch.cat((layers[3](deep), first), 1)
    torch.testing.assert_close(model(x)[0], layers[5]([joined, deep])[0])


def test_building_measures_strides_without_a_trace():
    model = DetectionModel("yolov5n-AKConv.yaml")
    assert model.max_stride == 32
    assert model.training
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) > 50
    assert all(norm.num_batches_tracked == 0 and not norm.running_mean.any() for norm in norms)
    assert all(parameter.device.type == "cpu" and parameter.grad is None for parameter in model.parameters())
    expected = torch.tensor(load_yaml(MODEL_FOLDER / "yolov5n-AKConv.yaml")["anchors"]).view(3, 3, 2)
    torch.testing.assert_close(model.head.anchors * torch.tensor([8, 16, 32]).view(3, 1, 1), expected.float())


@pytest.mark.parametrize(
    "cfg", ["yolov5n.yaml", load_model_config("yolov5n.yaml"), load_yaml(MODEL_FOLDER / "yolov5n.yaml")]
)
def test_classes_and_input_channels_can_be_chosen(cfg):
    model = DetectionModel(cfg, ch=1, nc=2)
    assert model.num_classes == model.config.num_classes == model.head.nc == 2
    assert model.model[0].conv.in_channels == 1
    assert model(torch.zeros(2, 1, 32, 64))[0].shape == (2, 3, 4, 8, 7)


def test_weights_move_to_another_model_of_the_same_config():
    first, second = DetectionModel(tiny()).eval(), DetectionModel(tiny()).eval()
    x = torch.rand(1, 3, 16, 32)
    assert not torch.equal(first(x)[0], second(x)[0])
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(x)[0], second(x)[0], rtol=0, atol=0)


def test_a_count_of_anchors_builds():
    model = DetectionModel(tiny(anchors=4))
    assert model.head.anchors.shape == (2, 4, 2)
    assert model(torch.zeros(1, 3, 16, 32))[0].shape == (1, 4, 8, 16, 7)
    assert (model.head.anchors > 0).all()


def test_other_names_of_akconv_build_the_same_network():
    value = load_yaml(MODEL_FOLDER / "yolov5n-AKConv.yaml")
    for row in value["backbone"] + value["head"]:
        row[2] = row[2].replace("AKConv", "LDConv")
    assert sum(p.numel() for p in DetectionModel(value).parameters()) == 1_401_527


def test_akconv_takes_its_keywords_from_the_row():
    value = tiny_with_row([-1, 1, "AKConv", [8, 2, 1, {"points": [[0, 0], [1, 1.5]], "padding": "zeros"}]])
    layer = DetectionModel(value).model[1]
    assert layer.points.tolist() == [[0, 0], [1, 1.5]]
    assert layer.padding == "zeros"


def test_an_activation_reaches_every_block_and_no_other_model():
    leaky = DetectionModel(tiny(activation="nn.LeakyReLU(0.1)"))
    found = [m for m in leaky.modules() if isinstance(m, (nn.LeakyReLU, nn.SiLU))]
    assert len(found) == 1 + 1 + 3 + 2 * 2
    assert all(isinstance(m, nn.LeakyReLU) and m.negative_slope == 0.1 for m in found)
    assert len({id(m) for m in found}) == len(found)
    for value in (tiny(), tiny(activation=None), tiny(activation="nn.SiLU")):
        kinds = {type(m) for m in DetectionModel(value).modules() if isinstance(m, (nn.LeakyReLU, nn.SiLU))}
        assert kinds == {nn.SiLU}


def test_a_rows_own_activation_wins():
    model = DetectionModel({**tiny_with_row([-1, 1, "Conv", [8, 3, {"act": False}]]), "activation": "nn.ReLU()"})
    assert isinstance(model.model[0].act, nn.ReLU)
    assert isinstance(model.model[1].act, nn.Identity)


@pytest.mark.parametrize(
    ("row", "where", "value"),
    [
        ([-1, 1, "AKConvv", [8, 3]], "'AKConvv'", ""),
        ([-1, 1, "akconv", [8, 3]], "'akconv'", ""),
        ([-1, 1, "AKConv", [8, 0]], "AKConv", "points must be an integer from 1 to 1024, got 0"),
        ([-1, 1, "AKConv", [8, -1]], "AKConv", "got -1"),
        ([-1, 1, "AKConv", [8, 10**6]], "AKConv", "got 1000000"),
        ([-1, 1, "AKConv", [8, 2.5]], "AKConv", "got 2.5"),
        ([-1, 1, "AKConv", [8]], "AKConv", "num_param"),
        ([-1, 1, "AKConv", [8, 3, 0]], "AKConv", "stride must be a positive integer, got 0"),
        ([-1, 1, "AKConv", [8, 3, 1, {"padding": "wrap"}]], "AKConv", "'wrap'"),
        ([-1, 1, "AKConv", [8, 3, 1, {"points": [[0, 0]]}]], "AKConv", "points must list 3 pairs, got 1"),
        ([-1, 1, "AKConv", [8, 3, 1, {"point": 1}]], "AKConv", "'point'"),
        ([-1, 1, "Conv", []], "Conv", "argument 1 (output channels) must be a positive integer, got None"),
        ([-1, 1, "Conv", [0]], "Conv", "argument 1 (output channels) must be a positive integer, got 0"),
        ([-1, 1, "Conv", [8, 3, 1, None, 3]], "Conv", "divisible by groups"),
        ([-1, 1, "Conv", [8, "x"]], "Conv", ""),
        ([-1, 1, "Conv", [8, 10**6]], "Conv", ""),
        ([-1, 1, "Conv", [10**12]], "Conv", ""),
        ([-1, 1, "Conv", [8, 1, 1, None, 1, 1, True, 9, 9]], "Conv", ""),
        ([-1, 1, "C3", [8, True, 1, -1]], "C3", ""),
        ([-1, 1, "Expand", [3]], "Expand", "9, got 8"),
        ([-1, 1, "Contract", [0]], "Contract", "argument 1 (gain)"),
        ([-1, 1, "nn.Upsample", [None, 2, "sideways"]], "nn.Upsample", "sideways"),
        ([-1, 1, "Conv", [8, 3, 2]], "Concat", "Sizes of tensors must match"),
        ([-1, 1, "nn.MaxPool2d", [0]], "nn.MaxPool2d", ""),
        ([-1, 1, "Detect", ["nc", "anchors"]], "Detect", ""),
        ([-1, 1, "C3TR", [12]], "C3TR", ""),
        pytest.param(
            [-1, 1, "Conv", [8, 0]],
            "Conv",
            "",
            marks=pytest.mark.filterwarnings("ignore:Initializing zero-element"),
        ),
        ([-1, 1, "Conv", [8, 3, {"act": "nn.ReLU"}]], "Conv", "nn.ReLU"),
    ],
)
def test_wrong_rows_are_refused_by_their_index(row, where, value):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny_with_row(row))
    # A row whose output does not match is found by the layer that reads it.
    assert caught.value.where == f"model: layer {5 if where == 'Concat' else 1} {where}"
    assert value in caught.value.what


@pytest.mark.parametrize("name", ["AKConvv", "akconv"])
def test_an_unknown_module_in_a_row_is_answered_with_the_closest(name):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny_with_row([-1, 1, name, [8, 3]]))
    assert re.search(r"\bAKConv\b", caught.value.fix)


def test_absurdly_large_layers_are_refused_before_they_take_memory(monkeypatch):
    monkeypatch.setattr(build, "MAX_PARAMETERS", 4000)
    small = {"width_multiple": 0.5, "channel_multiple": 1, "nc": 1}
    assert (
        sum(p.numel() for p in DetectionModel({**tiny_with_row([-1, 1, "Conv", [8, 3]]), **small}).parameters()) < 4000
    )
    with pytest.raises(ConfigError) as caught:
        DetectionModel({**tiny_with_row([-1, 1, "Conv", [256, 3]]), **small})
    assert caught.value.where == "model: layer 1 Conv" and "4,864" in caught.value.what


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([[-1, 1, "Conv", [100_000, 3]], [-1, 1, "Conv", [8, 1]]], "layer 1 "),
        ([[-1, 1, "C3", [8]], *[[-1, 1000, "C3", [8]]] * 3], "model"),
        ([[-1, 1, "nn.Upsample", [None, 8]]] * 2, "layer 2 "),
        ([[-1, 1, "nn.ZeroPad2d", [700]]], "layer 1 "),
        ([[-1, 1, "nn.Upsample", [[30_000, 30_000]]]], "layer 1 "),
        ([[-1, 1, "nn.ConvTranspose2d", [8, 3, 50]]], "layer 1 "),
        ([[-1, 1, "Conv", [8, 3, 1, 2000]]], "layer 1 "),
        ([[-1, 1, "Conv", [256, 1]], [-1, 1, "Conv", [256, 31]], [-1, 1, "Conv", [8, 1]]], "layer 2 "),
    ],
    ids="one-layer repeats upsampling padding size transposed conv-padding operations".split(),
)
def test_a_few_rows_do_not_take_gigabytes_or_minutes(rows, where):
    value = tiny()
    value["backbone"][1:1] = rows
    shift = len(rows)
    value["head"][1][0], value["head"][2][0] = [-1, shift], [4 + shift, 2 + shift]
    with pytest.raises(ConfigError) as caught:
        DetectionModel(value)
    assert where in caught.value.where, caught.value


def test_a_head_of_too_many_channels_is_refused():
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny(nc=100_000, anchors=80))
    assert "layer 5 Detect" in caught.value.where


@pytest.mark.parametrize(
    ("change", "where", "value"),
    [
        ({"head": TINY["head"][:-1]}, ": layer 4 Concat", "Detect"),
        ({"head": [*TINY["head"], [-1, 1, "Conv", [8]]]}, ": layer 5 Detect", "Detect"),
        ({"head": [[[1, 2], 1, "Detect", ["nc", [[1, 2]]]]]}, ": layer 3 Detect", "[nc, anchors]"),
        ({"head": [[2, 1, "Detect", ["nc", "anchors"]]]}, ": layer 3 Detect", "2 levels"),
        ({"anchors": [[1, 2]]}, ": layer 5 Detect", "1 levels"),
        (
            {"anchors": [[1, 2]] * 3, "head": [*TINY["head"][:2], [[4, 2, 0], 1, "Detect", ["nc", "anchors"]]]},
            "",
            "[2, 4, 2]",
        ),
        ({"activation": "nn.LeekyReLU(0.1)"}, ": activation 'nn.LeekyReLU'", ""),
        ({"activation": "nn.LeakyReLU(slope=1)"}, ": activation nn.LeakyReLU", "slope"),
        ({"head": [[[0, 2], 1, "Detect", [7, "anchors"]]]}, ": layer 3 Detect", "7"),
        ({"head": [[[0, 2], 1, "Detect", ["nc", "anchors", {"bogus": 1}]]]}, ": layer 3 Detect", "bogus"),
        (
            {"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.ZeroPad2d", [5]], [-1, 1, "Conv", [8, 3, 2]]]}
            | {"head": [[[1, 2], 1, "Detect", ["nc", "anchors"]]]},
            "",
            "stride",
        ),
        (
            {"backbone": [[-1, 1, "nn.Upsample", [None, 2]]], "head": [[0, 1, "Detect", []]], "anchors": [[1, 2]]},
            "",
            "stride",
        ),
    ],
)
def test_wrong_configs_are_refused(change, where, value):
    with pytest.raises(ConfigError) as caught:
        DetectionModel(tiny(**change))
    assert caught.value.where == f"model{where}" and value in caught.value.what


def place_payload(place, payload):
    if place == "activation":
        return tiny(activation=payload)
    if place == "activation argument":
        return tiny(activation=f"nn.LeakyReLU({payload})")
    if place in ("nc", "anchors", "depth_multiple", "backbone"):
        return tiny(**{place: payload})
    if place == "anchor":
        return tiny(anchors=[[payload, 2], [30, 61]])
    row = [-1, 1, "Conv", [8, 3]]
    if place == "from":
        row[0] = payload
    if place == "number":
        row[1] = payload
    if place == "module":
        row[2] = payload
    if place == "argument":
        row[3] = [8, payload]
    if place == "first argument":
        row[3] = [payload]
    if place == "nested argument":
        row[3] = [8, [[payload]]]
    if place == "keyword":
        row[3] = [8, {payload: 1}]
    if place == "keyword argument":
        row[3] = [8, {"s": payload}]
    if place == "upsampling":
        row[2:] = ["nn.Upsample", [None, 1, payload]]
    if place == "detect":
        return tiny(head=[[[0, 2], 1, "Detect", ["nc", payload]]])
    return tiny_with_row(row)


@pytest.mark.parametrize(
    "payload",
    [
        "__import__('os').system('touch MARK')",
        "open('MARK', 'w')",
        "exec(\"open('MARK', 'w')\")",
        "(lambda: open('MARK', 'w'))()",
        "[open('MARK', 'w') for _ in (1,)]",
        "getattr(__builtins__, 'open')('MARK', 'w')",
        "torch.save({}, 'MARK')",
        "().__class__.__base__.__subclasses__()",
        "f\"{open('MARK', 'w')}\"",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "activation",
        "activation argument",
        "nc",
        "anchors",
        "anchor",
        "depth_multiple",
        "backbone",
        "from",
        "number",
        "module",
        "argument",
        "first argument",
        "nested argument",
        "keyword",
        "keyword argument",
        "upsampling",
        "detect",
    ],
)
def test_code_in_a_yaml_is_refused_and_never_run(place, payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        DetectionModel(place_payload(place, payload))
    assert list(tmp_path.iterdir()) == []


def mutate(value, rng):
    """Change one thing somewhere in a config."""
    wrong = [None, True, 0, -1, 1, 2, 3, 7, 2.5, 10**9, -(10**9), "x", "None", "[3]", [], [1, 2], [[-1]], {}, {"k": 1}]
    container = value
    while True:
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        if not keys:
            return value
        key = rng.choice(keys)
        if isinstance(container[key], (list, dict)) and container[key] and rng.random() < 0.85:
            container = container[key]
            continue
        action = rng.choice(["replace", "replace", "replace", "delete", "repeat"])
        if action == "replace":
            container[key] = rng.choice(wrong)
        elif action == "delete":
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        return value


@pytest.mark.parametrize("seed", range(6))
def test_mutated_configs_build_or_are_refused_in_one_line(seed):
    rng = random.Random(seed)
    refused = 0
    for _ in range(20):
        value = mutate(tiny_with_row([-1, 1, "AKConv", [8, 2, 1, {"padding": "zeros"}]]), rng)
        try:
            model = DetectionModel(copy.deepcopy(value))
        except ConfigError as error:
            refused += 1
            assert re.match(r"model: .+\. Fix: .+\.$", str(error)), str(error)
        else:
            assert ModelConfig.from_dict(model.config.to_dict(), name="model") == model.config
    assert 5 <= refused < 20


def test_a_model_whose_maps_match_at_one_size_only_is_refused():
    halved = [[-1, 1, "Conv", [8, 3, 2]]] * 4
    # With both, 8 cells become 4. With the first 6 do as well; the second makes 5 of 10 and 3 of 6, but 7 of 18.
    thirds = [-1, 1, "Conv", [8, 1, 3, 2]], [-1, 1, "Conv", [8, 2, 3, 2]]
    head = [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[3, -1], 1, "Concat", [1]]]
    value = {"nc": 2, "anchors": 1, "head": [*head, [-1, 1, "Detect", ["nc", "anchors"]]]}
    assert DetectionModel({**value, "backbone": [*halved, [-1, 1, "Conv", [8, 3, 2]]]}).max_stride == 32
    for row in thirds:
        with pytest.raises(ConfigError) as caught:
            DetectionModel({**value, "backbone": [*halved, row]})
        assert "layer 6 Concat" in caught.value.where and "288 x 96" in caught.value.what


@pytest.mark.parametrize("halvings", [4, 5])
def test_a_head_with_the_measured_stride_at_one_size_only_is_refused(halvings):
    halved = [[-1, 1, "Conv", [8, 3, 2]]] * halvings
    value = {"nc": 2, "anchors": 1, "head": [[-1, 1, "Detect", ["nc", "anchors"]]]}
    third = [-1, 1, "AKConv", [8, 3, 3]] if halvings == 5 else [-1, 1, "Conv", [8, 2, 3, 2]]  # 4 or 8 cells: half of it
    with pytest.raises(ConfigError) as caught:
        DetectionModel({**value, "backbone": [*halved, third]})
    assert caught.value.where == "model"


@pytest.mark.parametrize("row", [[-1, 1, "DWConvTranspose2d", [8, False]], [-1, 1, "C3Ghost", [1]]])
def test_layers_without_weights_are_refused_and_python_does_not_warn(row):
    value = {"nc": 2, "channel_multiple": 1, "anchors": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]], row]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError) as caught:
            DetectionModel({**value, "head": [[-1, 1, "Detect", ["nc", "anchors"]]]})
    assert f"layer 1 {row[2]}" in caught.value.where

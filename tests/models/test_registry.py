"""Names of modules: registration, lookup and channel rules."""

import re

import pytest
import torch
from torch import nn

from models import registry
from models.common import C3, Conv
from models.modules import C3_AKConv, LDConv
from models.registry import LayerArgs, LayerContext, lookup, register, registered_names, round_up
from models.yolo import DetectionModel
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def own_names(monkeypatch):
    """Let each test register names that the next does not see."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def make_row(*, in_channels=(16,), args=(), repeats=1):
    return LayerContext(in_channels=in_channels, args=args, repeats=repeats, width=lambda c: c // 2, module="Test")


def small_config(row):
    return {
        "nc": 2,
        "width_multiple": 0.5,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, "Conv", [16, 3, 2]], row],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }


def test_a_users_module_in_a_yaml_builds_and_runs():
    @register("in_out")
    class Doubled(nn.Module):
        def __init__(self, c1, c2, factor, *, shift=0.0):
            super().__init__()
            self.given = (c1, c2, factor, shift)
            self.conv = nn.Conv2d(c1, c2, 1)

        def forward(self, x):
            return self.conv(x) * self.given[2] + self.given[3]

    model = DetectionModel(small_config([-1, 1, "Doubled", [32, 2, {"shift": 0.5}]]))
    assert isinstance(model.model[1], Doubled)
    assert model.model[1].given == (8, 16, 2, 0.5)
    assert [tuple(level.shape) for level in model(torch.zeros(2, 3, 32, 48))] == [(2, 2, 16, 24, 7)]


def test_a_rule_of_ones_own():
    def rule(row):
        return LayerArgs((row.in_channels[0], 3), 3 * row.positive(0, "times"))

    @register(rule, name="Thrice")
    def make(channels, out):
        return nn.Conv2d(channels, out * 2, 1)

    assert DetectionModel(small_config([-1, 1, "Thrice", [2]])).head.m[0].in_channels == 6


def test_repeats_go_to_the_constructor_or_stack_modules():
    inner = DetectionModel(small_config([-1, 3, "C3", [32]])).model[1]
    assert isinstance(inner, C3)
    assert len(inner.m) == 3
    stacked = DetectionModel(small_config([-1, 3, "Conv", [32, 3]])).model[1]
    assert [(type(m), m.conv.in_channels) for m in stacked] == [(Conv, 8), (Conv, 16), (Conv, 16)]


def test_registering_a_taken_name_raises():
    with pytest.raises(ValueError, match=r"'Conv'.* models\.common\.Conv"):
        register("in_out", name="Conv")(nn.Linear)
    assert lookup("Conv", where="test").factory is Conv


def test_registering_a_taken_alias_raises():
    with pytest.raises(ValueError, match="'LDConv'"):
        register("in_out", name="Fresh", aliases=("LDConv",))(nn.Linear)


def test_registering_the_same_module_again_is_accepted():
    register("in_out")(Conv)
    assert lookup("Conv", where="test").factory is Conv


def test_a_module_declares_which_keywords_it_forwards():
    register("in_out", name="Outer", aliases=("Other",), forwards={"AKConv": ("padding",)})(Conv)
    assert [lookup(name, where="t").forwards for name in ("Outer", "Other")] == [{"AKConv": ("padding",)}] * 2
    assert lookup("Conv", where="t").forwards == {}
    for name in ("C3_AKConv", "C3_LDConv", "Bottleneck_AKConv"):
        entry = lookup(name, where="t")
        assert set(entry.forwards["AKConv"]) <= entry.keywords & lookup("AKConv", where="t").keywords


def test_an_unknown_rule_raises():
    with pytest.raises(ValueError, match="'out_in'"):
        register("out_in")


@pytest.mark.parametrize(("name", "factory"), [("LDConv", LDConv), ("C3_LDConv", C3_AKConv), ("nn.SiLU", nn.SiLU)])
def test_names_and_aliases_are_found(name, factory):
    assert lookup(name, where="test").factory is factory
    assert name in registered_names()


def test_torch_modules_may_be_written_in_full():
    assert lookup("torch.nn.Upsample", where="t").factory is nn.Upsample
    assert lookup("Upsample", where="t").factory is nn.Upsample


@pytest.mark.parametrize(
    ("wrong", "right"), [("AKConvv", "AKConv"), ("akcnov", "AKConv"), ("C3AKConv", "C3_AKConv"), ("SPFF", "SPPF")]
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(ConfigError) as caught:
        lookup(wrong, where="my.yaml: layer 7")
    assert caught.value.where == f"my.yaml: layer 7 '{wrong}'" and re.search(rf"\b{right}\b", caught.value.fix)


def test_a_name_like_no_other_is_answered_with_advice():
    with pytest.raises(ConfigError) as caught:
        lookup("Zzzzzzzz", where="my.yaml: layer 7")
    assert "--plugins" in caught.value.fix


@pytest.mark.parametrize("name", ["os.system", "nn.Module", "nn.Sequential", "eval", "torch.load", "", "__import__"])
def test_nothing_unregistered_is_reachable(name):
    with pytest.raises(ConfigError) as caught:
        lookup(name, where="my.yaml: layer 7")
    assert caught.value.where == f"my.yaml: layer 7 '{name}'"


@pytest.mark.parametrize(
    ("rule", "row", "expected"),
    [
        ("in_out", make_row(args=(64, 3, 2)), LayerArgs((16, 32, 3, 2), 32)),
        ("same", make_row(args=(2,)), LayerArgs((2,), 16)),
        ("same_passed", make_row(args=(1e-3,)), LayerArgs((16, 1e-3), 16)),
        ("sum", make_row(in_channels=(16, 8, 4), args=(1,)), LayerArgs((1,), 28)),
    ],
)
def test_channel_rules(rule, row, expected):
    assert registry.RULES[rule](row) == expected


@pytest.mark.parametrize("rule", ["in_out", "same", "same_passed"])
def test_rules_of_one_input_refuse_several(rule):
    with pytest.raises(ValueError, match=r"`from`.* 2"):
        registry.RULES[rule](make_row(in_channels=(16, 8), args=(64,)))


@pytest.mark.parametrize("args", [(), (0,), (-8,), (1.5,), ("8",), (True,), (None,), ([8],)])
def test_output_channels_must_be_a_positive_integer(args):
    with pytest.raises(ValueError, match=r"argument 1 "):
        registry.RULES["in_out"](make_row(args=args))


@pytest.mark.parametrize(("value", "expected"), [(8, 8), (8.1, 16), (16, 16), (12.5, 16), (1, 8), (320.0, 320)])
def test_widths_round_up(value, expected):
    assert round_up(value, 8) == expected

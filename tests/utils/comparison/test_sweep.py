"""--sweep: which variants of a model are trained."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from models import registry
from models.config import LayerSpec, ModelConfig
from models.modules import AKConv
from models.registry import register
from models.yolo import DetectionModel
from utils.comparison.candidates import ToTrain, from_configs
from utils.comparison.sweep import network_fingerprint, parse_sweep, sweep_variants
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options.hyperparameters import Hyperparameters

VALUES = asdict(Hyperparameters())


@pytest.fixture(scope="module")
def base() -> ToTrain:
    (model,) = from_configs(["yolov5n-AKConv.yaml"])
    return replace(model, hyperparameters=VALUES)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    caplog.set_level("INFO")
    return caplog


def paddings(config: ModelConfig) -> set[str | None]:
    return {layer.kwargs.get("padding") for layer in config.layers if layer.module == "AKConv"}


def test_every_value_makes_a_variant_that_the_comparison_writes(base):
    five, nine = sweep_variants(base, ["AKConv.num_param", "5", "9"])
    assert [five.label, nine.label] == ["yolov5n-AKConv-num_param-5", "yolov5n-AKConv-num_param-9"]
    assert five.config.name == f"{five.label}.yaml" and five.config.layers[1].args[1] == 5
    assert (five.cfg, five.hyp, five.hyperparameters) == ("", base.hyp, VALUES)


def test_a_value_that_changes_nothing_is_skipped(base):
    (variant,) = sweep_variants(base, ["AKConv.padding", "border", "zeros"])
    assert variant.label.endswith("padding-zeros") and paddings(variant.config) == {"zeros"}


def test_the_log_lists_the_rows_that_are_changed(base, messages):
    sweep_variants(base, ["AKConv@num_param=3.padding", "zeros"])
    (line,) = [message for message in messages.messages if "AKConv@num_param=3.padding" in message]
    assert line.endswith("rows 1 3 5 7 18 21 (AKConv, now border), 17 20 23 (C3_AKConv, now border)")


def test_several_keywords_make_every_combination(base):
    variants = sweep_variants(base, ["AKConv@num_param=3.num_param", "3", "5", "AKConv.padding", "border", "zeros"])
    assert len(variants) == 3, "the fourth is the base itself"
    assert len({str(variant.config.to_dict()) for variant in variants}) == len({v.label for v in variants}) == 3


def test_values_that_look_equal_in_file_names_get_different_labels(base):
    words = ["AKConv@num_param=3.points", "[[0,0],[1,1],[2,2]]", "[[0,0],[1,1],[2,-2]]", "[[0,0],[1,1],[2,2.0]]"]
    labels = [variant.label for variant in sweep_variants(base, words)]
    assert len(labels) == len(set(labels)) >= 2


@pytest.mark.slow
def test_a_variant_with_the_same_network_as_another_is_skipped_with_a_warning(base, messages):
    words = ["AKConv.points", "None", "centered", "AKConv.padding", "border", "zeros"]
    assert [one.label for one in sweep_variants(base, words)] == ["yolov5n-AKConv-points-None-padding-zeros"]
    warnings = [record.getMessage() for record in messages.records if record.levelname == "WARNING"]
    skipped, equal = zip(*(warning.split(" would train to the same bits as ") for warning in warnings), strict=True)
    assert equal == ("yolov5n-AKConv", "yolov5n-AKConv-points-None-padding-zeros")
    labels = ["yolov5n-AKConv-points-centered-padding-border", "yolov5n-AKConv-points-centered-padding-zeros"]
    assert [text.split()[-1] for text in skipped] == labels
    with pytest.raises(ConfigError) as error:
        sweep_variants(base, ["AKConv.points", "centered"])
    assert error.value.where == "--sweep" and "points-centered would" in messages.records[-1].getMessage()
    five = replace(base.config, layers=tuple(with_points(layer, 5) for layer in base.config.layers))
    variants = sweep_variants(replace(base, config=five), ["AKConv.points", "centered"])
    assert len(variants) == 1, "five centered points are another shape"


@pytest.mark.slow
def test_every_form_of_akconv_is_a_variant(base):
    words = ["AKConv.offsets", "conv", "depthwise", "AKConv.modulated", "false", "true"]
    variants = sweep_variants(base, [*words, "AKConv.gradient", "one_sided", "symmetric"])
    assert len(variants) == 7, "the eighth is the base itself"
    layers = [layer for layer in DetectionModel(variants[-1].config).modules() if isinstance(layer, AKConv)]
    assert len(layers) == 11 and all(layer.modulated and layer.gradient == "symmetric" for layer in layers)
    assert all(isinstance(layer.p_conv, nn.Sequential) for layer in layers)


def with_points(layer: LayerSpec, points: int) -> LayerSpec:
    return replace(layer, args=(layer.args[0], points, *layer.args[2:])) if layer.module == "AKConv" else layer


def test_the_same_network_with_other_hyperparameters_is_not_a_duplicate(base):
    variants = sweep_variants(base, ["AKConv.points", "centered", "hyp.lr0", "0.01", "0.02"])
    assert [variant.label for variant in variants] == ["yolov5n-AKConv-points-centered-lr0-0.02"]


def test_a_hyperparameter_is_swept_alone_and_with_a_keyword(base):
    (fast,) = sweep_variants(base, ["hyp.offset_lr", "0.1", "1.0"])
    assert fast.label == "yolov5n-AKConv-offset_lr-1.0" and fast.config.to_dict() == base.config.to_dict()
    assert fast.hyperparameters == {**VALUES, "offset_lr": 1.0} and VALUES["offset_lr"] == 0.1 and fast.hyp == ""
    variants = sweep_variants(base, ["hyp.offset_lr", "1", "0.1", "AKConv.padding", "border", "zeros"])
    values = [(one.hyperparameters["offset_lr"], paddings(one.config).pop()) for one in variants]
    assert values == [(1.0, None), (1.0, "zeros"), (0.1, "zeros")], "the fourth is the base itself"


def test_labels_are_unique(base):
    (variant,) = sweep_variants(base, ["hyp.lr0", "0.02"], taken=["yolov5n-AKConv-lr0-0.02"])
    assert variant.label == "yolov5n-AKConv-lr0-0.02-2"


def test_offset_lr_does_not_count_in_a_model_without_offset_convolutions():
    (plain,) = from_configs(["yolov5n.yaml"])
    with pytest.raises(ConfigError) as error:
        sweep_variants(plain, ["hyp.offset_lr", "0.2", "0.5"])
    assert error.value.where == "--sweep" and "offset_lr" in error.value.what
    assert len(sweep_variants(plain, ["hyp.lr0", "0.02", "hyp.offset_lr", "0.1", "0.5"])) == 1


def test_words_start_a_dimension_only_with_a_module_of_the_model():
    one, two = parse_sweep(["A.x", "1.5", "nn.SiLU", "B@y=2.y", "[1, 2]"], ["A", "B"])
    assert (one.name, one.target.module, one.target.keyword, one.values) == ("A.x", "A", "x", [1.5, "nn.SiLU"])
    assert (two.name, two.target.only, two.values) == ("B@y=2.y", ("y", 2), [[1, 2]])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["AKConvv.num_param", "3"], "did you mean AKConv"),
        (["AKConv.numparam", "3"], "did you mean num_param"),
        (["AKConv.num_param"], "AKConv.num_param"),
        (["Detect.nc", "3"], "Detect"),
        (["3", "5"], "'3'"),
        (["AKConv.inc", "3"], "inc"),
        (["AKConv@num_param=7.stride", "1"], "nothing"),
        (["AKConv.num_param", *map(str, range(100, 250))], "150"),
        (["hyp.offset_rl", "0.1"], "did you mean offset_lr"),
        (["hyp.offset_lr"], "hyp.offset_lr"),
        (["hyp.offset_lr", "fast"], "'fast'"),
        (["hyp.mosaic", "2"], "mosaic"),
    ],
)
def test_wrong_words_are_named(base, words, named):
    with pytest.raises(ConfigError) as error:
        sweep_variants(base, words)
    assert error.value.where == "--sweep" and named in f"{error.value.what} {error.value.fix}"


def small(*args: object, module: str = "AKConv") -> ModelConfig:
    value = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, module, list(args)]],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    return ModelConfig.from_dict(value, name="small.yaml")


def test_fingerprints_of_equal_networks_are_equal_however_the_yaml_words_them():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fingerprint = network_fingerprint(small(8, 3, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for args in ((8, 3, 2, None), (8, 3, 2, {"points": "centered"}), (8, 3, 2, {"points": [[0, 0], [0, 1], [1, 0]]})):
        assert network_fingerprint(small(*args)) == fingerprint


@pytest.mark.parametrize(
    "args",
    [
        (16, 3, 2),
        (8, 4, 2),
        (8, 3, 1),
        (8, 3, 2, True),
        (8, 3, 2, {"padding": "zeros"}),
        (8, 3, 2, {"points": [[0, 0], [0, 1], [1, 1]]}),
        (8, 3, 2, {"act": False}),
    ],
)
def test_fingerprints_differ_wherever_training_could(args):
    assert network_fingerprint(small(*args)) != network_fingerprint(small(8, 3, 2))


def test_fingerprints_of_a_users_module_differ_by_attributes_weights_and_what_cannot_be_compared(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    class Opaque:
        pass

    @register("in_out")
    class Mine(nn.Module):
        def __init__(self, c1, c2, scale=1.0, gain=1.0, opaque=False, unused=0):
            super().__init__()
            self.scale = {"all": [scale, torch.tensor(scale)]}
            self.conv = nn.Conv2d(c1, c2, 1)
            self.conv.weight.data *= gain
            if opaque:
                self.opaque = Opaque()

        def forward(self, x):
            return self.conv(x)

    fingerprint = network_fingerprint(small(8, module="Mine"))
    assert network_fingerprint(small(8, {"unused": 5}, module="Mine")) == fingerprint
    for other in ({"scale": 2.0}, {"gain": 0.5}):
        assert network_fingerprint(small(8, other, module="Mine")) != fingerprint
    opaque = [network_fingerprint(small(8, {"opaque": True}, module="Mine")) for _ in range(2)]
    assert opaque[0] != opaque[1]


def test_a_network_that_cannot_be_built_is_named_by_its_row():
    with pytest.raises(ConfigError) as error:
        network_fingerprint(small(8, 3, 0))
    assert error.value.where == "small.yaml: layer 0 AKConv"

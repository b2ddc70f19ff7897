"""Keywords that are overridden in the rows of a model config."""

from typing import Any

import pytest

from models.config import ModelConfig, load_model_config
from models.modules.akconv import AKConv
from models.overrides import RowKeyword, module_names
from models.yolo import DetectionModel, parse_model
from utils.errors import ConfigError


@pytest.fixture(scope="module")
def base() -> ModelConfig:
    return load_model_config("yolov5n-AKConv.yaml")


def override(config: ModelConfig, name: str, value: Any, only: tuple[str, Any] | None = None) -> ModelConfig:
    module, keyword = name.split(".")
    return RowKeyword(module=module, keyword=keyword, only=only).set_to(config, value)


def arguments(config: ModelConfig, module: str = "AKConv") -> list[tuple]:
    return [(layer.args, layer.kwargs) for layer in config.layers if layer.module == module]


def built_rows(config: ModelConfig) -> dict[int, list[AKConv]]:
    """Return the AKConv layers that each row is built with."""
    rows = enumerate(parse_model(config, 3))
    layers = {row: [layer for layer in built.modules() if isinstance(layer, AKConv)] for row, built in rows}
    return {row: each for row, each in layers.items() if each}


@pytest.mark.parametrize("points", [5, 9])
def test_a_positional_argument_is_changed_at_its_position(base, points):
    config = override(base, "AKConv.num_param", points)
    assert arguments(config) == [((args[0], points, *args[2:]), kwargs) for args, kwargs in arguments(base)]
    assert arguments(config, "C3") == arguments(base, "C3")
    assert DetectionModel(config).model[1].num_param == points


def test_a_keyword_is_added_by_name_unless_it_has_the_value_already(base):
    assert all(kwargs == {"padding": "zeros"} for _, kwargs in arguments(override(base, "AKConv.padding", "zeros")))
    assert override(base, "AKConv.padding", "border") == base


@pytest.mark.parametrize("module", ["AKConv", "LDConv"])
def test_a_keyword_reaches_layers_inside_other_modules(base, module):
    layers = built_rows(override(base, f"{module}.padding", "zeros"))
    assert list(layers) == [1, 3, 5, 7, 10, 14, 17, 18, 20, 21, 23]
    assert all(layer.padding == "zeros" for each in layers.values() for layer in each)


@pytest.mark.parametrize("module", ["C3_AKConv", "C3_LDConv"])
def test_modules_that_contain_others_are_overridden_by_their_own_name_and_alias(base, module):
    config = override(base, f"{module}.padding", "zeros")
    assert arguments(config) == arguments(base)
    assert [row for row, (layer,) in built_rows(config).items() if layer.padding == "zeros"] == [17, 20, 23]


def test_rows_and_their_present_values_are_described(base):
    rows = "rows 1 3 5 7 18 21 (AKConv, now 3), 10 14 (AKConv, now 1), 17 20 23 (C3_AKConv, now 3)"
    assert RowKeyword(module="AKConv", keyword="num_param").describe(base) == rows


def test_all_layers_are_built_with_the_value(base):
    config = override(base, "AKConv.num_param", 5)
    assert [layer.num_param for (layer,) in built_rows(config).values()] == [5] * 11
    some = override(base, "AKConv.num_param", 5, only=("num_param", 3))
    assert [row for row, (layer,) in built_rows(some).items() if layer.num_param != 5] == [10, 14]


def test_a_model_with_akconv_only_inside_other_modules_is_overridden_by_what_they_forward():
    residual = load_model_config("yolov5n-AKConv-residual.yaml")
    config = override(residual, "AKConv.padding", "zeros")
    assert all(layer.kwargs == {"padding": "zeros"} for layer in config.layers if layer.module == "C3_AKConv")
    for name, only, wrong, hint in (
        ("AKConv.stride", None, "'stride'", "use one of num_param, points, padding"),
        ("AKConv.paddin", None, "'paddin'", "did you mean padding"),
        ("AKConv.padding", ("stride", 1), "'stride'", "use one of num_param, points, padding"),
    ):
        with pytest.raises(ConfigError) as error:
            override(residual, name, "zeros", only=only)
        assert wrong in error.value.what and error.value.fix.startswith(hint)


def test_a_keyword_that_is_not_forwarded_changes_only_the_modules_own_rows(base):
    config = override(base, "AKConv.bias", True)
    assert arguments(config, "C3_AKConv") == arguments(base, "C3_AKConv") and arguments(config) != arguments(base)


def test_only_rows_with_a_given_value_change(base):
    points = [[0, 0], [1, 1], [2, 2]]
    config = override(base, "AKConv.points", points, only=("num_param", 3))
    for (args, kwargs), (before, _) in zip(arguments(config), arguments(base), strict=True):
        assert args == before and bool(kwargs) == (args[1] == 3)
    assert DetectionModel(config).model[1].points.tolist() == points


def test_arguments_of_modules_with_repeats_are_found(base):
    config = override(base, "C3_AKConv.shortcut", True)
    assert all(args[1] is True for args, _ in arguments(config, "C3_AKConv"))
    assert all(args[1] is False for args, _ in arguments(base, "C3_AKConv"))


@pytest.mark.parametrize(
    ("name", "keyword", "hint"),
    [("AKConv.numparam", "numparam", "num_param"), ("AKConv.inc", "inc", "leave it out")],
)
def test_keywords_that_a_row_cannot_set_are_named(base, name, keyword, hint):
    with pytest.raises(ConfigError) as error:
        override(base, name, 3)
    assert keyword in error.value.what and hint in error.value.fix


def test_module_names_include_contained_modules_and_aliases_but_not_detect(base):
    names = module_names(base)
    assert {"Conv", "AKConv", "LDConv", "C3_AKConv", "C3_LDConv"} <= set(names) and "Detect" not in names
    assert "AKConv" in module_names(load_model_config("yolov5n-AKConv-residual.yaml"))

from dataclasses import asdict, replace

import pytest

from models.config import LayerSpec, ModelConfig, load_model_config
from models.modules.akconv import AKConv
from models.yolo import DetectionModel, parse_model
from utils.comparison.sweep import SweepVariant, parse_sweep
from utils.comparison.sweep import variants as all_variants
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options.hyperparameters import Hyperparameters


@pytest.fixture(scope="module")
def base() -> ModelConfig:
    return load_model_config("yolov5n-AKConv.yaml")


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    caplog.set_level("INFO")
    return caplog


NUMBERS = asdict(Hyperparameters())


def swept(base: ModelConfig, words: list[str], **more: object) -> list[SweepVariant]:
    return all_variants(base, words, hyperparameters=NUMBERS, **more)  # type: ignore[arg-type]


def variants(base: ModelConfig, words: list[str]) -> list[tuple[str, ModelConfig]]:
    found = swept(base, words)
    assert all(variant.hyperparameters == NUMBERS for variant in found)
    return [(variant.label, variant.config) for variant in found]


def arguments(config: ModelConfig, module: str = "AKConv") -> list[tuple]:
    return [(layer.args, layer.kwargs) for layer in config.layers if layer.module == module]


def test_a_positional_argument_is_changed_where_it_stands(base):
    found = dict(variants(base, ["AKConv.num_param", "5", "9"]))
    assert list(found) == ["yolov5n-AKConv-num_param-5", "yolov5n-AKConv-num_param-9"]
    for number, config in zip((5, 9), found.values(), strict=True):
        assert arguments(config) == [((args[0], number, *args[2:]), kwargs) for args, kwargs in arguments(base)]
        assert arguments(config, "C3") == arguments(base, "C3") and config.name.endswith(f"-{number}.yaml")
        assert DetectionModel(config).model[1].num_param == number


def test_a_keyword_is_added_by_name_and_the_default_changes_nothing(base):
    ((label, config),) = variants(base, ["AKConv.padding", "border", "zeros"])
    assert label.endswith("padding-zeros") and all(kwargs == {"padding": "zeros"} for _, kwargs in arguments(config))


def built_rows(config: ModelConfig) -> dict[int, list[AKConv]]:
    """Return the AKConv layers that each row is built with."""
    rows = enumerate(parse_model(config, 3))
    found = {row: [layer for layer in built.modules() if isinstance(layer, AKConv)] for row, built in rows}
    return {row: layers for row, layers in found.items() if layers}


@pytest.mark.parametrize("module", ["AKConv", "LDConv"])
def test_a_keyword_reaches_the_layers_within_other_modules(base, module, messages):
    ((_, config),) = variants(base, [f"{module}.padding", "zeros"])
    found = built_rows(config)
    assert list(found) == [1, 3, 5, 7, 10, 14, 17, 18, 20, 21, 23]
    assert all(layer.padding == "zeros" for layers in found.values() for layer in layers)
    assert messages.text.count(f"--sweep {module}.padding sets rows 1 3 5 7 10 14 18 21 (AKConv, now border), ") == 1
    assert "17 20 23 (C3_AKConv, now border)" in messages.text


def test_the_blocks_alone_are_swept_by_their_own_name_and_aliases(base):
    for module in ("C3_AKConv", "C3_LDConv"):
        ((_, config),) = variants(base, [f"{module}.padding", "zeros"])
        assert arguments(config) == arguments(base)
        assert [row for row, (layer,) in built_rows(config).items() if layer.padding == "zeros"] == [17, 20, 23]


def test_points_of_all_layers_are_set_and_the_log_says_what_they_were(base, messages):
    ((_, config),) = variants(base, ["AKConv.num_param", "5"])
    assert [layer.num_param for (layer,) in built_rows(config).values()] == [5] * 11
    told = "rows 1 3 5 7 18 21 (AKConv, now 3), 10 14 (AKConv, now 1), 17 20 23 (C3_AKConv, now 3)"
    assert f"--sweep AKConv.num_param sets {told}" in messages.text
    ((_, some),) = variants(base, ["AKConv@num_param=3.num_param", "5"])
    kept = [row for row, (layer,) in built_rows(some).items() if layer.num_param != 5]
    assert kept == [10, 14]


def test_a_model_that_has_akconv_within_only_is_swept_by_what_is_handed_down():
    residual = load_model_config("yolov5n-AKConv-residual.yaml")
    ((label, config),) = variants(residual, ["AKConv.padding", "border", "zeros"])
    assert label == "yolov5n-AKConv-residual-padding-zeros"
    assert all(layer.kwargs == {"padding": "zeros"} for layer in config.layers if layer.module == "C3_AKConv")
    for words, message in (
        (["AKConv.stride", "1"], "no row hands 'stride' down to its AKConv. Fix: one of num_param, points, padding"),
        (["AKConv.paddin", "zeros"], "no row hands 'paddin' down to its AKConv. Fix: did you mean padding"),
        (["AKConv@stride=1.padding", "zeros"], "no row hands 'stride' down"),
    ):
        with pytest.raises(ConfigError, match=message):
            variants(residual, words)


def test_a_keyword_that_is_not_handed_down_changes_the_modules_own_rows(base):
    ((_, config),) = variants(base, ["AKConv.bias", "True"])
    assert arguments(config, "C3_AKConv") == arguments(base, "C3_AKConv") and arguments(config) != arguments(base)


def test_only_rows_with_a_given_value_change(base):
    ((_, config),) = variants(base, ["AKConv@num_param=3.points", "[[0,0],[1,1],[2,2]]"])
    for (args, kwargs), (before, _) in zip(arguments(config), arguments(base), strict=True):
        assert args == before and bool(kwargs) == (args[1] == 3)
    assert DetectionModel(config).model[1].points.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_several_keywords_make_every_combination(base):
    words = ["AKConv@num_param=3.num_param", "3", "5", "AKConv.padding", "border", "zeros"]
    found = variants(base, words)
    assert len(found) == 3, "the fourth is the base itself"
    assert len({str(config.to_dict()) for _, config in found}) == len({label for label, _ in found}) == 3


def test_arguments_of_modules_with_repeats_are_found(base):
    ((_, config),) = variants(base, ["C3_AKConv.shortcut", "True"])
    assert all(args[1] is True for args, _ in arguments(config, "C3_AKConv"))
    assert all(args[1] is False for args, _ in arguments(base, "C3_AKConv"))


def test_values_with_the_same_letters_keep_apart(base):
    words = ["AKConv@num_param=3.points", "[[0,0],[1,1],[2,2]]", "[[0,0],[1,1],[2,-2]]", "[[0,0],[1,1],[2,2.0]]"]
    labels = [label for label, _ in variants(base, words)]
    assert len(labels) == len(set(labels)) >= 2


@pytest.mark.slow
def test_a_variant_that_is_built_as_another_is_left_out_with_one_warning(base, messages):
    words = ["AKConv.points", "None", "centered", "AKConv.padding", "border", "zeros"]
    assert [label for label, _ in variants(base, words)] == ["yolov5n-AKConv-points-None-padding-zeros"]
    told = [record.message for record in messages.records if record.levelname == "WARNING"]
    assert told == [
        "--sweep: left out, yolov5n-AKConv-points-centered-padding-border would train to the same bits as "
        "yolov5n-AKConv",
        "--sweep: left out, yolov5n-AKConv-points-centered-padding-zeros would train to the same bits as "
        "yolov5n-AKConv-points-None-padding-zeros",
    ]
    with pytest.raises(ConfigError, match=r"changes nothing.*: yolov5n-AKConv-points-centered would train to the same"):
        variants(base, ["AKConv.points", "centered"])
    five = replace(base, layers=tuple(with_points(layer, 5) for layer in base.layers))
    assert len(variants(five, ["AKConv.points", "centered"])) == 1, "with five points centred is another shape"


def with_points(layer: LayerSpec, number: int) -> LayerSpec:
    return replace(layer, args=(layer.args[0], number, *layer.args[2:])) if layer.module == "AKConv" else layer


def test_the_same_network_with_other_hyperparameters_is_no_twin(base):
    found = swept(base, ["AKConv.points", "centered", "hyp.lr0", "0.01", "0.02"])
    assert [one.label for one in found] == ["yolov5n-AKConv-points-centered-lr0-0.02"]


def test_words_are_split_at_modules_of_the_model_only():
    (one, two) = parse_sweep(["A.x", "1.5", "nn.SiLU", "B.y", "[1, 2]"], ["A", "B"])
    assert (one.module, one.keyword, one.values) == ("A", "x", (1.5, "nn.SiLU"))
    assert (two.module, two.keyword, two.values) == ("B", "y", ([1, 2],))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["AKConvv.num_param", "3"], "did you mean AKConv"),
        (["AKConv.numparam", "3"], "did you mean num_param"),
        (["AKConv.num_param"], "has no values"),
        (["Detect.nc", "3"], "the model has no Detect to vary"),
        (["3", "5"], "begins with '3'"),
        (["AKConv.inc", "3"], "follows from the row's inputs"),
        (["AKConv@num_param=7.stride", "1"], "changes nothing"),
        (["AKConv.num_param", *map(str, range(100, 250))], "more than 100"),
        (["hyp.offset_rl", "0.1"], "did you mean offset_lr"),
        (["hyp.offset_lr"], "has no values"),
        (["hyp.offset_lr", "fast"], "offset_lr must be a number"),
        (["hyp.mosaic", "2"], "mosaic is a probability"),
    ],
)
def test_mistakes_are_named(base, words, message):
    with pytest.raises(ConfigError, match=r"--sweep.*" + message):
        variants(base, words)


def test_a_hyperparameter_is_swept_alone_and_with_a_keyword(base):
    (fast,) = swept(base, ["hyp.offset_lr", "0.1", "1.0"])
    assert fast.label == "yolov5n-AKConv-offset_lr-1.0" and fast.config.to_dict() == base.to_dict()
    assert fast.hyperparameters == {**NUMBERS, "offset_lr": 1.0} and NUMBERS["offset_lr"] == 0.1
    found = swept(base, ["hyp.offset_lr", "1", "0.1", "AKConv.padding", "border", "zeros"])
    told = [(one.hyperparameters["offset_lr"], arguments(one.config)[0][1].get("padding")) for one in found]
    assert told == [(1.0, None), (1.0, "zeros"), (0.1, "zeros")], "the fourth is the base itself"
    assert swept(base, ["hyp.lr0", "0.02"], taken=["yolov5n-AKConv-lr0-0.02"])[0].label.endswith("-2")


def test_a_hyperparameter_without_effect_is_refused():
    plain = load_model_config("yolov5n.yaml")
    with pytest.raises(ConfigError, match=r"--sweep: changes nothing.*offset_lr is for AKConv"):
        swept(plain, ["hyp.offset_lr", "0.1", "0.5"])
    assert len(swept(plain, ["hyp.lr0", "0.02", "hyp.offset_lr", "0.1", "0.5"])) == 1

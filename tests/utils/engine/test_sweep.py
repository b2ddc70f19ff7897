from dataclasses import asdict

import pytest

import models.modules  # noqa: F401 - registers AKConv
from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from utils.engine.hyperparameters import Hyperparameters
from utils.engine.sweep import Variant, parse_sweep
from utils.engine.sweep import variants as all_variants
from utils.errors import ConfigError


@pytest.fixture(scope="module")
def base() -> ModelConfig:
    return load_model_config("yolov5n-AKConv.yaml")


NUMBERS = asdict(Hyperparameters())


def swept(base: ModelConfig, words: list[str], **more: object) -> list[Variant]:
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
    assert swept(base, ["hyp.lr0", "0.02"], taken=["yolov5n-AKConv-lr0-0.02"])[0].label.endswith("-again1")


def test_a_hyperparameter_without_effect_is_refused():
    plain = load_model_config("yolov5n.yaml")
    with pytest.raises(ConfigError, match=r"--sweep: changes nothing.*offset_lr is for AKConv"):
        swept(plain, ["hyp.offset_lr", "0.1", "0.5"])
    assert len(swept(plain, ["hyp.lr0", "0.02", "hyp.offset_lr", "0.1", "0.5"])) == 1

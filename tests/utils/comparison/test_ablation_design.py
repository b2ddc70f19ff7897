"""--ablation: which combinations are trained, and what finished runs are."""

from dataclasses import asdict, replace

import pytest

from models.config import load_model_config
from utils.comparison.ablation_design import ablation_variants, combinations, plan_ablation
from utils.comparison.candidates import ToTrain, from_configs
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options import CompareOptions
from utils.options.ablation import DESIGNS, Switch, parse_switches
from utils.options.command_line import check_files
from utils.options.hyperparameters import Hyperparameters
from utils.strict_yaml import dump_yaml


def models_of(cfg: str) -> ToTrain:
    (model,) = from_configs([cfg])
    return replace(model, hyperparameters=asdict(Hyperparameters()))


@pytest.fixture(scope="module")
def base() -> ToTrain:
    return models_of("yolov5n-AKConv.yaml")


@pytest.fixture(scope="module")
def plain() -> ToTrain:
    return models_of("yolov5n.yaml")


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    caplog.set_level("INFO")
    return caplog


def variants(base: ToTrain, *words: str, design: str = "factorial"):
    return ablation_variants(base, parse_switches(words, need_settings=True), design=design, taken=[base.label])


def modules(model: ToTrain) -> dict[int, str]:
    return {layer.index: layer.module for layer in model.config.layers}


# The text of switches


def test_a_switch_has_a_name_and_settings_of_three_kinds():
    several = "all: hyp.offset_lr=0.1; AKConv@num_param=3.points=centered;neck.yaml"
    words = ["a b:AKConv.padding=zeros", several, "中:x.yml"]
    one, two, three = parse_switches(words, need_settings=True)
    assert one == Switch(name="a b", values=(("AKConv.padding", "zeros"),)) and one.slug == "a-b"
    assert two.values == (("hyp.offset_lr", "0.1"), ("AKConv@num_param=3.points", "centered"))
    assert two.yamls == ("neck.yaml",) and (three.name, three.yamls) == ("中", ("x.yml",))
    assert [one.name for one in parse_switches(["a", "b:AKConv.x=1"], need_settings=False)] == ["a", "b"]


def test_a_path_of_windows_and_a_value_with_colons_and_equals_signs_are_whole():
    one, two = parse_switches([r"neck:C:\models\neck.yaml", "act:Conv.act=f(a=1, b={1: 2})"], need_settings=True)
    assert one.yamls == (r"C:\models\neck.yaml",) and two.values == (("Conv.act", "f(a=1, b={1: 2})"),)


@pytest.mark.parametrize(
    "words",
    [
        ["AKConv.padding=zeros"],
        [":AKConv.padding=zeros"],
        ["name"],
        ["name:"],
        ["a/b:AKConv.padding=zeros"],
        ["a+b:AKConv.padding=zeros"],
        ["../a:AKConv.padding=zeros"],
        ["x" * 31 + ":AKConv.padding=zeros"],
        ["a:AKConv.padding"],
        ["a:AKConv.padding="],
        ["a:neck.txt"],
        ["a b:hyp.lr0=1", "A-b:hyp.lr0=2"],
    ],
)
def test_wrong_words_are_errors_of_the_flag_before_anything_else(words):
    with pytest.raises(ConfigError) as error:
        CompareOptions(cfg=("yolov5n.yaml",), ablation=tuple(words))
    assert error.value.where == "--ablation"


def test_flags_that_exclude_or_need_each_other():
    switch = ("a:hyp.lr0=0.1",)
    assert CompareOptions(cfg=("yolov5n.yaml",), ablation=switch).design == "factorial"
    for settings in ({"cfg": ("a.yaml",), "sweep": ("hyp.lr0", "1")}, {"weights": ("a.pt",)}, {}):
        with pytest.raises(ConfigError):
            CompareOptions(ablation=switch, **settings)
    with pytest.raises(ConfigError) as error:
        check_files(CompareOptions(cfg=("yolov5n.yaml",), ablation=("neck:yolov5n-AKConv-nekc.yaml",)))
    assert "yolov5n-AKConv-neck.yaml" in error.value.fix


# Designs


def test_designs_begin_with_nothing_and_have_no_combination_twice():
    names = ("a", "b", "c")
    assert combinations(names, "factorial") == [
        (),
        ("a",),
        ("b",),
        ("c",),
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ("a", "b", "c"),
    ]
    assert combinations(names, "one-at-a-time") == [(), ("a",), ("b",), ("c",), ("a", "b", "c")]
    assert combinations(names, "cumulative") == [(), ("a",), ("a", "b"), ("a", "b", "c")]
    assert [combinations(("a",), design) for design in DESIGNS] == [[(), ("a",)]] * 3


# Models


def test_keywords_and_hyperparameters_are_combined(base):
    made, ablation = variants(base, "zeros:AKConv.padding=zeros", "slow down:hyp.offset_lr=0.01;hyp.lr0=0.02")
    assert [model.label for model in made] == [
        "yolov5n-AKConv+zeros",
        "yolov5n-AKConv+slow-down",
        "yolov5n-AKConv+zeros+slow-down",
    ]
    assert ablation.switches == ("zeros", "slow down")
    assert list(ablation.on.values()) == [set(), {"zeros"}, {"slow down"}, {"zeros", "slow down"}]
    assert list(ablation.on) == [base.label, *(model.label for model in made)]
    zeros, slow, both = made
    assert [any("padding" in layer.kwargs for layer in model.config.layers) for model in made] == [True, False, True]
    assert [(m.hyperparameters["offset_lr"], m.hyperparameters["lr0"]) for m in made] == [
        (0.1, 0.01),
        (0.01, 0.02),
        (0.01, 0.02),
    ]
    assert (zeros.hyp, slow.hyp, both.hyp) == (base.hyp, "", "") and {model.cfg for model in made} == {""}
    assert both.config.name == "yolov5n-AKConv+zeros+slow-down.yaml"


@pytest.mark.slow
def test_yamls_that_change_different_rows_are_placements_of_one_model(plain, tmp_path):
    value = load_model_config("yolov5n.yaml").to_dict()
    value["backbone"][1][2:] = ["AKConv", [128, 3, 2]]
    dump_yaml(tmp_path / "backbone.yaml", value)
    made, _ = variants(plain, f"backbone:{tmp_path / 'backbone.yaml'}", "neck:yolov5n-AKConv-neck.yaml")
    backbone, neck, both = map(modules, made)
    assert (backbone[1], backbone[13]) == ("AKConv", "C3") and (neck[1], neck[13]) == ("Conv", "C3_AKConv")
    assert (both[1], both[13]) == ("AKConv", "C3_AKConv") and all(model.has_offsets for model in made)


@pytest.mark.slow
def test_a_keyword_of_a_module_that_a_placement_brings_counts_where_the_module_is(plain, messages):
    made, ablation = variants(
        plain, "neck:yolov5n-AKConv-neck.yaml", "zeros:AKConv.padding=zeros", "slow:hyp.offset_lr=0.01"
    )
    on = [set(names) for names in ablation.on.values()]
    assert on == [set(), {"neck"}, {"neck", "zeros"}, {"neck", "slow"}, {"neck", "zeros", "slow"}]
    skipped = [record for record in messages.records if record.levelname == "WARNING"]
    assert len(skipped) == 3 and len(made) == 4
    assert any("padding" in layer.kwargs for layer in made[1].config.layers)


@pytest.mark.slow
def test_a_yaml_with_another_number_of_rows_replaces_all(plain):
    made, _ = variants(plain, "head:yolov5n-AKConv-head.yaml", "slow:hyp.lr0=0.02")
    expected = load_model_config("yolov5n-AKConv-head.yaml")
    assert [model.config.layers for model in made] == [expected.layers, plain.config.layers, expected.layers]
    with pytest.raises(ConfigError) as error:
        variants(plain, "head:yolov5n-AKConv-head.yaml", "neck:yolov5n-AKConv-neck.yaml")
    assert error.value.where == "--ablation neck"


def test_yamls_that_change_the_same_rows_differently_are_refused(plain):
    with pytest.raises(ConfigError) as error:
        variants(plain, "paper:yolov5n-AKConv-paper.yaml", "neck:yolov5n-AKConv-neck.yaml")
    assert error.value.where == "--ablation neck"


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("a:AKConvv.padding=zeros", "did you mean AKConv"),
        ("a:AKConv.pading=zeros", "did you mean padding"),
        ("a:hyp.offset_rl=1", "did you mean offset_lr"),
        ("a:hyp.mosaic=2", "mosaic"),
        ("a:AKConv.padding=border", "changes nothing"),
        ("a:AKConv.points=centered", "changes nothing"),
        ("a:Detect.nc=3", "Detect"),
    ],
)
def test_wrong_settings_name_the_switch(base, word, named):
    with pytest.raises(ConfigError) as error:
        variants(base, word, "good:hyp.lr0=0.02")
    assert error.value.where.startswith("--ablation") and named in f"{error.value.what} {error.value.fix}"
    assert "a" in f"{error.value.where} {error.value.what}".split()


def test_a_setting_that_cannot_be_built_names_the_row_and_too_many_models_the_design(base):
    with pytest.raises(ConfigError) as error:
        variants(base, "a:AKConv.padding=nothing")
    assert "layer" in error.value.where
    with pytest.raises(ConfigError) as error:
        variants(base, *(f"s{n}:hyp.lr0=0.0{n + 2}" for n in range(7)))
    assert "128" in error.value.what and "one-at-a-time" in error.value.fix
    long = [f"{name * 30}:hyp.{key}=0.001" for name, key in zip("中文字", ("lr0", "lrf", "box"), strict=True)]
    with pytest.raises(ConfigError):
        variants(base, *long, design="cumulative")


def test_labels_do_not_collide_with_other_models(base):
    switches = parse_switches(["slow:hyp.lr0=0.02"], need_settings=True)
    made, ablation = ablation_variants(base, switches, design="factorial", taken=["yolov5n-AKConv+slow"])
    assert [model.label for model in made] == ["yolov5n-AKConv+slow-2"] == list(ablation.on)[1:]


# Finished runs


def test_finished_models_are_recognised_by_their_labels():
    options = CompareOptions(weights=("a", "b"), ablation=("slow down", "zeros:AKConv.padding=zeros"))
    variants, planned = plan_ablation(options, [])
    labels = ["yolov5n", "base", "base+zeros", "base+zeros+slow-down", "base+other", "else"]
    ablation = planned.labelled({f"run{number}": label for number, label in enumerate(labels)})
    assert variants == [] and ablation.switches == ("slow down", "zeros")
    assert ablation.on == {"base": set(), "base+zeros": {"zeros"}, "base+zeros+slow-down": {"zeros", "slow down"}}
    for wrong in (["a", "b"], ["a+zeros", "b+zeros"], []):
        with pytest.raises(ConfigError) as error:
            planned.labelled({label: label for label in wrong})
        assert error.value.where == "--ablation"
    assert plan_ablation(CompareOptions(weights=("a", "b")), []) == ([], None)


def test_names_of_the_report_replace_the_labels_of_trained_models(base):
    options = CompareOptions(cfg=("yolov5n-AKConv.yaml",), ablation=("slow:hyp.lr0=0.02",))
    (slow,), ablation = plan_ablation(options, [base])
    renamed = ablation.labelled({base.label: "ours", slow.label: "ours, slow", "other": "other"})
    assert renamed.on == {"ours": set(), "ours, slow": {"slow"}}

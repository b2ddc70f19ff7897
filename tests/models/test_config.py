"""Model yamls: what is read, what is refused, and that nothing is ever executed."""

import copy
import json
import logging
from dataclasses import replace

import pytest

from models.config import MODEL_FOLDER, SIZES, ModelConfig, literal, load_model_config, parse_call
from models.yolo import DetectionModel
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.strict_yaml import dump_yaml, load_yaml

SHIPPED = sorted(path.name for path in MODEL_FOLDER.glob("*.yaml"))
CONFIG = {
    "nc": 3,
    "depth_multiple": 0.5,
    "width_multiple": 0.25,
    "channel_multiple": 4,
    "anchors": [[10, 13, 16, 30], [30.5, 61, 62, 45]],
    "activation": "nn.LeakyReLU(0.1)",
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 3, "C3", [32, False, {"e": 0.25}]]],
    "head": [[[-1, 0], 1, "Concat", [1]], [[0, -1], 1, "Detect", ["nc", "anchors"]]],
}


def changed(**values):
    return {**copy.deepcopy(CONFIG), **values}


def with_row(row):
    return changed(backbone=[CONFIG["backbone"][0], row])


def read(value):
    return ModelConfig.from_dict(value, name="my.yaml")


def test_fields():
    config = read(CONFIG)
    assert (config.num_classes, config.depth_multiple, config.width_multiple, config.channel_multiple) == (
        3,
        0.5,
        0.25,
        4,
    )
    assert config.anchors == ((10, 13, 16, 30), (30.5, 61, 62, 45))
    assert config.activation == "nn.LeakyReLU(0.1)"
    assert config.backbone_length == 2
    assert [layer.index for layer in config.layers] == [0, 1, 2, 3]
    assert [layer.sources for layer in config.layers] == [(-1,), (0,), (1, 0), (0, 2)]
    assert [layer.module for layer in config.layers] == ["Conv", "C3", "Concat", "Detect"]
    assert [layer.number for layer in config.layers] == [1, 3, 1, 1]
    assert (config.layers[1].args, config.layers[1].kwargs) == ((32, False), {"e": 0.25})


def test_defaults():
    config = read({"backbone": [[-1, 1, "Conv"]], "head": [[-1, 1, "Detect", []]]})
    assert (config.num_classes, config.depth_multiple, config.width_multiple) == (80, 1.0, 1.0)
    assert (config.channel_multiple, config.anchors, config.activation) == (8, 3, None)
    assert config.layers[0].args == ()


def test_reading_does_not_change_the_mapping():
    before = copy.deepcopy(CONFIG)
    read(CONFIG)
    assert before == CONFIG


@pytest.mark.parametrize("name", SHIPPED)
def test_to_dict_and_back_through_json_and_yaml(name, tmp_path):
    config = load_model_config(name)
    value = config.to_dict()
    assert ModelConfig.from_dict(json.loads(json.dumps(value)), name=name) == config
    assert ModelConfig.from_dict(load_yaml(dump_yaml(tmp_path / name, value)), name=name) == config


@pytest.mark.parametrize(
    "args",
    [
        [32, 3, {"e": 0.5, "act": False}],
        [32, "None", "nearest"],
        [32, [[0, 1], [2, 3]]],
        pytest.param([32, "(3, 5)"]),
        pytest.param([32, "'3'"]),
    ],
)
def test_arguments_survive_to_dict_and_back(args):
    config = read(with_row([-1, 1, "Conv", args]))
    assert read(config.to_dict()) == config


def test_count_of_anchors_survives_to_dict_and_back():
    config = read(changed(anchors=4))
    assert config.anchors == 4
    assert read(config.to_dict()) == config


def test_number_of_classes_and_anchors_change_only_that_field():
    config = read(CONFIG)
    assert read(changed(nc=7)) == replace(config, num_classes=7)
    assert read(changed(anchors=[[1, 2]])) == replace(config, anchors=((1.0, 2.0),))
    assert config == read(CONFIG)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"nc": 0}, repr(0)),
        ({"nc": 1.5}, repr(1.5)),
        ({"nc": "3"}, repr("3")),
        ({"nc": True}, repr(True)),
        ({"nc": None}, repr(None)),
        ({"nc": 10**6}, repr(10**6)),
        ({"channel_multiple": 0}, repr(0)),
        ({"depth_multiple": 0}, repr(0)),
        ({"depth_multiple": -1}, repr(-1)),
        ({"depth_multiple": float("nan")}, repr(float("nan"))),
        ({"width_multiple": "1"}, repr("1")),
        ({"width_multiple": 1e9}, repr(1e9)),
        ({"width_multiple": False}, repr(False)),
        ({"anchors": 0}, repr(str(0))),
        ({"anchors": True}, repr(str(True))),
        ({"anchors": 2.0}, repr(str(2.0))),
        ({"anchors": None}, repr(str(None))),
        ({"anchors": []}, repr(str([]))),
        ({"anchors": [[]]}, repr(str([[]]))),
        ({"anchors": [[1, 2, 3]]}, repr(str([[1, 2, 3]]))),
        ({"anchors": [[1, 2], [3, 4, 5, 6]]}, repr(str([[1, 2], [3, 4, 5, 6]]))),
        ({"anchors": [[1, 0]]}, repr(str([[1, 0]]))),
        ({"anchors": [[1, -2]]}, repr(str([[1, -2]]))),
        ({"anchors": [[1, float("nan")]]}, repr(str([[1, float("nan")]]))),
        ({"anchors": [[1, float("inf")]]}, repr(str([[1, float("inf")]]))),
        ({"anchors": [["1", "2"]]}, repr(str([["1", "2"]]))),
        ({"anchors": "auto"}, repr("auto")),
        ({"activation": 3}, "3"),
        ({"activation": ["nn.SiLU()"]}, "['nn.SiLU()']"),
        ({"backbone": None}, "NoneType"),
        ({"head": {"a": 1}}, "dict"),
        ({"backbone": [], "head": []}, ""),
        ({"backbone": CONFIG["backbone"] * 600}, "1202"),
        ({"widthmultiple": 1}, "'widthmultiple'"),
        ({"zzzzzz": 1}, "'zzzzzz'"),
    ],
)
def test_wrong_values_are_refused(change, value):
    with pytest.raises(ConfigError) as caught:
        read(changed(**change))
    assert caught.value.where == "my.yaml" and value in caught.value.what
    assert len(change) > 1 or next(iter(change)) in caught.value.what or len(change["backbone"]) > 1000


@pytest.mark.parametrize(("key", "nearest"), [("widthmultiple", "width_multiple"), ("zzzzzz", "nc, depth_multiple")])
def test_an_unknown_key_is_answered_with_the_closest_or_with_all(key, nearest):
    with pytest.raises(ConfigError) as caught:
        read(changed(**{key: 1}))
    assert nearest in caught.value.fix


def test_keys_that_are_not_strings_are_refused():
    with pytest.raises(ConfigError) as caught:
        read({**CONFIG, 3: 4})
    assert "3" in caught.value.what


@pytest.mark.parametrize(
    ("row", "where", "value"),
    [
        ("Conv", "", "'Conv'"),
        ([-1, 1], "", "[-1, 1]"),
        ([-1, 1, "Conv", [8], 5], "", "[-1, 1, "),
        ([-1, 1, 5, [8]], "", "5"),
        ([-1, 1, None, [8]], "", "None"),
        ([-1, 0, "Conv", [8]], " Conv", "got 0"),
        ([-1, 10**9, "Conv", [8]], " Conv", "got 1000000000"),
        ([-1, 1.5, "Conv", [8]], " Conv", "got 1.5"),
        ([-1, "1", "Conv", [8]], " Conv", "got '1'"),
        ([-1, True, "Conv", [8]], " Conv", "got True"),
        ([-1, 1, "Conv", 8], " Conv", "got 8"),
        ([-1, 1, "Conv", None], " Conv", "got None"),
        ([-1, 1, "Conv", [8, {3: 4}]], " Conv", "got {3: 4}"),
        ([1, 1, "Conv", [8]], " Conv", "from 1 "),
        ([[-1, 12], 1, "Concat", [1]], " Concat", "layer 12"),
        ([-2, 1, "Conv", [8]], " Conv", "from -2 "),
        ([-9, 1, "Conv", [8]], " Conv", "from -9 "),
        ([-(10**30), 1, "Conv", [8]], " Conv", f"from -{10**30} "),
        ([[], 1, "Conv", [8]], " Conv", "from [] "),
        (["x", 1, "Conv", [8]], " Conv", "from 'x' "),
        ([0.0, 1, "Conv", [8]], " Conv", "from 0.0 "),
        ([None, 1, "Conv", [8]], " Conv", "from None "),
        ([True, 1, "Conv", [8]], " Conv", "from True "),
        ([[[-1]], 1, "Conv", [8]], " Conv", "from [[-1]] "),
    ],
)
def test_wrong_rows_are_refused_by_their_index(row, where, value):
    with pytest.raises(ConfigError) as caught:
        read(with_row(row))
    assert caught.value.where == f"my.yaml: layer 1{where}" and value in caught.value.what


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("nc: 3\nnc: 4\n", ":2:1"),
        ("anchors: &a [[1, 2]]\nbackbone: *a\n", ":2:11"),
        ("backbone: [[-1, 1, Conv, [8]\n", ":2:1"),
        ("backbone: !!python/object/apply:os.system ['touch hacked']\n", ":1:11"),
        ("- [-1, 1, Conv, [8]]\n", ""),
    ],
)
def test_yaml_files_are_read_strictly(text, position, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_model_config(str(tmp_path / "bad.yaml"))
    assert caught.value.where == f"{tmp_path / 'bad.yaml'}{position}"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    "name", ["yolov5n-AKConv.yaml", "yolov5n-akconv.yaml", "YOLOV5N-AKCONV.YAML", "yolov5n-AKconv"]
)
def test_bare_names_are_found_in_any_letter_case(name):
    config = load_model_config(name)
    assert config.name == "yolov5n-AKConv.yaml"
    assert config == load_model_config(str(MODEL_FOLDER / "yolov5n-AKConv.yaml"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["paper", "residual", "neck", "head"])
def test_a_size_without_a_file_takes_the_one_that_exists(size, kind, caplog, monkeypatch):
    monkeypatch.setattr(LOGGER, "propagate", True)
    name = f"yolov5{size}-akconv-{kind}.yaml"
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        config = load_model_config(name)
    there = load_model_config(f"yolov5n-AKConv-{kind}.yaml")
    assert config.layers == there.layers
    assert (config.depth_multiple, config.width_multiple) == SIZES[size]
    assert config.name.lower() == name
    assert (f"yolov5n-AKConv-{kind}.yaml" in caplog.text) is (size != "n")


def test_shipped_sizes_have_their_own_multiples():
    for size, multiples in SIZES.items():
        for name in (f"yolov5{size}.yaml", f"yolov5{size}-AKConv.yaml"):
            config = load_model_config(name)
            assert (config.depth_multiple, config.width_multiple) == multiples
            assert config.layers == load_model_config(name.replace(f"v5{size}", "v5n")).layers
            assert config.num_classes == 80


@pytest.mark.parametrize("name", ["yolov5n-AKConvv.yaml", "yolov5n-akconv-nek", "yolov5z.yaml"])
def test_a_name_that_does_not_exist_is_answered_with_the_nearest(name):
    with pytest.raises(ConfigError) as caught:
        load_model_config(name)
    assert caught.value.where == "--cfg" and name in caught.value.what and "yolov5" in caught.value.fix


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("None", None),
        ("3", 3),
        ("[1, (2, 3)]", [1, (2, 3)]),
        ("nearest", "nearest"),
        ("true", True),
        ("false", False),
        ("'3'", "3"),
        ("os.system('x')", "os.system('x')"),
        ("2 ** 999999999", "2 ** 999999999"),
        ("(" * 5000, "(" * 5000),
        (2.5, 2.5),
        (["True", ["x"]], [True, ["x"]]),
    ],
)
def test_literals(text, expected):
    assert literal(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nn.SiLU", ("nn.SiLU", (), {})),
        (" nn.SiLU() ", ("nn.SiLU", (), {})),
        ("nn.LeakyReLU(0.1, inplace=True)", ("nn.LeakyReLU", (0.1,), {"inplace": True})),
        ("Some_1(-1, [2, None], a='b')", ("Some_1", (-1, [2, None]), {"a": "b"})),
    ],
)
def test_calls_are_split(text, expected):
    assert parse_call(text, where="w") == expected


@pytest.mark.parametrize(
    "text",
    ["", "nn.", "f(1)(2)", "f(g())", "f(x)", "f(*[1])", "a + b", "lambda: 0", "f(1", "[f][0](1)", "x = 1", "(" * 5000],
)
def test_anything_but_a_name_with_literals_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_call(text, where="w")
    assert caught.value.where == "w" and repr(text[:60]) in caught.value.what


def test_errors_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = {"nc": {**CONFIG, "nc": 0}, "row": changed(backbone=[[-1, 1, "Convv", [8]]])}
    for name, value in wrong.items():
        dump_yaml(tmp_path / "cfg" / f"{name}.yaml", value)
        with pytest.raises(ConfigError) as caught:
            DetectionModel(f"cfg/{name}.yaml")
        assert caught.value.where.split(": ")[0] == f"cfg/{name}.yaml"
    dump_yaml(tmp_path / "cfg/good.yaml", CONFIG)
    config = load_model_config("cfg/good.yaml")
    assert (config.name, config.where) == ("good.yaml", "cfg/good.yaml")
    assert load_model_config("yolov5n").where == load_model_config("YOLOv5n.yaml").where == "yolov5n.yaml"


def test_a_mapping_in_quotes_as_the_last_argument_stays_an_argument():
    config = read(with_row([-1, 1, "C3", [32, False, "{'a': 1}"]]))
    assert config.layers[1].args == (32, False, {"a": 1}) and config.layers[1].kwargs == {}
    assert read(config.to_dict()) == config

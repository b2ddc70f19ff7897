"""Strict YAML: what is written reads back equal, and what is wrong is refused with its line."""

import os

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import ConfigError
from utils.strict_yaml import MAX_YAML_BYTES, dump_yaml, load_yaml

text = st.text(st.characters(codec="utf-8", categories=("L", "P", "S", "Zs")), max_size=8)  # numbers: see below
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


def load_text(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_yaml(path)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True)
@given(value=st.dictionaries(text, plain, max_size=4))
def test_yaml_returns_what_was_written(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    assert load_yaml(dump_yaml(path, value)) == value


def misread(value, reason):
    """A value that PyYAML's own dumper and loader do not return, and why."""
    return pytest.param(value, id=reason)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "yes",
            "null",
            "010",
            "1.5",
            "0x1F",
            "2020-01-31",
            "~",
            "- a",
            "a: b",
            "# a",
            "*a",
            "&a",
            "line\nline\n",
            "'\"",
        ),
        misread("1e5", "written without quotes, read as a number"),
        misread("0o17", "written without quotes, read as a number"),
        misread("089", "written without quotes, then refused"),
        misread("\x85", "written as it is, read as a space"),
        misread([[1]] * 2, "a list that occurs twice is written as an alias, then refused"),
    ],
)
def test_awkward_values_return_as_they_were_written(value, tmp_path):
    assert load_yaml(dump_yaml(tmp_path / "a.yaml", {"a": value})) == {"a": value}


def test_dumping_keeps_order_and_letters(tmp_path):
    value = {"z": 1, "a": ["ä", "否"], "m": {"y": None, "b": 0.5}}
    text = dump_yaml(tmp_path / "a.yaml", value).read_text(encoding="utf-8")
    assert list(load_yaml(tmp_path / "a.yaml")) == ["z", "a", "m"]
    assert "否" in text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("1e5", 1e5),
        ("1e-3", 1e-3),
        ("-.5", -0.5),
        ("2.", 2.0),
        (".inf", float("inf")),
        ("12:30:45", "12:30:45"),
        ("2020-01-31", "2020-01-31"),
        ("1_000", "1_000"),
        ("0x1F", 31),
        ("0o17", 15),
        ("-7", -7),
        pytest.param("010", 10),
        pytest.param("089", 89),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1'", "1"),
        ("<<", "<<"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value, tmp_path):
    found = load_text(tmp_path, f"a: {text}\n")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "position", "values"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3:1", ["'a'", "line 1"]),
        ("x:\n  a: 1\n  'a': 2\n", ":3:3", ["'a'", "line 2"]),
        ("[{a: 1, a: 2}]", ":1:9", ["'a'"]),
        ("a: &x [1]\nb: *x\n", ":2:4", []),
        ("a: &x [*x]\n", ":1:8", []),
        ("? [1, 2]\n: 3\n", ":1:3", []),
        ("a: [1, 2\n", ":2:1", []),
        ("a: 'open\n", ":2:1", []),
        ("\ta: 1\n", ":1:1", []),
        ("a: \x07", "", []),
        ("a: 1\n---\nb: 2\n", ":2:1", []),
        ("a: !!python/object/apply:os.system ['touch hacked']", ":1:4", []),
        ("a: !!python/name:os.system", ":1:4", []),
        ("!!python/object/new:os.system ['touch hacked']", ":1:1", []),
        ("a: !own 1", ":1:4", ["!own"]),
        ("a: " + "9" * 5000, "", []),
        ("a: " + "[" * 60 + "]" * 60, ":1:53", ["50"]),
        ("a: " + "[" * 100_000, ":1:53", ["50"]),
        ("- 1\n", "", ["list"]),
        ("5\n", "", ["int"]),
        ("", "", ["NoneType"]),
        (b"a: \xff\n", "", ["3"]),
        ("a: 1\n".encode("utf-16-le"), "", []),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "", []),
        ("a: '" + "x" * 1_000_000 + "'", "", ["1000005"]),
        ("a: !!timestamp x", ":1:4", []),
        ("a: !!bool x", ":1:4", ["'x'", "bool"]),
        ("a: !!int ''", ":1:4", ["''", "int"]),
        ("!!map [1]", ":1:1", []),
    ],
)
def test_wrong_yaml_is_refused_with_its_line_and_never_run(text, position, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    assert caught.value.where == f"{tmp_path}/a.yaml{position}"
    assert all(value in caught.value.what for value in values)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["a.yaml"]


def test_depth_and_size_up_to_the_limits_are_read(tmp_path):
    value = load_text(tmp_path, "a: " + "[" * 45 + "]" * 45)["a"]
    for _ in range(44):
        (value,) = value
    assert value == []
    assert len(load_text(tmp_path, "a: '" + "x" * 999_990 + "'")["a"]) == 999_990


def test_a_file_beyond_the_limit_of_size_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "a: 1\n".ljust(MAX_YAML_BYTES + 1, "#"))
    assert caught.value.where == str(tmp_path / "a.yaml") and str(MAX_YAML_BYTES + 1) in caught.value.what
    assert load_text(tmp_path, "a: 1\n".ljust(MAX_YAML_BYTES, "#")) == {"a": 1}


def test_many_nodes_side_by_side_are_not_deep(tmp_path):
    assert load_text(tmp_path, "a: [" + "[1], " * 500 + "]")["a"] == [[1]] * 500


def test_a_byte_order_mark_is_skipped(tmp_path):
    assert load_text(tmp_path, "\ufeffnc: 3\n") == {"nc": 3}
    (tmp_path / "a.yaml").write_bytes("names: [猫]\r\n".encode("utf-16"))
    assert load_yaml(tmp_path / "a.yaml") == {"names": ["猫"]}


@pytest.mark.parametrize("place", ["missing.yaml", "."])
def test_files_that_cannot_be_read_are_refused(place, tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_yaml(tmp_path / place)
    assert caught.value.where == str(tmp_path / place)


def test_the_loader_of_pyyaml_is_left_as_it_was(tmp_path):
    load_text(tmp_path, "a: yes\n")
    assert yaml.safe_load("a: yes\nb: &x 1\nc: *x\n") == {"a": True, "b": 1, "c": 1}

"""Strict YAML: plain values only, no aliases, no duplicate keys, scalars as in YAML 1.2; errors name the line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import yaml

from utils.errors import ConfigError
from utils.files import atomic_write, decode_text

MAX_YAML_BYTES = 1_000_000
MAX_YAML_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
# tag: (pattern, possible first characters, conversion) of the scalars that are not text
_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    f"{_TAG}bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"], lambda text: text.lower() == "true"),
    f"{_TAG}int": (
        r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$",
        [*"-+0123456789"],
        lambda text: int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)),
    ),
    f"{_TAG}float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        [*"-+0123456789."],
        lambda text: float(re.sub(r"\.(?=[inIN])", "", text)),
    ),
    f"{_TAG}null": (r"^(?:~|null|Null|NULL|)$", [*"~nN", ""], lambda text: None),
}


class _StrictLoader(yaml.SafeLoader):
    """Plain values only, no aliases, no duplicate keys, scalars as in YAML 1.2."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:  # noqa: ANN401
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not accepted", self.peek_event().start_mark)
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_YAML_DEPTH}", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return cast(yaml.Node, node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(None, None, "a mapping was expected", node.start_mark)
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.MarkedYAMLError(None, None, "a key must be a plain value", key_node.start_mark)
            if key in seen:
                problem = f"key {key!r} is duplicated, first in line {seen[key]}"
                raise yaml.MarkedYAMLError(None, None, problem, key_node.start_mark)
            seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def plain_scalar(self, node: yaml.Node) -> Any:  # noqa: ANN401
        """Return the value of a number, boolean or null; the text must match the pattern of its tag."""
        text = str(self.construct_scalar(node))  # type: ignore[arg-type]
        pattern, _, convert = _SCALARS[node.tag]
        if not re.match(pattern, text):
            kind = node.tag.removeprefix(_TAG)
            raise yaml.MarkedYAMLError(None, None, f"{text[:20]!r} is not a valid {kind}", node.start_mark)
        return convert(text)


class _PlainDumper(yaml.SafeDumper):
    """Writes what `_StrictLoader` reads back equal: text that could be of another type is quoted, no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401
        return True

    def text(self, value: str) -> yaml.ScalarNode:
        """Represent text, quoted where it holds non-printable characters."""
        return self.represent_scalar(f"{_TAG}str", value, style=None if value.isprintable() else '"')


for _class in (_StrictLoader, _PlainDumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, (_pattern, _first, _) in _SCALARS.items():
        _class.add_implicit_resolver(_tag, re.compile(_pattern), _first)
_PlainDumper.add_representer(str, _PlainDumper.text)
_StrictLoader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag in (f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", None)
}
for _tag in _SCALARS:
    _StrictLoader.add_constructor(_tag, _StrictLoader.plain_scalar)


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds one mapping of plain values.

    Raises:
        ConfigError: missing, larger than 1 MB, not UTF-8 or UTF-16, not valid YAML, or not a mapping. Names the line.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > MAX_YAML_BYTES:
            raise ConfigError(path, f"is too large for a YAML file ({size} bytes)", fix="pass the right file")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, f"cannot be read ({error.strerror})", fix="check the path") from error
    try:
        value = yaml.load(decode_text(data), Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, stricter
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise ConfigError(path, "is not a text file", fix="pass a YAML file") from error
        raise ConfigError(path, f"is not UTF-8 text (byte {error.start})", fix="save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError(where, f"is not valid YAML: {error.problem}", fix="correct that line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(path, f"is not valid YAML: {first_line}", fix="correct the file") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ConfigError(path, f"must hold `key: value` lines (got {kind})", fix="pass a YAML file of the right kind")
    return value


def dump_yaml(path: Path | str, value: dict[str, Any]) -> Path:
    """Write a mapping as YAML, atomically, keys in their given order."""
    return atomic_write(path, yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True))

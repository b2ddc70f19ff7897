"""Mutations of text, of yamls as trees, of numbers and of bytes, drawn from a random generator."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import yaml

from tests.helpers.damaged_images import damaged

HOSTILE: tuple[Any, ...] = (
    *(0, 1, 2, -1, -2, 3, 7, 16, 100, 255, 1000, 10**5, 10**6, 10**9, 2**31, 2**31 - 1, 2**63, 10**30, -(2**63)),
    *(0.0, -0.0, 0.1, 0.5, 0.999, 1.0, 1.5, -0.5, 1e-9, 1e-320, 1e9, 1e38, 1e308, float("inf"), float("nan")),
    *(None, True, False, "", " ", "None", "nc", "anchors", "true", "[1, 2]", "(1, 2)", "1e3", "0x10", "1_0", "nearest"),
    *("{'a': 1}", "\\d", "'\\d'", "1is 2", "1" * 5000, "-" * 3000 + "1", "[" * 300, "é自行车", "a\nb", "\x1b[2J", "\0"),
    *("\ud800",),
    *("\u2028", "\u202e", "../../etc/passwd", "/etc/passwd", "~", "~nobody/x", "%s %d", "a" * 300, "nn.ReLU()"),
    *("nn.LeakyReLU(0.1)", "nn.ELU(alpha=nan)", "__import__('os').system('touch pwned')", "open('pwned', 'w')"),
    *("lambda: 0", "os.system", "http://127.0.0.1:9/a.zip", "https://127.0.0.1:9/a.zip", "file:///etc/passwd"),
    *([], [[]], [0], [1, 2], [-1], [1, [2, [3]]], [0.5, "x"], [[0, 0], [0, 1]], {}, {"a": 1}, {0: "x"}),
    *({"padding": "zeros"},),
)
_TEXT = (
    *("\t", "\r", "\r\n", "\n\n", "\ufeff", "\0", "\x85", "\u2028", "\xa0", "\u3000", "#", ":", ": ", "- ", "-"),
    *("---\n", "...\n"),
    *("&a ", "*a", "!!str ", "!!python/object/apply:os.system ['touch pwned']", "!x ", "|", ">", "%YAML 1.1\n", "'"),
    *('"', "\\"),
    *("[", "]", "{", "}", ",", "? ", "<<: ", "~", "null", "yes", "0o17", "0x1F", "1:20", ".inf", "-.INF", ".NaN"),
    *("1e999", "é", "=", "@", "`"),
)


def pick(rng: random.Random, *choices: Any) -> Any:
    """Return one of several values."""
    return rng.choice(choices)


def hostile(rng: random.Random) -> Any:
    """Return a plain value that is likely to be wrong where it is put."""
    return copy.deepcopy(rng.choice(HOSTILE))


def near(value: Any, rng: random.Random) -> Any:
    """Return a value that resembles another."""
    if isinstance(value, bool) or value is None:
        return hostile(rng)
    if isinstance(value, (int, float)):
        return pick(
            rng, -value, value + 1, value - 1, value * 2, value * 1000, value / 2, str(value), float(value), [value]
        )
    if isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        added = value[:place] + rng.choice(_TEXT) + value[place:]
        return pick(rng, added, value[1:], value.upper(), value.swapcase(), value + value, f" {value} ", [value], added)
    if isinstance(value, list):
        return pick(rng, value[:-1], value + value, value[::-1], value[1:], [value], tuple_as_map(value))
    return hostile(rng)


def tuple_as_map(value: list) -> dict:
    """Return a list as a mapping by position."""
    return dict(enumerate(value))


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of all places in nested lists and mappings."""
    found, open_ = [], [tree]
    while open_:
        container = open_.pop()
        for key in range(len(container)) if isinstance(container, list) else list(container):
            found.append((container, key))
            if isinstance(container[key], (list, dict)):
                open_.append(container[key])
    return found


def mutate_tree(tree: Any, rng: random.Random) -> None:
    """Change one place of nested lists and mappings."""
    places = nodes(tree)
    if not places:
        return
    container, key = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2:
            container[key] = hostile(rng)
        case 3 | 4:
            container[key] = near(container[key], rng)
        case 5:
            del container[key]
        case 6 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[rng.randrange(len(container))]))
        case 6:
            container[pick(rng, f"{key}s", str(key).upper(), hostile_key(rng), str(key)[:-1])] = container.pop(key)
        case _:
            other, at = rng.choice(places)
            if (isinstance(other, list) and at < len(other)) or (isinstance(other, dict) and at in other):
                container[key] = copy.deepcopy(other[at])


def hostile_key(rng: random.Random) -> Any:
    """Return a plain value that can be a key."""
    return next(value for value in iter(lambda: hostile(rng), object()) if not isinstance(value, (list, dict)))


def mutated_yaml(tree: dict, rng: random.Random, change: Callable[[dict, random.Random], None] = mutate_tree) -> bytes:
    """Return a yaml as a file, mutated as a tree most of the time, and as text or bytes sometimes."""
    tree = copy.deepcopy(tree)
    for _ in range(pick(rng, 1, 1, 1, 2, 3)):
        change(tree, rng)
    data = dump(tree, rng)
    for _ in range(pick(rng, 0, 0, 0, 0, 0, 1, 2)):
        data = mutate_text(data, rng)
    return mutate_bytes(data, rng) if rng.random() < 0.08 else data


def dump(tree: dict, rng: random.Random) -> bytes:
    """Return a yaml in one of the styles and encodings in which people write it."""
    style = pick(rng, None, None, False, True)
    text = yaml.dump(tree, Dumper=_Plain, sort_keys=False, allow_unicode=True, default_flow_style=style)
    if rng.random() < 0.05:
        text = text.replace("\n", pick(rng, "\r\n", "\r"))
    return text.encode(pick(rng, *["utf-8"] * 12, "utf-8-sig", "utf-16", "utf-16-le", "gbk"), "replace")


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Insert, remove, exchange or repeat a piece of text."""
    text = data.decode("utf-8", "surrogateescape")
    place = rng.randrange(len(text) + 1)
    end = min(place + rng.randrange(1, 12), len(text))
    lines = text.splitlines(keepends=True) or [""]
    line = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0 | 1:
            text = text[:place] + rng.choice(_TEXT) + text[place:]
        case 2:
            text = text[:place] + text[end:]
        case 3:
            text = text[:place] + rng.choice(_TEXT) + text[end:]
        case 4:
            text = "".join([*lines[:line], lines[line], *lines[line:]])
        case _:
            text = "".join([*lines[:line], pick(rng, " ", "\t", "- ", "") + lines[line].lstrip(), *lines[line + 1 :]])
    return text.encode("utf-8", "surrogateescape")


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes: flips, cuts, repetitions, and numbers of 1 to 8 bytes replaced by others."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
    for _ in range(pick(rng, 1, 1, 2, 4)):
        if rng.random() < 0.6:
            data = damaged(data, np.random.default_rng(rng.getrandbits(63))) or b"\0"
            continue
        width, place = pick(rng, 1, 2, 4, 8), rng.randrange(len(data))
        number = pick(
            rng, 0, 1, 2, -1, 127, 128, 255, 2**15, 2**16 - 1, 2**31, 2**31 - 1, 2**32 - 1, 2**63, rng.getrandbits(64)
        )
        packed = struct.pack(pick(rng, "<Q", ">Q"), number % 2**64)
        data = data[:place] + packed[:width] + data[place + width :]
    return data

"""Command lines of all scripts: flags with likely, unlikely and hostile values."""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import fields
from pathlib import Path

import yaml

from tests.fuzz.isolation import WrongResultError
from tests.fuzz.kind import Bases, Kind
from tests.fuzz.mutation import hostile, mutate_text, near, pick
from tests.fuzz.yamls import DATA, TINY
from utils.cli import build_parser, parse_options
from utils.options import (
    BenchmarkOptions,
    CompareOptions,
    DetectOptions,
    ExportOptions,
    PrepareOptions,
    TrainOptions,
    ValOptions,
)
from utils.options.command_line import check_files

SCRIPTS = {
    "train.py": TrainOptions,
    "val.py": ValOptions,
    "detect.py": DetectOptions,
    "export.py": ExportOptions,
    "compare.py": CompareOptions,
    "benchmarks.py": BenchmarkOptions,
    "prepare.py": PrepareOptions,
}
COMMON = (
    *("0", "1", "2", "-1", "16", "640", "0.5", "1e-3", "nan", "inf", "1e400", "1_0", "0x10", "True", "cpu", "", " "),
    *("data.yaml",),
    *("model.yaml", "yolov5n.yaml", "yolov5x-akconv-neck", "shapes.yaml", ".", "missing.pt", "data.yaml/x", "a\0b"),
    *("~nobody/x",),
    *("http://127.0.0.1:9/a.jpg", "rtsp://u:p@127.0.0.1:9/s", "https://127.0.0.1:9", "screen", "*.jpg", "["),
    *("%d.jpg", "é", "=", "--"),
)


def prepare(folder: Path, quick: bool) -> Bases:
    """Return the flags of each script, as their parsers know them."""
    flags = {}
    for script, options in SCRIPTS.items():
        actions = build_parser(options, description="")._actions
        skipped = {"--help", "--version"}
        flags[script] = [
            (action.option_strings, [str(c) for c in action.choices or ()], action.default, action.nargs)
            for action in actions
            if not skipped & set(action.option_strings)
        ]
    return flags


def mutate(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a script and its arguments as JSON."""
    script = rng.choice(list(SCRIPTS))
    words: list[str] = []
    for _ in range(pick(rng, 1, 1, 2, 2, 3, 6)):
        spellings, choices, _, nargs = rng.choice(bases[script])
        flag = rng.choice(spellings) if spellings else ""
        if rng.random() < 0.1:
            flag = str(near(flag or "--x", rng))
        values = [
            _value(choices, rng) for _ in range(pick(rng, 1, 1, 1, 0, 2, 4) if nargs != 0 else pick(rng, 0, 0, 1))
        ]
        joined = [f"{flag}={values[0]}", *values[1:]] if values and flag and rng.random() < 0.2 else [flag, *values]
        words += [word for word in joined if word or rng.random() < 0.05]
    return "case.options", json.dumps({"script": script, "words": words}).encode()


def _value(choices: list[str], rng: random.Random) -> str:
    if choices and rng.random() < 0.6:
        return rng.choice(choices)
    text = rng.choice(COMMON) if rng.random() < 0.7 else str(hostile(rng))
    text = (
        mutate_text(text.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "surrogateescape")
        if rng.random() < 0.1
        else text
    )
    # The system passes bytes: neither null bytes, nor surrogates that stand for no byte.
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def check(path: Path) -> None:
    """Parse a command line and look for its files; compare the values with the words."""
    for name, tree in (("data.yaml", DATA["list"]), ("model.yaml", TINY)):
        path.with_name(name).write_text(yaml.safe_dump(tree), encoding="utf-8")
    case = json.loads(path.read_bytes())
    words, options_class = case["words"], SCRIPTS[case["script"]]
    sys.argv = [case["script"], *words]
    try:
        options, given = parse_options(options_class, words, description="")
    except SystemExit as end:
        if end.code == 0 and {"--help", "-h", "--version"} & set(words):
            return
        raise
    for field in fields(options_class):
        value = getattr(options, field.name)
        items = value if isinstance(value, tuple) else (value,)
        if any(isinstance(item, float) and math.isnan(item) for item in items):
            raise WrongResultError(f"{field.name} is {value}")
        flag = "--" + field.name.replace("_", "-")
        if field.name not in given or words.count(flag) != 1 or sum(flag in word for word in words) != 1:
            continue
        following = words[words.index(flag) + 1 :][:1]
        kind = type(field.default)
        if (
            kind in (int, float, str)
            and field.metadata["kind"] is None
            and following
            and not following[0].startswith("-")
        ):
            if value != kind(following[0]):
                raise WrongResultError(f"{flag} is {value!r}, not {following[0]!r}")
    check_files(options)


KIND = Kind(name="options", cases=2000, quick=30, batch=100, prepare=prepare, mutate=mutate, check=check)

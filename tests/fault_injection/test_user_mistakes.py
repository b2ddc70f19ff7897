"""Mistakes of users: each ends in one line that names the file and the value, with the right exit code, anywhere."""

import contextlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.data_oracles import tree_hash
from tests.helpers.forked_scripts import ForkedScripts, Outcome, forked_scripts
from tests.helpers.user_mistakes import Mistake, make_files, mistakes
from utils.files import PROJECT_ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks, and drops capabilities")]
ALL = mistakes()
# Flags and changed environment of the interpreter, changed environment of the command, and its working directory.
ENVIRONMENTS: dict[str, tuple[tuple[str, ...], dict[str, str], dict[str, object], bool]] = {
    "plain": ((), {}, {}, False),
    "without asserts": (("-O",), {}, {}, False),
    "ascii": ((), {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, {}, False),
    "elsewhere": ((), {}, {}, True),
    "read-only home": ((), {}, {"XDG_CACHE_HOME": None, "HOME": "{files}/locked"}, False),
    # As `~` is for a user id that has no entry in the system's list.
    "no home": ((), {}, {"XDG_CACHE_HOME": None, "HOME": "~"}, False),
}
SAMPLE = (0, 6, 30, 50, 95, 118, 140, 155, 165, 180)  # rows that real processes run, of several commands
TRAIN = "--epochs 1 --imgsz 64 --batch-size 2 --device cpu --workers 0 --noplots --project run"


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    """The folder that the table names, but for a finished run and exported models."""
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        yield Path(folder)


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[ForkedScripts]:
    with forked_scripts() as server:
        yield server


@pytest.fixture(scope="module")
def made(files: Path, server: ForkedScripts) -> None:
    """The finished run and the exported models."""
    for command in (
        f"train.py --cfg cfg/small.yaml --data data/good.yaml {TRAIN}",
        "export.py --weights best.pt --include onnx torchscript --imgsz 64 --device cpu",
    ):
        outcome = server.run(command.split(), cwd=files, timeout=600)
        assert outcome.code == 0, outcome.err


def run(server: ForkedScripts, mistake: Mistake, cwd: Path, folder: str, **request: object) -> Outcome:
    if mistake.limits == "deny":
        request["rights"] = False
    if mistake.limits == "small":
        request["file_size"] = 20_000
    return server.run(mistake.words(folder), cwd=cwd, **request)


def complaint(outcome: Outcome, mistake: Mistake, folder: str) -> str:
    """What is wrong about an outcome, or ""."""
    missing = mistake.missing(outcome.err, folder)
    one = len(outcome.errors) == 1 and outcome.errors[0].startswith("error: ")
    if outcome.code == mistake.code and one and not missing:
        return ""
    return f"{mistake.command}: exit code {outcome.code}, lacks {missing}:\n{outcome.err[-1500:]}{outcome.out[-300:]}"


def test_the_table_has_enough_rows_of_every_command() -> None:
    programs = [mistake.command.replace("-m ", "").split()[0] for mistake in ALL]
    assert len(ALL) == len(set(ALL)) >= 120
    expected = {path.name for path in PROJECT_ROOT.glob("*.py")} - {"hubconf.py"}
    assert {*expected, "models", "utils.explain", "utils.datasets.convert", "utils.datasets.download"} == {*programs}


def check(name: str, rows: list[Mistake], *, files: Path, server: ForkedScripts, cwd: Path) -> None:
    """Check that some mistakes are one line each in an environment."""
    flags, interpreter, changes, elsewhere = ENVIRONMENTS[name]
    env = {key: value and str(value).format(files=files) for key, value in changes.items()}
    folder = f"{files}/" if elsewhere else ""
    request: dict[str, object] = {"env": env, **({"rights": False} if "HOME" in env else {})}
    before = tree_hash(files)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(forked_scripts(*flags, env=interpreter)) if flags or interpreter else server
        outcomes = [run(server, mistake, cwd if elsewhere else files, folder, **request) for mistake in rows]
    wrong = [complaint(outcome, mistake, folder) for outcome, mistake in zip(outcomes, rows, strict=True)]
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert tree_hash(files) == before or not elsewhere


def test_some_mistakes_are_one_line(files: Path, server: ForkedScripts, tmp_path: Path) -> None:
    rows = [mistake for mistake in ALL if not re.search(r"best\.(onnx|torchscript)|W/run/", mistake.command)]
    check("plain", rows[::8], files=files, server=server, cwd=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_mistake_is_one_line(name: str, files: Path, made: None, server: ForkedScripts, tmp_path: Path) -> None:
    check(name, ALL, files=files, server=server, cwd=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("row", SAMPLE)
def test_processes_say_what_forked_ones_say(row: int, files: Path, made: None, server: ForkedScripts) -> None:
    mistake = ALL[row]
    assert not mistake.limits
    outcome = run(server, mistake, files, "")
    words = mistake.words("")
    script = words if words[0] == "-m" else [str(PROJECT_ROOT / words[0]), *words[1:]]
    env_words = ["env", f"PYTHONPATH={PROJECT_ROOT}", sys.executable, *script]
    result = subprocess.run(env_words, cwd=files, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stderr.splitlines()) == (outcome.code, outcome.err.splitlines())

"""Standard streams of any encoding, closed, full, or without a reader: a script goes on and ends with its own code."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils.log import console_text

ROOT = Path(__file__).resolve().parents[2]
# Prints in the middle of its work, and leaves a file that says that it came to its end. Nothing imports torch.
SCRIPT = """
import os, pathlib, sys
from utils.cli import run_script
from utils.errors import RunError
from utils.log import LOGGER

def main():
    for number in range(3000):
        LOGGER.info(f"猫 é \\udcff {number}")
    LOGGER.warning("狗")
    pathlib.Path(os.environ["END"]).write_text("done")
    if len(sys.argv) > 1:
        raise RunError("猫", "失败")

run_script(main)
"""


def run(tmp_path: Path, redirection: str, **variables: str) -> tuple[int, str, str]:
    """Run the script in a shell with `redirection`; return its exit code, what it printed on both streams, the file."""
    command = f'{sys.executable} -c "$SCRIPT" {redirection}'
    end = tmp_path / "end"
    environment = {**os.environ, "SCRIPT": SCRIPT, "END": str(end), "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=environment, cwd=tmp_path, capture_output=True, timeout=60
    )
    output = (done.stdout + done.stderr).decode("utf-8", "replace")
    return done.returncode, output, end.read_text() if end.exists() else ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252:strict", "latin-1:strict", "utf-8:strict", "gbk:strict"])
def test_letters_that_the_encoding_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    code, output, end = run(tmp_path, "fails", PYTHONIOENCODING=encoding)
    assert (code, end) == (1, "done")
    assert "Traceback" not in output and output.count("\n") == 3002
    assert "\\udcff 2999" in output, "a file name's byte that is not UTF-8"
    if encoding == "ascii":
        assert "\\u732b \\xe9 \\udcff 7\n" in output and "warning: \\u72d7\n" in output
        assert "error: \\u732b: \\u5931\\u8d25.\n" in output


@pytest.mark.parametrize(
    "redirection",
    ["| head -2", "> /dev/full", ">&-", "2>&-", "2> /dev/full", ">&- 2>&- <&-", "> /dev/full 2>&1"],
)
def test_a_stream_that_fails_does_not_end_the_run(redirection: str, tmp_path: Path) -> None:
    code, output, end = run(tmp_path, redirection)
    assert (code, end) == (0, "done"), output
    assert "Traceback" not in output
    lost = output.count("warning: standard output")
    # All lines fit into a pipe: a program that ends before its reader does has lost none.
    assert lost <= 1 if redirection == "| head -2" else lost == (redirection == "> /dev/full")
    assert ("warning: 狗" in output) == ("2>" not in redirection)


@pytest.mark.parametrize("redirection", ["--help | true", "--version > /dev/full"])
def test_help_and_version_without_a_reader(redirection: str, tmp_path: Path) -> None:
    script = """
from dataclasses import make_dataclass
from utils.cli import build_parser, run_script
run_script(build_parser(make_dataclass("Options", ()), description="").parse_args)
"""
    code, output, _ = run(tmp_path, redirection, SCRIPT=script)
    assert code == 0 and "Exception" not in output


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    """Otherwise what a library prints on stderr would be written into a checkpoint."""
    script = "import os, utils.log\nutils.log.enable_console()\nfile = open('a', 'w')\nos.write(2, b'x')"
    assert run(tmp_path, "2>&-", SCRIPT=script)[0] == 0
    assert (tmp_path / "a").read_bytes() == b""


def test_what_is_quoted_cannot_move_the_cursor_nor_begin_another_line() -> None:
    def shown(level: int, text: str) -> str:
        return console_text(logging.LogRecord("akyolo", level, "", 0, text, None, None))

    assert shown(logging.WARNING, "a\nerror: b\x1b[2J") == "warning: a\\nerror: b\\x1b[2J"
    assert shown(logging.INFO, "a table\nof \x1b[2J two lines\n") == "a table\nof \\x1b[2J two lines\n"

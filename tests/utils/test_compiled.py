"""How kernels are compiled: without a warning, whole or not at all, and never needed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch  # noqa: F401 - before the kernels

from utils import compiled
from utils.compiled import FLAGS, KERNELS, Kernel, library_path, load
from utils.errors import ConfigError

pytestmark = pytest.mark.kernels
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(load("nms") is None, reason="needs python -m utils.compiled")
@pytest.mark.parametrize(
    ("kernel", "level"),
    [
        pytest.param(kernel, level, id=" ".join((name, *level)))
        for name, kernel in KERNELS.items()
        for level in kernel.levels
    ],
)
def test_the_source_compiles_without_a_warning(kernel: Kernel, level: tuple[str, ...], tmp_path: Path) -> None:
    command = ["cc", *FLAGS, *level, *kernel.flags, "-Wall", "-Wextra", "-Werror", "-c", str(ROOT / kernel.sources[0])]
    result = subprocess.run([*command, "-o", str(tmp_path / "o")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_without_a_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    command = [sys.executable, "-m", "utils.compiled"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert "utils.compiled: " in result.stderr and "CC" in result.stderr


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'native.c:1: error: it is raining' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(compiled, "FOLDER", tmp_path / "compiled")
    with pytest.raises(ConfigError) as caught:
        compiled.build()
    assert caught.value.where.endswith("layer_kernel.c") and "it is raining" in caught.value.what
    assert list((tmp_path / "compiled").iterdir()) == []


@pytest.mark.slow
def test_a_compiler_that_hangs_is_ended_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\nsh -c 'echo $$ > {tmp_path}/inner; exec sleep 60' &\nsleep 60\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(compiled, "FOLDER", tmp_path / "compiled")
    monkeypatch.setattr(compiled, "COMPILER_SECONDS", 1.0)
    with pytest.raises(ConfigError):
        compiled.build()
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # until it is reaped
            os.kill(int((tmp_path / "inner").read_text()), 0)
            time.sleep(0.05)
    assert list((tmp_path / "compiled").iterdir()) == []


def test_a_compiler_that_is_no_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_bytes(b"\x00\x01")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setattr(compiled, "FOLDER", tmp_path / "compiled")
    with pytest.raises(ConfigError) as caught:
        compiled.build()
    assert caught.value.where.endswith("layer_kernel.c")


@pytest.mark.parametrize("blocked", ["folder", "parent"])
def test_a_folder_that_cannot_be_written_is_named(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the way stands for a read-only folder, which does not hold for root."""
    folder = tmp_path / "parent" / "compiled"
    if blocked == "folder":
        folder.parent.mkdir()
    (folder if blocked == "folder" else folder.parent).write_text("")
    monkeypatch.setattr(compiled, "FOLDER", folder)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: "/bin/true")
    with pytest.raises(ConfigError) as caught:
        compiled.build()
    assert caught.value.where == str(folder)


def test_a_damaged_library_is_a_warning_and_others_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    library_path("nms").write_bytes(b"no library")
    load.cache_clear()
    try:
        assert load("nms") is None
    finally:
        load.cache_clear()


def test_another_source_is_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_path("nms")
    monkeypatch.setattr(compiled, "FLAGS", (*FLAGS, "-DOTHER"))
    assert library_path("nms") != before


def test_further_flags_are_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_path("nms")
    monkeypatch.setattr(compiled, "EXTRA_FLAGS", ("-g",))
    assert library_path("nms").name != before.name


def test_further_flags_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AKCONV_CFLAGS", "-g '-DNAME=two words'")
    program = "from utils import compiled; print(compiled.EXTRA_FLAGS, compiled.FOLDER.name)"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[0] == "('-g', '-DNAME=two words') custom"

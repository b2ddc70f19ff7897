"""The command `python -m utils.datasets.convert`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.published_labels import run_convert, write
from utils.datasets.convert.__main__ import convert
from utils.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[4]


def test_labels_only_copies_no_images(coco, tmp_path):
    run_convert("coco", coco, tmp_path / "out", "--labels-only")
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == [f"labels/val2017/{name}.txt" for name in ("a", "empty", "gone")]


@pytest.mark.parametrize("kind", ["voc", "visdrone", "coco"])
def test_a_source_of_another_format_is_refused(kind, tmp_path):
    write(tmp_path / "in/notes.txt", "hello")
    write(tmp_path / "in/other.json", "[]")
    with pytest.raises(DataError) as caught:
        run_convert(kind, tmp_path / "in", tmp_path / "out")
    assert caught.value.where == kind
    assert not (tmp_path / "out").exists()


def test_an_existing_target_is_never_written_to(coco, tmp_path):
    write(tmp_path / "out/mine.txt", "x")
    with pytest.raises(ConfigError) as caught:
        run_convert("coco", coco, tmp_path / "out")
    assert caught.value.where == str(tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    "args",
    [
        ["voc"],
        ["pascal", "a", "b"],
        ["voc", "a", "b", "--polygons"],
        ["coco", "a", "b", "--names", "x"],
        ["voc", "a", "b", "--x"],
    ],
)
def test_invalid_arguments_are_refused(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^convert: "):
        convert(args)


@pytest.mark.slow
def test_the_command_runs_as_a_program(coco, tmp_path):
    command = [sys.executable, "-m", "utils.datasets.convert", "coco"]
    done = subprocess.run([*command, coco, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"python train.py --data {tmp_path}/out/data.yaml" in done.stdout, done.stderr
    failed = subprocess.run([*command, coco, tmp_path / "out"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 2 and failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
    empty = subprocess.run(command[:3], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert empty.returncode == 2 and empty.stderr.startswith("error: convert: ") and empty.stderr.count("\n") == 1

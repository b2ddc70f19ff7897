"""export.py as users run it, and its files as --weights of val.py and detect.py."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_checkpoint, small_model
from utils.cli import parse_options
from utils.options import DetectOptions, ExportOptions, ValOptions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
MODEL = "yolov5n-AKConv.yaml"
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def script(name: str, *words: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts as a user does."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache")}
    command = [sys.executable, str(ROOT / name), *map(str, words)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with own.yaml, best.pt and its exports."""
    folder = tmp_path_factory.mktemp("export")
    self_labelled_data(folder, small_model(MODEL))
    small_checkpoint(folder / "best.pt", MODEL)
    words = ("--include", "torchscript", "onnx", "--benchmark", "--repeats", 1, "--inplace", "--workspace", 4)
    result = script("export.py", "--weights", "best.pt", *words, cwd=folder)
    (folder / "stdout.txt").write_text(result.stdout)
    warnings = [line for line in result.stderr.splitlines() if "arning" in line]
    assert len(warnings) == 1 and warnings[0].startswith("warning: ignored: --inplace"), result.stderr
    return folder


def map_of(folder: Path, weights: str, name: str) -> tuple[float, str]:
    words = ("--data", "own.yaml", "--noplots", "--save-json", "--workers", 0, "--device", "cpu", "--name", name)
    result = script("val.py", "--weights", weights, *words, cwd=folder)
    row = next(line.split() for line in result.stdout.splitlines() if line.split()[:2] == ["all", "6"])
    return float(row[-1]), (folder / f"runs/val/{name}/best_predictions.json").read_text()


def test_differences_are_logged_and_the_table_has_equal_map(workplace: Path) -> None:
    log = (workplace / "stdout.txt").read_text()
    for name in ("torchscript", "onnx"):
        line = next(line for line in log.splitlines() if line.startswith(f"{name}: largest difference"))
        assert 0 < float(line.split("PyTorch ")[1].split()[0]) <= 1e-4
    rows = {
        row["format"]: row for row in json.loads((workplace / "runs/export/exp/formats.json").read_text())["formats"]
    }
    assert list(rows) == ["pytorch", "torchscript", "onnx"]
    assert rows["pytorch"]["map50_95"] > 0.15, "a model that detects nothing would prove nothing"
    for row in rows.values():
        assert row["map50_95"] == pytest.approx(rows["pytorch"]["map50_95"], abs=1e-3)
        assert row["megabytes"] > 1 and 0 < row["milliseconds_minimum"] <= row["milliseconds_median"]
    assert "| onnx | " in log and "| onnx | " in (workplace / "runs/export/exp/formats.md").read_text()


@pytest.mark.parametrize("name", ["onnx", pytest.param("torchscript", marks=pytest.mark.long)])
def test_val_gives_exported_files_the_same_map(workplace: Path, name: str) -> None:
    expected, predictions = map_of(workplace, "best.pt", f"{name}-pt")
    assert expected > 0.15
    actual, exported = map_of(workplace, f"best.{name}", name)
    assert actual == pytest.approx(expected, abs=1e-3)
    assert len(json.loads(exported)) == pytest.approx(len(json.loads(predictions)), rel=0.01)


def test_detect_finds_the_same_with_an_exported_file(workplace: Path) -> None:
    tables = []
    for weights in ("best.pt", "best.onnx"):
        words = ("--source", "images/val", "--imgsz", 96, "--conf-thres", 0.05, "--save-csv", "--nosave")
        script("detect.py", "--weights", weights, *words, "--device", "cpu", "--name", weights, cwd=workplace)
        tables.append(pd.read_csv(workplace / f"runs/detect/{weights}/predictions.csv"))
    assert len(tables[0]) > 20 and set(tables[0]["Prediction"]) <= set(SMALL_NAMES)
    pd.testing.assert_frame_equal(*tables, atol=0.11)


def test_the_commands_of_docs_export_parse() -> None:
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    lines = [line.removeprefix("python ") for line in text.splitlines() if line.startswith("python ")]
    kinds = {"export.py": ExportOptions, "val.py": ValOptions, "detect.py": DetectOptions}
    assert {line.split()[0] for line in lines} == set(kinds)
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        parse_options(kinds[name], words, description="")


def test_invalid_commands_print_one_line_and_leave_no_file(workplace: Path) -> None:
    before = sorted(workplace.iterdir())
    for words, mentioned in (
        (("--include", "engine"), "trtexec"),
        (("--weights", "best.onnx", "--int8"), "--int8"),
        (("--weights", "best.onnx"), "best.onnx"),
    ):
        result = script("export.py", "--weights", "best.pt", *words, cwd=workplace, check=False)
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert (result.returncode, len(errors)) == (2, 1) and mentioned in errors[0]
    assert sorted(workplace.iterdir()) == before

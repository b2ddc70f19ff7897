"""The notebook of the documentation runs: its cells, one after another, without Jupyter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.doc_commands import ROOT

NOTEBOOK = ROOT / "docs/tutorial.ipynb"
SETTINGS = "IMAGES, EPOCHS, IMAGE_SIZE, SEEDS = 200, 16, 192, (0, 1, 2)"
SMALL = "IMAGES, EPOCHS, IMAGE_SIZE, SEEDS = 60, 1, 64, (0, 1)"


def cells(kind: str) -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_tutorial_has_ten_cells_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert len(cells("code")) == 10
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook["cells"])


@pytest.mark.long
def test_the_tutorial_runs(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "train.py").touch()  # marks the root, which is replaced below
    first, *others = cells("code")
    assert SETTINGS in first
    script = docs / "tutorial.py"
    root = f"from pathlib import Path\nROOT = Path({str(ROOT)!r})"
    script.write_text("\n".join((first.replace(SETTINGS, SMALL), root, *others)), encoding="utf-8")
    result = subprocess.run([sys.executable, script], cwd=docs, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [
        line
        for line in result.stdout.splitlines()
        if line.startswith(("validation: yolov5n-AKConv", "test: yolov5n-AKConv"))
    ]
    assert len(lines) == 2

"""What a type checker knows of the Python API, from which an editor completes: a user's program under mypy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Instead of the packages themselves, which take mypy half a minute.
STUBS = {
    "torch/__init__.pyi": "class Tensor: ...",
    "numpy/__init__.pyi": "class ndarray: ...",
    "pandas/__init__.pyi": "class DataFrame: ...",
    "PIL/__init__.pyi": "",
    "PIL/Image.pyi": "class Image: ...",
}
PROGRAM = """
from pathlib import Path
from utils.inference.autoshape import load_detector

model = load_detector("best.pt")
several = model(["a.jpg", Path("b.jpg")], size=(320, 640))
autoshape: bool = False
expected = {
    "AutoShape": reveal_type(model),
    "DetectionModel | ExportedModel": reveal_type(load_detector("best.pt", autoshape=False)),
    "AutoShape | DetectionModel | ExportedModel": reveal_type(load_detector("best.pt", autoshape=autoshape)),
    "Results": reveal_type(model("a.jpg")),
    "Results ": reveal_type(several),
    "list[Tensor]": reveal_type(several.xyxy),
    "list[DataFrame]": reveal_type(several.pandas().xywhn),
    "list[ndarray]": reveal_type(several.render()),
    "ndarray": reveal_type(several.crop()[0]["im"]),
    "dict[int, str]": reveal_type(several.names),
}
model(3)
model.conf = "high"
"""


@pytest.mark.slow
def test_a_type_checker_knows_what_a_call_returns(tmp_path: Path) -> None:
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"from typing import Any\n{text}\ndef __getattr__(name: str) -> Any: ...\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    flags = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, f"--cache-dir={tmp_path / 'cache'}", "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    revealed = re.findall(r'Revealed type is "(.*)"', result.stdout)
    plain = [re.sub(r"(\w+\.)+", "", text) for text in revealed]
    assert plain == [text.strip() for text in re.findall(r'"(.*)": reveal_type', PROGRAM)], result.stdout
    errors = re.findall(r"program.py:(\d+): error: .*\[(.*)\]", result.stdout)
    lines = PROGRAM.splitlines()
    assert [(lines[int(line) - 1], code) for line, code in errors] == [
        ("model(3)", "arg-type"),
        ('model.conf = "high"', "assignment"),
    ], result.stdout


@pytest.mark.parametrize("package", ["models", "utils"])
def test_the_packages_are_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()

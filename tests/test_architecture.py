"""The layers of the house: imports point one way, importing has no effect, dangerous calls stay in one place."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"structures", "boxes", "files", "cli", "errors", "log", "memory", "native"}
ALLOWED = {
    "leaf": {"leaf"},
    "models": {"leaf", "models"},
    "datasets": {"leaf", "datasets"},
    "losses": {"leaf", "losses"},
    "metrics": {"leaf", "metrics"},
    "plots": {"leaf", "plots"},
    "engine": {"leaf", "models", "datasets", "losses", "metrics", "plots", "engine"},
    "script": {"leaf", "engine"},
}
FILES = [p for p in sorted(ROOT.glob("**/*.py")) if p.relative_to(ROOT).parts[0] in {"models", "utils"}]
SCRIPTS = sorted(ROOT.glob("*.py"))


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "models":
        return "models"
    if parts[0] != "utils" or len(parts) == 1:
        return None
    return "leaf" if parts[1] in LEAVES else parts[1]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = "script" if path in SCRIPTS else room_of(module_name(path))
    if room is None:
        return
    for module in imported_modules(path):
        target = room_of(module)
        assert target is None or target in ALLOWED[room], f"{path.name} ({room}) imports {module} ({target})"


def test_nothing_imports_a_script() -> None:
    scripts = {path.stem for path in SCRIPTS}
    for path in FILES + SCRIPTS:
        assert not imported_modules(path) & scripts, path


# What only one place may do: name of the call -> files that may.
ONE_PLACE = {
    "eval": set(),
    "exec": set(),
    "cv2.imread": set(),
    "pickle.load": set(),
    "pickle.loads": set(),
    "os.system": set(),
    "yaml.load": {"utils/files.py"},
    "torch.save": {"utils/engine/weights/checkpoint.py"},
    "torch.load": set(),
    "cv2.imdecode": {"utils/datasets/images.py"},
    "os.replace": {"utils/files.py"},
    "open": set(),
}


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_dangerous_calls_stay_in_their_one_place(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Assert), f"{relative}:{node.lineno} validates by assert"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in ONE_PLACE:
            assert relative in ONE_PLACE[name], f"{relative}:{node.lineno} calls {name}"
        for keyword in node.keywords:
            written = f"{keyword.arg}={ast.unparse(keyword.value)}"
            assert written not in {"shell=True", "weights_only=False", "allow_pickle=True"}, f"{relative}:{node.lineno}"


@pytest.mark.slow
def test_importing_everything_prints_nothing_and_changes_no_environment() -> None:
    program = (
        "import os, cv2, pandas, torch, torchvision, matplotlib.figure, torch.utils.flop_counter, torch.utils.data\n"
        "before = dict(os.environ); threads = torch.get_num_threads()\n"
        "import utils.engine.training.training_run, utils.engine.comparing.compare, utils.engine.looking.predictor\n"
        "import models.yolo\n"
        "assert dict(os.environ) == before and torch.get_num_threads() == threads"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

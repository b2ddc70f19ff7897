"""The import ladder between rooms, no import cycles between files, and dangerous calls in their one place."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# A room imports itself and the rooms on lower rungs; rooms on one rung do not import each other.
LADDER = (
    ("leaves",),
    ("models", "datasets", "losses", "metrics", "plots"),
    ("options",),
    ("weights",),
    ("inference",),
    ("validation", "detection", "benchmarks", "preparation", "explain"),
    ("training", "export"),
    ("comparison",),
    ("app",),
    ("scripts",),
)
RUNG = {room: height for height, rooms in enumerate(LADDER) for room in rooms}
FILES = [p for p in sorted(ROOT.glob("**/*.py")) if p.relative_to(ROOT).parts[0] in {"models", "utils"}]
SCRIPTS = sorted(ROOT.glob("*.py"))
MAX_LINES = 300
MAX_LINES_OF = {"utils/training/trainer.py": 260}


def room_of(module: str) -> str | None:
    """Return the room of a dotted module name; None for packages from elsewhere."""
    parts = module.split(".")
    if parts[0] == "models":
        return "models"
    if parts[0] != "utils" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in RUNG else "leaves"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> set[str]:
    """Return every module that a file imports, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES
    return found


MODULES = {module_name(path) for path in FILES}


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_the_ladder(path: Path) -> None:
    room = "scripts" if path in SCRIPTS else room_of(module_name(path))
    if room is None:
        return
    for module in imported_modules(path):
        target = room_of(module)
        if target is not None and target != room:
            assert RUNG[target] < RUNG[room], f"{path.name} ({room}) imports {module} ({target})"


def test_files_do_not_import_each_other_in_a_circle() -> None:
    edges = {module_name(path): imported_modules(path) & MODULES - {module_name(path)} for path in FILES}
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        if state.get(module) == 2:
            return
        assert state.get(module) != 1, " -> ".join((*path[path.index(module) :], module))
        state[module] = 1
        for target in sorted(edges[module]):
            visit(target, (*path, module))
        state[module] = 2

    for module in sorted(edges):
        visit(module, ())


@pytest.mark.parametrize("path", FILES + SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_outgrows_its_budget(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES_OF.get(path.relative_to(ROOT).as_posix(), MAX_LINES)


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
    "yaml.load": {"utils/strict_yaml.py"},
    "torch.save": {"utils/weights/checkpoint.py"},
    "torch.load": set(),
    "cv2.imdecode": {"utils/datasets/images.py"},
    "os.replace": {"utils/files.py", "utils/folders.py"},
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
        "import utils.training.run, utils.comparison.run, utils.detection.run, utils.export.run\n"
        "import models.yolo\n"
        "assert dict(os.environ) == before and torch.get_num_threads() == threads"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


COLLECTIVE = {"models/modules", "utils/plots", "utils/options"}  # described as a whole


def test_the_architecture_page_names_every_module_and_only_these() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `((?:models|utils)/\w*)/?` \| (.*) \|$", page, re.M))
    rows["utils"] = re.search(r"^\| `utils/\*\.py` \| (.*) \|$", page, re.M)[1]  # type: ignore[index]
    packages = {path.parent.relative_to(ROOT).as_posix() for path in FILES} - {"utils/datasets/convert"}
    assert {package for package in packages if "triton" not in package} == {row.rstrip("/") for row in rows}
    for package, text in rows.items():
        modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
        if package.rstrip("/") not in COLLECTIVE:
            assert modules <= set(re.findall(r"`(\w+)", text)), package
    for path in re.findall(r"`((?:utils|models)/[\w/]+\.py)`", page):
        assert (ROOT / path).is_file(), path

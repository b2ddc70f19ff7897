"""Every command of the documentation: its script exists, its flags are known, and it runs, in small form, or is listed.

A command that is new in the documentation is run with what `SMALL` adds for its script. One that cannot be run within
seconds is listed in `NOT_RUN` with the reason.
"""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from tests.helpers.doc_commands import ALL, PAGES, ROOT, SCRIPTS, all_commands, all_flags, python_blocks
from tests.studies.ci_coverage import SimulationOptions
from utils.benchmarks.nms import NmsBenchmarkOptions
from utils.cli import build_parser, parse_options
from utils.datasets import download
from utils.datasets.convert.__main__ import build_parser as convert_parser
from utils.export.run import run_export
from utils.inference.autoshape import AutoShape
from utils.options import (
    BenchmarkOptions,
    CompareOptions,
    DetectOptions,
    ExportOptions,
    TrainOptions,
    ValOptions,
)
from utils.plugins import load_plugins
from utils.strict_yaml import dump_yaml, load_yaml
from utils.training.callbacks import _REGISTERED, make_callbacks
from utils.training.run import run_training

Command = tuple[str, ...]
COMMANDS = all_commands()
OPTIONS: dict[str, type] = {
    "train.py": TrainOptions,
    "val.py": ValOptions,
    "detect.py": DetectOptions,
    "compare.py": CompareOptions,
    "export.py": ExportOptions,
    "benchmarks.py": BenchmarkOptions,
    "utils.benchmarks.nms": NmsBenchmarkOptions,
    "tests.studies.ci_coverage": SimulationOptions,
}

NETWORK = "installs from the network"
NOT_RUN = {
    "python -m pip install --requirement requirements-dev.txt": NETWORK,
    "pip install -r requirements-export.txt": NETWORK,
    "pip install tensorboard": NETWORK,
    "make install": NETWORK,
    "make demo": "minutes, and `make install` before it; its line is run as compare.py",
    "make test": "these tests",
    "make test-long": "these tests",
    "make check": "these tests, and ruff and mypy over the whole repository",
    "trtexec --onnx=best.onnx --saveEngine=best.engine --minShapes=images:1x3x320x320 "
    "--optShapes=images:1x3x640x640 --maxShapes=images:8x3x1280x1280": "TensorRT's own program, needs an NVIDIA GPU",
    "python -m utils.datasets.download coco128.yaml": "fetches from the network",
    "python compare.py --weights 'runs/answer/yolov5n-seed*' 'runs/answer/yolov5n-AKConv-lr0.1-seed*' "
    "--data bccd --imgsz 320": "judges six runs of an hour each",
    "python compare.py --weights 'runs/answer/yolov5n-seed*' 'runs/answer/yolov5n-AKConv-lr0.1-seed*' "
    "--data bccd --imgsz 320 --task test": "judges six runs of an hour each",
}
# One of each script but for those that other tests run as users do, and what takes a second or two; all else is long.
QUICK = {
    "python train.py --weights best.pt --data mine.yaml",
    "python train.py --help",
    "python val.py --weights best.pt --data shapes.yaml --verbose",
    "python detect.py --weights best.pt --source images/",
    "python -m utils.datasets.convert voc SOURCE TARGET",
    "python -m utils.compiled",
    "python -m venv .venv",
}
CPU = "--device cpu --workers 0 --imgsz 64 --batch-size 4"
# What makes a script's work small; the last of two equal flags counts.
SMALL = {
    "train.py": f"--epochs 1 --noplots {CPU}",
    "val.py": CPU,
    "detect.py": "--device cpu --imgsz 64",
    "compare.py": f"--epochs 1 {CPU}",
    "export.py": "--imgsz 64",
    "benchmarks.py": "--device cpu --imgsz 64 --batch-size 2 --layer-batch 1 --repeats 1",
    "utils.benchmarks.nms": "--repeats 1",
    "tests.studies.ci_coverage": "--trials 1 --resamples 4 --scenarios equal",
    "pytest": "-n 0 -p no:cacheprovider --collect-only tests/test_presets.py",
    "venv": "--without-pip",
}
SMALL_RESUMED = "--epochs 2 --noplots --device cpu --workers 0"
WRITES = {
    "train.py": "runs/train/*/weights/last.pt",
    "val.py": "runs/val/exp/confusion_matrix.png",
    "detect.py": "runs/detect/exp/*.[jp][pn]g",
    "compare.py": "runs/compare/*/report.html",
    "benchmarks.py": "runs/benchmark/exp/*",
    "utils.datasets.convert": "TARGET/data.yaml",
    "venv": ".venv/bin/python",
}
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
EXPORTS = {"torchscript": "best.torchscript", "onnx": "best.onnx", "openvino": "best_openvino_model"}


def subject(command: Command) -> str:
    """The script or module that a command runs."""
    if command[0] == "torchrun":
        return str(torchrun_parser().parse_args(command[1:]).training_script)
    return command[2] if command[1] == "-m" else command[1]


# Flags, without running anything.


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_every_command_is_known_with_its_flags(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command
    if program == "torchrun":
        parsed = torchrun_parser().parse_args(words)
        program, words = "python", [parsed.training_script, *parsed.training_script_args]
    if program == "trtexec":
        return
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words) <= set(targets)
        return
    if program == "pip" or words[:2] == ["-m", "pip"]:
        flags = [word for word in words if word.startswith("-") and word != "-m"]
        assert "install" in words and set(flags) <= {"-r", "--requirement"}
        assert all((ROOT / words[words.index(flag) + 1]).is_file() for flag in flags)
        return
    is_module = words[0] == "-m"
    name, *words = words[1:] if is_module else words
    assert importlib.util.find_spec(name) is not None if is_module else (ROOT / name).is_file(), f"there is no {name}"
    if name in ("venv", "pytest"):
        return  # run below with these words
    if name == "utils.compiled":
        assert not words
    elif name == "utils.datasets.convert":
        convert_parser().parse_args(words)
    elif name == "utils.datasets.download":
        asked: list[Path] = []
        monkeypatch.setattr(sys, "argv", ["download", *words])
        monkeypatch.setattr(download, "fetch", lambda config: asked.append(config.file))
        download.main()
        assert asked
    elif words == ["--help"]:
        assert "--debug" in build_parser(OPTIONS[name], description="").format_help()
    else:
        parse_options(OPTIONS[name], words, description="")


@pytest.mark.parametrize("flag", all_flags())
def test_every_flag_that_a_sentence_mentions_is_known(flag: str) -> None:
    flags = {"--help", *(name for action in torchrun_parser()._actions for name in action.option_strings)}
    for options in OPTIONS.values():
        flags |= {name for action in build_parser(options, description="")._actions for name in action.option_strings}
        flags |= {*getattr(options, "IGNORED", {}), *getattr(options, "REFUSED", {})}
    assert flag in flags or flag.replace("_", "-") in flags


def test_what_is_not_run_is_in_the_documentation_and_every_script_is_run() -> None:
    known = {shlex.join(command) for command in COMMANDS}
    assert set(NOT_RUN) <= known, "a command that is gone needs no reason"
    assert known >= QUICK and not QUICK & set(NOT_RUN)
    quick = [subject(command) for command in COMMANDS if shlex.join(command) in QUICK]
    assert set(quick) >= set(SCRIPTS) - {"hubconf.py", "compare.py", "export.py", "benchmarks.py"}


def test_makefile_and_readme_have_the_same_lines() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(RUN)", ".venv/bin/python")
    for target in ("demo", "test"):
        line = re.search(rf"^{target}: install\n\t(.*)$", makefile, re.M)
        assert line is not None
        for page in ("README.md", "README.zh-CN.md"):
            assert f"\n{line[1]}\n" in (ROOT / page).read_text(encoding="utf-8"), page


def test_every_file_that_is_named_or_linked_exists() -> None:
    for piece in ALL:
        if piece.language == "span" and re.fullmatch(r"(models|utils|tests|data|docs)/[\w./-]+", piece.text):
            if piece.text != "data/images":
                assert (ROOT / piece.text).exists(), f"{piece.page} names {piece.text}"
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links {target}"


# Running.


def block_of(page: str, start: str) -> str:
    found = [piece.text for piece in python_blocks() if piece.page == page and piece.text.startswith(start)]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def workplace(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands name: a run of one epoch, its best.pt, images, yamls, my_module.py."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("yolov5n.yaml", "yolov5n-AKConv.yaml"):  # a file in the working directory goes before the shipped one
        dump_yaml(folder / name, {**load_yaml(ROOT / "models" / name), "width_multiple": 0.125})
    text = data.read_text().replace("path: shapes", f"path: {data.parent / 'shapes'}")
    text = re.sub(r"^generator:.*\n", "", text, flags=re.M)
    for name in ("shapes.yaml", "mine.yaml", "coco128.yaml", "bccd"):
        (folder / name).write_text(text)
    run_training(
        TrainOptions(
            cfg=str(folder / "yolov5n-AKConv.yaml"),
            data=str(folder / "shapes.yaml"),
            epochs=1,
            batch_size=4,
            imgsz=64,
            device="cpu",
            workers=0,
            noplots=True,
            project=str(folder / "runs/train"),
        )
    )
    shutil.copy(folder / "runs/train/exp/weights/best.pt", folder / "best.pt")
    images = sorted((data.parent / "shapes/images/val").iterdir())[:3]
    (folder / "images").mkdir()
    for image in images:
        shutil.copy(image, folder / "images")
    (folder / "my_module.py").write_text(block_of("README.md", "# my_module.py"))
    write_voc(folder / "SOURCE/VOC2007")
    return folder


def write_voc(folder: Path) -> None:
    """Write a VOC set of one image."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>31</xmax><ymax>40</ymax></bndbox>"
    size = "<size><width>64</width><height>48</height></size>"
    object_ = f"<object><name>dog</name><difficult>0</difficult>{box}</object>"
    (folder / "Annotations/a.xml").write_text(f"<annotation>{size}{object_}</annotation>")
    cv2.imwrite(str(folder / "JPEGImages/a.jpg"), np.full((48, 64, 3), 90, np.uint8))


def mine_is_a_model(folder: Path) -> None:
    """Make mine.yaml a model with a row of the manual's own module."""
    value = load_yaml(ROOT / "models/yolov5n.yaml")
    row = next(row for row in value["backbone"] if row[2] == "Conv" and row[3] == [256, 3, 2])
    row[2:] = ["GatedConv", [256]]
    dump_yaml(folder / "mine.yaml", {**value, "width_multiple": 0.125})


def package_of_its_own(folder: Path) -> None:
    """Copy the packages, so that what is compiled is not written into the repository."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("there is no C compiler")
    for name in ("models", "utils"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "compiled"))


PREPARED: dict[str, Callable[[Path], None]] = {
    "python train.py --cfg mine.yaml --plugins my_module.py": mine_is_a_model,
    "python -m utils.compiled": package_of_its_own,
}


def small_form(command: Command) -> list[str]:
    """Return a command's words as this machine runs them, made small."""
    program, *words = command
    name = subject(command)
    extra = SMALL_RESUMED if "--resume" in command else SMALL.get(name, "")
    words = [str(ROOT / word) if word == name and word in SCRIPTS else word for word in words]
    if words[-1] != "--help":
        words += shlex.split(extra)
    return [*(["-m", "torch.distributed.run", "--standalone"] if program == "torchrun" else []), *words]


def exports_made(command: Command) -> list[str]:
    """Return the formats that a command of export.py writes; skip where a package for one is missing."""
    kinds = [kind for kind in EXPORTS if kind in command] or ["torchscript"]
    for package in (package for kind in kinds for package in NEEDS.get(kind, ())):
        pytest.importorskip(package)
    return [EXPORTS[kind] for kind in kinds]


def export_what_is_read(command: Command, folder: Path) -> None:
    """Write the exported files that a command reads; skip where a package for one is missing."""
    for kind, name in EXPORTS.items():
        if name in command:
            exports_made((kind,))
            run_export(ExportOptions(weights=str(folder / "best.pt"), include=(kind,)), {"include"})


def run_cases() -> list[object]:
    cases = []
    for command in COMMANDS:
        text = shlex.join(command)
        if text not in NOT_RUN:
            marks = () if text in QUICK else (pytest.mark.long,)
            cases.append(pytest.param(command, id=text, marks=marks))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("command", run_cases())
def test_every_command_runs(command: Command, workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "place"
    shutil.copytree(workplace, folder)
    name = subject(command)
    wanted = exports_made(command) if name == "export.py" else [WRITES[name]] if name in WRITES else []
    export_what_is_read(command, folder)
    PREPARED.get(shlex.join(command), lambda _: None)(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if name != "utils.compiled":
        environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run(
        [sys.executable, *small_form(command)],
        cwd=ROOT if name == "pytest" else folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "ignored: " not in result.stderr
    if "--help" in command:
        assert "--debug" in result.stdout
        return
    for pattern in wanted:
        written = [path for path in folder.glob(pattern) if before.get(path) != path.stat().st_mtime_ns]
        assert written, f"nothing new at {pattern}"


# Python.


def test_every_block_of_python_is_run_by_a_test() -> None:
    pages = sorted({(piece.page, piece.text.splitlines()[0]) for piece in python_blocks()})
    others = [page for page in pages if page[0] != "docs/python.md"]  # those are run by test_hub.py
    assert others == [
        ("README.md", "# my_module.py"),
        ("docs/training.md", "from utils.training.callbacks import Callback, register_callback"),
    ]
    hub = (ROOT / "tests/test_hub.py").read_text(encoding="utf-8")
    assert "test_every_snippet_of_the_documentation_runs" in hub


def test_the_listener_of_the_manual_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("utils.training.callbacks._REGISTERED", dict(_REGISTERED))
    (tmp_path / "manual_printer.py").write_text(block_of("docs/training.md", "from utils.training.callbacks"))
    load_plugins([str(tmp_path / "manual_printer.py")])
    for callback in make_callbacks(tmp_path, tensorboard=False):
        callback.on_fit_epoch_end(None, {"metrics/mAP_0.5": 0.25})  # type: ignore[arg-type]
    assert capsys.readouterr().out == "0.25\n"


def test_calls_within_sentences_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [piece for piece in ALL if piece.language == "span" and piece.text.startswith("torch.hub.load(")]
    assert [piece.page for piece in calls] == ["README.md"]
    import torch

    monkeypatch.chdir(workplace)
    for piece in calls:
        call = ast.parse(piece.text.replace('"."', repr(str(ROOT))), mode="eval").body
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.hub.load"
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        model = torch.hub.load(*map(ast.literal_eval, call.args), **named)
        assert isinstance(model, AutoShape)
    sys.modules.pop("hubconf", None)

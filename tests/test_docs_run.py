"""The documentation's commands and Python can be run; `NOT_RUN` lists the exceptions with their reasons.

A new command in the documentation is run with the flags that `SMALL` adds for its program.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.doc_commands import (
    ALL,
    ROOT,
    SCRIPTS,
    Command,
    all_commands,
    program_of,
    python_block,
    python_blocks,
)
from tests.helpers.layouts import LAYOUTS
from utils import __version__
from utils.export.run import run_export
from utils.inference.autoshape import AutoShape
from utils.options import ExportOptions, TrainOptions
from utils.plugins import load_plugins
from utils.strict_yaml import dump_yaml, load_yaml
from utils.training.callbacks import _REGISTERED, make_callbacks
from utils.training.run import run_training

COMMANDS = all_commands()
NETWORK = "installs from the network"
SERVES = "serves a page until it is stopped; the tests of utils/app start it"
NOT_RUN_PROGRAMS = ("make", "pip")  # targets are these tests, longer measurements or services; pip needs the network
NOT_RUN = {
    "python -m pip install --requirement requirements-dev.txt": NETWORK,
    "python app.py --weights best.pt": SERVES,
    "python app.py --weights runs/train/a/weights/best.pt runs/train/b/weights/best.pt "
    "--comparison runs/compare/exp": SERVES,
    "python -m pip install -r requirements.txt": NETWORK,
    "python -m pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu": NETWORK,
    "python -m tests.studies.load --studies images": "a hundred thousand images",
    "trtexec --onnx=best.onnx --saveEngine=best.engine --minShapes=images:1x3x320x320 "
    "--optShapes=images:1x3x640x640 --maxShapes=images:8x3x1280x1280": "a program of TensorRT, needs an NVIDIA GPU",
    "python -m utils.datasets.download coco128.yaml": "downloads from the network",
    "python compare.py --weights 'runs/answer/yolov5n-seed*' 'runs/answer/yolov5n-AKConv-lr0.1-seed*' "
    "--data bccd --imgsz 320": "needs six runs of an hour each",
    "python compare.py --weights 'runs/answer/yolov5n-seed*' 'runs/answer/yolov5n-AKConv-lr0.1-seed*' "
    "--data bccd --imgsz 320 --task test": "needs six runs of an hour each",
    "python compare.py --weights 'runs/bccd/*' 'runs/chess/*' 'runs/cable_damage/*' --data bccd chess/data.yaml "
    "cable_damage/data.yaml --imgsz 224 --task test": "needs 18 runs of ten minutes each",
}
# Not marked `long`: one command of each script that no other test runs as a process, and what takes seconds.
QUICK = {
    "python train.py --weights best.pt --data mine.yaml",
    "python train.py --help",
    "python prepare.py my_images",
    "python val.py --weights best.pt --data shapes.yaml --verbose",
    "python detect.py --weights best.pt --source images/",
    "python -m utils.datasets.convert voc SOURCE TARGET",
    "python -m utils.compiled",
    "python -m venv .venv",
}
CPU = "--device cpu --workers 0 --imgsz 64 --batch-size 4"
# Flags that make a program fast; of two equal flags the last one counts.
SMALL = {
    "train.py": f"--epochs 1 --noplots {CPU}",
    "val.py": CPU,
    "detect.py": "--device cpu --imgsz 64",
    "hubconf.py": "--device cpu",
    "models": "--imgsz 64",
    "compare.py": f"--epochs 1 --seeds 0 {CPU}",
    "export.py": "--imgsz 64",
    "benchmarks.py": "--device cpu --imgsz 64 --batch-size 2 --layer-batch 1 --repeats 1",
    "utils.benchmarks.nms": "--repeats 1",
    "utils.explain": "--device cpu --imgsz 64 --images 1",
    "tests.studies.ablation_coverage": "--trials 1 --resamples 4 --scenarios 'no effect'",
    "tests.studies.error_coverage": "--trials 1 --images 10 --resamples 4",
    "tests.studies.ci_coverage": "--trials 1 --resamples 4 --scenarios equal",
    "tests.studies.joint_coverage": "--trials 1 --resamples 4 --scenarios equal",
    "pytest": "-n 0 -p no:cacheprovider --collect-only tests/test_presets.py",
    "venv": "--without-pip",
}
SMALL_RESUMED = "--epochs 2 --noplots --device cpu --workers 0"
WRITES = {
    "train.py": "runs/train/*/weights/last.pt",
    "val.py": "runs/val/exp/confusion_matrix.png",
    "detect.py": "runs/detect/exp/*.[jp][pn]g",
    "compare.py": "runs/compare/**/report.html",  # with --task test one folder below
    "benchmarks.py": "runs/benchmark/exp/*",
    "utils.explain": "runs/explain/exp/report.html",
    "utils.datasets.convert": "TARGET/data.yaml",
    "prepare.py": "datasets/my_images/data.yaml",
    "prepare.py --check": "runs/check/exp/report.html",
    "models --diagram": "yolov5n-AKConv.svg",
    "venv": ".venv/bin/python",
}
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "ncnn": ("ncnn", "pnnx")}
EXPORTS = {
    "torchscript": "best.torchscript",
    "onnx": "best.onnx",
    "openvino": "best_openvino_model",
    "ncnn": "best_ncnn_model",
}


def test_listed_commands_are_in_the_documentation_and_every_script_is_run() -> None:
    known = {shlex.join(command) for command in COMMANDS}
    assert set(NOT_RUN) <= known, "remove commands that are not documented any more"
    assert known >= QUICK and not QUICK & set(NOT_RUN)
    quick = [program_of(command) for command in COMMANDS if shlex.join(command) in QUICK]
    assert set(quick) >= set(SCRIPTS) - {"app.py", "hubconf.py", "compare.py", "export.py", "benchmarks.py"}


@pytest.fixture(scope="module")
def workplace(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that the commands name: a run of one epoch, best.pt, images, yamls, my_module.py."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("yolov5n.yaml", "yolov5n-AKConv.yaml"):  # preferred to the shipped files
        dump_yaml(folder / name, {**load_yaml(ROOT / "models" / name), "width_multiple": 0.125})
    text = data.read_text().replace("path: shapes", f"path: {data.parent / 'shapes'}")
    text = re.sub(r"^generator:.*\n", "", text, flags=re.M)
    for name in ("shapes.yaml", "mine.yaml", "coco.yaml", "coco128.yaml", "bccd"):
        (folder / name).write_text(text)
    train_tiny(folder, "yolov5n-AKConv.yaml", "exp")
    for name in ("best.pt", "yolov5s.pt", "yolov5n.pt"):
        shutil.copy(folder / "runs/train/exp/weights/best.pt", folder / name)
    images = sorted((data.parent / "shapes/images/val").iterdir())[:3]
    (folder / "images").mkdir()
    for image in images:
        shutil.copy(image, folder / "images")
    (folder / "my_module.py").write_text(python_block("docs/contributing.md", "# my_module.py"))
    write_voc(folder / "SOURCE/VOC2007")
    (folder / "datasets/my_images").mkdir(parents=True)
    (folder / "datasets/my_images/data.yaml").write_text(text)
    return folder


def train_tiny(folder: Path, cfg: str, name: str, seed: int = 0) -> None:
    """Train a model for one epoch; the run is `folder`/runs/train/`name`."""
    run_training(
        TrainOptions(
            cfg=str(folder / cfg),
            data=str(folder / "shapes.yaml"),
            epochs=1,
            batch_size=4,
            imgsz=64,
            device="cpu",
            workers=0,
            noplots=True,
            seed=seed,
            project=str(folder / "runs/train"),
            name=name,
        )
    )


def write_finished_runs(folder: Path) -> None:
    """Train two models with two seeds each, named as in the documentation."""
    for seed in range(2):
        train_tiny(folder, "yolov5n.yaml", f"plain-seed{seed}", seed)
        train_tiny(folder, "yolov5n-AKConv.yaml", f"akconv-seed{seed}", seed)


def write_voc(folder: Path) -> None:
    """Write a data set of one image in VOC's format."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>31</xmax><ymax>40</ymax></bndbox>"
    size = "<size><width>64</width><height>48</height></size>"
    annotation = f"<object><name>dog</name><difficult>0</difficult>{box}</object>"
    (folder / "Annotations/a.xml").write_text(f"<annotation>{size}{annotation}</annotation>")
    cv2.imwrite(str(folder / "JPEGImages/a.jpg"), np.full((48, 64, 3), 90, np.uint8))


def write_custom_model(folder: Path) -> None:
    """Write mine.yaml: a model with a layer of the documentation's custom module."""
    config = load_yaml(ROOT / "models/yolov5n.yaml")
    row = next(row for row in config["backbone"] if row[2] == "C3")
    row[1:] = [1, "SE", [16]]
    dump_yaml(folder / "mine.yaml", {**config, "width_multiple": 0.125})


def write_labelimg(folder: Path) -> None:
    """Write my_images: a folder of images and XML files, as LabelImg leaves it."""
    shutil.rmtree(folder / "datasets")
    LAYOUTS["labelimg_voc_flat"](folder / "my_images")


def copy_packages(folder: Path) -> None:
    """Copy the packages, so that compiled files are not written into the repository."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler")
    for name in ("models", "utils"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "compiled"))


PREPARATIONS: dict[str, Callable[[Path], None]] = {
    "python train.py --cfg mine.yaml --plugins my_module.py": write_custom_model,
    "python compare.py --cfg yolov5n.yaml mine.yaml --data shapes.yaml --plugins my_module.py --seeds 0 1 2": (
        write_custom_model
    ),
    "python prepare.py my_images": write_labelimg,
    "python -m utils.compiled": copy_packages,
}


def fast_arguments(command: Command) -> list[str]:
    """Return the arguments of the Python interpreter that run a command with the flags that make it fast."""
    program, *words = command
    name = program_of(command)
    extra = SMALL_RESUMED if "--resume" in command else SMALL.get(name, "")
    if "--static" in command:
        extra = "--static 64 96"
    if name == "compare.py" and "--weights" in command and "--cfg" not in command:
        extra = CPU  # finished runs are not trained
    words = [str(ROOT / word) if word == name and word in SCRIPTS else word for word in words]
    if words[-1] not in ("--help", "--version"):
        words += shlex.split(extra)
    return [*(["-m", "torch.distributed.run", "--standalone"] if program == "torchrun" else []), *words]


def exported_files(command: Command) -> list[str]:
    """Return the files that a command of export.py writes; skip the test if a package is not installed."""
    kinds = [kind for kind in EXPORTS if kind in command] or ["torchscript"]
    for package in (package for kind in kinds for package in NEEDS.get(kind, ())):
        pytest.importorskip(package)
    edge = {"--static", "--raw-heads", "--int8"} & set(command)
    return ["best_*.onnx"] if edge else [EXPORTS[kind] for kind in kinds]


def export_inputs(command: Command, folder: Path) -> None:
    """Write the exported files that a command reads; skip the test if a package is not installed."""
    for kind, name in EXPORTS.items():
        if name in command:
            exported_files((kind,))
            run_export(ExportOptions(weights=str(folder / "best.pt"), include=(kind,)), {"include"})


def run_cases() -> list[object]:
    cases = []
    for command in COMMANDS:
        text = shlex.join(command)
        if text not in NOT_RUN and command[0] not in NOT_RUN_PROGRAMS:
            marks = () if text in QUICK else (pytest.mark.long,)
            cases.append(pytest.param(command, id=text, marks=marks))
    return cases


@pytest.mark.slow
@pytest.mark.parametrize("command", run_cases())
def test_every_command_runs(command: Command, workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "workplace"
    shutil.copytree(workplace, folder)
    name = program_of(command)
    key = next((f"{name} {flag}" for flag in ("--check", "--diagram") if flag in command), name)
    expected = exported_files(command) if name == "export.py" else [WRITES[key]] if key in WRITES else []
    export_inputs(command, folder)
    PREPARATIONS.get(shlex.join(command), lambda _: None)(folder)
    if "runs/train/plain-seed*" in command:
        write_finished_runs(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if name != "utils.compiled":
        environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run(
        [sys.executable, *fast_arguments(command)],
        cwd=ROOT if name == "pytest" else folder,
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr and "ignored: " not in result.stderr
    if command[-1] in ("--help", "--version"):
        assert ("--debug" if command[-1] == "--help" else __version__) in result.stdout
        return
    for pattern in expected:
        written = [path for path in folder.glob(pattern) if before.get(path) != path.stat().st_mtime_ns]
        assert written, f"nothing new at {pattern}"


def test_every_block_of_python_is_run_by_a_test() -> None:
    pages = sorted({(piece.page, piece.text.splitlines()[0]) for piece in python_blocks()})
    others = [page for page in pages if page[0] != "docs/python.md"]  # test_hub.py runs that page
    assert others == [
        ("docs/contributing.md", "# my_module.py"),
        ("docs/deploy.md", "from rknn.api import RKNN"),  # the page says that it is untested
        ("docs/from-yolov5.md", "import wandb"),
        ("docs/training.md", "from utils.training.callbacks import Callback, register_callback"),
    ]
    assert "docs/python.md" in (ROOT / "tests/test_hub.py").read_text(encoding="utf-8")


def test_the_documented_callback_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("utils.training.callbacks._REGISTERED", dict(_REGISTERED))
    (tmp_path / "documented_callback.py").write_text(python_block("docs/training.md", "from utils.training.callbacks"))
    load_plugins([str(tmp_path / "documented_callback.py")])
    for callback in make_callbacks(tmp_path, tensorboard=False):
        callback.on_fit_epoch_end(None, {"metrics/mAP_0.5": 0.25})  # type: ignore[arg-type]
    assert capsys.readouterr().out == "0.25\n"


def test_the_documented_logger_gets_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    wandb = ModuleType("wandb")
    for name in ("init", "log", "finish"):
        setattr(wandb, name, lambda *words, _name=name, **named: calls.append((_name, *words, named)))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("utils.training.callbacks._REGISTERED", {})
    (tmp_path / "documented_logger.py").write_text(python_block("docs/from-yolov5.md", "import wandb"))
    load_plugins([str(tmp_path / "documented_logger.py")])
    (callback,) = make_callbacks(tmp_path, tensorboard=False)
    run = SimpleNamespace(run_dir=Path("runs/train/exp7"))
    callback.on_train_start(run)  # type: ignore[arg-type]
    callback.on_fit_epoch_end(run, {"metrics/mAP_0.5": 0.25})  # type: ignore[arg-type]
    callback.on_train_end(run)  # type: ignore[arg-type]
    assert [call[0] for call in calls] == ["init", "log", "finish"]
    assert calls[0][-1]["name"] == "exp7" and calls[1][1] == {"metrics/mAP_0.5": 0.25}  # type: ignore[index]


def test_documented_calls_of_torch_hub_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [piece for piece in ALL if piece.language == "span" and piece.text.startswith("torch.hub.load(")]
    assert {piece.page for piece in calls} == {f"{folder}from-yolov5.md" for folder in ("docs/", "docs/zh/")} | {
        "README.md",
        "README.zh-CN.md",
    }
    monkeypatch.chdir(workplace)
    for piece in calls:
        call = ast.parse(piece.text.replace('"."', repr(str(ROOT))), mode="eval").body
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.hub.load"
        named = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        model = torch.hub.load(*map(ast.literal_eval, call.args), **named)
        assert isinstance(model, AutoShape)
    sys.modules.pop("hubconf", None)

"""Files that flags name are checked before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.training_runs import ROOT
from utils.errors import CheckpointError, ConfigError, DetectorError
from utils.options import CompareOptions, DetectOptions, ExportOptions, TrainOptions, ValOptions
from utils.options.command_line import check_files, read_options

OFFICIAL = [f"yolov5{size}{six}{suffix}" for size in "nsmlx" for six in ("", "6") for suffix in ("", ".pt")]

# Commands about a file that is missing or invalid, with {} for a folder, and the place or file that the error names.
COMMANDS = [
    (["train.py", "--weights", "yolov5s.pt"], "yolov5s.pt"),
    (["train.py", "--weights", "{}/none.pt"], "none.pt"),
    (["train.py", "--cfg", "none.yaml"], "--cfg"),
    (["train.py", "--cfg", "{}/syntax.yaml"], "syntax.yaml"),
    (["train.py", "--data", "none.yaml"], "--data"),
    (["train.py", "--data", "{}/missing.yaml"], "missing.yaml"),
    (["train.py", "--data", "{}/syntax.yaml"], "syntax.yaml"),
    (["train.py", "--hyp", "none.yaml"], "--hyp"),
    (["train.py", "--hyp", "{}/syntax.yaml"], "syntax.yaml"),
    (["train.py", "--plugins", "{}/none.py"], "--plugins"),
    (["train.py", "--resume", "{}/none.pt"], "none.pt"),
    (["val.py", "--weights", "{}/none.pt"], "none.pt"),
    (["val.py", "--weights", "{}/here.pt", "{}/none.onnx"], "none.onnx"),
    (["val.py", "--weights", "{}/here.pt", "--data", "{}/missing.yaml"], "missing.yaml"),
    (["val.py", "--weights", "{}/here.pt", "--plugins", "{}/none.py"], "--plugins"),
    (["detect.py", "--weights", "{}/none.pt"], "none.pt"),
    (["detect.py", "--weights", "{}/here.pt", "--source", "{}/none"], "--source"),
    (["detect.py", "--weights", "{}/here.pt", "--data", "none.yaml"], "--data"),
    (["export.py", "--weights", "{}/here.pt", "{}/none.pt"], "none.pt"),
    (["export.py", "--weights", "{}/here.pt", "--data", "none.yaml"], "--data"),
    (["compare.py", "--cfg", "yolov5n.yaml", "none.yaml"], "--cfg"),
    (["compare.py", "--weights", "{}/here.pt", "{}/none.pt"], "none.pt"),
    (["compare.py", "--cfg", "yolov5n.yaml", "yolov5s.yaml", "--data", "{}/missing.yaml"], "missing.yaml"),
    (["compare.py", "--cfg", "yolov5n.yaml", "yolov5s.yaml", "--hyp", "none.yaml"], "--hyp"),
    (["benchmarks.py", "--weights", "yolov5s.pt"], "--weights"),
    (["prepare.py", "{}", "--check", "--weights", "{}/none.pt"], "none.pt"),
    (["prepare.py", "none.yaml", "--check"], "--data"),
    (["prepare.py", "{}/none"], "none"),
    (["models/__main__.py", "--cfg", "none.yaml"], "--cfg"),
    *(([script, "--help"], None) for script in ("train.py", "val.py", "detect.py", "export.py", "compare.py")),
    (["benchmarks.py", "--help"], None),
    (["hubconf.py", "--help"], None),
    (["hubconf.py", "--weights", "yolov5s.pt"], "yolov5s.pt"),
    (["models/yolo.py", "--cfg", "none.yaml"], "--cfg"),
    (["prepare.py", "--help"], None),
]
# Runs each command in one process, and reports the exit code, the error, and what heavy packages were imported.
PROGRAM = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, ROOT := sys.argv[1])
for command in json.loads(sys.argv[2]):
    sys.argv = [f"{ROOT}/{command[0]}", *command[1:]]
    errors, code = io.StringIO(), None
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    heavy = sorted({"torch", "torchvision", "pandas", "matplotlib"} & set(sys.modules))
    print(json.dumps([code, errors.getvalue(), heavy]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an (empty) checkpoint, a data yaml whose images are missing, and an invalid yaml."""
    (tmp_path / "here.pt").write_bytes(b"")
    (tmp_path / "missing.yaml").write_text("path: nowhere\ntrain: images\nval: images\nnames: [cat]\n")
    (tmp_path / "syntax.yaml").write_text("names: [\n")
    return tmp_path


def test_errors_about_files_come_before_torch_is_imported(folder: Path) -> None:
    commands = [[word.format(folder) for word in command] for command, _ in COMMANDS]
    program = [sys.executable, "-c", PROGRAM, str(ROOT), json.dumps(commands)]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    for (command, where), (code, errors, heavy) in zip(COMMANDS, outcomes, strict=True):
        assert heavy == [], command
        assert code == (2 if where else 0), (command, errors)
        if where:
            assert errors.startswith("error: ") and errors.count("\n") == 1, (command, errors)
            assert where in errors.split(": ")[1], (command, errors)
    assert not (folder / "runs").exists()


def test_processes_of_a_training_check_their_files_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", str(folder / "missing.yaml")])
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "data" in read_options(TrainOptions, description="")[1]
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(DetectorError):
        read_options(TrainOptions, description="")


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_missing_checkpoint_of_yolov5_names_its_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_files(ValOptions(weights=(str(tmp_path / name),)))
    assert f"/v7.0/{name.removesuffix('.pt')}.pt" in caught.value.fix and "--weights" not in caught.value.fix
    with pytest.raises(CheckpointError) as caught:
        check_files(TrainOptions(weights=str(tmp_path / name)))
    assert f"/v7.0/{name.removesuffix('.pt')}.pt" in caught.value.fix and "--weights" in caught.value.fix


@pytest.mark.parametrize("name", ["yolov5z.pt", "yolov5s.onnx", "best.pt", "yolov5s-mine.pt"])
def test_other_missing_checkpoints_have_no_download(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_files(ExportOptions(weights=(str(tmp_path / name),)))
    assert "http" not in str(caught.value) and caught.value.where == str(tmp_path / name)


def test_what_exists_or_is_made_later_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = str(folder / "here.pt")
    check_files(TrainOptions())  # the embedded data set may not be drawn yet
    check_files(TrainOptions(data=str(folder / "missing.yaml"), download=True))
    check_files(TrainOptions(resume="newest", weights="none.pt", data="none.yaml"))
    check_files(CompareOptions(weights=(str(folder / "runs/a-seed*"), str(folder / "runs/b-seed*"))))
    check_files(ValOptions(weights=(str(folder),)))  # such as an OpenVINO folder
    check_files(ExportOptions(weights=(weights,), data=str(folder / "missing.yaml")))  # read with --benchmark only
    monkeypatch.chdir(folder)
    for source in ("0", "rtsp://camera/1", "screen", weights, "data/images"):
        check_files(DetectOptions(weights=(weights,), source=source))
    with pytest.raises(DetectorError):
        check_files(ExportOptions(weights=(weights,), data=str(folder / "missing.yaml"), benchmark=True))


def test_each_split_that_is_read_must_exist(folder: Path) -> None:
    for split in ("train", "val", "test"):
        (folder / split).mkdir()
        lines = [f"{other}: {other}" for other in ("train", "val", "test") if other != split]
        (folder / f"{split}.yaml").write_text("\n".join([f"{split}: absent", *lines, "names: [cat]\n"]))
    weights = (str(folder / "here.pt"),)
    cases = [
        (lambda data: TrainOptions(data=data), {"train", "val"}),
        (lambda data: ValOptions(weights=weights, data=data), {"val"}),
        (lambda data: ValOptions(weights=weights, data=data, task="test"), {"test"}),
        (lambda data: ValOptions(weights=weights, data=data, task="speed"), {"val"}),
        (lambda data: CompareOptions(cfg=("yolov5n.yaml", "yolov5s.yaml"), data=data), {"train", "val"}),
        (lambda data: CompareOptions(weights=weights * 2, data=data, task="test"), {"test"}),
    ]
    for options, read in cases:
        for split in ("train", "val", "test"):
            if split in read:
                with pytest.raises(DetectorError):
                    check_files(options(str(folder / f"{split}.yaml")))
            else:
                check_files(options(str(folder / f"{split}.yaml")))


def test_tensorboard_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check_files(TrainOptions(tensorboard=True))
    assert caught.value.where == "--tensorboard"


def test_the_logged_command_has_no_password(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    address = "rtsp://me:se@c/ret@host/live"
    monkeypatch.setattr(sys, "argv", ["detect.py", "--weights", str(tmp_path / "a.pt"), "--source", address])
    with caplog.at_level("INFO", logger="akyolo"):
        options, _ = read_options(DetectOptions, description="")
    assert options.source == address and "rtsp://host/live" in caplog.text and "c/ret" not in caplog.text

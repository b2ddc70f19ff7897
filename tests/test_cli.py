"""Flags and defaults of all scripts; an invalid command gives one line on stderr and exit code 2."""

import dataclasses
import logging
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils import __version__
from utils.cli import build_parser, parse_options
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options import (
    BenchmarkOptions,
    CompareOptions,
    DetectOptions,
    ExportOptions,
    PrepareOptions,
    TrainOptions,
    ValOptions,
)
from utils.options.app import AppOptions

ROOT = Path(__file__).resolve().parent.parent

TRAIN_FLAGS = """weights cfg data hyp epochs batch_size imgsz rect resume nosave noval noautoanchor noplots cache device
image_weights evolve sync_bn tensorboard download
multi_scale single_cls optimizer workers project name exist_ok cos_lr label_smoothing patience freeze save_period seed
no_amp plugins strict no_label_cache fraction dist_timeout"""
VAL_FLAGS = """weights data batch_size imgsz conf_thres iou_thres max_det task device workers single_cls verbose 
save_txt save_conf save_json coco_eval augment engine half noplots project name exist_ok plugins strict no_label_cache
trust_torchscript"""
DETECT_FLAGS = """weights source data imgsz batch_size stream_timeout conf_thres iou_thres max_det device
view_img save_txt save_format save_csv engine
save_conf save_crop nosave classes agnostic_nms augment project name exist_ok line_thickness hide_labels hide_conf half
vid_stride visualize visualize_layers visualize_at plugins trust_torchscript"""
COMPARE_FLAGS = """cfg weights sweep ablation design data task hyp epochs batch_size imgsz device optimizer
workers cos_lr patience cache noplots seed seeds jobs browse no_amp tiny figures paper lang project name plugins
names pretrained fraction rect multi_scale single_cls image_weights label_smoothing freeze strict no_label_cache"""
EXPORT_FLAGS = """data weights imgsz batch_size device half dynamic static akconv_form raw_heads int8 simplify opset
verbose nms agnostic_nms topk_per_class topk_all iou_thres conf_thres include benchmark repeats project name plugins"""
PREPARE_FLAGS = """source out format split seed folds sort_names names ignore_class copy in_place_lists polygons check
weights imgsz device project name"""
APP_FLAGS = "weights comparison lang host port upload_mb plugins"
BENCHMARK_FLAGS = "suite device imgsz batch_size layer_batch repeats amp project name"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (PrepareOptions, PREPARE_FLAGS),
        (TrainOptions, TRAIN_FLAGS),
        (ValOptions, VAL_FLAGS),
        (DetectOptions, DETECT_FLAGS),
        (CompareOptions, COMPARE_FLAGS),
        (BenchmarkOptions, BENCHMARK_FLAGS),
        (AppOptions, APP_FLAGS),
        (ExportOptions, EXPORT_FLAGS),
    ],
)
def test_each_script_has_exactly_these_flags(options: type, names: str) -> None:
    assert {field.name for field in dataclasses.fields(options)} == set(names.split())


def test_defaults_are_those_of_yolov5() -> None:
    train, _ = parse_options(TrainOptions, [], description="")
    assert (train.epochs, train.batch_size, train.imgsz, train.workers, train.patience) == (100, 16, 640, 8, 100)
    assert (train.project, train.name, train.optimizer, train.save_period) == ("runs/train", "exp", "SGD", -1)
    val, _ = parse_options(ValOptions, ["--weights", "a.pt"], description="")
    assert (val.conf_thres, val.iou_thres, val.max_det, val.batch_size, val.task) == (0.001, 0.6, 300, 32, "val")
    detect, _ = parse_options(DetectOptions, ["--weights", "a.pt"], description="")
    assert (detect.conf_thres, detect.iou_thres, detect.max_det, detect.line_thickness) == (0.25, 0.45, 1000, 3)


@pytest.mark.parametrize(
    ("options", "argv", "field", "value"),
    [
        (BenchmarkOptions, ["--rounds", "3"], "repeats", 3),
        (BenchmarkOptions, ["--part", "layers"], "suite", "layers"),
        (ExportOptions, ["--weights", "a.pt", "--rounds=3"], "repeats", 3),
        (DetectOptions, ["--weights", "a.pt", "--trust"], "trust_torchscript", True),
        (ValOptions, ["--weights", "a.pt", "--trust"], "trust_torchscript", True),
    ],
)
def test_former_names_of_flags_are_accepted_but_not_in_the_help(
    options: type, argv: list[str], field: str, value: object
) -> None:
    parsed, given = parse_options(options, argv, description="")
    assert getattr(parsed, field) == value and field in given
    words = {word.strip("[],") for word in build_parser(options, description="").format_help().split()}
    assert f"--{field.replace('_', '-')}" in words and not words & {"--rounds", "--part", "--trust"}


@pytest.mark.parametrize(
    ("options", "flag", "valid", "invalid"),
    [
        (TrainOptions, "--epochs", ["1"], ["0"]),
        (TrainOptions, "--imgsz", ["8192"], ["8193"]),
        (TrainOptions, "--batch-size", ["-1"], ["-2"]),
        (DetectOptions, "--imgsz", ["32", "64"], ["64", "31"]),
        (DetectOptions, "--save-format", ["1"], ["2"]),
        (ValOptions, "--imgsz", ["0"], ["31"]),
        (CompareOptions, "--seeds", ["0", str(2**53)], ["1", "-1"]),
        (ExportOptions, "--topk-per-class", ["1"], ["0"]),
        (BenchmarkOptions, "--imgsz", ["4096"], ["48"]),
    ],
)
def test_a_value_out_of_range_names_its_flag_by_their_flag(
    options: type, flag: str, valid: list[str], invalid: list[str]
) -> None:
    required = ["--weights", "a.pt", "b.pt"] if options is CompareOptions else ["--weights", "a.pt"]
    required = [] if options is BenchmarkOptions else required
    parse_options(options, [*required, flag, *valid], description="")
    with pytest.raises(ConfigError) as caught:
        parse_options(options, [*required, flag, *invalid], description="")
    assert caught.value.where == flag and invalid[-1] in caught.value.what


def test_all_spellings_of_a_flag_are_equivalent() -> None:
    for flag in ("--imgsz", "--img", "--img-size"):
        assert parse_options(TrainOptions, [flag, "320"], description="")[0].imgsz == 320
    for flag in ("--batch-size", "--batch_size", "--batch"):
        assert parse_options(TrainOptions, [flag, "4"], description="")[0].batch_size == 4


SCRIPT_OPTIONS = [TrainOptions, ValOptions, DetectOptions, CompareOptions, BenchmarkOptions, ExportOptions]


def spellings(options: type) -> dict[str, str]:
    """Every spelling of every flag, with dashes, also of YOLOv5's flags that do nothing here, and what it means."""
    parser = build_parser(options, description="")
    known = {flag.replace("_", "-"): a.dest for a in parser._actions for flag in a.option_strings if flag[1] == "-"}
    return known | {flag: flag for name in ("IGNORED", "REFUSED") for flag in getattr(options, name, {})}


def outcome(options: type, words: list[str]) -> object:
    """What the parser makes of some words: the options, the warnings, or the error."""
    required = {CompareOptions: ["--weights", "a.pt", "b.pt"], TrainOptions: [], BenchmarkOptions: []}
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    try:
        return parse_options(options, [*required.get(options, ["--weights", "a.pt"]), *words], description=""), records
    except ConfigError as error:
        return str(error)
    except SystemExit as ended:  # --help, --version
        return ended.code
    finally:
        LOGGER.removeHandler(handler)


def value_for(options: type, meaning: str) -> list[str]:
    """A valid value of a flag, if it takes one."""
    if meaning.startswith("--"):
        return ["3"]
    action = next(a for a in build_parser(options, description="")._actions if a.dest == meaning)
    if action.nargs == 0:
        return []
    if action.choices:
        return [next(iter(action.choices))]
    return ["1,2"] if meaning == "visualize_at" else ["ram" if meaning == "cache" else "64"]


@pytest.mark.parametrize("options", SCRIPT_OPTIONS)
@pytest.mark.parametrize("separator", ["-", "_"])
def test_every_unique_prefix_of_every_flag_is_that_flag(
    options: type, separator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = spellings(options)
    assert len(known) > 10
    for flag, meaning in known.items():
        value = value_for(options, meaning)
        expected = outcome(options, [flag, *value])
        for length in range(3, len(flag)):
            prefix = flag[:length]
            meant = {known[other] for other in known if other.startswith(prefix)}
            written = "--" + prefix[2:].replace("-", separator)
            got = outcome(options, [written, *value])
            if prefix in known or len(meant) == 1:
                complete = outcome(options, [prefix, *value]) if prefix in known else expected
                assert got == complete, (written, flag)
                if value and len(value[0]) and not meaning.startswith("--") and prefix not in known:
                    assert outcome(options, [f"{written}={value[0]}"]) == expected, written
            else:
                assert isinstance(got, str) and got.startswith(f"{written}: "), (written, got)
                candidates = {m if m.startswith("--") else "--" + m.replace("_", "-") for m in meant}
                assert all(candidate in got for candidate in candidates), (written, got)


@pytest.mark.parametrize("options", [ValOptions, DetectOptions, ExportOptions])
def test_the_short_flags_of_yolov5s_commands(options: type) -> None:
    words = ["--weights", "a.pt", "--conf", "0.25", "--iou=0.65"]
    parsed, given = parse_options(options, words, description="")
    assert (parsed.conf_thres, parsed.iou_thres) == (0.25, 0.65) and {"conf_thres", "iou_thres"} <= given


@pytest.mark.usefixtures("logger_restored")
@pytest.mark.parametrize("flag", ["--deb", "--debu", "--debug"])
def test_a_shortened_debug_shows_the_traceback(
    flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["val.py", flag])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "val.py"), run_name="__main__")
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "flag", "surplus"),
    [
        (["--epochs", "64", "--img-size", "64", "64"], "--img-size", "64"),
        (["--img=64", "32"], "--img", "32"),
        (["--rect", "true"], "--rect", "true"),
        (["--resume", "a.pt", "b.pt"], "--resume", "b.pt"),
        (["--ep", "3", "4"], "--epochs", "4"),
    ],
)
def test_surplus_values_name_their_flag(words: list[str], flag: str, surplus: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(TrainOptions, words, description="")
    assert caught.value.where == flag and repr(surplus) in caught.value.what


@pytest.mark.parametrize("flag", ["--weights", "--data", "--half", "--test", "--pt-only", "--pt_only", "--hard-fail"])
def test_yolov5s_flags_of_benchmarks_name_the_command_to_use(flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(BenchmarkOptions, [flag, "yolov5s.pt", "--img", "640"], description="")
    assert "--benchmark" in caught.value.fix


def test_parsing_returns_which_flags_were_given() -> None:
    options, given = parse_options(TrainOptions, ["--resume", "--epochs", "5"], description="")
    assert (options.resume, options.epochs, given) == ("newest", 5, {"resume", "epochs"})


@pytest.fixture
def logger_restored() -> Iterator[None]:
    """Restore the logger after a script in this process has configured it."""
    handlers, level, propagate = list(LOGGER.handlers), LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:] = handlers
    LOGGER.setLevel(level)  # which also clears what the logger has cached about its level
    LOGGER.propagate = propagate


@pytest.mark.usefixtures("logger_restored")
@pytest.mark.parametrize(
    "script", ["prepare.py", "train.py", "val.py", "detect.py", "compare.py", "export.py", "benchmarks.py"]
)
def test_every_script_prints_the_version(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"akyolo {__version__}\n"


def test_an_unknown_flag_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(TrainOptions, ["--epochz", "5"], description="")
    assert "'--epochz'" in caught.value.what and "--epochs" in caught.value.fix


@pytest.mark.parametrize(
    "argv",
    [
        ["--epochs", "0"],
        ["--epochs", "many"],
        ["--batch-size", "-3"],
        ["--imgsz", "7"],
        ["--optimizer", "LION"],
        ["--label-smoothing", "1.5"],
    ],
)
def test_a_value_out_of_range_names_its_flag(argv: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(TrainOptions, argv, description="")
    assert argv[0] in str(caught.value) and argv[1] in str(caught.value)


def test_ignored_flags_of_yolov5_may_have_negative_values(caplog: pytest.LogCaptureFixture) -> None:
    argv = ["--bbox_interval", "-1", "--local_rank", "-1", "--seed", "3"]
    with caplog.at_level("WARNING", logger="akyolo"):
        options, given = parse_options(TrainOptions, argv, description="")
    assert options.seed == 3 and given == {"seed"}
    assert "--bbox-interval" in caplog.text and "--local-rank" in caplog.text


@pytest.mark.parametrize("error", ['RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', "MemoryError()"])
def test_out_of_memory_is_one_line_that_names_the_batch_size(error: str) -> None:
    program = f"from utils.cli import run_script\ndef main():\n    raise {error}\nrun_script(main)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--batch-size" in done.stderr


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny data set, one with a class id out of range, invalid yamls and a damaged checkpoint."""
    folder = tmp_path_factory.mktemp("invalid")
    for name, rows in (
        ("good", "0 0.5 0.5 0.4 0.6\n"),
        ("classes", "0 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.1 0.1\n7 0.5 0.5 0.4 0.6\n"),
    ):
        for kind in ("images", "labels"):
            (folder / name / kind / "train").mkdir(parents=True)
        cv2.imwrite(str(folder / name / "images/train/a.png"), np.full((48, 64, 3), 90, np.uint8))
        (folder / name / "labels/train/a.txt").write_text(rows)
        (folder / f"{name}.yaml").write_text(
            f"path: {name}\ntrain: images/train\nval: images/train\nnames: [cat, dog, cow]\n"
        )
    (folder / "missing.yaml").write_text("path: good\ntrain: images/trian\nval: images/train\nnames: [cat]\n")
    model = (ROOT / "models/yolov5n.yaml").read_text()
    (folder / "unknown.yaml").write_text(model.replace("Conv, [512, 3, 2]", "AKConvv, [512, 3, 2]", 1))
    (folder / "from.yaml").write_text(model.replace("[[-1, 6], 1, Concat", "[[-1, 16], 1, Concat"))
    (folder / "broken.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    (folder / "syntax.yaml").write_text("train: [\n")
    hyp = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    (folder / "momentum.yaml").write_text(hyp.replace("\nmomentum: 0.937", "\nmomentum: 1.0"))
    return folder


# A command that is invalid, and a part of its error: a name, value or position.
INVALID = [
    (["train.py", "--data", "nowhere.yaml"], "nowhere.yaml"),
    (["train.py", "--data", "shape.yaml"], " shapes.yaml"),
    (["train.py", "--cfg", "yolov5n-akonv.yaml"], " yolov5n-AKConv.yaml"),
    (["train.py", "--data", "{}/missing.yaml"], "images/train"),
    (["train.py", "--data", "{}/classes.yaml"], "labels/train/a.txt:3: "),
    (["train.py", "--data", "{}/syntax.yaml"], "syntax.yaml:2:1"),
    (["train.py", "--cfg", "{}/unknown.yaml", "--data", "{}/good.yaml"], "'AKConvv'"),
    (["train.py", "--cfg", "{}/from.yaml", "--data", "{}/good.yaml"], "layer 16"),
    (["train.py", "--hyp", "hyp.scratch-lo.yaml"], " hyp.scratch-low.yaml"),
    (["train.py", "--hyp", "{}/momentum.yaml"], "momentum"),
    (["train.py", "--seed", str(2**64)], "--seed: "),
    (["train.py", "--weights", "{}/broken.pt"], "broken.pt: "),
    (["train.py", "--resume", "{}/nothing.pt"], "nothing.pt: "),
    (["train.py", "--device", "cuda:9"], "cuda:9"),
    (["train.py", "--plugins", "{}/none.py"], "none.py"),
    (["val.py", "--data", "shapes.yaml"], "--weights: "),
    (["val.py", "--weights", "{}/broken.pt"], "broken.pt: "),
    (["detect.py", "--weights", "{}/broken.pt", "--source", "{}/nowhere"], "nowhere"),
    (["detect.py", "--weights", "{}/broken.pt", "--source", "{}/good/images/train"], "broken.pt: "),
    (["compare.py", "--cfg", "yolov5n.yaml"], "--cfg"),
    (["compare.py", "--cfg", "yolov5n.yaml", "yolov9.yaml"], "yolov9.yaml"),
]


def script_and_arguments(command: list[str], workplace: Path) -> tuple[str, list[str]]:
    """The script's path, and its arguments with the workplace filled in; on the CPU unless they name a device."""
    script, *arguments = (word.format(workplace) for word in command)
    return str(ROOT / script), arguments if "--device" in arguments else [*arguments, "--device", "cpu"]


def check_error(code: int | str | None, stderr: str, expected: str, folder: Path) -> None:
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert code == 2, stderr
    assert len(errors) == 1 and expected in errors[0], stderr
    assert "Traceback" not in stderr
    assert not (folder / "runs").exists(), "an invalid command must not leave a run folder"


@pytest.mark.usefixtures("logger_restored")
@pytest.mark.parametrize(
    ("command", "expected"), INVALID, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_an_invalid_command_gets_one_line_and_exit_code_2(
    command: list[str],
    expected: str,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The script runs in this process, where torch is imported already."""
    script, arguments = script_and_arguments(command, workplace)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    check_error(ended.value.code, capfd.readouterr().err, expected, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train.py", "val.py", "detect.py", "compare.py"])
def test_an_invalid_command_ends_a_real_process(script: str, workplace: Path, tmp_path: Path) -> None:
    command, expected = [case for case in INVALID if case[0][0] == script][-1]
    path, arguments = script_and_arguments(command, workplace)
    result = subprocess.run(
        [sys.executable, path, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    check_error(result.returncode, result.stderr, expected, tmp_path)

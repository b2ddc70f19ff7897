"""All scripts on a tiny synthetic data set: train, resume, validate, detect, compare, mostly as real processes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.tiny_data import TINY_DATA
from tests.helpers.training_runs import ROOT, train_options
from utils.benchmarks import cases
from utils.benchmarks.akconv import run_benchmark
from utils.benchmarks.cases import layer_cases
from utils.cli import parse_options
from utils.comparison.run import run_comparison
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import ConfigError
from utils.files import load_json
from utils.options import BenchmarkOptions, CompareOptions, TrainOptions
from utils.training.results_csv import COLUMNS
from utils.training.run import run_training
from utils.weights.checkpoint import content_hash, load_checkpoint

pytestmark = pytest.mark.slow


def script(name: str, *arguments: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts from another folder, as a user does."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert not check or result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of train.py after 2 epochs of the AKConv model, with plots."""
    folder = tmp_path_factory.mktemp("trained")
    words = ("--cfg", "yolov5n-akconv.yaml", "--data", data, "--epochs", 2, "--imgsz", 96, "--batch-size", 4)
    result = script("train.py", *words, "--device", "cpu", "--workers", 2, "--name", "a", cwd=folder)
    assert {"mAP50-95", "Instances"} <= set(result.stdout.split()), "the header of the metrics table"
    return folder / "runs/train/a"


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def test_train_writes_the_files_that_users_know(trained: Path) -> None:
    for name in (
        "weights/last.pt weights/best.pt results.csv results.png labels.jpg train_batch0.jpg train_batch2.jpg "
        "val_batch0_labels.jpg val_batch0_pred.jpg confusion_matrix.png PR_curve.png P_curve.png R_curve.png "
        "F1_curve.png opt.yaml hyp.yaml env.json summary.json"
    ).split():
        assert (trained / name).stat().st_size > 0, name
    table = pd.read_csv(trained / "results.csv")
    assert tuple(table.columns) == COLUMNS and table["epoch"].tolist() == [0, 1]
    for image in trained.glob("*.[jp][pn]g"):
        image = cv2.imread(str(image))
        assert image is not None and image.std() > 5, f"{image.name} is blank"


def test_a_checkpoint_holds_the_epoch_and_float32_weights(trained: Path) -> None:
    content = load_checkpoint(trained / "weights/last.pt")
    assert content["epoch"] == 2 and content["ema"]["model.0.conv.weight"].dtype == torch.float32
    assert content["ema"]["model.1.conv.0.weight"].shape[2:] == (3, 1)


def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(data: Path, tmp_path: Path) -> None:
    first = run_training(train_options(data, tmp_path, name="a", workers=0)).run_dir
    second = run_training(train_options(data, tmp_path, name="b", workers=2)).run_dir
    other = run_training(train_options(data, tmp_path, name="c", seed=1)).run_dir
    assert (first / "results.csv").read_bytes() == (second / "results.csv").read_bytes()
    assert (first / "results.csv").read_bytes() != (other / "results.csv").read_bytes()
    weights = [content_hash(load_checkpoint(run / "weights/last.pt")["model"]) for run in (first, second, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.long
def test_a_killed_process_resumes_from_its_last_epoch(data: Path, tmp_path: Path) -> None:
    words = ["--cfg", "yolov5n.yaml", "--data", data, "--epochs", 200, "--imgsz", 64, "--batch-size", 4, "--noplots"]
    command = [sys.executable, str(ROOT / "train.py"), *map(str, words), "--device", "cpu", "--workers", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results, last = tmp_path / "runs/train/exp/results.csv", tmp_path / "runs/train/exp/weights/last.pt"
    deadline = time.monotonic() + 240
    while (
        process.poll() is None and time.monotonic() < deadline and not (last.exists() and len(pd.read_csv(results)) > 2)
    ):
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = load_checkpoint(last)["progress"]["epoch"]
    script("train.py", "--resume", "--epochs", done + 2, "--noplots", cwd=tmp_path)
    assert pd.read_csv(results)["epoch"].tolist() == list(range(done + 2))
    again = script("train.py", "--resume", cwd=tmp_path, check=False)
    (error,) = [line for line in again.stderr.splitlines() if line.startswith("error: ")]
    assert again.returncode == 2 and "last.pt: " in error and f" {done + 2} " in error and "--epochs" in error


def test_resume_rejects_options_that_would_change_the_run(trained: Path) -> None:
    last = str(trained / "weights/last.pt")
    with pytest.raises(ConfigError) as error:
        run_training(TrainOptions(resume=last, batch_size=8, epochs=9), {"resume", "batch_size", "epochs"})
    assert error.value.where == "--resume" and "--batch-size" in error.value.what


def test_training_starts_from_weights_and_keeps_frozen_layers(
    data: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = trained / "weights/best.pt"
    with caplog.at_level("INFO", logger="akyolo"):
        run = run_training(train_options(data, tmp_path, cfg="yolov5n.yaml", weights=str(best), epochs=1, freeze=(2,)))
    summary = json.loads((run.run_dir / "summary.json").read_text())
    assert 0 < summary["transferred_fraction"] < 1 and summary["peak_memory_gb"] > 0
    assert re.search(r"\bmodel\.1\b", caplog.text), "a layer whose weights do not fit is named"
    before, after = load_checkpoint(best)["ema"], load_checkpoint(run.run_dir / "weights/last.pt")["model"]
    transferred = [name for name in after if name in before and before[name].shape == after[name].shape]
    frozen = {name for name in transferred if name.startswith("model.0.") and name.endswith(("weight", "bias"))}
    changed = {name for name in transferred if not torch.equal(before[name], after[name])}
    assert frozen and not frozen & changed and len(changed) > 50


def test_every_training_switch_runs(data: Path, tmp_path: Path) -> None:
    switches = {
        "rect": True,
        "multi_scale": True,
        "single_cls": True,
        "cos_lr": True,
        "label_smoothing": 0.1,
        "optimizer": "Adam",
        "cache": "ram",
        "save_period": 1,
        "noval": True,
        "noautoanchor": True,
        "epochs": 2,
    }
    run = run_training(train_options(data, tmp_path, **switches))
    assert (run.run_dir / "weights/epoch1.pt").exists() and run.evaluation.metrics.label_counts.shape == (1,)
    assert np.isfinite(pd.read_csv(run.run_dir / "results.csv")["metrics/mAP_0.5"]).tolist() == [False, True]


def test_val_reproduces_the_evaluation_of_training(trained: Path, data: Path, tmp_path: Path) -> None:
    best = trained / "weights/best.pt"
    flags = ("--verbose", "--save-txt", "--save-conf", "--save-json", "--batch-size", 8, "--device", "cpu")
    result = script("val.py", "--weights", best, "--data", data, *flags, cwd=tmp_path)
    lines = [line.split() for line in result.stdout.splitlines()]
    header = ["Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95"]
    row = next(line for line in lines if line[:2] == ["all", "6"])
    summary = json.loads((trained / "summary.json").read_text())
    assert header in lines and float(row[5]) == pytest.approx(summary["map50"], abs=2e-3)
    assert any(line[:1] == ["spiral"] for line in lines), "--verbose has a row per class"
    run = tmp_path / "runs/val/exp"
    predictions = json.loads((run / "best_predictions.json").read_text())
    truth = json.loads((run / "ground_truth.json").read_text())
    assert len(truth["images"]) == 6 and set(predictions[0]) == {"image_id", "category_id", "bbox", "score"}
    rows = np.loadtxt(next((run / "labels").glob("*.txt")), ndmin=2)
    assert rows.shape[1] == 6 and (rows[:, 1:] >= 0).all() and (rows[:, 1:] <= 1).all()


def test_detect_reads_a_folder_and_skips_a_damaged_image(trained: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "图片 with space"
    folder.mkdir()
    for source in (data.parent / "shapes/images/test").iterdir():
        (folder / f"细胞{source.name}").write_bytes(source.read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    before = tree_hash(folder)
    flags = ("--conf-thres", 0, "--max-det", 5, "--save-txt", "--save-csv", "--save-crop", "--imgsz", 96, 128)
    result = script("detect.py", "--weights", trained / "weights/best.pt", "--source", folder, *flags, cwd=tmp_path)
    run = tmp_path / "runs/detect/exp"
    assert result.stderr.splitlines()[-1].startswith("warning: 1 of 4 ")
    assert "broken.jpg" in (run / "skipped.csv").read_text()
    assert len(list(run.glob("细胞*.jpg"))) == 3
    table = pd.read_csv(run / "predictions.csv")
    assert len(table) == 15 and {"Image Name", "Prediction", "Confidence", "xmin", "ymax"} <= set(table.columns)
    assert len(list((run / "labels").glob("*.txt"))) == 3 and list((run / "crops").rglob("*.jpg"))
    assert tree_hash(folder) == before


def test_detect_annotates_a_video_and_filters_classes(trained: Path, data: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for level in range(6):
        writer.write(np.full((64, 96, 3), 40 * level, np.uint8))
    writer.release()
    flags = (
        "--vid-stride",
        2,
        "--conf-thres",
        0,
        "--max-det",
        3,
        "--classes",
        1,
        4,
        "--save-txt",
        "--agnostic-nms",
        "--augment",
    )
    script("detect.py", "--weights", trained / "weights/best.pt", "--source", "v.avi", *flags, cwd=tmp_path)
    capture = cv2.VideoCapture(str(tmp_path / "runs/detect/exp/v.mp4"))
    frames = 0
    while capture.grab():
        frames += 1
    rows = np.concatenate([np.loadtxt(p, ndmin=2) for p in (tmp_path / "runs/detect/exp/labels").glob("v_*.txt")])
    assert frames == 3 and set(rows[:, 0]) <= {1, 4}


def test_compare_trains_each_model_once(
    data: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = trained / "weights/best.pt"
    words = ("--cfg", "yolov5n.yaml", "yolov5n-akconv.yaml", "--data", data, "--epochs", 1, "--imgsz", 96)
    more = ("--batch-size", 4, "--workers", 0, "--device", "cpu", "--noplots", "--name", "c")
    more += ("--pretrained", best, "--fraction", 0.5, "--names", "baseline", "+AKConv")
    script("compare.py", *words, *more, "--paper", "paper", "--lang", "zh", cwd=tmp_path)
    folder = tmp_path / "runs/compare/c"
    checkpoints = {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")}
    assert len(checkpoints) == 4, "best.pt and last.pt of two runs"
    results = json.loads((folder / "results.json").read_text())["results"]
    assert [r["parameters"] for r in results] == [1_772_035, 1_301_405]
    assert results[1]["sampling_gflops"] > 0
    assert [r["model"] for r in results] == ["baseline", "+AKConv"]
    assert [r["training_images"] for r in results] == [[5], [5]] and 0 < results[0]["transferred_fraction"] < 1
    assert results[1]["transferred_fraction"] == 1
    drawn = build_index(load_data_config(str(data)), "train").fraction(0.5, seed=0).fingerprint()
    environments = [load_json(folder / f"{name}-seed0/env.json") for name in ("yolov5n", "yolov5n-akconv")]
    assert [one["dataset"] for one in environments] == [drawn] * 2
    assert all(r["inference_ms"] > 0 and r["training_memory_gb"] > 0 and r["training_seconds"] > 0 for r in results)
    tables = (folder / "compare.md").read_text()
    assert all(
        label in tables for label in ("| baseline", "| +AKConv", f"from {best} (it provides", " 5 training images")
    )
    assert cv2.imread(str(folder / "compare.png")).std() > 5
    listed = load_json(tmp_path / "paper/contents.json")
    assert {str(p.relative_to(tmp_path / "paper")) for p in (tmp_path / "paper").rglob("*.*")} == {
        *listed,
        "contents.json",
    }
    assert {"methods.md", "paper.tex", "tables.html", "tables/accuracy.tex", "figures/PR_curve.pdf"} <= set(listed)
    assert "+AKConv" in (tmp_path / "paper/methods.md").read_text(encoding="utf-8")

    class ReachedEvaluationError(Exception):
        pass

    def stop(*_: object, **__: object) -> NoReturn:
        raise ReachedEvaluationError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.comparison.run._evaluate", stop)
    arguments = [str(word) for word in (*words, *more)]
    with pytest.raises(ReachedEvaluationError):
        run_comparison(*parse_options(CompareOptions, arguments, description=""))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.pt")} == checkpoints, "nothing is trained again"
    other = parse_options(CompareOptions, [*arguments, "--seed", "0", "--optimizer", "Adam"], description="")
    with pytest.raises(ConfigError) as error:
        run_comparison(*other)
    assert "--optimizer" in error.value.what


def test_a_custom_module_from_one_file_can_be_trained(data: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/contributing.md").read_text(encoding="utf-8")
    (tmp_path / "my_module.py").write_text(page.split("# my_module.py\n")[1].split("```")[0])
    model = (ROOT / "models/yolov5n.yaml").read_text().replace("3, C3, [128]", "1, SE, [16]", 1)
    (tmp_path / "mine.yaml").write_text(model)
    words = ("--cfg", "mine.yaml", "--plugins", "my_module.py", "--data", data, "--epochs", 1, "--imgsz", 96)
    result = script("train.py", *words, "--batch-size", 4, "--device", "cpu", "--noplots", cwd=tmp_path)
    assert "SE  " in result.stdout
    best = tmp_path / "runs/train/exp/weights/best.pt"
    script("val.py", "--weights", best, "--plugins", "my_module.py", "--device", "cpu", "--noplots", cwd=tmp_path)


def test_training_does_not_change_the_data_set(data: Path, trained: Path, tmp_path: Path) -> None:
    before = tree_hash(data.parent / "shapes")
    run_training(train_options(data, tmp_path, epochs=1, noplots=False))
    assert tree_hash(data.parent / "shapes") == before


def test_the_synthetic_data_set_depends_only_on_its_seed(data: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(tmp_path / "tiny.yaml")))
    assert tree_hash(tmp_path / "shapes") == tree_hash(data.parent / "shapes")
    (tmp_path / "tiny.yaml").write_text(TINY_DATA.replace("seed: 7", "seed: 8"))
    ensure_shapes(load_data_config(str(tmp_path / "tiny.yaml")))
    assert tree_hash(tmp_path / "shapes") != tree_hash(data.parent / "shapes")


def test_benchmarks_measure_each_number_of_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [layer.points for layer in cases.SWEPT] == [1, 2, 3, 5, 7, 9, 11, 13]
    monkeypatch.setattr(cases, "SWEPT", cases.SWEPT[3::4])
    monkeypatch.chdir(tmp_path)
    run_benchmark(BenchmarkOptions(suite="points", layer_batch=1, repeats=1, device="cpu"))
    content = json.loads((tmp_path / "runs/benchmark/exp/benchmark.json").read_text())
    (rows,) = content["parts"].values()
    assert [row["case"] for row in rows] == ["3x3 convolution", "N 5", "N 13"]
    assert all(row["memory_mb"] > 0 and set(row["timings"]) == {"forward", "forward + backward"} for row in rows)
    assert "| N 13 | AKConv |" in (tmp_path / "runs/benchmark/exp/benchmark.md").read_text()


def test_benchmarks_measure_inference_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.benchmarks.akconv.INFERENCE_SIZES", (32, 64))
    monkeypatch.chdir(tmp_path)
    run_benchmark(BenchmarkOptions(suite="inference", repeats=1, device="cpu"))
    content = json.loads((tmp_path / "runs/benchmark/exp/benchmark.json").read_text())
    (rows,) = content["parts"].values()
    assert [row["variant"] for row in rows] == ["plain"] + ["AKConv"] * 6
    assert all({"32 px, 1 thread", "64 px, 1 thread"} <= set(row["timings"]) for row in rows)


def test_benchmarks_compare_each_layer_with_the_convolution_it_replaces() -> None:
    for plain, ours, gathers in layer_cases():
        assert [plain.variant, ours.variant, gathers.variant] == ["plain", "AKConv", "four gathers"]
        x = plain.image(2, 0, torch.device("cpu"))
        shapes = {case.module(torch.device("cpu"))(x).shape for case in (plain, ours, gathers)}
        assert len(shapes) == 1 and x.shape[1] == plain.layer.channels  # type: ignore[union-attr]

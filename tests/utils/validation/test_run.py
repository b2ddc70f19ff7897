"""val.py with every option, on images that the model itself has labelled."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.coco_oracle import pycocotools_figures
from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_checkpoint, small_model
from utils.datasets.config import EMBEDDED
from utils.errors import DataError, RunError
from utils.inference.ensemble import Ensemble, SingleClassWrapper
from utils.inference.metadata import ModelMetadata
from utils.inference.model_loading import open_ensemble
from utils.metrics.coco import FIGURES
from utils.options import ValOptions
from utils.validation.coco_json import DIFFERENCES
from utils.validation.run import _own_data, run_evaluation, speed_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory):
    """A folder with two checkpoints and a data set labelled with the first one's detections, slightly moved.

    Two images have the same name, one has no label.
    """
    folder = tmp_path_factory.mktemp("validation")
    small_checkpoint(folder / "a.pt", "yolov5n.yaml")
    small_checkpoint(folder / "b.pt", "yolov5n-AKConv.yaml")
    self_labelled_data(folder, small_model("yolov5n.yaml"))
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        (folder / kind / "val/more").mkdir()
        (folder / kind / f"val/more/0{suffix}").write_bytes((folder / kind / f"val/0{suffix}").read_bytes())
    evaluate(folder, folder / "runs", "a.pt", conf_thres=0.3, max_det=6, save_txt=True, name="first")
    rng = np.random.default_rng(0)
    for path in (folder / "runs/first/labels").glob("*.txt"):
        rows = np.loadtxt(path, ndmin=2)
        rows[:, 3:] *= rng.uniform(0.75, 0.999, (len(rows), 2))
        target = "more/0.txt" if path.stem == "0-2" else path.name
        rows = rows[rows[:, 3:].min(1) > 0.05]
        (folder / "labels/val" / target).write_text(
            "".join(f"{int(row[0])} " + " ".join(f"{v:.6f}" for v in row[1:]) + "\n" for row in rows)
        )
    with (folder / "labels/val/1.txt").open("a") as file:
        file.write("0 0.9 0.1 0.06 0.08\n")  # a false negative
    (folder / "labels/val/5.txt").write_text("")  # a background image
    return folder


def evaluate(data_folder, project, *names, **changes):
    """Run val.py's work in this process."""
    settings = {"data": str(data_folder / "own.yaml"), "imgsz": 96, "device": "cpu", "workers": 0, "noplots": True}
    weights = tuple(str(data_folder / name) for name in names)
    return run_evaluation(ValOptions(weights=weights, project=str(project), **{**settings, **changes}))


def val(*words, cwd):
    """Run val.py in a process of its own."""
    command = [sys.executable, str(ROOT / "val.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def warnings(caplog):
    """Return the warnings but the one that the data set's val is its train, which is so."""
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    return [message for message in messages if "also in 'train'" not in message]


@pytest.mark.slow
def test_all_outputs_are_written_and_coco_metrics_equal_pycocotools(data_folder, tmp_path):
    flags = ("--save-json", "--save-txt", "--save-conf", "--verbose", "--imgsz", 96, "--workers", 0, "--device", "cpu")
    result = val("--weights", data_folder / "a.pt", "--data", data_folder / "own.yaml", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs/val/exp"
    truth = json.loads((run / "ground_truth.json").read_text(encoding="utf-8"))
    predictions = json.loads((run / "a_predictions.json").read_text())
    figures = json.loads((run / "coco.json").read_text())
    expected = pycocotools_figures(run / "ground_truth.json", run / "a_predictions.json")
    assert list(figures) == list(FIGURES) and figures == pytest.approx(expected, abs=1e-6) and figures["AP50"] > 0.3
    assert len({image["id"] for image in truth["images"]}) == 7 and len(predictions) > 50
    assert all((data_folder / "images/val" / image["file_name"]).is_file() for image in truth["images"])
    assert len({image["file_name"] for image in truth["images"]}) == 7
    assert DIFFERENCES in result.stdout and f"{figures['AR_10']:.3f}" in result.stdout
    labels = {path.stem: np.loadtxt(path, ndmin=2) for path in (run / "labels").glob("*.txt")}
    assert set(labels) == {"0", "0-2", *"12345"} and all(rows.shape[1] == 6 for rows in labels.values())
    assert sum(map(len, labels.values())) == len(predictions)
    counts = pd.read_csv(run / "confusion_matrix.csv", index_col=0)
    assert [*counts.columns] == [*counts.index] == [*SMALL_NAMES, "background"]
    assert counts.iloc[:, :-1].to_numpy().sum() == len(truth["annotations"]), "a column counts each label once"
    for name in ("confusion_matrix.png", "PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"):
        assert cv2.imread(str(run / name)).std() > 5, name
    for name in ("val_batch0_labels.jpg", "val_batch0_pred.jpg", "false_negatives.jpg", "false_positives.jpg"):
        assert cv2.imread(str(run / name)).std() > 5, name


def test_a_full_disk_costs_the_plots_and_not_the_metrics(data_folder, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise RunError(path, "cannot be written (No space left on device)", fix="free space")

    for module in ("utils.plots.figure", "utils.datasets.image_writing"):
        monkeypatch.setattr(f"{module}.atomic_write", full)
    evaluation = evaluate(data_folder, tmp_path, "a.pt", noplots=False)
    assert evaluation.metrics.map50 > 0.3
    assert not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.jpg"))
    failures = [text for text in warnings(caplog) if "No space left" in text]
    assert len(failures) == 3, "a batch, the curves, and the detection errors"


@pytest.mark.slow
def test_background_images_count_in_the_confusion_matrix(data_folder, tmp_path):
    evaluation = evaluate(data_folder, tmp_path, "a.pt")
    (background,) = (image for image in evaluation.images if not len(image.label_classes))
    assert 0 < (background.confidences > 0.25).sum() <= evaluation.confusion.counts[:, -1].sum()


@pytest.mark.slow
def test_several_weights_form_an_ensemble(data_folder, tmp_path):
    paths = [str(data_folder / name) for name in ("a.pt", "b.pt")]
    ensemble, metadata = open_ensemble(paths)
    assert isinstance(ensemble, Ensemble) and metadata.names == SMALL_NAMES and metadata.image_size == 96
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        members = [open_ensemble([path])[0](images)[0] for path in paths]
        assert torch.equal(ensemble(images)[0], torch.cat(members, 1))
    twice, single = evaluate(data_folder, tmp_path, "a.pt", "a.pt"), evaluate(data_folder, tmp_path, "a.pt")
    assert twice.metrics.map50 == pytest.approx(single.metrics.map50) and single.metrics.map50 > 0.3
    assert evaluate(data_folder, tmp_path, "a.pt", "b.pt").metrics.map50 != single.metrics.map50


def test_augmentation_changes_the_detections_and_keeps_them_accurate(data_folder, tmp_path):
    plain, augmented = evaluate(data_folder, tmp_path, "a.pt"), evaluate(data_folder, tmp_path, "a.pt", augment=True)
    assert augmented.metrics.map50 != plain.metrics.map50 and augmented.metrics.map50 > 0.1


def test_single_class_evaluation(data_folder, tmp_path):
    model, _ = open_ensemble([str(data_folder / "a.pt")])
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        predictions, merged = model(images)[0], SingleClassWrapper(model)(images)[0]
    assert torch.equal(merged[..., :5], predictions[..., :5])
    assert torch.equal(merged[..., 5], predictions[..., 5:].max(-1).values)
    metrics = evaluate(data_folder, tmp_path, "a.pt", single_cls=True).metrics
    assert metrics.label_counts.shape == (1,) and metrics.map50 > 0.3


def test_class_names_in_a_different_order_cause_a_warning(data_folder, tmp_path, caplog):
    evaluate(data_folder, tmp_path, "a.pt")
    assert not warnings(caplog)
    text = (data_folder / "own.yaml").read_text(encoding="utf-8")
    swapped = data_folder / "swapped.yaml"
    swapped.write_text(text.split("names:")[0] + "names: [star, ring, other]\n")
    evaluate(data_folder, tmp_path, "a.pt", data=str(swapped))
    (warning,) = warnings(caplog)
    assert warning.startswith(str(swapped)) and "class 0" in warning and "'star'" in warning and "'ring'" in warning


def test_a_split_without_objects_has_zero_metrics_a_warning_and_all_files(data_folder, tmp_path, caplog):
    shutil.copytree(data_folder / "images", tmp_path / "images")
    (tmp_path / "labels/val").mkdir(parents=True)
    (tmp_path / "labels/val/0.txt").write_text("")
    shutil.copy(data_folder / "own.yaml", tmp_path)
    data, runs = str(tmp_path / "own.yaml"), tmp_path / "runs"
    evaluation = evaluate(data_folder, runs, "a.pt", data=data, noplots=False, save_json=True, save_txt=True)
    assert evaluation.metrics.map50 == evaluation.metrics.map50_95 == 0
    assert any(text.startswith(data) and "'val'" in text and " 7 images" in text for text in warnings(caplog))
    names = {path.name for path in (runs / "exp").iterdir()}
    assert {"coco.json", "a_predictions.json", "labels", "confusion_matrix.png", "val_batch0_labels.jpg"} <= names


def test_a_high_confidence_threshold_and_flags_without_effect_cause_warnings(data_folder, tmp_path, caplog):
    evaluate(data_folder, tmp_path, "a.pt", conf_thres=0.3, save_conf=True)
    threshold, save_conf = warnings(caplog)
    assert "--conf-thres" in threshold and " 0.3 " in threshold and "--save-conf" in save_conf


def test_without_data_the_set_of_the_checkpoint_or_else_the_embedded_one_is_used(
    data_folder, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    monkeypatch.chdir(data_folder)
    assert len(evaluate(data_folder, tmp_path, "a.pt", data="", max_det=1).images) == 7
    assert [
        m for m in (record.getMessage() for record in caplog.records) if m.startswith("--data ") and "own.yaml" in m
    ]
    assert _own_data(ModelMetadata(names=("a",), stride=32)) == EMBEDDED


def test_speed_is_measured_at_the_thresholds_of_detection(data_folder, tmp_path, caplog):
    evaluation = evaluate(data_folder, tmp_path, "a.pt", task="speed", noplots=False)
    assert any("--task speed" in text and " 0.25 " in text for text in warnings(caplog))
    (run,) = tmp_path.iterdir()
    assert [path.name for path in run.iterdir()] == ["speed.json"]
    assert json.loads((run / "speed.json").read_text())["milliseconds_per_image"]["inference"] > 0
    assert all((image.confidences > 0.25).all() for image in evaluation.images)


def test_the_train_split_and_a_missing_test_split(data_folder, tmp_path):
    assert len(evaluate(data_folder, tmp_path, "a.pt", task="train").images) == 7
    with pytest.raises(DataError) as caught:
        evaluate(data_folder, tmp_path, "a.pt", task="test")
    assert caught.value.where == str(data_folder / "own.yaml") and "'test'" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--save-hybrid"], "--save-hybrid"),
        (["--dnn"], "--dnn"),
        (["--task", "study"], "--task"),
        (["--task", "tset"], "--task"),
    ],
)
def test_unsupported_flags_are_refused(words, flag, tmp_path):
    result = val("--weights", "a.pt", *words, cwd=tmp_path)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2 and len(errors) == 1 and flag in errors[0]


def test_speed_line_contains_each_phase_and_the_fraction_of_nms():
    line = speed_line({"loading": 1, "pre": 1.5, "inference": 4.5, "nms": 2, "matching": 1})
    assert all(f"{value} ms" in line for value in ("1.0", "1.5", "4.5", "2.0")) and "30%" in line

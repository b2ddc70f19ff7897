"""val.py with every option, on images that the model itself has labelled, and mostly in real processes."""

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

from tests.helpers.small_model import SMALL_NAMES, self_labelled_data, small_checkpoint, small_model
from tests.utils.metrics.test_coco import oracle
from utils.errors import DataError, RunError
from utils.inference.ensemble import Ensemble, SingleClassWrapper
from utils.inference.model_loading import open_ensemble
from utils.metrics.coco import FIGURES
from utils.options import ValOptions
from utils.validation.run import run_evaluation, speed_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two checkpoints and a data set with what the first finds, moved a little, as labels.

    Two images have one name, one has no label.
    """
    folder = tmp_path_factory.mktemp("validation")
    small_checkpoint(folder / "a.pt", "yolov5n.yaml")
    small_checkpoint(folder / "b.pt", "yolov5n-AKConv.yaml")
    self_labelled_data(folder, small_model("yolov5n.yaml"))
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        (folder / kind / "val/more").mkdir()
        (folder / kind / f"val/more/0{suffix}").write_bytes((folder / kind / f"val/0{suffix}").read_bytes())
    judge(folder, folder / "runs", "a.pt", conf_thres=0.3, max_det=6, save_txt=True, name="first")
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
        file.write("0 0.9 0.1 0.06 0.08\n")  # nothing will find this
    (folder / "labels/val/5.txt").write_text("")  # a background image
    return folder


def judge(place, project, *names, **changes):
    settings = {"data": str(place / "own.yaml"), "imgsz": 96, "device": "cpu", "workers": 0, "noplots": True}
    weights = tuple(str(place / name) for name in names)
    return run_evaluation(ValOptions(weights=weights, project=str(project), **{**settings, **changes}))


def val(*words, cwd):
    command = [sys.executable, str(ROOT / "val.py"), *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_everything_is_written_and_coco_agrees_with_pycocotools(place, tmp_path):
    flags = ("--save-json", "--save-txt", "--save-conf", "--verbose", "--imgsz", 96, "--workers", 0, "--device", "cpu")
    result = val("--weights", place / "a.pt", "--data", place / "own.yaml", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    run = tmp_path / "runs/val/exp"
    truth = json.loads((run / "ground_truth.json").read_text(encoding="utf-8"))
    predictions = json.loads((run / "a_predictions.json").read_text())
    figures = json.loads((run / "coco.json").read_text())
    expected = oracle(truth, predictions)
    assert list(figures) == list(FIGURES) and figures == pytest.approx(expected, abs=1e-6) and figures["AP50"] > 0.3
    assert len({image["id"] for image in truth["images"]}) == 7 and len(predictions) > 50
    assert all((place / "images/val" / image["file_name"]).is_file() for image in truth["images"])
    assert len({image["file_name"] for image in truth["images"]}) == 7
    assert "COCO's figures differ" in result.stdout and f"{figures['AR_10']:.3f}" in result.stdout
    texts = {path.stem: np.loadtxt(path, ndmin=2) for path in (run / "labels").glob("*.txt")}
    assert set(texts) == {"0", "0-2", *"12345"} and all(rows.shape[1] == 6 for rows in texts.values())
    assert sum(map(len, texts.values())) == len(predictions)
    counts = pd.read_csv(run / "confusion_matrix.csv", index_col=0)
    assert [*counts.columns] == [*counts.index] == [*SMALL_NAMES, "background"]
    assert counts.iloc[:, :-1].to_numpy().sum() == len(truth["annotations"]), "a column counts each label once"
    for name in ("confusion_matrix.png", "PR_curve.png", "F1_curve.png", "P_curve.png", "R_curve.png"):
        assert cv2.imread(str(run / name)).std() > 5, name
    for name in ("val_batch0_labels.jpg", "val_batch0_pred.jpg", "worst_misses.jpg", "worst_false_alarms.jpg"):
        assert cv2.imread(str(run / name)).std() > 5, name


def test_a_full_disk_while_drawing_costs_the_images_and_not_the_figures(place, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise RunError(path, "cannot be written (No space left on device)", fix="free space")

    for user in ("utils.plots.figure", "utils.datasets.images"):
        monkeypatch.setattr(f"{user}.atomic_write", full)
    found = judge(place, tmp_path, "a.pt", noplots=False)
    assert found.metrics.map50 > 0.3 and not list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.jpg"))
    warned = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(warned) == 3, "a batch, the curves, and the detection errors"


@pytest.mark.slow
def test_background_images_count_in_the_confusion_matrix(place, tmp_path):
    confusion = judge(place, tmp_path, "a.pt").confusion
    (image,) = (p for p in judge(place, tmp_path, "a.pt").images if not len(p.label_classes))
    sure = (image.confidences > 0.25).sum()
    assert 0 < sure <= confusion.counts[:, -1].sum()


@pytest.mark.slow
def test_several_weights_are_judged_as_one(place, tmp_path):
    one, _ = open_ensemble([str(place / "a.pt")])
    both, metadata = open_ensemble([str(place / "a.pt"), str(place / "b.pt")])
    assert isinstance(both, Ensemble) and metadata.names == SMALL_NAMES and metadata.image_size == 96
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        together, alone = both(images)[0], one(images)[0]
        other = open_ensemble([str(place / "b.pt")])[0](images)[0]
    assert torch.equal(together, torch.cat((alone, other), 1))
    twice, single = judge(place, tmp_path, "a.pt", "a.pt"), judge(place, tmp_path, "a.pt")
    assert twice.metrics.map50 == pytest.approx(single.metrics.map50) and single.metrics.map50 > 0.3
    assert judge(place, tmp_path, "a.pt", "b.pt").metrics.map50 != single.metrics.map50


def test_augmentation_changes_what_is_found_but_not_where(place, tmp_path):
    plain, augmented = judge(place, tmp_path, "a.pt"), judge(place, tmp_path, "a.pt", augment=True)
    assert augmented.metrics.map50 != plain.metrics.map50 and augmented.metrics.map50 > 0.1


def test_classes_as_one(place, tmp_path):
    whole, _ = open_ensemble([str(place / "a.pt")])
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        predictions, merged = whole(images)[0], SingleClassWrapper(whole)(images)[0]
    assert torch.equal(merged[..., :5], predictions[..., :5])
    assert torch.equal(merged[..., 5], predictions[..., 5:].max(-1).values)
    evaluation = judge(place, tmp_path, "a.pt", single_cls=True)
    assert evaluation.metrics.label_counts.shape == (1,) and evaluation.metrics.map50 > 0.3


def test_names_of_classes_in_another_order_are_warned_of(place, tmp_path, caplog):
    text = (place / "own.yaml").read_text(encoding="utf-8")
    (place / "swapped.yaml").write_text(text.split("names:")[0] + "names: [star, ring, other]\n")
    for data, expected in (("own.yaml", 0), ("swapped.yaml", 1)):
        judge(place, tmp_path, "a.pt", data=str(place / data))
        told = [record.getMessage() for record in caplog.records if "in the data set, but" in record.getMessage()]
        assert len(told) == expected
    assert "swapped.yaml: class 0 is 'star' in the data set, but 'ring' in the model" in told[0]


def test_a_split_without_objects_gets_zeros_a_warning_and_all_files(place, tmp_path, caplog):
    shutil.copytree(place / "images", tmp_path / "images")
    (tmp_path / "labels/val").mkdir(parents=True)
    (tmp_path / "labels/val/0.txt").write_text("")
    shutil.copy(place / "own.yaml", tmp_path)
    runs = tmp_path / "runs"
    found = judge(place, runs, "a.pt", data=str(tmp_path / "own.yaml"), noplots=False, save_json=True, save_txt=True)
    assert found.metrics.map50 == found.metrics.map50_95 == 0
    assert any("'val' has no objects in its 7 images" in record.getMessage() for record in caplog.records)
    names = {path.name for path in (runs / "exp").iterdir()}
    assert {"coco.json", "a_predictions.json", "labels", "confusion_matrix.png", "val_batch0_labels.jpg"} <= names


def test_figures_from_sure_boxes_alone_and_words_without_effect_are_warned_of(place, tmp_path, caplog):
    judge(place, tmp_path, "a.pt")
    assert all(record.levelname == "INFO" for record in caplog.records)
    judge(place, tmp_path, "a.pt", conf_thres=0.3, save_conf=True)
    above, conf = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "above 0.3 only: mAP" in above and "cannot be compared" in above and "--save-txt" in conf


def test_speed_is_measured_at_the_thresholds_of_use(place, tmp_path, caplog):
    evaluation = judge(place, tmp_path, "a.pt", task="speed", noplots=False)
    assert any("--task speed keeps boxes above 0.25 only: mAP" in record.getMessage() for record in caplog.records)
    (run,) = tmp_path.iterdir()
    assert [path.name for path in run.iterdir()] == ["speed.json"]
    assert json.loads((run / "speed.json").read_text())["milliseconds_per_image"]["inference"] > 0
    assert all((image.confidences > 0.25).all() for image in evaluation.images)


def test_train_split_and_missing_test_split(place, tmp_path):
    assert len(judge(place, tmp_path, "a.pt", task="train").images) == 7
    with pytest.raises(DataError, match="no 'test' split"):
        judge(place, tmp_path, "a.pt", task="test")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--save-hybrid"], "mAP meaningless"),
        (["--dnn"], "ONNX Runtime"),
        (["--task", "study"], "study is not supported"),
        (["--task", "tset"], "one of train, val, test, speed"),
    ],
)
def test_what_is_left_out_is_refused_with_the_reason(words, expected, tmp_path):
    result = val("--weights", "a.pt", *words, cwd=tmp_path)
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 2 and len(errors) == 1 and expected in errors[0]


def test_speed_line_names_the_share_of_suppression():
    spent = {"loading": 1, "pre": 1, "inference": 5, "nms": 2, "matching": 1}
    assert "5.0 ms inference" in speed_line(spent) and "(NMS and matching 30%)" in speed_line(spent)

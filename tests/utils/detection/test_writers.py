"""Outputs of detect.py for given detections: videos, labels, the table, crops, windows, and unique names."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from utils.datasets.sources import Frame
from utils.detection import writers
from utils.detection.writers import DetectionWriter
from utils.options import DetectOptions
from utils.structures import Detections

NAMES = ("ring", "a/b")
NOTHING = Detections(boxes=torch.zeros(0, 4), scores=torch.zeros(0), classes=torch.zeros(0, dtype=torch.int64))
TWO = Detections(
    boxes=torch.tensor([[8.0, 4, 24, 20], [0, 0, 32, 40]]),
    scores=torch.tensor([0.75, 0.5]),
    classes=torch.tensor([1, 0]),
)


def options(**changes: object) -> DetectOptions:
    return DetectOptions(weights="a.pt", **changes)


def grey(height: int = 40, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_a_stream_that_reconnects_with_another_size_gets_a_new_file(tmp_path: Path) -> None:
    with DetectionWriter(options(), tmp_path, NAMES) as writer:
        for index, (height, width) in enumerate([(48, 64), (48, 64), (64, 96), (48, 64)]):
            writer.write(Frame(image=grey(height, width), path=Path("cam"), index=index), NOTHING)
    for name, size, count in (("cam.mp4", (64, 48), 3), ("cam_2.mp4", (96, 64), 1)):
        capture = cv2.VideoCapture(str(tmp_path / name))
        assert (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) == size
        frames = 0
        while capture.grab():
            frames += 1
        assert frames == count


@pytest.mark.parametrize("save_format", [0, 1])
@pytest.mark.parametrize("save_conf", [False, True])
def test_labels_have_normalized_coordinates(save_format: int, save_conf: bool, tmp_path: Path) -> None:
    chosen = options(save_txt=True, save_format=save_format, save_conf=save_conf, nosave=True)
    with DetectionWriter(chosen, tmp_path, NAMES) as writer:
        writer.write(Frame(image=grey(), path=Path("in/a.png")), TWO)
        writer.write(Frame(image=grey(), path=Path("in/v.mp4"), index=7), NOTHING)
    rows = [[float(v) for v in line.split()] for line in (tmp_path / "labels/a.txt").read_text().splitlines()]
    corners = [[1, 8 / 64, 4 / 40, 24 / 64, 20 / 40], [0, 0, 0, 32 / 64, 1]]
    centers = [[1, 16 / 64, 12 / 40, 16 / 64, 16 / 40], [0, 16 / 64, 20 / 40, 32 / 64, 1]]
    expected = corners if save_format else centers
    if save_conf:
        expected = [[*row, score] for row, score in zip(expected, (0.75, 0.5), strict=True)]
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert (tmp_path / "labels/v_7.txt").read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels"]


def test_the_table_and_crops_hold_every_box(tmp_path: Path) -> None:
    with DetectionWriter(options(save_csv=True, save_crop=True), tmp_path, NAMES) as writer:
        writer.write(Frame(image=grey(), path=Path("in/a.tiff")), TWO)
    rows = list(csv.reader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert rows[0] == ["Image Name", "Prediction", "Confidence", "Class", "xmin", "ymin", "xmax", "ymax"]
    assert rows[1:] == [
        ["a.tiff", "a/b", "0.75", "1", "8.0", "4.0", "24.0", "20.0"],
        ["a.tiff", "ring", "0.50", "0", "0.0", "0.0", "32.0", "40.0"],
    ]
    assert cv2.imread(str(tmp_path / "crops/a_b/a.jpg")).shape == (16, 16, 3)
    assert cv2.imread(str(tmp_path / "crops/ring/a2.jpg")).shape == (40, 32, 3)
    drawn = cv2.imread(str(tmp_path / "a.jpg"))
    assert drawn.shape == (40, 64, 3) and abs(int(drawn[30, 50].mean()) - 90) < 5, "away from the boxes"
    assert abs(drawn[20, 16].astype(int) - 90).max() > 40, "the lower edge of the first box"


def test_equal_names_from_different_folders_are_kept_apart(tmp_path: Path) -> None:
    with DetectionWriter(options(), tmp_path, NAMES) as writer:
        paths = [Path("x/a.png"), Path("y/a.png"), Path("x/a.png"), Path("y/a-2.png")]
        assert [writer.stem(path) for path in paths] == ["a", "a-2", "a", "a-2-2"]


def test_view_img_shows_every_frame_with_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = []
    monkeypatch.setattr(writers.cv2, "imshow", lambda title, image: windows.append((title, image.shape)))
    monkeypatch.setattr(writers.cv2, "waitKey", lambda delay: None)
    with DetectionWriter(options(view_img=True, nosave=True), tmp_path, NAMES) as writer:
        writer.write(Frame(image=grey(), path=Path("in/a.png")), TWO)
        writer.write(Frame(image=grey(48, 64), path=Path("cam"), index=0), NOTHING)
    assert windows == [("a.png", (40, 64, 3)), ("cam", (48, 64, 3))]

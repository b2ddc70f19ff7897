"""Outputs of detect.py for given detections: videos, labels, the table, crops, windows, and unique names."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.datasets.sources import Frame
from utils.detection import writers
from utils.detection.writers import DetectionWriter
from utils.options import DetectOptions
from utils.structures import Detections

NAMES = ("ring", "a/b")
NOTHING = Detections(boxes=np.zeros((0, 4)), scores=np.zeros(0), classes=np.zeros(0, np.int64))
TWO = Detections(
    boxes=np.array([[8, 4, 24, 20], [0, 0, 32, 40]], np.float32),
    scores=np.array([0.75, 0.5], np.float32),
    classes=np.array([1, 0]),
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
    assert ",".join(rows[0]) == "Image Name,Prediction,Confidence,Class,xmin,ymin,xmax,ymax,Frame,Path"
    assert rows[1:] == [
        ["a.tiff", "a/b", "0.75", "1", "8.0", "4.0", "24.0", "20.0", "", "in/a.tiff"],
        ["a.tiff", "ring", "0.50", "0", "0.0", "0.0", "32.0", "40.0", "", "in/a.tiff"],
    ]
    assert cv2.imread(str(tmp_path / "crops/a_b/a.jpg")).shape == (16, 16, 3)
    assert cv2.imread(str(tmp_path / "crops/ring/a_2.jpg")).shape == (40, 32, 3)
    drawn = cv2.imread(str(tmp_path / "a.jpg"))
    assert drawn.shape == (40, 64, 3) and abs(int(drawn[30, 50].mean()) - 90) < 5, "away from the boxes"
    assert abs(drawn[20, 16].astype(int) - 90).max() > 40, "the lower edge of the first box"


def test_equal_names_from_different_folders_are_kept_apart(tmp_path: Path) -> None:
    with DetectionWriter(options(), tmp_path, NAMES) as writer:
        paths = [Path("x/a.png"), Path("y/a.png"), Path("x/a.png"), Path("y/a-2.png")]
        assert [writer.stem(path) for path in paths] == ["a", "a-2", "a", "a-2-2"]


def same_class(count: int) -> Detections:
    boxes = np.array([[2 * i, 3, 2 * i + 6, 12] for i in range(count)], np.float32).reshape(-1, 4)
    return Detections(boxes=boxes, scores=np.full(count, 0.5), classes=np.zeros(count, np.int64))


def files(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern) if path.is_file())


def test_every_box_of_every_frame_has_a_crop_of_its_own(tmp_path: Path) -> None:
    sources = ["img1.png", "img12.png", "img2.png", "img22.png", "img1_2.png", "IMG1.png", "x/img1.png", "img1.jpg"]
    with DetectionWriter(options(save_crop=True, nosave=True), tmp_path, ("a_b", "a/b")) as writer:
        for name in sources:
            writer.write(Frame(image=grey(), path=Path(name)), same_class(3))
        for index in range(24):
            writer.write(Frame(image=grey(), path=Path("img.avi"), index=index), same_class(2))
        other = same_class(2)
        other.classes[:] += 1
        writer.write(Frame(image=grey(), path=Path("img1.png"), number=1), other)
    crops = files(tmp_path, "*.jpg")
    assert len(crops) == len(sources) * 3 + 24 * 2 + 2 == len({crop.casefold() for crop in crops})
    assert {"crops/a_b/img1.jpg", "crops/a_b/img1_2.jpg", "crops/a_b/img12.jpg"} <= set(crops)


def test_every_frame_and_image_has_a_label_file_of_its_own(tmp_path: Path) -> None:
    sources = [("clip.avi", n) for n in range(12)] + [("clip_0.png", None), ("CLIP_1.png", None), ("clip.png", None)]
    sources += [("clip_0.avi", 0), ("clip_0.avi", 1), ("x/clip.avi", 0), ("v_3.png", None), ("v.avi", 3)]
    with DetectionWriter(options(save_txt=True), tmp_path, NAMES) as writer:
        for name, index in sources:
            writer.write(Frame(image=grey(), path=Path(name), index=index), same_class(1))
    labels = files(tmp_path / "labels", "*.txt")
    assert len(labels) == len(sources) == len({label.casefold() for label in labels})
    assert {"clip_0.txt", "clip_11.txt", "v_3.txt"} <= set(labels)
    images = files(tmp_path, "*.png")
    assert len(images) == 4 and {Path(name).with_suffix(".txt").name for name in images} <= set(labels)
    assert len(files(tmp_path, "*.mp4")) == 4


def test_rows_of_the_table_distinguish_images_and_frames(tmp_path: Path) -> None:
    with DetectionWriter(options(save_csv=True, nosave=True), tmp_path, NAMES) as writer:
        for name, index in (("a/img.png", None), ("b/img.png", None), ("a/v.avi", 0), ("a/v.avi", 7)):
            writer.write(Frame(image=grey(), path=Path(name), index=index), same_class(2))
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [(row["Image Name"], row["Frame"], row["Path"]) for row in rows[::2]] == [
        ("img.png", "", "a/img.png"),
        ("img-2.png", "", "b/img.png"),
        ("v.avi", "0", "a/v.avi"),
        ("v.avi", "7", "a/v.avi"),
    ]


def test_a_source_named_twice_has_two_outputs(tmp_path: Path) -> None:
    with DetectionWriter(options(save_txt=True), tmp_path, NAMES) as writer:
        for number in (0, 1):
            writer.write(Frame(image=grey(), path=Path("a.png"), number=number), same_class(1))
        for number in (2, 3):
            for index in range(2):
                writer.write(Frame(image=grey(), path=Path("v.avi"), index=index, number=number), same_class(1))
    assert files(tmp_path, "*.*") == sorted(
        ["a-2.png", "a.png", "v-2.mp4", "v.mp4"]
        + [f"labels/{stem}.txt" for stem in ("a", "a-2", "v_0", "v_1", "v-2_0", "v-2_1")]
    )


def test_names_of_the_greatest_length_and_of_any_bytes_are_written(tmp_path: Path) -> None:
    stems = ["x" * 251, "细" * 83, os.fsdecode(b"\xca\xd3"), os.fsdecode(b"\xca\xd4")]
    flags = {"save_txt": True, "save_crop": True, "save_csv": True}
    with DetectionWriter(options(**flags), tmp_path, ("n" * 300,)) as writer:
        for stem in stems:
            writer.write(Frame(image=grey(), path=Path(f"{stem}.jpg")), same_class(12))
            writer.write(Frame(image=grey(), path=Path(f"{stem}.ts"), index=100), same_class(1))
    assert len(files(tmp_path / "labels", "*.txt")) == 8 and len(files(tmp_path / "crops", "*.jpg")) == 4 * 13
    assert len(files(tmp_path, "*.mp4")) == 4 and len([p for p in tmp_path.iterdir() if p.suffix == ".jpg"]) == 4
    assert all((tmp_path / f"{stem}.jpg").exists() for stem in stems)
    rows = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 4 * 13 and "\\xca\\xd3.jpg" in "".join(rows)


def test_an_image_too_wide_for_its_format_is_written_as_another(tmp_path: Path, caplog) -> None:
    wide = np.full((3, 70000, 3), 90, np.uint8)
    whole = Detections(boxes=np.array([[0.0, 0, 70000, 3]]), scores=np.ones(1), classes=np.zeros(1, np.int64))
    with DetectionWriter(options(save_crop=True), tmp_path, NAMES) as writer:
        writer.write(Frame(image=wide, path=Path("a.jpg")), whole)
        writer.write(Frame(image=wide, path=Path("b.webp")), whole)
        writer.write(Frame(image=grey(), path=Path("c.jpg")), whole)
    written = ["a.png", "b.png", "c.jpg"]
    assert files(tmp_path, "*.*") == [*written, *(f"crops/ring/{name}" for name in written)]


def test_a_video_that_cannot_be_encoded_does_not_end_the_others(tmp_path: Path, monkeypatch, caplog) -> None:
    real = cv2.VideoWriter

    class Refusing:
        fourcc = real.fourcc

        def __new__(cls, path: str, *settings: object) -> cv2.VideoWriter:
            return real("" if "bad" in path else path, *settings)

    monkeypatch.setattr(writers.cv2, "VideoWriter", Refusing)
    with DetectionWriter(options(save_txt=True), tmp_path, NAMES) as writer:
        for name in ("bad.avi", "good.avi"):
            for index in range(3):
                writer.write(Frame(image=grey(), path=Path(name), index=index), same_class(1))
    assert files(tmp_path, "*.mp4") == ["good.mp4"] and len(files(tmp_path, "*.txt")) == 6
    assert [r.levelname for r in caplog.records if "bad.mp4" in r.getMessage()] == ["WARNING"]


def test_the_names_of_many_outputs_take_linear_time(tmp_path: Path) -> None:
    with DetectionWriter(options(nosave=True), tmp_path, NAMES) as writer:
        stems = {writer.stem(Path(f"{number}/frame.jpg"), number) for number in range(3000)}
    assert len(stems) == 3000 and writer._names._numbers["/frame"] == 3000


def test_view_img_shows_every_frame_with_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = []
    monkeypatch.setattr(writers.cv2, "imshow", lambda title, image: windows.append((title, image.shape)))
    monkeypatch.setattr(writers.cv2, "waitKey", lambda delay: None)
    with DetectionWriter(options(view_img=True, nosave=True), tmp_path, NAMES) as writer:
        writer.write(Frame(image=grey(), path=Path("in/a.png")), TWO)
        writer.write(Frame(image=grey(48, 64), path=Path("cam"), index=0), NOTHING)
    assert windows == [("a.png", (40, 64, 3)), ("cam", (48, 64, 3))]

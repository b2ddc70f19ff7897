"""Results of the Python API: the same boxes in every format, tables, annotated images and crops."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.inference.annotations import summarize
from utils.inference.results import Results
from utils.structures import Detections

NAMES = {0: "cat", 1: "dog/wolf", 2: "猫"}
SIZES = ((40, 60), (50, 30))


def detections(*rows):
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(boxes=table[:, :4], scores=table[:, 4], classes=table[:, 5].astype(np.int64))


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    ims = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    first = detections((10, 5, 30, 25, 0.9, 1), (0, 0, 60, 40, 0.5, 0), (12.4, 3.6, 14.2, 8.8, 0.25, 1))
    return Results(ims, [first, detections()], ["a.png", "b.jpg"], names=NAMES, times=(1, 2, 3), shape=(2, 3, 64, 64))


def test_all_formats_hold_the_same_boxes(results):
    for image, (height, width) in enumerate(SIZES):
        for row, (rows, rowsn, center, centern) in enumerate(
            zip(
                results.xyxy[image],
                results.xyxyn[image],
                results.xywh[image],
                results.xywhn[image],
                strict=True,
            )
        ):
            x1, y1, x2, y2, score, class_id = rows.tolist()
            expected = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, score, class_id]
            assert center.tolist() == pytest.approx(expected, abs=1e-5), row
            assert rowsn.tolist() == pytest.approx([x1 / width, y1 / height, x2 / width, y2 / height, score, class_id])
            cx, cy, w, h = expected[:4]
            assert centern.tolist() == pytest.approx([cx / width, cy / height, w / width, h / height, score, class_id])
    assert [tuple(p.shape) for p in results.pred] == [(3, 6), (0, 6)] and len(results) == results.n == 2


def test_tables_have_the_columns_of_yolov5(results):
    tables = results.pandas()
    corners = ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    centers = ["xcenter", "ycenter", "width", "height", "confidence", "class", "name"]
    for name, columns in {"xyxy": corners, "xyxyn": corners, "xywh": centers, "xywhn": centers}.items():
        for table, rows in zip(getattr(tables, name), getattr(results, name), strict=True):
            assert list(table.columns) == columns and len(table) == len(rows)
            np.testing.assert_allclose(table.iloc[:, :5].to_numpy(float).reshape(-1, 5), rows[:, :5].numpy())
    first = tables.xyxy[0]
    assert first["name"].tolist() == ["dog/wolf", "cat", "dog/wolf"] and first["class"].tolist() == [1, 0, 1]
    assert first.loc[first["confidence"].idxmax(), "name"] == "dog/wolf"
    assert isinstance(results.xyxy[0], torch.Tensor), "the original keeps its tensors"


def test_print_lists_the_detections(results, capsys):
    results.print()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "image 1/2: 40x60 1 cat, 2 dog/wolfs" and lines[1] == "image 2/2: 50x30 (no detections)"
    assert lines[2].startswith("Speed: 1.0ms pre-process, 2.0ms inference, 3.0ms NMS per image at shape (2, 3, 64, 64)")
    assert str(results) in repr(results)


def test_counts_of_names_without_an_english_plural_stay_as_they_are():
    assert summarize(detections(*[(0, 0, 9, 9, 0.5, 2)] * 6), NAMES) == "6 猫"
    assert summarize(detections(*[(0, 0, 9, 9, 0.5, 0)] * 2), NAMES) == "2 cats"


def test_tolist_returns_one_result_per_image(results):
    single = results.tolist()
    assert [one.n for one in single] == [1, 1] and [one.files for one in single] == [["a.png"], ["b.jpg"]]
    for index, one in enumerate(single):
        assert torch.equal(one.xyxy[0], results.xyxy[index]) and (one.ims[0] == results.ims[index]).all()


def test_render_draws_on_the_originals_each_time(results):
    before = [im.copy() for im in results.ims]
    drawn = results.render()
    assert drawn is results.ims and (drawn[0] != before[0]).any() and (drawn[1] == before[1]).all()
    bare = results.render(labels=False)[0]
    repeated = results.render()[0]
    assert (repeated == drawn[0]).all() and (bare != repeated).any()


@pytest.mark.parametrize("labels", [True, False])
def test_show_opens_a_window_for_every_image_with_its_boxes(results, labels, monkeypatch):
    windows = []
    monkeypatch.setattr(Image.Image, "show", lambda self, *args, **named: windows.append((self, args, named)))
    originals = [image.copy() for image in results.ims]
    assert results.show(labels=labels) is None
    assert len(windows) == 2 and all((args, named) == ((), {}) for _, args, named in windows)
    shown = [np.asarray(image) for image, _, _ in windows]
    for image, expected in zip(shown, results.render(labels=labels), strict=True):
        np.testing.assert_array_equal(image, expected)
    assert (shown[0] != originals[0]).any() and (shown[1] == originals[1]).all(), "only the first has boxes"


def test_save_writes_every_image_and_overwrites_nothing(results, tmp_path):
    same_stem = Results(results.ims, results._detections, ["x/a.png", "y/a.jpg"], names=NAMES)
    first = same_stem.save(save_dir=str(tmp_path / "exp"))
    second = same_stem.save(save_dir=str(tmp_path / "exp"))
    third = same_stem.save(save_dir=str(tmp_path / "exp"), exist_ok=True)
    assert (first, second, third) == (tmp_path / "exp", tmp_path / "exp2", tmp_path / "exp")
    assert {p.name for p in first.iterdir()} == {"a.jpg", "a-2.jpg"} == {p.name for p in second.iterdir()}
    assert cv2.imread(str(first / "a-2.jpg")).shape == (50, 30, 3)


def test_crops_are_the_pixels_of_the_boxes(results, tmp_path):
    image = results.ims[0].copy()
    results.render()
    crops = results.crop(save_dir=str(tmp_path / "exp"))
    assert [crop["label"] for crop in crops] == ["dog/wolf 0.90", "cat 0.50", "dog/wolf 0.25"]
    for crop, (x1, y1, x2, y2) in zip(crops, [(10, 5, 30, 25), (0, 0, 60, 40), (12, 4, 14, 9)], strict=True):
        assert (crop["im"] == image[y1:y2, x1:x2]).all() and crop["im"].shape == (y2 - y1, x2 - x1, 3)
        assert [round(float(v)) for v in crop["box"]] == [x1, y1, x2, y2]
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.jpg"))
    assert files == ["exp/crops/cat/a_2.jpg", "exp/crops/dog_wolf/a.jpg", "exp/crops/dog_wolf/a_3.jpg"]
    assert math.isclose(float(crops[1]["conf"]), 0.5) and int(crops[1]["cls"]) == 0


def test_no_two_files_share_a_name(results, tmp_path):
    one = results._detections[0]
    files = ["img1.png", "img12.png", "x/img1.png", "IMG1.jpg", "x" * 251 + ".png", "img1_2.png"]
    same = Results([results.ims[0]] * len(files), [one] * len(files), files, names={0: "a", 1: "a"})
    same.save(save_dir=str(tmp_path / "saved"))
    assert len({path.name.casefold() for path in (tmp_path / "saved").iterdir()}) == len(files)
    crops = same.crop(save_dir=str(tmp_path / "cropped"))
    assert len({str(path).casefold() for path in (tmp_path / "cropped").rglob("*.jpg")}) == len(crops) == 3 * len(files)


def test_crops_are_not_written_without_save(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(results.crop(save=False)) == 3 and not list(Path(tmp_path).iterdir())


def test_results_may_be_changed_in_place(results):
    results.xyxy[0][:, 0] += 1
    results.xywhn[0].mul_(2)


def test_results_of_no_images_are_empty():
    empty = Results([], [], [], names=NAMES)
    assert len(empty) == 0 and empty.pandas().xyxy == [] == empty.crop(save=False) and empty.tolist() == []

"""COCO's JSON to YOLO: classes, boxes and polygons, and invalid files."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.published_labels import (
    HEIGHT,
    WIDTH,
    class_in,
    coco_json,
    convert_coco,
    png,
    refused_coco,
    report_of,
    rows_in,
    run_convert,
    write,
    write_coco,
)
from utils.datasets.config import load_data_config
from utils.datasets.convert.coco import join_rings
from utils.datasets.index import build_index
from utils.errors import DataError

ROOT = Path(__file__).resolve().parents[4]


def test_coco_categories_become_class_ids_in_the_order_of_their_ids(coco, tmp_path):
    report = run_convert("coco", coco, tmp_path / "out")
    rows = rows_in(tmp_path / "out/labels/val2017/a.txt")
    expected = [
        [2, 25 / WIDTH, 40 / HEIGHT, 30 / WIDTH, 40 / HEIGHT],
        [1, 35 / WIDTH, 15 / HEIGHT, 60 / WIDTH, 20 / HEIGHT],
        [0, 110 / WIDTH, 70 / HEIGHT, 20 / WIDTH, 20 / HEIGHT],
        [0, 5 / WIDTH, 5 / HEIGHT, 8 / WIDTH, 8 / HEIGHT],
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert (tmp_path / "out/labels/val2017/empty.txt").read_bytes() == b""
    assert not (tmp_path / "out/labels/val2017/gone.txt").exists()
    skipped = {"crowds skipped": 1, "boxes without area skipped": 1, "images without a file skipped": 1}
    assert +report == {"images": 2, "objects": 4, **skipped}
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert config.names == ("person", "stop sign", "toothbrush")
    assert len(build_index(config, "val", use_cache=False)) == 2


def test_the_91_ids_of_coco_become_80_classes():
    missing = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    ids = [category_id for category_id in range(1, 91) if category_id not in missing]
    names = load_data_config("coco.yaml").names
    assert len(ids) == len(names) == 80 and names == load_data_config("coco128.yaml").names
    known = {
        1: "person",
        13: "stop sign",
        18: "dog",
        44: "bottle",
        62: "chair",
        70: "toilet",
        84: "book",
        90: "toothbrush",
    }
    assert {category_id: names[ids.index(category_id)] for category_id in known} == known


def test_coco_polygons_on_request(coco, tmp_path):
    run_convert("coco", coco, tmp_path / "out", "--polygons")
    index = build_index(load_data_config(str(tmp_path / "out/data.yaml")), "val", use_cache=False)
    polygons = index.polygons(0)
    assert polygons.known.tolist() == [True, True, False, False]
    np.testing.assert_allclose(polygons.of(0) * (WIDTH, HEIGHT), [(10, 20), (40, 20), (40, 60), (20, 60)], atol=1e-3)
    np.testing.assert_allclose(index.rows(0)[1, 1:], [35 / WIDTH, 15 / HEIGHT, 60 / WIDTH, 20 / HEIGHT], atol=1e-5)


def test_joined_rings_enclose_what_the_parts_enclose():
    rng = np.random.default_rng(0)
    for _ in range(30):
        count = int(rng.integers(1, 6))
        places = rng.permutation(16)[:count]
        rings = []
        for place in places:
            angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
            radius = rng.uniform(8, 22, len(angle))[:, None]
            centre = (place % 4 * 50 + 25, place // 4 * 50 + 25)
            rings.append((np.stack((np.cos(angle), np.sin(angle)), 1) * radius + centre).round())
        joined = join_rings(rings)
        apart, together = np.zeros((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
        for ring in rings:
            cv2.fillPoly(apart, [ring.astype(np.int32)], 1)
        cv2.fillPoly(together, [joined.astype(np.int32)], 1)
        bridges = np.zeros((200, 200), np.uint8)
        for start, end in zip(joined, np.roll(joined, -1, 0), strict=True):
            cv2.line(bridges, tuple(int(v) for v in start), tuple(int(v) for v in end), 1, 2)
        assert ((apart != together) & (bridges == 0)).sum() == 0
        assert {tuple(p) for p in joined} == {tuple(p) for ring in rings for p in ring}


def test_image_names_cannot_lead_out_of_the_target(tmp_path):
    content = coco_json()
    content["images"][0]["file_name"] = "../../../evil/a.jpg"
    content["images"][1]["file_name"] = "/abs/empty.jpg"
    write(tmp_path / "in/labels.json", content)
    run_convert("coco", tmp_path / "in", tmp_path / "deep/er/out", "--labels-only")
    found = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.txt"))
    base = "deep/er/out/labels/labels"
    assert found == [f"{base}/abs/empty.txt", f"{base}/evil/a.txt", f"{base}/gone.txt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["annotations"][0].update(category_id=77),
        lambda c: c["annotations"][0].update(bbox="abcd"),
        lambda c: c["annotations"][0].update(bbox=[1, 2]),
        lambda c: c["images"][0].pop("file_name"),
        lambda c: c.update(categories=None),
        lambda c: c["categories"].append("cat"),
        lambda c: c.update(annotations=[None]),
    ],
)
def test_invalid_coco_json_is_named_and_nothing_is_written(coco, tmp_path, change):
    content = coco_json()
    change(content)
    write(coco / "annotations/instances_val2017.json", content)
    with pytest.raises(DataError, match=r"instances_val2017\.json"):
        run_convert("coco", coco, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_coco_json_lacks_is_taken_from_elsewhere_or_counted(coco, tmp_path):
    content = coco_json()
    content["images"][0].pop("width")  # from the image
    content["images"][1].update(height=0)
    first, *_, last = content["annotations"]
    first.pop("bbox")  # from the polygon
    last.update(bbox=[])
    content["annotations"].append({**last, "image_id": 99})
    write(coco / "annotations/instances_val2017.json", content)
    report = run_convert("coco", coco, tmp_path / "out")
    rows = rows_in(tmp_path / "out/labels/val2017/a.txt")
    np.testing.assert_allclose(rows[0], [2, 25 / WIDTH, 40 / HEIGHT, 30 / WIDTH, 40 / HEIGHT], rtol=1e-9)
    assert len(rows) == report["objects"] == 3
    assert report["annotations without an image skipped"] == report["annotations without a box skipped"] == 1


def test_outlines_of_very_many_parts_are_joined_in_linear_time():
    rng = np.random.default_rng(0)
    rings = [rng.uniform(0, 99, (3, 2)) for _ in range(5_000)]
    joined = join_rings(rings)
    assert len(joined) == sum(len(ring) + 1 for ring in rings) + len(rings) - 1

    def area(points):
        x, y = points.T
        return (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2

    assert area(joined) == pytest.approx(sum(map(area, rings)))


@pytest.mark.parametrize(
    ("train", "val", "names"),
    [
        ({"cat": 1, "dog": 2}, {"dog": 1}, ("cat", "dog")),  # dog has another id
        ({"cat": 1, "dog": 2}, {"dog": 2}, ("cat", "dog")),
        ({"dog": 2}, {"cat": 1, "dog": 2, "eel": 3}, ("cat", "dog", "eel")),  # a class of val only is kept
        ({"cat": 1, "dog": 2}, {"dog": 1, "cat": 2}, ("cat", "dog")),
    ],
)
def test_files_with_other_categories_agree_on_classes(train, val, names, tmp_path):
    for split, categories in (("train", train), ("val", val)):
        write(tmp_path / f"in/{split}/{split}.png", png(9))
        write_coco(tmp_path / f"in/instances_{split}.json", {f"{split}.png": "dog"}, categories)
    out = convert_coco(tmp_path)
    assert load_data_config(str(out / "data.yaml")).names == names
    for split in ("train", "val"):
        assert class_in(out / f"labels/{split}/{split}.txt") == names.index("dog")


def test_categories_of_equal_names_are_one_class(tmp_path):
    """As in data sets whose supercategory has the name of its only category."""
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "fire"}, {"fire": 1})
    content = json.loads((tmp_path / "in/train.json").read_text())
    content["categories"].append({"id": 0, "name": "fire"})
    write(tmp_path / "in/train.json", json.dumps(content).encode())
    report, out = report_of(tmp_path), tmp_path / "out"
    assert load_data_config(str(out / "data.yaml")).names == ("fire",) and class_in(out / "labels/train/a.txt") == 0
    assert report["categories of equal names merged"] == 1


def test_one_id_of_two_names_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "cat"}, {"cat": 1, "dog": 1})
    line = refused_coco(tmp_path)
    assert "'cat'" in line and "'dog'" in line and "(1)" in line


@pytest.mark.parametrize("flags", [(), ("--labels-only",)])
def test_two_images_of_one_label_file_are_refused(flags, tmp_path):
    for suffix in ("png", "jpg"):
        write(tmp_path / f"in/a.{suffix}", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "cat", "a.jpg": "dog"}, ("cat", "dog"))
    line = refused_coco(tmp_path, *flags)
    assert line.startswith("train.json: ") and "'a.png'" in line and "'a.jpg'" in line


def test_image_listed_twice_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    for folder in ("one", "two"):
        write_coco(tmp_path / f"in/{folder}/instances_train.json", {"a.png": "cat"})
    assert refused_coco(tmp_path).count("'a.png'") == 2


@pytest.mark.parametrize("flags", [(), ("--labels-only",)])
@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0.png", "\ud800.png", None])
def test_an_invalid_name_is_refused(name, flags, tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    assert refused_coco(tmp_path, *flags).startswith("train.json: ")


def test_a_class_name_that_cannot_be_encoded_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "\ud800"}, ("\ud800",))
    assert refused_coco(tmp_path).startswith("train.json: ")


@pytest.mark.parametrize("name", ["", "a\0.png"])
def test_an_invalid_name_ends_the_program_with_exit_code_2(name, tmp_path):
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    command = [sys.executable, "-m", "utils.datasets.convert", "coco", tmp_path / "in", tmp_path / "out"]
    done = subprocess.run([*command, "--labels-only"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: train.json: ") and done.stderr.count("\n") == 1


def test_a_data_set_without_images_is_refused(tmp_path):
    write_coco(tmp_path / "in/train.json", {"a.png": "cat"})
    assert "1 images without a file skipped" in refused_coco(tmp_path)

"""Converters: the image, split and class that a name denotes, and that no file of the result is written twice."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.datasets.config import load_data_config
from utils.datasets.convert.__main__ import convert
from utils.datasets.convert.layout import split_in
from utils.datasets.index import build_index
from utils.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
SIDE = 40


def png(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def write_coco(path, entries, categories=("cat",)):
    """Write a JSON of images with one object each; `entries` maps file names to category names."""
    ids = dict(categories) if isinstance(categories, dict) else {name: n for n, name in enumerate(categories, start=1)}
    images = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, name in enumerate(entries)]
    annotations = [
        {"id": n, "image_id": n, "category_id": ids[name], "bbox": [4, 4, 20, 20], "iscrowd": 0}
        for n, name in enumerate(entries.values())
    ]
    listed = [{"id": category_id, "name": name} for name, category_id in ids.items()]
    write(path, json.dumps({"images": images, "annotations": annotations, "categories": listed}).encode())


def run(tmp_path, *flags):
    """Convert, and return the target."""
    report_of(tmp_path, *flags)
    return tmp_path / "out"


def report_of(tmp_path, *flags):
    """Convert, and return the report."""
    return convert(["coco", str(tmp_path / "in"), str(tmp_path / "out"), *flags])


def refused(tmp_path, *flags):
    """Return the error message, after checking that it is one line and nothing was written."""
    with pytest.raises(DataError) as caught:
        run(tmp_path, *flags)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def class_in(path):
    return int(path.read_text().split()[0])


# Images


@pytest.mark.parametrize("top", ["", "train/", "images/", "a/b/train/"])
def test_images_of_one_name_in_two_folders_stay_apart(top, tmp_path):
    dark, bright = (write(tmp_path / f"in/{top}cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    write_coco(tmp_path / "in/instances_train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    out = run(tmp_path)
    assert (out / "images/train/cam1/0001.png").read_bytes() == dark
    assert (out / "images/train/cam2/0001.png").read_bytes() == bright


def test_folders_missing_in_the_source_do_not_confuse_images(tmp_path):
    dark, bright = (write(tmp_path / f"in/cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    names = {f"/home/me/set/cam{n}/0001.png": "cat" for n in (1, 2)}
    write_coco(tmp_path / "in/train.json", names)
    out = run(tmp_path)
    assert (out / "images/train/home/me/set/cam1/0001.png").read_bytes() == dark
    assert (out / "images/train/home/me/set/cam2/0001.png").read_bytes() == bright


def test_a_missing_image_does_not_get_the_file_of_another_one(tmp_path):
    write(tmp_path / "in/cam2/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    report = report_of(tmp_path)
    assert files_below(tmp_path / "out/images") == {"train/cam2/0001.png"}
    assert report["images without a file skipped"] == 1


def test_a_name_that_matches_two_files_is_refused(tmp_path):
    for folder in ("cam1", "cam2"):
        write(tmp_path / f"in/{folder}/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"0001.png": "cat"})
    line = refused(tmp_path)
    assert line.startswith("train.json: ") and "cam1/0001.png" in line and "cam2/0001.png" in line


def test_a_file_that_matches_two_names_is_refused(tmp_path):
    write(tmp_path / "in/all/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    line = refused(tmp_path)
    assert "'cam1/0001.png'" in line and "'cam2/0001.png'" in line and "all/0001.png" in line


@pytest.mark.parametrize("where", ["annotations/instances_{}2017.json", "instances_{}2017.json"])
def test_the_folder_of_the_split_decides_among_equal_matches(where, tmp_path):
    dark, bright = (write(tmp_path / f"in/{s}2017/a.png", png(shade)) for s, shade in (("train", 10), ("val", 200)))
    for split in ("train", "val"):
        write_coco(tmp_path / "in" / where.format(split), {"a.png": "cat"})
    out = run(tmp_path)
    assert (out / "images/train2017/a.png").read_bytes() == dark
    assert (out / "images/val2017/a.png").read_bytes() == bright


def test_a_folder_images_in_a_name_does_not_separate_images_from_labels(tmp_path):
    write(tmp_path / "in/images/a.png", png(9))
    write_coco(tmp_path / "in/result.json", {"images/a.png": "cat"})
    out = run(tmp_path)
    assert len(build_index(load_data_config(str(out / "data.yaml")), "train", use_cache=False).labels) == 1


# Splits


@pytest.mark.parametrize(
    "inside", ["_annotations.coco.json", "annotations/labels.json", "annotations/instances_x.json"]
)
def test_the_split_is_that_of_the_folder_if_the_file_name_has_none(inside, tmp_path):
    contents = {
        split: write(tmp_path / f"in/{split}/a.png", png(n * 60)) for n, split in enumerate(("train", "valid", "test"))
    }
    for split in contents:
        write_coco(tmp_path / "in" / split / inside, {"a.png": "cat"})
    out = run(tmp_path)
    assert files_below(out / "images") == {"train/a.png", "valid/a.png", "test/a.png"}
    for split, content in contents.items():
        assert (out / f"images/{split}/a.png").read_bytes() == content
    splits = load_data_config(str(out / "data.yaml")).splits
    assert splits == {"train": ("images/train",), "val": ("images/valid",), "test": ("images/test",)}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("train2017", "train"), ("trainval2017", "train"), ("TrainVal", "train"), ("training_set", "train")),
        *(("val2017", "val"), ("valid", "val"), ("validation", "val"), ("instances_minival2014", "val")),
        *(("valminusminival2014", "val"), ("my-val", "val"), ("cocoval2017", "val")),
        *(("test", "test"), ("VisDrone2019-DET-test-dev", "test"), ("image_info_test2017", "test")),
        *(("default", ""), ("_annotations.coco", ""), ("latest", ""), ("interval", ""), ("valves", ""), ("", "")),
    ],
)
def test_split_in_name(name, split):
    assert split_in(name) == split


def test_trainval_is_the_training_split(tmp_path):
    write(tmp_path / "in/trainval2017/a.png", png(9))
    write_coco(tmp_path / "in/annotations/instances_trainval2017.json", {"a.png": "cat"})
    splits = load_data_config(str(run(tmp_path) / "data.yaml")).splits
    assert splits["train"] == splits["val"] == ("images/trainval2017",), "there is no other split to validate on"


def test_trainval_is_skipped_if_train_and_val_exist(tmp_path):
    for split, name in (("train", "a"), ("val", "b")):
        write(tmp_path / f"in/{name}.png", png(9))
        write_coco(tmp_path / f"in/instances_{split}2017.json", {f"{name}.png": "cat"})
    write_coco(tmp_path / "in/instances_trainval2017.json", {"a.png": "cat", "b.png": "cat"})
    report = report_of(tmp_path)
    assert files_below(tmp_path / "out/images") == {"train2017/a.png", "val2017/b.png"}
    assert report["objects"] == 2 and report["files of train and val together skipped"] == 1


def test_folders_within_a_split_do_not_change_the_split(tmp_path):
    for folder in ("test_rig", "val_rig"):
        write(tmp_path / f"in/{folder}/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"test_rig/a.png": "cat", "val_rig/a.png": "cat"})
    splits = load_data_config(str(run(tmp_path) / "data.yaml")).splits
    assert splits == {"train": ("images/train",), "val": ("images/train",), "test": ()}


# Classes


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
    out = run(tmp_path)
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
    line = refused(tmp_path)
    assert "'cat'" in line and "'dog'" in line and "(1)" in line


# Collisions and invalid names


@pytest.mark.parametrize("flags", [(), ("--labels-only",)])
def test_two_images_of_one_label_file_are_refused(flags, tmp_path):
    for suffix in ("png", "jpg"):
        write(tmp_path / f"in/a.{suffix}", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "cat", "a.jpg": "dog"}, ("cat", "dog"))
    line = refused(tmp_path, *flags)
    assert line.startswith("train.json: ") and "'a.png'" in line and "'a.jpg'" in line


def test_image_listed_twice_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    for folder in ("one", "two"):
        write_coco(tmp_path / f"in/{folder}/instances_train.json", {"a.png": "cat"})
    assert refused(tmp_path).count("'a.png'") == 2


def test_voc_images_of_one_label_file_are_refused(tmp_path):
    for folder, suffix in (("one", "jpg"), ("two", "png")):
        write(tmp_path / f"in/{folder}/JPEGImages/a.{suffix}", png(9))
        write(tmp_path / f"in/{folder}/Annotations/a.xml", b"<annotation/>")
    with pytest.raises(DataError) as caught:
        convert(["voc", str(tmp_path / "in"), str(tmp_path / "out")])
    assert "one/JPEGImages/a.jpg" in str(caught.value) and "two/JPEGImages/a.png" in str(caught.value)


@pytest.mark.parametrize("flags", [(), ("--labels-only",)])
@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0.png", "\ud800.png", None])
def test_an_invalid_name_is_refused(name, flags, tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    assert refused(tmp_path, *flags).startswith("train.json: ")


def test_a_class_name_that_cannot_be_encoded_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "\ud800"}, ("\ud800",))
    assert refused(tmp_path).startswith("train.json: ")


@pytest.mark.parametrize("name", ["", "a\0.png"])
def test_an_invalid_name_ends_the_program_with_exit_code_2(name, tmp_path):
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    command = [sys.executable, "-m", "utils.datasets.convert", "coco", tmp_path / "in", tmp_path / "out"]
    done = subprocess.run([*command, "--labels-only"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: train.json: ") and done.stderr.count("\n") == 1


def test_a_data_set_without_images_is_refused(tmp_path):
    write_coco(tmp_path / "in/train.json", {"a.png": "cat"})
    assert "1 images without a file skipped" in refused(tmp_path)

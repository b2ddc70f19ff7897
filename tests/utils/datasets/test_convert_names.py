"""Converters: which image, split and class a name means, and that no file of the result is written twice."""

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
    """Write a JSON whose images, by name, have one object each of the category that is given by name."""
    ids = dict(categories) if isinstance(categories, dict) else {name: n for n, name in enumerate(categories, start=1)}
    images = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, name in enumerate(entries)]
    things = [
        {"id": n, "image_id": n, "category_id": ids[name], "bbox": [4, 4, 20, 20], "iscrowd": 0}
        for n, name in enumerate(entries.values())
    ]
    listed = [{"id": number, "name": name} for name, number in ids.items()]
    write(path, json.dumps({"images": images, "annotations": things, "categories": listed}).encode())


def run(tmp_path, *flags):
    convert(["coco", str(tmp_path / "in"), str(tmp_path / "out"), *flags])
    return tmp_path / "out"


def refused(tmp_path, *flags):
    """Return the one line with which the source is refused, and see that nothing is left."""
    with pytest.raises(DataError) as caught:
        run(tmp_path, *flags)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def class_in(path):
    return int(path.read_text().split()[0])


# Which file an image is


@pytest.mark.parametrize("top", ["", "train/", "images/", "a/b/train/"])
def test_images_of_one_name_in_two_folders_stay_apart(top, tmp_path):
    dark, bright = (write(tmp_path / f"in/{top}cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    write_coco(tmp_path / "in/instances_train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    out = run(tmp_path)
    assert (out / "images/train/cam1/0001.png").read_bytes() == dark
    assert (out / "images/train/cam2/0001.png").read_bytes() == bright


def test_folders_that_the_source_lacks_do_not_mix_images_up(tmp_path):
    dark, bright = (write(tmp_path / f"in/cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    names = {f"/home/me/set/cam{n}/0001.png": "cat" for n in (1, 2)}
    write_coco(tmp_path / "in/train.json", names)
    out = run(tmp_path)
    assert (out / "images/train/home/me/set/cam1/0001.png").read_bytes() == dark
    assert (out / "images/train/home/me/set/cam2/0001.png").read_bytes() == bright


def test_image_that_is_gone_does_not_get_its_namesakes_pixels(tmp_path, caplog):
    write(tmp_path / "in/cam2/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    with caplog.at_level("INFO"):
        out = run(tmp_path)
    assert files_below(out / "images") == {"train/cam2/0001.png"}
    assert "1 images without a file left out" in caplog.text


def test_name_that_fits_two_files_is_refused(tmp_path):
    for folder in ("cam1", "cam2"):
        write(tmp_path / f"in/{folder}/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"0001.png": "cat"})
    line = refused(tmp_path)
    assert line.startswith("train.json: ") and "cam1/0001.png" in line and "cam2/0001.png" in line


def test_file_that_fits_two_names_is_refused(tmp_path):
    write(tmp_path / "in/all/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    line = refused(tmp_path)
    assert "'cam1/0001.png'" in line and "'cam2/0001.png'" in line and "all/0001.png" in line


@pytest.mark.parametrize("where", ["annotations/instances_{}2017.json", "instances_{}2017.json"])
def test_folder_of_the_split_counts_among_equals(where, tmp_path):
    dark, bright = (write(tmp_path / f"in/{s}2017/a.png", png(shade)) for s, shade in (("train", 10), ("val", 200)))
    for split in ("train", "val"):
        write_coco(tmp_path / "in" / where.format(split), {"a.png": "cat"})
    out = run(tmp_path)
    assert (out / "images/train2017/a.png").read_bytes() == dark
    assert (out / "images/val2017/a.png").read_bytes() == bright


def test_folder_images_in_a_name_does_not_part_images_from_labels(tmp_path):
    write(tmp_path / "in/images/a.png", png(9))
    write_coco(tmp_path / "in/result.json", {"images/a.png": "cat"})
    out = run(tmp_path)
    assert len(build_index(load_data_config(str(out / "data.yaml")), "train", use_cache=False).labels) == 1


# Splits


@pytest.mark.parametrize(
    "inside", ["_annotations.coco.json", "annotations/labels.json", "annotations/instances_x.json"]
)
def test_split_is_that_of_the_folder_where_the_file_does_not_tell(inside, tmp_path):
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
def test_names_tell_splits(name, split):
    assert split_in(name) == split


def test_trainval_is_trained_on(tmp_path):
    write(tmp_path / "in/trainval2017/a.png", png(9))
    write_coco(tmp_path / "in/annotations/instances_trainval2017.json", {"a.png": "cat"})
    splits = load_data_config(str(run(tmp_path) / "data.yaml")).splits
    assert splits["train"] == splits["val"] == ("images/trainval2017",), "there is nothing else to validate on"


def test_trainval_is_left_out_beside_train_and_val(tmp_path, caplog):
    for split, name in (("train", "a"), ("val", "b")):
        write(tmp_path / f"in/{name}.png", png(9))
        write_coco(tmp_path / f"in/instances_{split}2017.json", {f"{name}.png": "cat"})
    write_coco(tmp_path / "in/instances_trainval2017.json", {"a.png": "cat", "b.png": "cat"})
    with caplog.at_level("INFO"):
        out = run(tmp_path)
    assert files_below(out / "images") == {"train2017/a.png", "val2017/b.png"}
    assert "2 objects" in caplog.text and "1 files that join train and val left out" in caplog.text


def test_folders_within_a_split_change_no_split(tmp_path):
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
        ({"dog": 2}, {"cat": 1, "dog": 2, "eel": 3}, ("cat", "dog", "eel")),  # what only val knows is kept
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


def test_categories_of_one_name_are_one_class(tmp_path, caplog):
    """As when the group of a data set's classes is called as its only class."""
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "fire"}, {"fire": 1})
    content = json.loads((tmp_path / "in/train.json").read_text())
    content["categories"].append({"id": 0, "name": "fire"})
    write(tmp_path / "in/train.json", json.dumps(content).encode())
    with caplog.at_level("INFO"):
        out = run(tmp_path)
    assert load_data_config(str(out / "data.yaml")).names == ("fire",) and class_in(out / "labels/train/a.txt") == 0
    assert "1 categories of one name joined" in caplog.text


def test_one_id_of_two_names_is_refused(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "cat"}, {"cat": 1, "dog": 1})
    assert "'cat' and 'dog' have one id (1)" in refused(tmp_path)


# Collisions and names that are none


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
    assert "'a.png' would overwrite the labels of 'a.png'" in refused(tmp_path)


def test_voc_images_of_one_label_file_are_refused(tmp_path):
    for folder, suffix in (("one", "jpg"), ("two", "png")):
        write(tmp_path / f"in/{folder}/JPEGImages/a.{suffix}", png(9))
        write(tmp_path / f"in/{folder}/Annotations/a.xml", b"<annotation/>")
    with pytest.raises(DataError) as caught:
        convert(["voc", str(tmp_path / "in"), str(tmp_path / "out")])
    assert "one/JPEGImages/a.jpg" in str(caught.value) and "two/JPEGImages/a.png" in str(caught.value)


@pytest.mark.parametrize("flags", [(), ("--labels-only",)])
@pytest.mark.parametrize("name", ["", ".", "..", "/", "a\0.png", "\ud800.png", None])
def test_name_that_is_none_is_one_line(name, flags, tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    assert refused(tmp_path, *flags).startswith("train.json: is not as COCO has it")


def test_class_name_that_cannot_be_written_is_one_line(tmp_path):
    write(tmp_path / "in/a.png", png(9))
    write_coco(tmp_path / "in/train.json", {"a.png": "\ud800"}, ("\ud800",))
    assert refused(tmp_path).startswith("train.json: is not as COCO has it")


@pytest.mark.parametrize("name", ["", "a\0.png"])
def test_name_that_is_none_ends_the_program_with_2(name, tmp_path):
    write_coco(tmp_path / "in/train.json", {name: "cat"})
    command = [sys.executable, "-m", "utils.datasets.convert", "coco", tmp_path / "in", tmp_path / "out"]
    done = subprocess.run([*command, "--labels-only"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: train.json: ") and done.stderr.count("\n") == 1


def test_set_without_a_single_image_is_refused(tmp_path):
    write_coco(tmp_path / "in/train.json", {"a.png": "cat"})
    assert "1 images without a file left out" in refused(tmp_path)

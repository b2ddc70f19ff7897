"""The splits in names of files and folders."""

import pytest

from tests.helpers.published_labels import convert_coco, files_below, png, report_of, write, write_coco
from utils.datasets.config import load_data_config
from utils.datasets.convert.layout import split_in


@pytest.mark.parametrize(
    "inside", ["_annotations.coco.json", "annotations/labels.json", "annotations/instances_x.json"]
)
def test_the_split_is_that_of_the_folder_if_the_file_name_has_none(inside, tmp_path):
    contents = {
        split: write(tmp_path / f"in/{split}/a.png", png(n * 60)) for n, split in enumerate(("train", "valid", "test"))
    }
    for split in contents:
        write_coco(tmp_path / "in" / split / inside, {"a.png": "cat"})
    out = convert_coco(tmp_path)
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
    splits = load_data_config(str(convert_coco(tmp_path) / "data.yaml")).splits
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
    splits = load_data_config(str(convert_coco(tmp_path) / "data.yaml")).splits
    assert splits == {"train": ("images/train",), "val": ("images/train",), "test": ()}

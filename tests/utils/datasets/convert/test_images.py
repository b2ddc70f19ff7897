"""The image file that an annotation names."""

import pytest

from tests.helpers.published_labels import convert_coco, files_below, png, refused_coco, report_of, write, write_coco
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index


@pytest.mark.parametrize("top", ["", "train/", "images/", "a/b/train/"])
def test_images_of_one_name_in_two_folders_stay_apart(top, tmp_path):
    dark, bright = (write(tmp_path / f"in/{top}cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    write_coco(tmp_path / "in/instances_train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    out = convert_coco(tmp_path)
    assert (out / "images/train/cam1/0001.png").read_bytes() == dark
    assert (out / "images/train/cam2/0001.png").read_bytes() == bright


def test_folders_missing_in_the_source_do_not_confuse_images(tmp_path):
    dark, bright = (write(tmp_path / f"in/cam{n}/0001.png", png(shade)) for n, shade in ((1, 10), (2, 200)))
    names = {f"/home/me/set/cam{n}/0001.png": "cat" for n in (1, 2)}
    write_coco(tmp_path / "in/train.json", names)
    out = convert_coco(tmp_path)
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
    line = refused_coco(tmp_path)
    assert line.startswith("train.json: ") and "cam1/0001.png" in line and "cam2/0001.png" in line


def test_a_file_that_matches_two_names_is_refused(tmp_path):
    write(tmp_path / "in/all/0001.png", png(9))
    write_coco(tmp_path / "in/train.json", {"cam1/0001.png": "cat", "cam2/0001.png": "cat"})
    line = refused_coco(tmp_path)
    assert "'cam1/0001.png'" in line and "'cam2/0001.png'" in line and "all/0001.png" in line


@pytest.mark.parametrize("where", ["annotations/instances_{}2017.json", "instances_{}2017.json"])
def test_the_folder_of_the_split_decides_among_equal_matches(where, tmp_path):
    dark, bright = (write(tmp_path / f"in/{s}2017/a.png", png(shade)) for s, shade in (("train", 10), ("val", 200)))
    for split in ("train", "val"):
        write_coco(tmp_path / "in" / where.format(split), {"a.png": "cat"})
    out = convert_coco(tmp_path)
    assert (out / "images/train2017/a.png").read_bytes() == dark
    assert (out / "images/val2017/a.png").read_bytes() == bright


def test_a_folder_images_in_a_name_does_not_separate_images_from_labels(tmp_path):
    write(tmp_path / "in/images/a.png", png(9))
    write_coco(tmp_path / "in/result.json", {"images/a.png": "cat"})
    out = convert_coco(tmp_path)
    assert len(build_index(load_data_config(str(out / "data.yaml")), "train", use_cache=False).labels) == 1

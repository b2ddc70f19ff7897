"""Which images a split has, and what the scan does with bad images and bad labels."""

import io
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import write_data_set, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.scan import list_images
from utils.errors import DataError


@pytest.fixture
def root(tmp_path):
    """A data set of three images per split, two classes."""
    write_data_set(tmp_path / "set", count=3)
    return tmp_path / "set"


def build(root, split="train", **options):
    return build_index(load_data_config(str(root / "data.yaml")), split, **options)


def names_of(index):
    return [os.path.basename(path) for path in index.paths]


def listed(root, text):
    """Paths of the training images, relative to the folder."""
    config = load_data_config(write_yaml(root, text))
    return [path.removeprefix(f"{root}/") for path in list_images(config, "train")]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("images/train", ["images/train/p0.png", "images/train/p1.png"]),
        ("images", [f"images/{s}/p{i}.png" for s in ("train", "val") for i in (0, 1)]),
        ("images/*/p1.png", ["images/train/p1.png", "images/val/p1.png"]),
        ("images/**/p0.*", ["images/train/p0.png", "images/val/p0.png"]),
        ("images/val/p[01].png", ["images/val/p0.png", "images/val/p1.png"]),
        ("[images/train, 'images/val/p?.png']", [f"images/{s}/p{i}.png" for s in ("train", "val") for i in (0, 1)]),
        ("[images/val, images/val]", ["images/val/p0.png", "images/val/p1.png"]),
        ("images/val/p1.png", ["images/val/p1.png"]),
        ("list.txt", ["images/train/p1.png", "images/val/p0.png"]),
        ("[list.txt, images/train]", ["images/train/p0.png", "images/train/p1.png", "images/val/p0.png"]),
    ],
)
def test_split_may_be_a_folder_glob_list_file_or_several(tmp_path, entry, expected):
    write_data_set(tmp_path, count=2)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf./images/train/p1.png\r\n\r\n  images/val/p0.png  \r\n")
    assert listed(tmp_path, f"train: {entry}\nnames: [a, b]") == expected


def test_list_file_lines_may_be_absolute_or_relative_to_list_or_root(tmp_path):
    write_data_set(tmp_path, count=3)
    lists = tmp_path / "lists"
    lists.mkdir()
    lines = [f"{tmp_path}/images/train/p0.png", "../images/train/p1.png", "images/train/p2.png"]
    (lists / "train.txt").write_text("\n".join(lines))
    assert listed(tmp_path, "train: lists/train.txt\nnames: [a, b]") == [f"images/train/p{i}.png" for i in range(3)]


def test_other_files_and_folders_named_like_images_are_not_listed(tmp_path):
    write_data_set(tmp_path, count=1)
    folder = tmp_path / "images" / "train"
    (folder / "notes.txt").write_text("x")
    (folder / "b.jpg").mkdir()
    (folder / "UPPER.JPG").write_bytes(b"x")
    assert listed(tmp_path, "train: images/train\nnames: [a]") == ["images/train/UPPER.JPG", "images/train/p0.png"]


def test_folder_without_images_is_an_error_with_split_and_folder(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError) as caught:
        listed(tmp_path, "train: images\nnames: [a]")
    assert caught.value.where == str(tmp_path / "data.yaml") and "'train'" in caught.value.what
    assert str(tmp_path / "images") in caught.value.what


def test_data_set_may_be_in_a_folder_with_brackets(tmp_path):
    root = tmp_path / "my[1] set"
    write_data_set(root, count=2)
    assert len(listed(root, "train: images/train\nnames: [a, b]")) == 2


def test_bad_images_are_skipped_counted_and_listed(root, caplog):
    folder = root / "images/train"
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(jpeg, "JPEG")
    (folder / "cut.jpg").write_bytes(jpeg.getvalue()[:-30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    Image.fromarray(np.zeros((9, 60, 3), np.uint8)).save(folder / "tiny.png")
    (folder / "a.jpg").mkdir()
    index = build(root)
    assert names_of(index) == ["p0.png", "p1.png", "p2.png"]
    reasons = {os.path.basename(path): reason for path, reason in index.skipped}
    assert sorted(reasons) == ["cut.jpg", "empty.jpg", "text.jpg", "tiny.png"]
    assert f"{len(jpeg.getvalue()) - 30} bytes" in reasons["cut.jpg"] and "60x9" in reasons["tiny.png"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert {"4", "7", "train"} <= set(re.findall(r"\w+", warning)) and str(folder / "cut.jpg") in warning


def test_directory_in_a_list_file_is_skipped(root):
    (root / "images/train/a.jpg").mkdir()
    (root / "list.txt").write_text("images/train/a.jpg\nimages/train/p0.png\nimages/train/gone.jpg\n")
    write_yaml(root, "train: list.txt\nnames: [a, b]")
    index = build(root)
    assert names_of(index) == ["p0.png"]
    assert sorted(os.path.basename(path) for path, _ in index.skipped) == ["a.jpg", "gone.jpg"]


@pytest.mark.parametrize(
    ("text", "position"),
    [("0 .5 .5 .2 .2\n0 1.5 .5 .2 .2", ":2:2: "), ("0 .5 .5 .2", ":1: "), ("\xff", ":1: ")],
)
def test_bad_label_skips_the_image_and_names_its_position(root, text, position):
    file = root / "labels/train/p1.txt"
    file.write_bytes(text.encode("latin-1"))
    index = build(root)
    assert names_of(index) == ["p0.png", "p2.png"] and len(index.labels) == 2
    ((path, reason),) = index.skipped
    assert path.endswith("p1.png") and reason.startswith(f"{file}{position}")


def test_strict_raises_for_the_first_bad_image_cached_or_not(root):
    (root / "labels/train/p1.txt").write_text("0 .5 .5 .2")
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            build(root, strict=True)
        assert caught.value.where == str(root / "images/train/p1.png")
        assert caught.value.what.startswith(f"{root}/labels/train/p1.txt:1: ")
    assert len(build(root)) == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_beyond_names_is_an_error_with_file_line_and_yaml(root, split):
    (root / f"labels/{split}/p2.txt").write_text("0 .5 .5 .2 .2\n\n7 .5 .5 .2 .2\n")
    with pytest.raises(DataError) as caught:
        build(root, split)
    assert caught.value.where == f"{root}/labels/{split}/p2.txt:3"
    assert re.findall(r"(?<!\w)\d+", caught.value.what.split(" in /")[0]) == ["7", "0", "1", "2"]
    assert str(root / "data.yaml") in caught.value.what


def test_first_class_error_in_order_of_the_images_is_raised(root):
    for name in ("p2", "p1"):
        (root / f"labels/train/{name}.txt").write_text("9 .5 .5 .2 .2\n")
    with pytest.raises(DataError) as caught:
        build(root)
    assert caught.value.where == f"{root}/labels/train/p1.txt:1"


def test_no_labels_at_all_is_an_error_with_the_first_expected_file(root):
    shutil.rmtree(root / "labels")
    with pytest.raises(DataError) as caught:
        build(root)
    assert caught.value.where == str(root / "data.yaml")
    assert f"{root}/labels/train/p0.txt" in caught.value.what and "'train'" in caught.value.what


def test_no_usable_image_is_an_error_with_the_first_reason(root):
    for file in (root / "images/train").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        build(root)
    assert caught.value.where == str(root / "data.yaml") and "'train'" in caught.value.what
    assert f"{root}/images/train/p0.png: " in caught.value.what and "0 bytes" in caught.value.what


def test_corrected_labels_are_counted_in_the_notes(root):
    (root / "labels/train/p0.txt").write_text("0 .1 .5 .4 .2\n1 .1 .1 .3 .1 .2 .4\n" + "0 .5 .5 0 .2\n" * 3)
    (root / "labels/train/p1.txt").unlink()
    notes = build(root).notes
    # polygons, clipped boxes, dropped rows, images without a label file
    assert [int(note.split()[0]) for note in notes] == [1, 1, 3, 1] and "polygons" in notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_after_orientation(root, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "images/train/p0.png", exif=exif)
    assert build(root).sizes_hw[0].tolist() == ([40, 60] if orientation < 5 else [60, 40])


def test_folder_named_like_a_label_file_skips_its_image(root):
    (root / "labels/train/p1.txt").unlink()
    (root / "labels/train/p1.txt").mkdir()
    assert names_of(build(root)) == ["p0.png", "p2.png"]

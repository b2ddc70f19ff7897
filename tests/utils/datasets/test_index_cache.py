"""The cached index of a split: it equals what was written, and any change leads to a new scan."""

import os
from dataclasses import fields, replace

import numpy as np
import pytest

from utils.datasets import index as index_module
from utils.datasets.config import DataConfig
from utils.datasets.index import DatasetIndex, cache_file, read_cache, write_cache
from utils.errors import DataError

LABELS = [b"0 0.5 0.5 0.2 0.4\n", None]


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "data.yaml"
    return DataConfig(file=file, names=("ring", "cross"), roots=(tmp_path,), splits={"train": ("images",)})


@pytest.fixture
def paths(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in files:
        file.write_bytes(b"content")
    return [str(file) for file in files]


@pytest.fixture
def index():
    """Two images with three rows, the middle one a polygon of four points."""
    return DatasetIndex(
        paths=np.array(["images/a.png", "images/größe 细胞.png"]),
        sizes_hw=np.array([[48, 64], [100, 30]], np.int32),
        labels=np.array([[0, 0.5, 0.5, 0.2, 0.4], [1, 0.25, 0.3, 0.1, 0.1], [0, 1 / 3, 0.7, 1e-6, 0.6]], np.float32),
        starts=np.array([0, 2, 3]),
        points=np.array([[0.2, 0.25], [0.3, 0.25], [0.3, 0.35], [0.2, 0.35]], np.float32),
        point_starts=np.array([0, 0, 4, 4]),
        skipped=(("images/c.png", "cannot be read"),),
        notes=("one box clipped", "b"),
    )


def assert_equal(index, expected):
    for field in fields(DatasetIndex):
        one, other = getattr(index, field.name), getattr(expected, field.name)
        if isinstance(other, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other), field.name
        else:
            assert one == other, field.name


def stored_arrays(file):
    with np.load(file) as stored:
        return dict(stored)


def test_round_trip(config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    assert read_cache(file) is None
    write_cache(file, index)
    cached = read_cache(file)
    assert_equal(cached, index)
    assert cached.fingerprint() == index.fingerprint()


def test_round_trip_of_boxes_only_and_of_no_images(config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    boxes = replace(
        index, points=np.zeros((0, 2), np.float32), point_starts=np.zeros(4, np.int64), skipped=(), notes=()
    )
    empty = DatasetIndex(
        paths=np.zeros(0, "U1"),
        sizes_hw=np.zeros((0, 2), np.int32),
        labels=np.zeros((0, 5), np.float32),
        starts=np.zeros(1, np.int64),
    )
    for stored in (boxes, empty):
        write_cache(file, stored)
        assert_equal(read_cache(file), stored)


def test_name_is_deterministic_and_in_the_cache_folder(config, paths, cache_home):
    file = cache_file(config, "train", paths, LABELS)
    assert file == cache_file(config, "train", [*paths], [*LABELS])
    assert file.parent == cache_home / "akyolo/labels"
    assert file.suffix == ".npz" and not file.exists()


@pytest.mark.parametrize(
    "labels",
    [
        [b"0 0.5 0.5 0.2 0.5\n", None],
        [b"", None],
        [None, None],
        [LABELS[0], b""],
        [None, LABELS[0]],
        [DataError("a.txt", "cannot be read"), None],
    ],
)
def test_other_labels_have_another_name(labels, config, paths):
    assert cache_file(config, "train", paths, labels) != cache_file(config, "train", paths, LABELS)


def test_other_images_have_another_name(config, paths):
    names = [cache_file(config, "train", paths, LABELS)]
    status = os.stat(paths[1])
    os.utime(paths[1], ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    names.append(cache_file(config, "train", paths, LABELS))
    with open(paths[0], "ab") as file:
        file.write(b"more")
    os.utime(paths[0], ns=(0, 0))
    names.append(cache_file(config, "train", paths, LABELS))
    with open(paths[0], "ab") as file:
        file.write(b"more")
    os.utime(paths[0], ns=(0, 0))  # same time, other size
    names.append(cache_file(config, "train", paths, LABELS))
    os.remove(paths[1])
    names.append(cache_file(config, "train", paths, LABELS))
    names.append(cache_file(config, "train", paths[::-1], LABELS))
    names.append(cache_file(config, "train", paths[:1], LABELS[:1]))
    assert len({*names}) == 7


def test_image_replaced_by_one_of_equal_size_and_time_has_another_name(config, paths, tmp_path):
    before, status = cache_file(config, "train", paths, LABELS), os.stat(paths[0])
    other = tmp_path / "other"
    other.write_bytes(b"CONTENT")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, paths[0])
    assert cache_file(config, "train", paths, LABELS) != before


def test_class_count_file_split_and_version_change_the_name(config, paths, tmp_path, monkeypatch):
    names = [
        cache_file(config, "train", paths, LABELS),
        cache_file(config, "val", paths, LABELS),
        cache_file(replace(config, names=("ring", "cross", "arc")), "train", paths, LABELS),
        cache_file(replace(config, file=tmp_path / "other.yaml"), "train", paths, LABELS),
    ]
    monkeypatch.setattr(index_module, "CACHE_VERSION", index_module.CACHE_VERSION + 1)
    names.append(cache_file(config, "train", paths, LABELS))
    assert len({*names}) == 5


def test_class_names_do_not_change_the_name(config, paths):
    renamed = replace(config, names=("cross", "ring"))
    assert cache_file(renamed, "train", paths, LABELS) == cache_file(config, "train", paths, LABELS)


def test_another_version_is_not_read_and_is_removed(config, paths, index, monkeypatch):
    old = cache_file(config, "train", paths, LABELS)
    write_cache(old, index)
    monkeypatch.setattr(index_module, "CACHE_VERSION", index_module.CACHE_VERSION + 1)
    new = cache_file(config, "train", paths, LABELS)
    assert read_cache(new) is None and old.exists()
    write_cache(new, index)
    assert new.exists() and not old.exists()


def test_only_older_scans_of_the_same_split_are_removed(config, paths, index, tmp_path):
    others = [
        cache_file(config, "val", paths, LABELS),
        cache_file(replace(config, file=tmp_path / "other.yaml"), "train", paths, LABELS),
    ]
    old, new = (cache_file(config, "train", paths, labels) for labels in (LABELS, [b"", None]))
    for file in (*others, old, new):
        write_cache(file, index)
    assert [file.exists() for file in (*others, old, new)] == [True, True, False, True]


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_truncated_file_is_not_read(length, config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    write_cache(file, index)
    content = file.read_bytes()
    file.write_bytes(content[:length])
    assert read_cache(file) is None
    file.write_bytes(content)
    assert_equal(read_cache(file), index)


def test_changed_byte_is_detected(config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    write_cache(file, index)
    arrays = stored_arrays(file)
    np.savez(file, **arrays)  # not compressed, so that the labels' bytes are found
    content = bytearray(file.read_bytes())
    content[content.index(index.labels.tobytes()) + 5] ^= 1
    file.write_bytes(content)
    assert read_cache(file) is None


@pytest.mark.parametrize("name", [field.name for field in fields(DatasetIndex)])
def test_missing_array_is_detected(name, config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    write_cache(file, index)
    np.savez(file, **{key: value for key, value in stored_arrays(file).items() if key != name})
    assert read_cache(file) is None


def test_objects_are_never_loaded(config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    write_cache(file, index)
    np.savez(file, **{**stored_arrays(file), "notes": np.array(["one", "two"], object)})
    assert read_cache(file) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("paths", np.array([["a", "b"]])),
        ("paths", np.array(["a", "b", "c"])),
        ("paths", np.array([b"a", b"b"])),
        ("sizes_hw", np.zeros((2, 3), np.int32)),
        ("sizes_hw", np.ones((2, 2), np.float32)),
        ("labels", np.zeros((2, 5), np.float32)),
        ("labels", np.zeros((4, 5), np.float32)),
        ("labels", np.zeros((3, 4), np.float32)),
        ("labels", np.zeros((3, 5), np.int64)),
        ("labels", np.full((3, 5), np.nan, np.float32)),
        ("labels", np.full((3, 5), np.inf, np.float32)),
        ("starts", np.array([0, 3])),
        ("starts", np.array([1, 2, 3])),
        ("starts", np.array([0, 4, 3])),
        ("starts", np.array([0, 2, 2])),
        ("starts", np.array([0.0, 2, 3])),
        ("points", np.zeros((3, 2), np.float32)),
        ("points", np.zeros((4, 3), np.float32)),
        ("points", np.full((4, 2), np.nan, np.float32)),
        ("point_starts", np.array([0, 0, 4])),
        ("point_starts", np.array([0, 5, 4, 4])),
        ("point_starts", np.array([1, 1, 4, 4])),
        ("point_starts", np.array([0, 0, 4, 5])),
    ],
)
def test_inconsistent_arrays_are_detected(name, value, config, paths, index):
    file = cache_file(config, "train", paths, LABELS)
    write_cache(file, replace(index, **{name: value}))
    assert file.exists() and read_cache(file) is None


def test_folder_that_cannot_be_written_is_not_an_error(config, paths, index, cache_home):
    file = cache_file(config, "train", paths, LABELS)
    (cache_home / "akyolo").write_text("a file where a folder should be")
    write_cache(file, index)
    assert read_cache(file) is None

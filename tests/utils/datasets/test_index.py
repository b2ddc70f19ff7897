import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import tree_hash, write_data_set, write_yaml
from utils.datasets import scan
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    """A data set of three images per split, two classes."""
    write_data_set(tmp_path / "set", count=3)
    return tmp_path / "set"


def build(root, split="train", **options):
    return build_index(load_data_config(str(root / "data.yaml")), split, **options)


def names_of(index):
    return [os.path.basename(path) for path in index.paths]


def cache_files(cache_home):
    return sorted(cache_home.rglob("*.npz"))


def same(first, second):
    arrays = ("paths", "sizes_hw", "labels", "starts", "points", "point_starts")
    return (first.skipped, first.notes) == (second.skipped, second.notes) and all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in arrays
    )


def forbid_reading(monkeypatch):
    def fail(path):
        raise AssertionError(f"{path} was decoded in spite of the cache")

    monkeypatch.setattr(scan, "read_image_file", fail)


def test_index_holds_paths_sizes_and_rows_in_order(root):
    (root / "labels/train/p1.txt").write_text("1 .5 .5 .2 .2\n0 .25 .25 .1 .1\n")
    (root / "labels/train/p2.txt").write_text("")
    index = build(root)
    assert names_of(index) == ["p0.png", "p1.png", "p2.png"] and len(index) == 3
    for path, size_hw in zip(index.paths, index.sizes_hw, strict=True):
        with Image.open(path) as image:
            assert image.size == (size_hw[1], size_hw[0])
    assert index.starts.tolist() == [0, 1, 3, 3]
    np.testing.assert_allclose(index.rows(1), [[1, 0.5, 0.5, 0.2, 0.2], [0, 0.25, 0.25, 0.1, 0.1]])
    assert index.rows(2).shape == (0, 5) and not index.skipped and not index.notes


@pytest.mark.parametrize("name", ["中文 目录", "with space", "🚦 emoji", "naïve", "line\nbreak"])
def test_folder_and_file_names_may_be_any_text(tmp_path, name):
    root = tmp_path / name
    write_data_set(root, count=2)
    (root / "images/train/p0.png").rename(root / "images/train" / f"{name}.png")
    (root / "labels/train/p0.txt").rename(root / "labels/train" / f"{name}.txt")
    index = build(root)
    assert sorted(names_of(index)) == sorted([f"{name}.png", "p1.png"])
    assert len(index.labels) == 2 and same(index, build(root))


def test_file_name_that_is_not_utf8_survives_the_cache(root):
    odd = os.fsdecode(b"\xff\xfe")
    os.rename(root / "images/train/p0.png", f"{root}/images/train/{odd}.png")
    os.rename(root / "labels/train/p0.txt", f"{root}/labels/train/{odd}.txt")
    first, second = build(root), build(root)
    assert f"{odd}.png" in names_of(second) and len(second.labels) == 3
    assert same(first, second) and first.fingerprint() == second.fingerprint()


def test_second_build_reads_everything_from_the_cache(root, cache_home, monkeypatch):
    (root / "images/train/bad.jpg").write_bytes(b"")
    (root / "labels/train/p1.txt").write_text("0 .1 .5 .4 .2\n")
    first = build(root)
    assert len(cache_files(cache_home)) == 1
    forbid_reading(monkeypatch)
    second = build(root)
    assert same(first, second) and first.skipped and first.notes


def test_without_cache_nothing_is_written(root, cache_home):
    build(root, use_cache=False)
    assert not cache_files(cache_home)


def test_label_edit_with_the_same_size_and_time_is_detected(root, cache_home):
    file = root / "labels/train/p0.txt"
    file.write_text("0 .5 .5 .2 .2\n")
    before = file.stat()
    assert build(root).rows(0)[0, 0] == 0
    file.write_text("1 .5 .5 .2 .2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert build(root).rows(0)[0, 0] == 1
    assert len(cache_files(cache_home)) == 1, "the stale cache was not removed"


def test_other_changes_are_detected(root):
    build(root)
    (root / "labels/train/p1.txt").unlink()
    assert len(build(root).labels) == 2
    Image.fromarray(np.zeros((44, 66, 3), np.uint8)).save(root / "images/train/p0.png")
    assert build(root).sizes_hw[0].tolist() == [44, 66]
    (root / "images/train/p2.png").unlink()
    assert names_of(build(root)) == ["p0.png", "p1.png"]
    write_yaml(root, "train: images/train\nnames: [only]")
    (root / "labels/train/p0.txt").write_text("1 .5 .5 .2 .2")
    with pytest.raises(DataError):
        build(root)


def test_fewer_names_turn_a_cached_set_into_an_error(root):
    build(root)
    write_yaml(root, "train: images/train\nnames: [only]")
    with pytest.raises(DataError) as caught:
        build(root)
    assert caught.value.where == f"{root}/labels/train/p1.txt:1" and "nc=1" in caught.value.what


def test_splits_keep_separate_caches(root, cache_home, monkeypatch):
    build(root)
    build(root, "val")
    assert len(cache_files(cache_home)) == 2
    forbid_reading(monkeypatch)
    assert len(build(root)) == len(build(root, "val")) == 3


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "flipped bits", "text", "folder"])
def test_damaged_cache_is_rebuilt_with_a_warning(root, cache_home, caplog, damage):
    first = build(root)
    (file,) = cache_files(cache_home)
    data = file.read_bytes()
    middle = len(data) // 3
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        flipped = data[:middle] + bytes(byte ^ 0x10 for byte in data[middle : middle + 40]) + data[middle + 40 :]
        noise = np.random.default_rng(0).bytes(500)
        file.write_bytes(
            {"empty": b"", "half": data[: len(data) // 2], "noise": noise, "text": b"x"}.get(damage, flipped)
        )
    caplog.clear()
    assert same(build(root), first)
    assert [str(file) in r.getMessage() for r in caplog.records if r.levelname == "WARNING"][:1] == [True]


def rewrite_cache(file, **changes):
    with np.load(file) as stored:
        arrays = {**stored, **changes}
    np.savez(file, **arrays)


class Tripwire:
    """An object whose unpickling makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_cache_with_pickled_objects_is_refused_and_nothing_is_executed(root, cache_home, tmp_path, caplog):
    first = build(root)
    (file,) = cache_files(cache_home)
    mark = tmp_path / "executed"
    rewrite_cache(file, notes=np.array([Tripwire(mark)], dtype=object))
    with np.load(file, allow_pickle=True) as stored:
        assert len(stored["notes"]) == 1 and mark.exists(), "the tripwire does not work"
    mark.unlink()
    assert same(build(root), first)
    assert not mark.exists() and str(file) in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"starts": np.array([0, 1, 2])},
        {"sizes_hw": np.zeros((3, 3), np.int32)},
        {"labels": np.zeros((9, 5), np.float32)},
        {"paths": np.array(["a.jpg"])},
        {"points": np.zeros((7, 2), np.float32)},
        {"point_starts": np.array([0, 1])},
    ],
    ids=["starts", "sizes", "labels", "paths", "points", "point starts"],
)
def test_cache_with_inconsistent_arrays_is_rebuilt(root, cache_home, changes):
    first = build(root)
    (file,) = cache_files(cache_home)
    rewrite_cache(file, **changes)
    assert same(build(root), first)


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": np.array("a.jpg")},  # TypeError: len() of unsized object
        {"labels": np.full((3, 5), "x")},
        {"labels": np.full((3, 5), np.nan, np.float32)},
        {"starts": np.array([0, -5, 9, 3])},
    ],
    ids=["no dimension", "text", "not finite", "falling"],
)
def test_cache_with_invalid_arrays_is_rebuilt(root, cache_home, changes):
    first = build(root)
    (file,) = cache_files(cache_home)
    rewrite_cache(file, **changes)
    assert same(build(root), first)


def test_cache_that_cannot_be_written_is_only_a_warning(root, cache_home, monkeypatch, caplog):
    blocked = cache_home / "file"
    blocked.write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(build(root)) == 3
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(blocked) in warning


def test_data_set_is_not_written_to(root):
    (root / "images/train/bad.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "labels/train/p1.txt").write_text("0 .1 .5 .4 .2\n0 9 9 9 9")
    before = tree_hash(root)
    for _ in range(2):
        build(root)
        build(root, "val")
    assert tree_hash(root) == before and len(before) > 12


def test_fingerprint_depends_on_the_content_not_on_the_folder(root, tmp_path):
    mark = build(root).fingerprint()
    shutil.copytree(root, tmp_path / "copy")
    assert build(tmp_path / "copy").fingerprint() == mark
    (tmp_path / "copy/labels/train/p1.txt").write_text("0 .5 .5 .2 .2")
    assert build(tmp_path / "copy").fingerprint() != mark


def test_polygons_are_found_by_image_from_scan_and_cache(root, monkeypatch):
    assert build(root).polygons(0) is None, "a split of boxes has no polygons"
    (root / "labels/train/p0.txt").write_text("1 .5 .5 .2 .2\n0 .1 .2 .3 .2 .2 .6\n")
    (root / "labels/train/p1.txt").write_text("")
    (root / "labels/train/p2.txt").write_text("0 .2 .2 .4 .2 .4 .4 .2 .4\n")
    scanned = build(root)
    forbid_reading(monkeypatch)
    for index in (scanned, build(root)):
        assert index.points.shape == (7, 2) and index.point_starts.tolist() == [0, 0, 3, 7]
        assert [len(index.polygons(i)) for i in range(3)] == [2, 0, 1]
        assert index.polygons(0).known.tolist() == [False, True]
        np.testing.assert_allclose(index.polygons(2).of(0), [(0.2, 0.2), (0.4, 0.2), (0.4, 0.4), (0.2, 0.4)])
    assert scanned.notes == ("2 polygons",)


def test_fingerprint_and_cache_depend_on_polygons_with_the_same_box(root):
    file = root / "labels/train/p0.txt"
    marks = []
    for text in ("0 .2 .2 .4 .2 .4 .4 .2 .4", "0 .2 .2 .4 .2 .4 .4 .3 .4", "0 .3 .3 .2 .2"):
        file.write_text(text)
        index = build(root)
        np.testing.assert_allclose(index.rows(0), [[0, 0.3, 0.3, 0.2, 0.2]], atol=1e-6)
        marks.append(index.fingerprint())
    assert len(set(marks)) == 3


def test_a_fraction_depends_on_the_seed_and_is_part_of_a_larger_one(tmp_path):
    write_data_set(tmp_path / "set", count=12)
    (tmp_path / "set/labels/train/p3.txt").write_text("1 .5 .5 .2 .2\n0 .1 .2 .3 .2 .2 .6\n")
    index = build(tmp_path / "set")
    assert index.fraction(1.0, seed=0) is index
    drawn = {(part, seed): index.fraction(part, seed=seed) for part in (0.25, 0.5, 0.96) for seed in (0, 1)}
    assert [len(one) for one in drawn.values()] == [3, 3, 6, 6, 12, 12]
    assert names_of(drawn[0.25, 0]) != names_of(drawn[0.25, 1]) and same(index.fraction(0.5, seed=1), drawn[0.5, 1])
    assert set(names_of(drawn[0.25, 0])) < set(names_of(drawn[0.5, 0])), "so that learning curves are comparable"
    assert drawn[0.96, 0].fingerprint() == index.fingerprint(), "the order of the images stays"
    assert names_of(drawn[0.25, 0]) == ["p0.png", "p4.png", "p9.png"], (
        "for all time: a resumed run draws the same images"
    )


def test_a_subset_has_the_boxes_and_polygons_of_its_images(root):
    (root / "labels/train/p0.txt").write_text("1 .5 .5 .2 .2\n0 .1 .2 .3 .2 .2 .6\n")
    (root / "labels/train/p1.txt").write_text("")
    (root / "labels/train/p2.txt").write_text("0 .2 .2 .4 .2 .4 .4 .2 .4\n")
    index = build(root)
    for order in ([2, 0], [1], [], [1, 2, 0], [2, 2]):
        part = index.subset(np.array(order, np.int64))
        assert names_of(part) == [names_of(index)[i] for i in order] and len(part.starts) == len(order) + 1
        for position, i in enumerate(order):
            np.testing.assert_array_equal(part.rows(position), index.rows(i))
            assert part.sizes_hw[position].tolist() == index.sizes_hw[i].tolist()
            ours, theirs = part.polygons(position), index.polygons(i)
            assert ours is None or (np.array_equal(ours.points, theirs.points) and (ours.starts == theirs.starts).all())
            assert (ours is None) == (not len(part.points))


@pytest.mark.parametrize(("fraction", "labels"), [(0.1, "0 .5 .5 .2 .2\n"), (0.7, "")])
def test_a_fraction_without_images_or_objects_is_refused(root, fraction, labels):
    for path in (root / "labels/train").glob("*.txt"):
        path.write_text(labels)
    with pytest.raises(ConfigError) as error:
        build(root).fraction(fraction, seed=0)
    assert error.value.where == "--fraction"

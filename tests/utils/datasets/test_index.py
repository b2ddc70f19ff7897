import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import tree_hash, write_data_set, write_yaml
from utils.datasets import index as index_module
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.errors import DataError


@pytest.fixture
def root(tmp_path):
    """A data set of three images a split, two classes."""
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
        raise AssertionError(f"{path} was decoded although the cache should serve")

    monkeypatch.setattr(index_module, "read_image", fail)


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


def test_bad_images_are_skipped_counted_and_listed(root, caplog):
    folder = root / "images/train"
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(jpeg, "JPEG")
    (folder / "cut.jpg").write_bytes(jpeg.getvalue()[:-30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    (folder / "tiny.png").write_bytes(b"")
    Image.fromarray(np.zeros((9, 60, 3), np.uint8)).save(folder / "tiny.png")
    (folder / "a.jpg").mkdir()
    index = build(root)
    assert names_of(index) == ["p0.png", "p1.png", "p2.png"]
    reasons = {os.path.basename(path): reason for path, reason in index.skipped}
    assert sorted(reasons) == ["cut.jpg", "empty.jpg", "text.jpg", "tiny.png"]
    assert "truncated" in reasons["cut.jpg"] and "too small (60x9" in reasons["tiny.png"]
    assert "4 of 7 train images skipped" in caplog.text


def test_directory_in_a_list_file_is_skipped(root):
    (root / "images/train/a.jpg").mkdir()
    (root / "list.txt").write_text("images/train/a.jpg\nimages/train/p0.png\nimages/train/gone.jpg\n")
    write_yaml(root, "train: list.txt\nnames: [a, b]")
    index = build(root)
    assert names_of(index) == ["p0.png"]
    assert sorted(os.path.basename(path) for path, _ in index.skipped) == ["a.jpg", "gone.jpg"]


@pytest.mark.parametrize(
    ("text", "where"),
    [("0 .5 .5 .2 .2\n0 1.5 .5 .2 .2", "p1.txt:2:2"), ("0 .5 .5 .2", "p1.txt:1:"), ("\xff", "p1.txt:1")],
)
def test_bad_label_skips_the_whole_image_and_names_the_place(root, text, where):
    (root / "labels/train/p1.txt").write_bytes(text.encode("latin-1"))
    index = build(root)
    assert names_of(index) == ["p0.png", "p2.png"] and len(index.labels) == 2
    ((path, reason),) = index.skipped
    assert path.endswith("p1.png") and f"labels/train/{where}" in reason


def test_strict_stops_at_the_first_bad_image_cached_or_not(root):
    (root / "labels/train/p1.txt").write_text("0 .5 .5 .2")
    for _ in range(2):
        with pytest.raises(DataError, match=r"p1\.png: .*has 4 columns"):
            build(root, strict=True)
    assert len(build(root)) == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_class_beyond_names_stops_with_file_and_line(root, split):
    (root / f"labels/{split}/p2.txt").write_text("0 .5 .5 .2 .2\n\n7 .5 .5 .2 .2\n")
    with pytest.raises(DataError) as caught:
        build(root, split)
    assert str(caught.value).startswith(f"{root}/labels/{split}/p2.txt:3: class 7 but {root}/data.yaml has nc=2 (0-1).")


def test_no_labels_at_all_names_the_first_place_looked_at(root):
    shutil.rmtree(root / "labels")
    with pytest.raises(DataError) as caught:
        build(root)
    assert f"{root}/labels/train/p0.txt" in str(caught.value) and "'train'" in str(caught.value)


def test_nothing_usable_names_the_first_reason(root):
    for file in (root / "images/train").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image in 'train' \(.*p0\.png: "):
        build(root)


def test_mended_labels_are_counted_in_the_notes(root):
    (root / "labels/train/p0.txt").write_text("0 .1 .5 .4 .2\n1 .1 .1 .3 .1 .2 .4\n0 .5 .5 0 .2\n")
    (root / "labels/train/p1.txt").unlink()
    notes = " | ".join(build(root).notes)
    assert "1 outlines" in notes and "1 boxes cut" in notes and "1 rows without area" in notes
    assert "1 images without a label file" in notes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_after_orientation(root, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "images/train/p0.png", exif=exif)
    assert build(root).sizes_hw[0].tolist() == ([40, 60] if orientation < 5 else [60, 40])


@pytest.mark.parametrize("name", ["中文 目录", "with space", "🚦 emoji", "naïve", "line\nbreak"])
def test_folder_and_file_names_may_be_any_text(tmp_path, name):
    root = tmp_path / name
    write_data_set(root, count=2)
    (root / "images/train/p0.png").rename(root / "images/train" / f"{name}.png")
    (root / "labels/train/p0.txt").rename(root / "labels/train" / f"{name}.txt")
    index = build(root)
    assert sorted(names_of(index)) == sorted([f"{name}.png", "p1.png"])
    assert len(index.labels) == 2 and same(index, build(root))


def test_file_name_that_is_no_utf8_survives_the_cache(root):
    odd = os.fsdecode(b"\xff\xfe")
    os.rename(root / "images/train/p0.png", f"{root}/images/train/{odd}.png")
    os.rename(root / "labels/train/p0.txt", f"{root}/labels/train/{odd}.txt")
    first, second = build(root), build(root)
    assert f"{odd}.png" in names_of(second) and len(second.labels) == 3
    assert same(first, second) and first.fingerprint() == second.fingerprint()


def test_second_build_takes_everything_from_the_cache(root, cache_home, monkeypatch):
    (root / "images/train/bad.jpg").write_bytes(b"")
    (root / "labels/train/p1.txt").write_text("0 .1 .5 .4 .2\n")
    first = build(root)
    assert len(cache_files(cache_home)) == 1
    forbid_reading(monkeypatch)
    second = build(root)
    assert same(first, second) and first.skipped and first.notes


def test_without_cache_nothing_is_kept(root, cache_home):
    build(root, use_cache=False)
    assert not cache_files(cache_home)


def test_label_edit_of_same_size_and_time_is_noticed(root, cache_home):
    file = root / "labels/train/p0.txt"
    file.write_text("0 .5 .5 .2 .2\n")
    before = file.stat()
    assert build(root).rows(0)[0, 0] == 0
    file.write_text("1 .5 .5 .2 .2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert build(root).rows(0)[0, 0] == 1
    assert len(cache_files(cache_home)) == 1, "the stale cache stays"


def test_other_changes_are_noticed(root):
    build(root)
    (root / "labels/train/p1.txt").unlink()
    assert len(build(root).labels) == 2
    Image.fromarray(np.zeros((44, 66, 3), np.uint8)).save(root / "images/train/p0.png")
    assert build(root).sizes_hw[0].tolist() == [44, 66]
    (root / "images/train/p2.png").unlink()
    assert names_of(build(root)) == ["p0.png", "p1.png"]
    write_yaml(root, "train: images/train\nnames: [only]")
    (root / "labels/train/p0.txt").write_text("1 .5 .5 .2 .2")
    with pytest.raises(DataError, match="class 1"):
        build(root)


def test_fewer_names_turn_a_cached_set_into_an_error(root):
    build(root)
    write_yaml(root, "train: images/train\nnames: [only]")
    with pytest.raises(DataError, match=r"p1\.txt:1: class 1 .*nc=1"):
        build(root)


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
    assert [r.getMessage() for r in caplog.records if "is damaged" in r.getMessage() and r.levelname == "WARNING"]


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


def test_cache_with_pickled_objects_is_refused_and_nothing_runs(root, cache_home, tmp_path, caplog):
    first = build(root)
    (file,) = cache_files(cache_home)
    mark = tmp_path / "executed"
    rewrite_cache(file, notes=np.array([Tripwire(mark)], dtype=object))
    with np.load(file, allow_pickle=True) as stored:
        assert len(stored["notes"]) == 1 and mark.exists(), "the trap does not work"
    mark.unlink()
    assert same(build(root), first)
    assert not mark.exists() and "is damaged" in caplog.text


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
def test_cache_whose_arrays_do_not_fit_together_is_rebuilt(root, cache_home, changes):
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
def test_cache_with_senseless_arrays_is_rebuilt(root, cache_home, changes):
    first = build(root)
    (file,) = cache_files(cache_home)
    rewrite_cache(file, **changes)
    assert same(build(root), first)


def test_cache_that_cannot_be_written_is_only_mentioned(root, cache_home, monkeypatch, caplog):
    blocked = cache_home / "file"
    blocked.write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(build(root)) == 3
    assert "label cache not kept" in caplog.text


def test_data_set_is_left_untouched(root):
    (root / "images/train/bad.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "labels/train/p1.txt").write_text("0 .1 .5 .4 .2\n0 9 9 9 9")
    before = tree_hash(root)
    for _ in range(2):
        build(root)
        build(root, "val")
    assert tree_hash(root) == before and len(before) > 12


def test_fingerprint_is_that_of_the_content_wherever_it_lies(root, tmp_path):
    mark = build(root).fingerprint()
    shutil.copytree(root, tmp_path / "copy")
    assert build(tmp_path / "copy").fingerprint() == mark
    (tmp_path / "copy/labels/train/p1.txt").write_text("0 .5 .5 .2 .2")
    assert build(tmp_path / "copy").fingerprint() != mark


def test_folder_named_like_a_label_file_does_not_end_the_scan(root):
    (root / "labels/train/p1.txt").unlink()
    (root / "labels/train/p1.txt").mkdir()
    assert names_of(build(root)) == ["p0.png", "p2.png"]


def test_outlines_are_found_by_image_from_scan_and_cache(root, monkeypatch):
    assert build(root).outlines(0) is None, "a split of boxes has none"
    (root / "labels/train/p0.txt").write_text("1 .5 .5 .2 .2\n0 .1 .2 .3 .2 .2 .6\n")
    (root / "labels/train/p1.txt").write_text("")
    (root / "labels/train/p2.txt").write_text("0 .2 .2 .4 .2 .4 .4 .2 .4\n")
    scanned = build(root)
    forbid_reading(monkeypatch)
    for index in (scanned, build(root)):
        assert index.points.shape == (7, 2) and index.point_starts.tolist() == [0, 0, 3, 7]
        assert [len(index.outlines(i)) for i in range(3)] == [2, 0, 1]
        assert index.outlines(0).known.tolist() == [False, True]
        np.testing.assert_allclose(index.outlines(2).of(0), [(0.2, 0.2), (0.4, 0.2), (0.4, 0.4), (0.2, 0.4)])
    assert "2 outlines" in scanned.notes[0]


def test_fingerprint_and_cache_notice_an_outline_of_the_same_box(root):
    file = root / "labels/train/p0.txt"
    marks = []
    for text in ("0 .2 .2 .4 .2 .4 .4 .2 .4", "0 .2 .2 .4 .2 .4 .4 .3 .4", "0 .3 .3 .2 .2"):
        file.write_text(text)
        index = build(root)
        np.testing.assert_allclose(index.rows(0), [[0, 0.3, 0.3, 0.2, 0.2]], atol=1e-6)
        marks.append(index.fingerprint())
    assert len(set(marks)) == 3

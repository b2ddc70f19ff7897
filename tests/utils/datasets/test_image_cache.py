"""Decoded images on disk: no effect on samples, keyed by the image content, and optional if there is no space."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import tree_hash, write_data_set
from utils.datasets import dataset as dataset_module
from utils.datasets import image_cache as cache_module
from utils.datasets.config import load_data_config
from utils.datasets.dataset import DetectionDataset, SampleKey
from utils.datasets.image_cache import prepare_disk_cache
from utils.datasets.images import read_image
from utils.datasets.index import build_index
from utils.datasets.letterbox import resize_longest_side
from utils.datasets.transforms import Augmentation

SIZE = 96


@pytest.fixture
def root(tmp_path):
    write_data_set(tmp_path / "set", count=4)
    return tmp_path / "set"


def index_of(root):
    return build_index(load_data_config(str(root / "data.yaml")), "train", use_cache=False)


def cached_files(cache_home):
    return sorted(path for path in (cache_home / "akyolo/images").rglob("*") if path.is_file())


@pytest.mark.parametrize("smooth", [False, True])
def test_cached_images_equal_decoded_ones(root, cache_home, smooth):
    before = tree_hash(root)
    index = index_of(root)
    cache = prepare_disk_cache(index, image_size=SIZE, smooth=smooth)
    assert len(cached_files(cache_home)) == len(index) == 4
    for i, path in enumerate(index.paths):
        expected = resize_longest_side(read_image(path), SIZE, smooth=smooth)
        assert np.array_equal(cache.load(i), expected) and max(expected.shape) == SIZE
    assert tree_hash(root) == before, "the data set is read-only"


def test_samples_are_the_same_and_nothing_is_decoded(root, monkeypatch):
    index = index_of(root)
    options = {"image_size": SIZE, "augmentation": Augmentation(mosaic=0.5, fliplr=0.5, scale=0.3), "seed": 1}
    keys = [SampleKey(index=i, epoch=e, size_hw=(SIZE, SIZE)) for e in (0, 1) for i in range(4)]
    plain = [DetectionDataset(index, **options)[key].sample for key in keys]
    cache = prepare_disk_cache(index, image_size=SIZE)
    monkeypatch.setattr(dataset_module, "read_image", None)
    for key, expected in zip(keys, plain, strict=True):
        sample = DetectionDataset(index, **options, disk_cache=cache)[key].sample
        assert np.array_equal(sample.image, expected.image) and np.array_equal(sample.boxes, expected.boxes)


def test_second_preparation_decodes_nothing(root, cache_home, monkeypatch):
    prepare_disk_cache(index_of(root), image_size=SIZE)
    files = {path: path.stat().st_mtime_ns for path in cached_files(cache_home)}
    index = index_of(root)
    monkeypatch.setattr(cache_module, "read_image", None)
    assert prepare_disk_cache(index, image_size=SIZE).load(0) is not None
    assert {path: path.stat().st_mtime_ns for path in cached_files(cache_home)} == files


def test_changed_image_with_the_same_size_and_time_is_detected_and_the_old_file_removed(root, cache_home):
    prepare_disk_cache(index_of(root), image_size=SIZE)
    file = root / "images/train/p1.png"
    pixels = np.asarray(Image.open(file)).copy()
    sizes = set()
    for image in (pixels, 255 - pixels):  # uncompressed PNGs of the same shape have the same size
        Image.fromarray(image).save(file, compress_level=0)
        os.utime(file, ns=(10**18, 10**18))
        sizes.add(file.stat().st_size)
        prepare_disk_cache(index_of(root), image_size=SIZE)
    assert len(sizes) == 1
    index = index_of(root)
    cache = prepare_disk_cache(index, image_size=SIZE)
    assert np.array_equal(cache.load(1), resize_longest_side(255 - pixels, SIZE, smooth=False))
    assert len(cached_files(cache_home)) == 4


def test_sizes_and_splits_have_separate_folders(root, cache_home):
    prepare_disk_cache(index_of(root), image_size=SIZE)
    prepare_disk_cache(index_of(root), image_size=64)
    val = build_index(load_data_config(str(root / "data.yaml")), "val", use_cache=False)
    prepare_disk_cache(val, image_size=64)
    assert len({path.parent for path in cached_files(cache_home)}) == 3 and len(cached_files(cache_home)) == 12


@pytest.mark.parametrize("damage", ["gone", "empty", "short", "long", "other shape", "folder"])
def test_damaged_file_is_decoded_again(root, cache_home, damage):
    index = index_of(root)
    cache = prepare_disk_cache(index, image_size=SIZE)
    for path in cached_files(cache_home):
        data = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "gone":
            turned = data[4:8] + data[:4] + data[8:]
            path.write_bytes({"empty": b"", "short": data[:-1], "long": data + b"x", "other shape": turned}[damage])
    assert all(cache.load(i) is None for i in range(4))
    dataset = DetectionDataset(index, image_size=SIZE, disk_cache=cache)
    assert dataset.original(0).image.shape[2] == 3
    if damage not in ("folder", "other shape"):
        assert prepare_disk_cache(index, image_size=SIZE).load(0) is not None


def test_needed_space_is_logged_first_and_too_little_space_means_no_cache(root, cache_home, monkeypatch, caplog):
    index = index_of(root)
    needed = sum(resize_longest_side(read_image(p), SIZE, smooth=False).nbytes + 8 for p in index.paths)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(needed / 0.9) - 10))
    with caplog.at_level("INFO"):
        assert prepare_disk_cache(index, image_size=SIZE) is None
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    assert f"{needed / 1e9:.2f} GB" in caplog.text and not cached_files(cache_home)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=int(needed / 0.9) + 10))
    assert prepare_disk_cache(index, image_size=SIZE) is not None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert prepare_disk_cache(index, image_size=SIZE) is not None, "cached images need no space"


def test_folder_that_cannot_be_written_is_only_a_warning(root, cache_home, monkeypatch, caplog):
    (cache_home / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home / "file"))
    index = index_of(root)
    cache = prepare_disk_cache(index, image_size=SIZE)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "4 images" in warning and cache.load(0) is None
    assert DetectionDataset(index, image_size=SIZE, disk_cache=cache).original(2).image.any()


def test_image_deleted_since_the_scan_is_not_cached(root):
    index = index_of(root)
    (root / "images/train/p2.png").unlink()
    cache = prepare_disk_cache(index, image_size=SIZE)
    assert cache.load(2) is None and cache.load(1) is not None

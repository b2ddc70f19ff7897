"""Archives: honest ones are extracted unchanged, hostile ones leave no byte anywhere."""

import bz2
import functools
import gzip
import io
import lzma
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.helpers.data_oracles import tree_hash
from tests.helpers.hostile_archives import GOOD, HOSTILE, LIMIT, special, tarred, zipped
from utils.datasets import archives
from utils.datasets.archives import open_archive
from utils.datasets.catalog import without_top_folder
from utils.datasets.convert.layout import files_below
from utils.errors import DataError
from utils.folders import atomic_write_folder

NOISE = np.random.default_rng(0).bytes(40_000)
FILES = {"set/images/train/中文 1.jpg": NOISE, "set/labels/train/中文 1.txt": GOOD, "set/README.md": b"# read me\n"}


@functools.cache
def made(kind):
    return HOSTILE[kind]()


def read_all(data):
    files = open_archive(io.BytesIO(data), where="https://host/a.zip")
    return {name: read() for name, read in files.items()}


@pytest.mark.parametrize(
    "pack",
    [
        lambda: zipped(*FILES.items()),
        lambda: zipped(*FILES.items(), compression=zipfile.ZIP_STORED),
        lambda: zipped(("set/", b""), ("set/images/", b""), *FILES.items()),
        lambda: tarred(*FILES.items()),
        lambda: tarred(*((f"./{name}", content) for name, content in FILES.items())),
        lambda: gzip.compress(tarred(*FILES.items())),
        lambda: bz2.compress(tarred(*FILES.items())),
        lambda: lzma.compress(tarred(*FILES.items())),
    ],
    ids=["deflated", "stored", "with folders", "tar", "tar with dots", "gz", "bz2", "xz"],
)
def test_honest_archives_are_extracted_unchanged(pack):
    assert read_all(pack()) == FILES


def test_members_can_be_read_in_any_order():
    files = open_archive(io.BytesIO(gzip.compress(tarred(*FILES.items()))), where="a")
    assert [files[name]() for name in reversed(list(files))] == list(FILES.values())[::-1]


def test_programs_and_hidden_files_are_skipped_and_counted(caplog):
    extra = ["set/run.py", "set/.ssh/key.txt", "set/a.sh", "set/.bashrc", "__MACOSX/a.txt", "set/lib.so", "x.desktop"]
    data = zipped(*FILES.items(), *((name, b"x") for name in extra))
    with caplog.at_level("INFO"):
        assert read_all(data) == FILES
    assert f" {len(extra)} " in caplog.text


def test_short_files_may_be_compressed_a_lot():
    assert len(read_all(zipped(("labels/a.txt", bytes(900_000))))["labels/a.txt"]) == 900_000


def test_ordinary_modes_are_not_links():
    assert read_all(zipped((special("labels/a.txt", 0o100000), GOOD), (special("labels/b.txt", 0), GOOD)))


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_leave_nothing_anywhere(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", LIMIT)
    (tmp_path / "other.txt").write_text("untouched")
    data = made(kind)
    assert len(data) < 3_000_000
    before = tree_hash(tmp_path)

    def unpack():
        archive = open_archive(io.BytesIO(data), where="https://host/set.zip")
        yield from without_top_folder(archive)

    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        atomic_write_folder(tmp_path / "target", unpack())
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 60_000_000
    message = str(caught.value)
    assert message.startswith("https://host/set.zip: ") and message.isprintable() and len(message) < 300
    assert tree_hash(tmp_path) == before


def test_there_are_enough_hostile_archives_and_all_differ():
    assert len({made(kind) for kind in HOSTILE}) == len(HOSTILE) >= 25


def test_a_bomb_beside_honest_files_is_refused():
    honest = ("images/a.jpg", np.random.default_rng(0).bytes(200_000))
    assert len(read_all(zipped(honest, ("labels/a.txt", GOOD)))) == 2
    # All files together are less than a hundred times the archive.
    with pytest.raises(DataError) as caught:
        read_all(zipped(honest, ("labels/bomb.txt", bytes(3_000_000))))
    assert "labels/bomb.txt" in caught.value.what


def test_a_file_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 30_000)
    with pytest.raises(DataError, match="40,000"):
        read_all(zipped(*FILES.items()))


def test_a_total_that_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 40_000)
    with pytest.raises(DataError) as caught:
        read_all(tarred(*FILES.items()))
    assert caught.value.where == "https://host/a.zip"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["coco128/images/a.jpg", "coco128/labels/a.txt"], ["images/a.jpg", "labels/a.txt"]),
        (["images/a.jpg", "labels/a.txt"], ["images/a.jpg", "labels/a.txt"]),
        (["images/a.jpg", "images/b.jpg"], ["images/a.jpg", "images/b.jpg"]),
        (["a/images/a.jpg", "README.md"], ["a/images/a.jpg", "README.md"]),
    ],
)
def test_the_only_top_folder_is_removed(names, expected):
    archive = open_archive(io.BytesIO(zipped(*((name, b"x") for name in names))), where="a")
    assert [name for name, _ in without_top_folder(archive)] == expected


def test_the_files_of_a_folder_are_listed_without_hidden_ones(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/1.txt").write_bytes(b"folder")
    (tmp_path / "a/.hidden").write_bytes(b"x")
    assert {name: read() for name, read in files_below(tmp_path / "a").items()} == {"b/1.txt": b"folder"}
    for wrong in (tmp_path / "none", tmp_path / "a/b/1.txt"):
        with pytest.raises(DataError) as caught:
            files_below(wrong)
        assert caught.value.where == str(wrong)

"""Folders that appear complete or not at all."""

import errno
import os
import sys
from pathlib import Path

import pytest

from utils import folders
from utils.errors import RunError
from utils.folders import FileLink, atomic_write_folder


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_takes_the_place_of_the_older_one_whole(tmp_path):
    folder = tmp_path / "sets" / "shapes"
    assert atomic_write_folder(str(folder), [("old.txt", b"1"), ("a/b.txt", b"2")]) == folder
    assert contents(folder) == {"old.txt": b"1", "a/b.txt": b"2"}
    atomic_write_folder(folder, iter([("a/b.txt", b"3")]))
    assert contents(folder.parent) == {"shapes/a/b.txt": b"3"}


def test_a_folder_that_breaks_off_midway_leaves_no_trace(tmp_path):
    folder = tmp_path / "shapes"
    atomic_write_folder(folder, [("a.txt", b"old")])

    def files():
        yield "a.txt", b"new"
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(RunError) as caught:
        atomic_write_folder(folder, files())
    assert caught.value.where == str(folder)
    assert contents(tmp_path) == {"shapes/a.txt": b"old"}
    assert os.listdir(tmp_path) == ["shapes"]


def test_a_folder_that_cannot_take_its_place_leaves_the_older_one(tmp_path, monkeypatch):
    folder = tmp_path / "shapes"
    atomic_write_folder(folder, [("a.txt", b"old")])
    real = os.replace

    def replace(source, destination):
        if Path(source).name == "new":
            raise OSError(errno.EIO, "broken")
        real(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(folders, "_exchange", lambda new, old: False)  # a system without an exchange in one step
    with pytest.raises(RunError) as caught:
        atomic_write_folder(folder, [("a.txt", b"new")])
    assert caught.value.where == str(folder)
    assert contents(tmp_path) == {"shapes/a.txt": b"old"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_folder_is_exchanged_in_one_step_so_that_its_name_always_exists(tmp_path, monkeypatch):
    folder = tmp_path / "shapes"
    atomic_write_folder(folder, [("a.txt", b"old")])
    monkeypatch.setattr(os, "replace", fail_with(errno.EIO))  # two renames would leave a moment without the name
    atomic_write_folder(folder, [("b.txt", b"new")])
    assert contents(tmp_path) == {"shapes/b.txt": b"new"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_folder_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, os.replace

    def record_fsync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        parts = path.parts
        events.append("/".join(parts[parts.index("new") :]) if "new" in parts else path.name)
        fsync(handle)

    def record_replace(source, destination):
        events.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    atomic_write_folder(tmp_path / "shapes", [("a.txt", b"1"), ("b/c.txt", b"2")])
    assert sorted(events[:4]) == ["new", "new/a.txt", "new/b", "new/b/c.txt"]
    assert events[4:] == ["rename", tmp_path.name]


@pytest.mark.parametrize("kind", ["hard", "copy", "symbolic"])
def test_files_of_a_folder_may_be_links_and_copies(tmp_path, kind):
    source = tmp_path / "in/a.jpg"
    source.parent.mkdir()
    source.write_bytes(b"1")
    (tmp_path / "in/link.jpg").symlink_to("a.jpg")
    source.chmod(0o444)
    files = [(f"images/{name}", FileLink(source.with_name(name), kind)) for name in ("a.jpg", "link.jpg")]
    folder = atomic_write_folder(tmp_path / "out", files)
    assert contents(folder) == {"images/a.jpg": b"1", "images/link.jpg": b"1"}
    for name in ("a.jpg", "link.jpg"):
        written = folder / "images" / name
        assert written.is_symlink() == (kind == "symbolic")
        assert written.samefile(source) == (kind != "copy")
    assert source.read_bytes() == b"1"


def test_a_hard_link_to_another_file_system_is_a_copy(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"1")
    monkeypatch.setattr(os, "link", fail_with(errno.EXDEV))
    folder = atomic_write_folder(tmp_path / "out", [("a.jpg", FileLink(tmp_path / "a.jpg"))])
    assert contents(folder) == {"a.jpg": b"1"} and not (folder / "a.jpg").samefile(tmp_path / "a.jpg")


@pytest.mark.skipif(sys.platform != "linux", reason="needs syncfs")
def test_many_files_are_flushed_together(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(folders, "MANY_FILES", 3)
    monkeypatch.setattr(folders, "_sync_file_system", lambda folder: calls.append(folder.name) or True)
    atomic_write_folder(tmp_path / "few", [(f"{index}.txt", b"1") for index in range(3)])
    assert calls == []
    atomic_write_folder(tmp_path / "many", [(f"{index}.txt", b"1") for index in range(4)])
    assert calls == ["new"]

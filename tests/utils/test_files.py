"""Files: atomic writing under faults, run folders, finding by name."""

import errno
import json
import os
import re
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.errors import ConfigError, RunError
from utils.files import (
    _temporary_cache,
    absolute_path,
    atomic_write,
    dump_json,
    find_file,
    free_bytes,
    load_json,
    make_run_dir,
    remove_leftovers,
    try_write,
    unique_name,
    user_cache_dir,
    write_csv,
    write_skipped,
)
from utils.locks import FolderLock
from utils.strict_yaml import dump_yaml, load_yaml


def fail_with(number):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return fail


# atomic_write


@pytest.mark.parametrize(
    ("content", "expected"), [("größer\n", "größer\n".encode()), (b"\0\xff\r\n", b"\0\xff\r\n"), ("", b"")]
)
def test_writing_and_overwriting(content, expected, tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    assert atomic_write(str(path), content) == path
    assert path.read_bytes() == expected
    atomic_write(path, "second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["replace", "fsync", "open", "fdopen"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failing_write_leaves_the_old_content_and_no_other_file(call, number, old, tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, call, fail_with(number))
    with pytest.raises(RunError) as caught:
        atomic_write(path, b"new")
    monkeypatch.undo()
    free = r": needs 0\.0 MB, \d+\.\d MB free" if number == errno.ENOSPC else ""
    start = re.escape(f"{path}: cannot be written ({os.strerror(number)}") + free + r"\). Fix: "
    assert re.match(start, str(caught.value))
    assert caught.value.exit_code == 1
    assert os.listdir(tmp_path) == ([] if old is None else ["a.pt"])
    assert old is None or path.read_bytes() == old


def test_a_disk_that_fills_up_midway_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    resource = pytest.importorskip("resource", reason="POSIX only")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        error = try_write(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert isinstance(error, RunError)
    assert os.listdir(tmp_path) == ["a.pt"]
    assert path.read_bytes() == b"old"


def test_the_data_is_on_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    path, events = tmp_path / "a.pt", []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        target = Path(os.readlink(f"/proc/self/fd/{handle}"))
        events.append(("fsync", "folder" if target.is_dir() else target.read_bytes()))
        real_fsync(handle)

    def replace(source, destination):
        assert Path(source).parent == tmp_path
        events.append(("replace", Path(destination).name))
        real_replace(source, destination)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    atomic_write(path, b"content")
    assert events == [("fsync", b"content"), ("replace", "a.pt"), ("fsync", "folder")]


def test_the_names_of_new_folders_are_on_disk_before_what_is_written_into_them(tmp_path, monkeypatch):
    flushed, real_fsync, real_replace = [], os.fsync, os.replace

    def fsync(handle):
        flushed.append(os.readlink(f"/proc/self/fd/{handle}"))
        real_fsync(handle)

    def replace(source, destination):
        flushed.append(str(destination))
        real_replace(source, destination)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    run = make_run_dir(tmp_path / "runs/train", "exp")
    assert flushed == [str(tmp_path), str(tmp_path / "runs"), str(tmp_path / "runs/train")]
    atomic_write(run / "weights/a.pt", b"content")
    assert flushed[3] == str(run)
    assert flushed[-2:] == [str(run / "weights/a.pt"), str(run / "weights")]


def test_no_reader_ever_sees_a_part(tmp_path):
    path = tmp_path / "a.bin"
    contents = [bytes([digit]) * 300_000 for digit in range(4)]
    atomic_write(path, contents[0])
    done, seen = threading.Event(), []

    def read():
        while not done.is_set():
            data = path.read_bytes()
            seen.append(len(data) == 300_000 and len(set(data[::1000])) == 1)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: atomic_write(path, contents[n % 4]), range(40)))
    done.set()
    reader.join()
    assert seen
    assert all(seen)
    assert os.listdir(tmp_path) == ["a.bin"]


def test_modes_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        assert atomic_write(tmp_path / "a", "").stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(old)


def test_writing_never_touches_the_umask_of_the_process(tmp_path, monkeypatch):
    values = []
    real = os.umask
    monkeypatch.setattr(os, "umask", lambda mask: (values.append(mask), real(mask))[1])
    atomic_write(tmp_path / "a", "x")
    assert 0 not in values


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("n" * 255)
    atomic_write(path, "x")
    assert path.read_text() == "x"


@pytest.mark.parametrize("place", ["file/below.txt", "folder"])
def test_impossible_places_are_refused(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError) as caught:
        atomic_write(tmp_path / place, "x")
    assert caught.value.where == str(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_try_write_returns_the_error_instead_of_raising_it(tmp_path, monkeypatch):
    assert try_write(tmp_path / "a", "x") is None
    monkeypatch.setattr(os, "replace", fail_with(errno.ENOSPC))
    assert isinstance(try_write(tmp_path / "a", "y"), RunError)
    assert (tmp_path / "a").read_text() == "x"


def test_json_keeps_order_and_non_ascii_letters(tmp_path):
    value = {"z": 1, "a": ["ä", "否"], "m": {"y": None, "b": 0.5}}
    text = dump_json(tmp_path / "a.json", value).read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["z", "a", "m"]
    assert json.loads(text) == value
    assert "否" in text
    assert text.endswith("\n")


# run folders


def test_run_folders_are_numbered(tmp_path):
    made = [make_run_dir(tmp_path / "runs" / "train", "exp").name for _ in range(3)]
    assert made == ["exp", "exp2", "exp3"]
    assert all((tmp_path / "runs" / "train" / name).is_dir() for name in made)


def test_a_hole_in_the_numbers_and_a_file_of_that_name(tmp_path):
    (tmp_path / "exp").write_text("a file")
    (tmp_path / "exp3").mkdir()
    assert [make_run_dir(str(tmp_path), "exp").name for _ in range(2)] == ["exp2", "exp4"]
    assert (tmp_path / "exp").read_text() == "a file"


def test_an_existing_folder_is_used_on_request(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "kept.txt").write_text("kept")
    assert make_run_dir(tmp_path, "exp", exist_ok=True) == tmp_path / "exp"
    assert (tmp_path / "exp" / "kept.txt").read_text() == "kept"
    (tmp_path / "other").write_text("a file")
    assert make_run_dir(tmp_path, "other", exist_ok=True) == tmp_path / "other2"


@pytest.mark.parametrize("repeat", range(10))
def test_many_runs_started_at_once_never_share_a_folder(repeat, tmp_path):
    barrier = threading.Barrier(64)

    def start(_):
        barrier.wait()
        return make_run_dir(tmp_path / "runs", "exp")

    with ThreadPoolExecutor(64) as pool:
        made = list(pool.map(start, range(64)))
    assert {path.name for path in made} == {"exp", *(f"exp{n}" for n in range(2, 65))}


def test_a_folder_made_by_another_program_in_between_is_not_taken(tmp_path, monkeypatch):
    real = os.mkdir

    def mkdir(path, *args, **kwargs):
        if Path(path).name == "exp":
            monkeypatch.setattr(os, "mkdir", real)
            real(path)  # the other program was quicker
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert make_run_dir(tmp_path, "exp").name == "exp2"


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b"])
def test_names_that_are_no_folder_are_refused(name, tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_run_dir(tmp_path / "runs", name)
    assert caught.value.where == "--name" and repr(name) in caught.value.what
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/absolute"])
def test_names_that_leave_the_project_are_refused(name, tmp_path):
    name = name.replace("/absolute", str(tmp_path / "absolute"))
    with pytest.raises(ConfigError) as caught:
        make_run_dir(tmp_path / "runs", name)
    assert caught.value.where == "--name" and repr(name) in caught.value.what


def test_a_project_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        make_run_dir(tmp_path / "file", "exp")
    assert caught.value.where == str(tmp_path / "file" / "exp")
    with pytest.raises(ConfigError) as caught:
        make_run_dir(tmp_path, "x" * 300)
    assert caught.value.where == str(tmp_path / ("x" * 300))


def test_a_project_with_a_null_byte_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        make_run_dir(f"{tmp_path}/a\0b", "exp")


# finding


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two folders to search, and an empty working directory."""
    for name in ("first/Alpha.yaml", "first/deep/beta.yaml", "second/alpha.yaml", "second/gamma.txt", "here/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.chdir(tmp_path / "here")
    return [tmp_path / "first", tmp_path / "missing", tmp_path / "second"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Alpha.yaml", "first/Alpha.yaml"),
        ("alpha.yaml", "first/Alpha.yaml"),
        ("ALPHA", "first/Alpha.yaml"),
        ("beta", "first/deep/beta.yaml"),
        ("deep/Beta.yaml", "first/deep/beta.yaml"),
        ("second/../first/alpha", "first/Alpha.yaml"),
    ],
)
def test_files_are_found_by_bare_name_in_any_case(name, found, shelf):
    assert find_file(name, folders=shelf, flag="--cfg").read_text() == found


def test_a_path_wins_over_a_bare_name(shelf):
    Path("alpha.yaml").write_text("in the working directory")
    assert find_file("alpha.yaml", folders=shelf, flag="--cfg").read_text() == "in the working directory"
    path = str(shelf[2] / "alpha.yaml")
    assert str(find_file(path, folders=shelf, flag="--cfg")) == path


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("alhpa.yaml", "Alpha.yaml"),
        ("zzzzzzzz", ""),
        ("gamma", ""),
        ("other/alpha.yaml", "Alpha.yaml"),
        ("/nowhere/alpha.yaml", "Alpha.yaml"),
        ("deep", ""),
        ("", ""),
        ("..", ""),
        ("a\0b", ""),
        ("x" * 5000, ""),
        ("~nobody-of-that-name/a", ""),
    ],
)
def test_what_cannot_be_found_is_refused_with_the_nearest_name(name, nearest, shelf):
    with pytest.raises(ConfigError) as caught:
        find_file(name, folders=shelf, flag="--cfg")
    shown = name.replace("\0", "\\x00")[:100]  # control characters are escaped, long values shortened
    assert caught.value.where == "--cfg" and shown in caught.value.what and len(caught.value.what) < 2000
    assert nearest in caught.value.fix


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("mine")
    assert find_file("~/mine.yaml", folders=[], flag="--cfg") == tmp_path / "mine.yaml"


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert user_cache_dir() == tmp_path / "cache" / "akyolo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / ".cache" / "akyolo"
    assert not (tmp_path / ".cache").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert user_cache_dir() == tmp_path / ".cache" / "akyolo"


@pytest.mark.parametrize("home", ["~", ""], ids=["no entry in passwd", "empty"])
def test_without_a_home_folder_caches_are_temporary(home, monkeypatch, caplog):
    """As for the user of a container: expanduser finds nothing, and returns the tilde."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: home)
    _temporary_cache.cache_clear()
    folder = user_cache_dir()
    assert try_write(folder / "labels" / "a", "x") is None and user_cache_dir() == folder
    assert folder.parent.stat().st_mode & 0o077 == 0, "what is marked as trusted there must be the user's own"
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
    shutil.rmtree(folder.parent)
    _temporary_cache.cache_clear()


def test_a_folder_that_cannot_be_written_is_not_locked(tmp_path, monkeypatch):
    """The open fails as on a read-only file system; one without locks is used without."""
    monkeypatch.setattr("os.open", fail_with(errno.EROFS))
    with pytest.raises(RunError) as caught:
        FolderLock(tmp_path)
    assert caught.value.where == str(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("fcntl.flock", fail_with(errno.ENOLCK))
    FolderLock(tmp_path).release()
    monkeypatch.setattr("fcntl.flock", fail_with(errno.EWOULDBLOCK))
    with pytest.raises(ConfigError):
        FolderLock(tmp_path)


def test_only_what_a_killed_program_left_is_removed(tmp_path):
    (tmp_path / "weights").mkdir()
    stay = [tmp_path / name for name in (".lock", "a.tmp", ".notes.tmp", "weights/last.pt")]
    for path in [*stay, tmp_path / "weights/.0123456789abcdef.tmp"]:
        path.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == sorted(stay)


def test_a_taken_name_gets_the_first_free_number():
    assert [unique_name("a", taken) for taken in ([], {"b"}, {"a": 0}, ["a", "a-3"], {"a", "a-2", "a-3"})] == [
        "a",
        "a",
        "a-2",
        "a-2",
        "a-4",
    ]


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: seen.append(path) or SimpleNamespace(free=5))
    assert free_bytes(tmp_path / "new" / "folder") == 5 and seen == [tmp_path]

    def unreadable(path):
        raise PermissionError(path)

    monkeypatch.setattr(shutil, "disk_usage", unreadable)
    assert free_bytes(tmp_path) == 0


def test_names_that_are_not_utf8_are_written_and_read_back(tmp_path):
    name = os.fsdecode(b"\xe9 \xff.jpg")
    dump_json(tmp_path / "a.json", {"file": name, "other": "猫"})
    assert load_json(tmp_path / "a.json") == {"file": name, "other": "猫"}
    write_csv(tmp_path / "a.csv", [(name, "猫")])
    assert (tmp_path / "a.csv").read_bytes() == b"\xe9 \xff.jpg," + "猫\n".encode()
    dump_yaml(tmp_path / "a.yaml", {"project": name})
    assert load_yaml(tmp_path / "a.yaml") == {"project": name}


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.mkdir(), "folder"),
        (lambda path: path.symlink_to("nowhere"), "link"),
        (lambda path: path.symlink_to(path.name), "link"),
        (lambda path: os.mkfifo(path), "regular"),
    ],
    ids=["folder", "broken link", "loop", "pipe"],
)
def test_what_exists_but_is_no_file_is_named_as_what_it_is(tmp_path, make, kind):
    make(tmp_path / "a.yaml")
    with pytest.raises(ConfigError) as caught:
        find_file(str(tmp_path / "a.yaml"), folders=[], flag="--cfg")
    assert caught.value.where == "--cfg" and kind in caught.value.what


def test_a_path_beside_yamls_is_answered_with_the_nearest_of_them(tmp_path):
    (tmp_path / "data.yaml").write_text("x")
    with pytest.raises(ConfigError) as caught:
        find_file(str(tmp_path / "dat.yaml"), folders=[], flag="--data")
    assert "data.yaml" in caught.value.fix


def test_a_name_with_a_tilde_that_exists_is_no_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/nowhere")
    (tmp_path / "~").mkdir()
    (tmp_path / "~/a.yaml").write_text("x")
    assert find_file("~/a.yaml", folders=[], flag="--cfg") == Path("~/a.yaml")
    assert absolute_path("~/a.yaml") == str(tmp_path / "~/a.yaml") and absolute_path("yolov5n") == "yolov5n"


def test_skipped_files_are_listed_whatever_their_names(tmp_path):
    write_skipped(tmp_path, [])
    assert not list(tmp_path.iterdir())
    write_skipped(tmp_path, [(Path("a,b.jpg"), "is truncated"), ("\udcff.png", "reason")])
    assert (tmp_path / "skipped.csv").read_text() == 'file,reason\n"a,b.jpg",is truncated\n\ufffd.png,reason\n'
    write_skipped(tmp_path, [])  # that of an earlier run does not stay
    assert not list(tmp_path.iterdir())

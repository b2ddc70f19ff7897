"""`--source`: what it may name; files are yielded in order, decoded in the background, unreadable ones skipped."""

import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.datasets.sources import open_source, prefetch
from utils.errors import DataError


def level(path: Path, value: int) -> Path:
    """Write an image of one grey level, by which it is recognized."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((20, 30, 3), value, np.uint8))[1].tobytes())
    return path


def video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 20 * index + 10, np.uint8))
    writer.release()
    return path


def frames_of(source):
    return [frame for batch in source.batches(1, lambda frame: frame) for frame in batch]


def levels(source):
    return [int(frame.image[0, 0, 0]) for frame in frames_of(source)]


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["a.png", "b 细胞.PNG", "sub/c.png", "sub/deep/d.png"]):
        level(tmp_path / "pics" / name, index)
    (tmp_path / "pics/notes.md").write_text("no image")
    (tmp_path / "pics/folder.png").mkdir()
    return tmp_path / "pics"


def test_a_file_a_folder_and_globs(folder, monkeypatch):
    assert levels(open_source(str(folder / "b 细胞.PNG"))) == [1]
    assert levels(open_source(str(folder))) == [0, 1]
    assert levels(open_source(str(folder / "*.png"))) == [0]
    assert sorted(levels(open_source(str(folder / "**/*.[pP][nN][gG]")))) == [0, 1, 2, 3]
    assert levels(open_source((folder / "b 细胞.PNG").as_uri())) == [1]
    monkeypatch.setenv("HOME", str(folder))
    assert levels(open_source("~/a.png")) == [0]


def test_brackets_in_an_existing_name_are_not_a_glob(tmp_path):
    assert levels(open_source(str(level(tmp_path / "a[1].png", 7)))) == [7]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_entries_of_a_list_are_relative_to_it_or_to_the_working_directory(folder, tmp_path, start, end, monkeypatch):
    monkeypatch.chdir(tmp_path)
    level(tmp_path / "here.png", 9)
    lines = ["# a remark", "a.png", "", f"  {folder / 'b 细胞.PNG'}  ", "here.png", "sub", "more.txt", "sub/deep/*.png"]
    (folder / "list.txt").write_bytes(start + end.join(line.encode() for line in lines))
    (folder / "more.txt").write_text("a.png")
    assert levels(open_source(str(folder / "list.txt"))) == [0, 1, 9, 2, 0, 3]


def test_unreadable_entries_of_a_list_are_skipped_and_recorded(folder, caplog):
    (folder / "list.txt").write_text("a.png\nmissing.png\nnotes.md\nb 细胞.PNG\n")
    source = open_source(str(folder / "list.txt"))
    assert levels(source) == [0, 1] and len(source.files) == 4
    assert [path.name for path, _ in source.skipped] == ["missing.png", "notes.md"]
    assert "missing.png" in caplog.text and all(reason for _, reason in source.skipped)


def test_invalid_lists_are_refused(folder):
    (folder / "self.txt").write_text("self.txt\n")
    (folder / "empty.txt").write_text("\n# nothing\n")
    (folder / "utf16.txt").write_bytes("a.png".encode("utf-16"))
    for name, in_source in (("self", False), ("empty", True), ("utf16", False)):
        path = str(folder / f"{name}.txt")
        with pytest.raises(DataError) as caught:
            open_source(path)
        assert caught.value.where == ("--source" if in_source else path) and path in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("nowhere", "video or camera"),
        ("~no_such_user/a.png", "video or camera"),
        ("pics/a.pn", "pics/a.png"),
        ("pics/notes.md", "jpg"),
        ("pics/*.gif", "jpg"),
        ("ftp://host/a.jpg", "rtsp://"),
        ("https://www.youtube.com/watch?v=1", "download"),
        ("https://youtu.be/1", "download"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_with_advice(folder, monkeypatch, text, fix):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError) as caught:
        open_source(text)
    assert caught.value.where == "--source" and fix in caught.value.fix


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_bad_files_are_skipped_and_the_others_are_yielded_in_order(folder):
    for index in range(40):
        level(folder / f"p{index:02}.png", 100 + index)
    (folder / "p05.png").write_bytes(b"")
    (folder / "p11.png").write_bytes((folder / "p12.png").read_bytes()[:40])
    (folder / "p17.avi").write_bytes(b"no video")
    (folder / "p20.png").unlink()
    os.mkfifo(folder / "p20.png")
    (folder / "p30.png").unlink()
    (folder / "p30.png").symlink_to(folder / "nowhere")
    source = open_source(str(folder))
    bad = {5, 11, 20, 30}
    assert levels(source) == [0, 1, *(100 + n for n in range(40) if n not in bad)]
    assert [path.name for path, _ in source.skipped] == ["p05.png", "p11.png", "p17.avi", "p20.png", "p30.png"]
    assert all(reason for _, reason in source.skipped)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_frames_of_a_video_are_yielded_between_images(folder, stride):
    video(folder / "aa.avi", 7)
    frames = frames_of(open_source(str(folder), vid_stride=stride))
    assert [frame.index for frame in frames] == [None, *range(0, 7, stride), None]
    middle = frames[1:-1]
    assert [round((frame.image.mean() - 10) / 20) for frame in middle] == list(range(0, 7, stride))
    assert {(frame.total, frame.fps, frame.path.name) for frame in middle} == {(7, 12 / stride, "aa.avi")}


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_contain_all_frames_preprocessed_in_order(folder, size):
    for index in range(20):
        level(folder / f"p{index:02}.png", 100 + index)
    batches = list(open_source(str(folder)).batches(size, lambda frame: int(frame.image[0, 0, 0])))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [level for batch in batches for level in batch] == [0, 1, *range(100, 120)]


def test_closing_early_ends_all_threads(folder):
    for index in range(20):
        level(folder / f"p{index:02}.png", 100 + index)
    batches = open_source(str(folder)).batches(2, lambda frame: frame)
    next(batches)
    batches.close()
    assert not [t.name for t in threading.enumerate() if t.name.startswith(("prefetch", "decode"))]


def test_prefetch_keeps_the_order_and_raises_the_error_of_its_thread():
    def items():
        yield from range(5)
        raise DataError("a", "fails")

    taken = []
    with pytest.raises(DataError, match=r"^a: fails"):
        for item in prefetch(items(), ahead=2):
            taken.append(item)
    assert taken == list(range(5))


def test_prefetch_runs_no_further_ahead_than_allowed():
    made, may_go = [], threading.Event()

    def items():
        for index in range(50):
            made.append(index)
            yield index
            if index == 3:
                may_go.set()

    taken = prefetch(items(), ahead=3)
    assert next(taken) == 0
    assert may_go.wait(5)
    assert len(made) <= 6  # one taken, three waiting, one being put, one begun
    taken.close()
    assert len(made) <= 6

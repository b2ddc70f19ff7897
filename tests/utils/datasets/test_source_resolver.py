"""What `--source` names: what exists is a path, whatever else its name may mean, and nothing ends in a traceback."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.datasets.source_resolver import SourceResolver, shown
from utils.datasets.sources import open_source
from utils.errors import DataError, RunError


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.zeros((20, 30, 3), np.uint8))[1].tobytes())
    return path


def resolve(text: str) -> SourceResolver:
    named = SourceResolver()
    named.add(text)
    return named


@pytest.mark.parametrize(
    "name", ["2024", "20240101120000", "0", "²", "screen", "screen 0", "a*b", "[v2]", "#1", "50%", "http:", "~", "~x"]
)
def test_a_folder_that_exists_is_a_folder(name: str, tmp_path: Path, monkeypatch) -> None:
    image(tmp_path / name / "a.png")
    image(tmp_path / "axb" / "other.png")
    monkeypatch.chdir(tmp_path)
    assert resolve(name).files == [Path(name) / "a.png"]
    assert resolve(str(tmp_path / name)).files == [tmp_path / name / "a.png"]
    assert resolve(f"{name}/*.png").files == resolve(f"{name}/a.png").files == [Path(name) / "a.png"]


@pytest.mark.parametrize("name", ["a*b.png", "#1.png", "50%20.png", "0.png", " blank.png", "a?.png"])
def test_a_file_that_exists_is_a_file_also_in_a_list(name: str, tmp_path: Path, monkeypatch) -> None:
    image(tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path / "in")
    assert resolve(name).files == [Path(name)]
    (tmp_path / "in" / "list.txt").write_text(f"# a comment\n{name}\n")
    monkeypatch.chdir(tmp_path)
    assert [Path(path) for path in resolve("in/list.txt").files] == [Path("in") / name]


def test_an_address_below_a_folder_named_as_its_scheme_is_a_path(tmp_path: Path, monkeypatch) -> None:
    image(tmp_path / "http:" / "host" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert resolve("http://host/a.png").files == [Path("http:/host/a.png")]
    assert resolve("http://host/b.png").files == ["http://host/b.png"]


def test_cameras_and_addresses_are_what_does_not_exist(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("0").streams == ["0"] and resolve("screen").streams == ["screen"]
    assert resolve("rtsp://me:pw@host/live").streams == ["rtsp://me:pw@host/live"]
    assert resolve("http://host/cam?x=.jpg").streams == ["http://host/cam?x=.jpg"]
    assert resolve("HTTPS://host/a%20b.JPG?token=1").files == ["HTTPS://host/a%20b.JPG?token=1"]


LONG = "a" * 5000 + ".jpg"


@pytest.mark.parametrize(
    "text",
    ["", " ", "²", "99999999999", "9" * 5000, "a\0b.jpg", "\0*", LONG, "~nobodyatall/x.jpg", "rtsp://[bad", "*" * 5000,
     "file://[bad/x", "http://[bad/x.jpg", "file:///nowhere", "file://", "://", "ftp://me:secret@host/a.jpg", "[", "**",
     "/dev/null", "/dev/zero", "a\nb.jpg"],
)  # fmt: skip
def test_a_source_that_is_nothing_is_refused_in_one_short_line(text: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        open_source(text)
    assert error.value.where == "--source" and error.value.exit_code == 2
    line = str(error.value)
    assert len(line) < 600 and line.isprintable() and "secret" not in line


def test_bad_entries_of_a_list_are_skipped_when_they_are_read(tmp_path: Path, monkeypatch) -> None:
    image(tmp_path / "a.png")
    entries = [LONG, "a\0b.jpg", "~nobodyatall/x.jpg", "²", "9" * 30, "nowhere/*.png", "a.png"]
    (tmp_path / "list.txt").write_text("\n".join(entries))
    source = open_source(str(tmp_path / "list.txt"))
    frames = [frame for batch in source.batches(2, lambda frame: frame) for frame in batch]
    assert [frame.path.name for frame in frames] == ["a.png"] and len(source.skipped) == len(entries) - 1


def test_lists_of_lists_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("utils.datasets.source_resolver.MAX_LISTS", 40)
    image(tmp_path / "a.png")
    for depth in range(1, 8):
        (tmp_path / f"l{depth}.txt").write_text(f"{'a.png' if depth == 7 else f'l{depth + 1}.txt'}\n" * 30)
    with pytest.raises(DataError) as error:
        open_source(str(tmp_path / "l1.txt"))
    assert Path(error.value.where).parent == tmp_path and "40" in str(error.value)


def test_devices_pipes_and_sockets_are_not_read(tmp_path: Path) -> None:
    for name in ("pipe.jpg", "pipe.mp4", "pipe.txt", "pipe"):
        os.mkfifo(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
        (tmp_path / "null.jpg").symlink_to("/dev/null")
        for name in ("pipe.jpg", "pipe.mp4", "socket.png", "null.jpg"):
            source = open_source(str(tmp_path / name))
            assert not list(source.batches(1, lambda frame: frame)) and len(source.skipped) == 1, name
    for name in ("pipe.txt", "pipe"):
        with pytest.raises(DataError):
            open_source(str(tmp_path / name))
    assert resolve("/dev/video7").streams == ["7"] if os.path.lexists("/dev/video7") else True


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError) as error:
        open_source(str(tmp_path))
    assert error.value.where == "--source" and "Permission denied" in str(error.value)


def test_hidden_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"of macOS")
    image(tmp_path / ".b.png")
    assert open_source(str(tmp_path)).files == [tmp_path / "a.png"]
    assert open_source(str(tmp_path / ".b.png")).files == [tmp_path / ".b.png"]


def test_a_message_shows_no_more_than_fits() -> None:
    assert shown("a\0b\n") == "a?b?" and shown("x" * 1000) == "x" * 200 + "..."


@pytest.fixture
def server():
    """A web server of a phone's image, which is to be turned, and of nothing else."""
    turned = Image.new("RGB", (60, 40), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/phone") and self.headers["Authorization"] in (None, "Basic bWU6c2VjcmV0")
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                turned.save(self.wfile, "JPEG", exif=exif)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_an_image_at_an_address_is_fetched_and_upright(server: str, tmp_path: Path) -> None:
    host = server.removeprefix("http://")
    (tmp_path / "list.txt").write_text(
        f"{server}/phone%20%E5%9B%BE.jpg?a=1\nhttp://me:secret@{host}/missing.jpg\nhttp://me:secret@{host}/phone.jpg#x\n"
    )
    source = open_source(str(tmp_path / "list.txt"))
    frames = [frame for batch in source.batches(1, lambda frame: frame) for frame in batch]
    assert [(frame.path, frame.image.shape, frame.is_video) for frame in frames] == [
        (Path("phone 图.jpg"), (60, 40, 3), False),
        (Path("phone.jpg"), (60, 40, 3), False),
    ]
    ((where, reason),) = source.skipped
    assert where == f"{server}/missing.jpg" and "404" in reason


@pytest.mark.parametrize("stage", ["open", "read"])
def test_a_thread_of_a_stream_that_dies_ends_the_run(stage: str, monkeypatch, caplog) -> None:
    class Capture:
        def __init__(self, *_: object) -> None:
            if stage == "open":
                raise OverflowError("integer won't fit into a C int")

        def isOpened(self) -> bool:  # noqa: N802
            return True

        def get(self, _: int) -> float:
            raise ZeroDivisionError

        def release(self) -> None:
            pass

    monkeypatch.setattr("utils.datasets.streams.cv2.VideoCapture", Capture)
    source = open_source("7")
    with pytest.raises((DataError, RunError)) as error:
        list(source.batches(1, lambda frame: frame))
    assert error.value.where == "--source" and "camera7" in caplog.text


def test_files_of_a_folder_that_are_not_read_are_counted_by_suffix(tmp_path, caplog):
    for name in ("a.jfif", "b.HEIC", "c.heic", "d.txt", "e.mp4", "._f.jpg", "g"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    resolver = SourceResolver()
    resolver.add(str(tmp_path))
    assert [Path(file).name for file in resolver.files] == ["a.jfif", "e.mp4"]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "2 .heic files, 1 file without suffix;" in warning

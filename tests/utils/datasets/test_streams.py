"""Live streams: each is reconnected on its own, and no frame is yielded that no camera sent."""

import re
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image, ImageGrab

from tests.helpers.mjpeg_server import DARKEST, HEIGHT, WIDTH, Camera, camera_image, cameras
from utils.datasets.sources import open_source
from utils.datasets.streams import LiveStreams, ReconnectPolicy, is_stream, stream_name
from utils.errors import DataError, DetectorError, RunError

pytestmark = pytest.mark.slow

QUICK = ReconnectPolicy(initial_delay=0.01, max_delay=0.05, give_up_after=1.0, io_timeout=2.0)


def collect(live, *, enough=lambda frames: False):
    """Return all frames by stream, and the error that ended the reading."""
    frames = {}
    with live:
        try:
            while not enough(frames):
                for frame in live.newest():
                    frames.setdefault(frame.path.name, []).append(frame)
        except DetectorError as error:
            return frames, error
    return frames, None


@pytest.mark.slow
def test_a_connection_lost_twenty_times_is_reconnected_twenty_times():
    camera = Camera(6, max_connections=20)
    with cameras(cam=camera) as address:
        frames, error = collect(LiveStreams([address["cam"]], reconnect=QUICK))
    ((_, seen),) = frames.items()
    assert isinstance(error, RunError) and error.exit_code == 1 and camera.connections > 20
    numbers = [frame.index for frame in seen]
    assert numbers == sorted(set(numbers)) and 20 <= len(seen) <= camera.sent
    sent = np.stack([camera_image(number) for number in range(camera.sent)]).astype(int)
    for frame in seen:
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.min() > DARKEST - 60
        difference = np.abs(sent[..., ::-1] - frame.image).mean((1, 2, 3)).min()
        assert difference < 12, "no camera sent this image, or only a part of it"
    assert len({int(frame.image[:14, :14].mean()) for frame in seen}) > 10, "frames must not repeat"


@pytest.mark.slow
def test_a_lost_stream_does_not_stop_the_other():
    lost, steady = Camera(3, max_connections=1), Camera(10**6, max_connections=1)
    with cameras(lost=lost, steady=steady) as address:
        live = LiveStreams([address["lost"], address["steady"]], reconnect=QUICK)
        before = time.monotonic()
        frames, error = collect(live, enough=lambda frames: time.monotonic() > before + 2 * QUICK.give_up_after)
    names = [stream_name(address[name]) for name in ("lost", "steady")]
    assert error is None and set(frames) == set(names)
    assert 1 <= len(frames[names[0]]) <= 2 < len(frames[names[1]])
    assert lost.connections > 2, "it must be reconnected"


def test_delays_grow_up_to_the_bound(monkeypatch):
    waits = []
    wait = threading.Event.wait
    monkeypatch.setattr(
        threading.Event,
        "wait",
        lambda self, timeout=None: (waits.append(timeout), wait(self, min(timeout or 0, 0.01)))[1],
    )
    camera = Camera(3, max_connections=0)
    reconnect = ReconnectPolicy(initial_delay=0.01, max_delay=0.16, give_up_after=0.8, io_timeout=2.0)
    with cameras(cam=camera) as address:
        _, error = collect(LiveStreams([address["cam"]], reconnect=reconnect))
    delays = [timeout for timeout in waits if timeout and timeout < 0.5]
    assert isinstance(error, RunError)
    assert delays[:6] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16, 0.16])


def test_after_each_return_the_pause_is_short_and_told_once(caplog):
    outage = iter([True, False, False, False, True, False])
    camera = Camera(3, max_connections=10**6, accepts=lambda: next(outage, False))
    reconnect = ReconnectPolicy(initial_delay=0.02, max_delay=9, give_up_after=0.6, io_timeout=2.0)
    with cameras(cam=camera) as address, caplog.at_level("WARNING", logger="akyolo"):
        collect(LiveStreams([address["cam"]], reconnect=reconnect))
    pauses = [
        float(record.message.split(" in ")[1][:-2]) for record in caplog.records if "reconnecting in" in record.message
    ]
    assert pauses == [reconnect.return_delay] * 2  # the attempts that fail in between are not logged
    assert "giving up after" in caplog.text


def test_older_frames_are_dropped_and_counted(caplog):
    camera = Camera(60, max_connections=1)
    with cameras(cam=camera) as address, caplog.at_level("INFO", logger="akyolo"):
        with LiveStreams([address["cam"]], reconnect=QUICK) as live:
            first = live.newest()[0].index
            time.sleep(0.15)
            second = live.newest()[0].index
        assert second > first + 5
    dropped = re.search(r"(\d+) frames dropped", caplog.text)
    assert dropped and int(dropped[1]) >= second - first - 1


def test_every_nth_frame_is_taken():
    camera = Camera(40, max_connections=1)
    with cameras(cam=camera) as address:
        frames, _ = collect(LiveStreams([address["cam"]], vid_stride=3, reconnect=QUICK))
    (seen,) = frames.values()
    assert len(seen) > 2 and all(frame.index % 3 == 0 for frame in seen)


def test_streams_of_equal_names_get_distinct_names():
    camera = Camera(20, max_connections=2)
    with cameras(cam=camera) as address:
        both = [f"{address['cam']}?id=1", f"{address['cam']}?id=2"]
        frames, _ = collect(LiveStreams(both, reconnect=QUICK))
    assert {name.removesuffix("-2") for name in frames} == {stream_name(address["cam"])} and len(frames) == 2


def test_names_contain_no_password():
    for address in ("rtsp://me:p@ss/w@10.0.0.1:554/live?token=abc", "http://me:se?c#ret@host/cam?pwd=secret"):
        name = stream_name(address)
        assert not any(word in name for word in ("me", "ss", "se", "token", "abc", "?", "/", "@")), name
    assert stream_name("0") == "camera0" and stream_name("screen 0 1 2 3 4") == "screen_0_1_2_3_4"


def test_is_stream():
    for text in (
        "0",
        "12",
        "rtsp://host/a",
        "RTMP://host/a",
        "https://host/a.m3u8",
        "screen",
        "screen 0",
        "screen 1 2 3 4",
    ):
        assert is_stream(text), text
    for text in ("a.jpg", "screenshot.png", "screen.png", "ftp://host/a.jpg", "-1", "screen 1 2 0 4", "screen 1"):
        assert not is_stream(text), text


def test_a_missing_camera_is_an_input_error():
    frames, error = collect(LiveStreams(["987"], reconnect=ReconnectPolicy(give_up_after=60)))
    assert not frames and isinstance(error, DataError) and error.exit_code == 2 and "camera987" in str(error)


def test_the_screen_is_a_stream_and_a_missing_screen_is_an_error(monkeypatch):
    desk = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)

    def grab(box=None):
        return Image.fromarray(desk).crop(box) if box else Image.fromarray(desk)

    monkeypatch.setattr(ImageGrab, "grab", grab)
    for text, part in (("screen", desk), ("screen 0 10 5 30 20", desk[5:25, 10:40])):
        frames, error = collect(LiveStreams([text]), enough=lambda frames: sum(map(len, frames.values())) > 1)
        ((name, seen),) = frames.items()
        assert error is None and name == text.replace(" ", "_") and all((f.image == part).all() for f in seen)

    def refuse(box=None):
        raise OSError("X connection failed")

    monkeypatch.setattr(ImageGrab, "grab", refuse)
    frames, error = collect(LiveStreams(["screen"]))
    assert not frames and isinstance(error, DataError) and error.exit_code == 2


def test_leaving_the_context_stops_the_threads():
    with cameras(cam=Camera(10**6, max_connections=10)) as address:
        with LiveStreams([address["cam"]], reconnect=QUICK) as live:
            live.newest()
        assert not [thread for thread in threading.enumerate() if thread.name == stream_name(address["cam"])]


def test_the_streams_of_a_list_are_read_concurrently(tmp_path):
    with cameras(a=Camera(30, max_connections=1), b=Camera(30, max_connections=1)) as address:
        (tmp_path / "all.streams").write_text(f"# two cameras\n{address['a']}\n\n{address['b']}\n")
        source = open_source(str(tmp_path / "all.streams"), reconnect=QUICK)
        assert source.streams == [address["a"], address["b"]]
        seen = []
        with pytest.raises(RunError, match=r"^--source: "):
            for batch in source.batches(2, lambda frame: frame.path.name):
                assert 1 <= len(batch) <= 2
                seen += batch
    assert set(seen) == {stream_name(a) for a in address.values()}


def test_a_remote_video_file_is_not_a_stream_and_ends(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), 40 * level + 20, np.uint8))
    writer.release()
    data = (tmp_path / "v.avi").read_bytes()

    class File(Camera):
        def serve(self, handler):
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

    file = File(0, max_connections=0)
    with cameras(**{"v.avi": file}) as address:
        source = open_source(address["v.avi"], reconnect=QUICK)
        frames = [frame for batch in source.batches(1, lambda frame: frame) for frame in batch]
    assert [round(frame.image.mean() / 40, 1) for frame in frames] == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.2)

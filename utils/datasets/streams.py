"""Live sources: cameras, network streams and the screen, each read by its own thread, which reconnects it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageGrab

from utils.errors import DataError, RunError
from utils.files import unique_name
from utils.library_messages import muted
from utils.log import LOGGER

DEFAULT_FPS = 30.0
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://")
SCREEN = re.compile(r"screen(?:\s+0)?(?:\s+(\d+)\s+(\d+)\s+([1-9]\d*)\s+([1-9]\d*))?")
SCREEN_FPS = 30.0
SILENCE_FRACTION = 0.05  # a camera is found again after at most this much more than it was away
POLL_SECONDS = 0.5  # the longest wait, so that Ctrl-C takes effect
# OpenCV passes these to FFmpeg. Without discardcorrupt, a packet truncated by a broken connection is decoded half grey.
_FFMPEG_VARIABLE, _FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;discardcorrupt"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image, or a frame of a video or stream."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    path: Path  # the file, or a name for the camera
    index: int | None = None  # index in the video or stream, from 0; None for an image
    total: int = 0  # number of frames of the video; 0 if unknown
    fps: float = DEFAULT_FPS  # frames per second of the video
    number: int = 0  # position of the file among the sources; a file may occur repeatedly

    @property
    def is_video(self) -> bool:
        """Whether it is a frame of a video or stream."""
        return self.index is not None


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """When to reconnect a stream, and when to give up, in seconds."""

    initial_delay: float = 0.5  # before the second attempt to connect; each failed attempt doubles the delay
    max_delay: float = 8.0  # upper bound of the delay
    return_delay: float = 0.1  # lower bound of the delay once there were frames: then it is a fraction of the silence
    give_up_after: float = 30.0  # time without a frame after which the stream is given up
    io_timeout: float = 10.0  # upper bound of one attempt to connect or to read


class ScreenCapture:
    """The screen, or a box of it in pixels (left, top, right, bottom), as a capture with OpenCV's interface."""

    def __init__(self, box: tuple[int, int, int, int] | None) -> None:
        self._box = box
        self._due = 0.0
        self._image: np.ndarray | None = None

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Return whether the screen can be captured."""
        return self.grab()

    def grab(self) -> bool:
        """Capture an image, at most SCREEN_FPS times per second."""
        time.sleep(max(self._due - time.monotonic(), 0))
        self._due = time.monotonic() + 1 / SCREEN_FPS
        try:
            with ImageGrab.grab(self._box) as image:
                self._image = np.asarray(image.convert("RGB"))[..., ::-1]
        except (OSError, ValueError, NotImplementedError):  # no display, or an unsupported one
            return False
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        """Return the last image, as BGR."""
        return (True, self._image) if self._image is not None else (False, np.empty(0))

    def get(self, propId: int) -> float:  # noqa: N803
        """Return the frames per second; 0 for other properties."""
        return SCREEN_FPS if propId == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        """Do nothing: a screen is not held open."""


def is_stream(text: str) -> bool:
    """Return whether a source is a webcam index, a stream address, or the screen."""
    return _is_index(text) or text.lower().startswith(STREAM_SCHEMES) or SCREEN.fullmatch(text.strip()) is not None


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit()


def open_capture(text: str, reconnect: ReconnectPolicy) -> cv2.VideoCapture | ScreenCapture:
    """Open a camera, an address or the screen; check `isOpened` of the result. Call it, and read, within `muted`."""
    screen = SCREEN.fullmatch(text.strip())
    if screen is not None:
        if screen[1] is None:
            return ScreenCapture(None)
        left, top, width, height = map(int, screen.groups())
        return ScreenCapture((left, top, left + width, top + height))
    if _is_index(text):
        return cv2.VideoCapture(int(text))
    os.environ.setdefault(_FFMPEG_VARIABLE, _FFMPEG_OPTIONS)
    timeout = round(reconnect.io_timeout * 1000)
    timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout]
    return cv2.VideoCapture(text, cv2.CAP_FFMPEG, timeouts)


def stream_name(text: str) -> str:
    """Return a file name for a webcam index or address, without credentials and query."""
    if _is_index(text):
        return f"camera{text}"
    if "://" not in text:
        return re.sub(r"\s+", "_", text.strip())
    scheme, _, rest = text.partition("://")
    public = rest.rpartition("@")[2]  # a password may contain any character, even @ and /
    name = f"{scheme}_{re.split('[?#]', public)[0]}"
    return re.sub(r"[^A-Za-z0-9-]+", "_", name).strip("_")[:80]  # no dots: what follows one would be a suffix


class _Reader(threading.Thread):
    """Reads one stream, keeps its newest frame, and reconnects it; its name in the log has no credentials."""

    def __init__(
        self, text: str, name: str, *, vid_stride: int, reconnect: ReconnectPolicy, updated: threading.Condition
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.text, self.vid_stride, self.reconnect, self.updated = text, vid_stride, reconnect, updated
        self.stopped = threading.Event()
        self.newest: Frame | None = None  # until it is taken
        self.ended = False  # given up
        # frames received, replaced by newer ones before they were taken; connections lost or not made
        self.frames = self.dropped = self.reconnects = 0
        self._last_frame_at = time.monotonic()

    def run(self) -> None:
        """Read and reconnect until stopped or given up; notify those who wait, whatever ends it."""
        try:
            with muted():
                self._read_and_reconnect()
        except Exception as error:  # OpenCV and Pillow raise errors of any class
            LOGGER.warning(f"{self.name}: cannot be read ({str(error)[:80] or type(error).__name__})")
        finally:
            with self.updated:
                self.ended = True
                self.updated.notify_all()

    @property
    def overdue(self) -> bool:
        """Whether a library has not returned for longer than it was allowed to."""
        limit = self.reconnect.give_up_after + 3 * self.reconnect.io_timeout
        return time.monotonic() - self._last_frame_at > limit

    def _read_and_reconnect(self) -> None:
        delay, next_report = self.reconnect.initial_delay, 0.0
        while not self.stopped.is_set():
            before = self.frames
            opened = self._read()
            if self.stopped.is_set():
                break
            if self.frames > before:
                next_report = 0.0
            self.reconnects += 1
            silent = time.monotonic() - self._last_frame_at
            missing = not opened and not self.frames and "://" not in self.text  # no such camera, no screen
            remaining = self.reconnect.give_up_after - silent
            if missing or remaining <= 0:
                LOGGER.warning(f"{self.name}: giving up after {silent:.1f} s without a frame")
                break
            if self.frames:
                delay = min(max(SILENCE_FRACTION * silent, self.reconnect.return_delay), self.reconnect.max_delay)
            wait = min(delay, remaining)
            if silent >= next_report:
                LOGGER.warning(f"{self.name}: no frame for {silent:.1f} s, reconnecting in {wait:.1f} s")
                next_report = 2 * max(silent, 0.5)
            self.stopped.wait(wait)
            delay = min(2 * delay, self.reconnect.max_delay)

    def _read(self) -> bool:
        """Connect and read until the connection is lost; return whether it could be opened."""
        capture = open_capture(self.text, self.reconnect)
        try:
            if not capture.isOpened():
                return False
            fps = capture.get(cv2.CAP_PROP_FPS)
            fps = fps if 0 < fps < 1000 else DEFAULT_FPS
            while not self.stopped.is_set() and capture.grab():
                if self.frames % self.vid_stride:
                    self.frames += 1
                    continue
                decoded, image = capture.retrieve()
                if not decoded or image is None or not image.size:
                    break
                rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                with self.updated:
                    self.dropped += self.newest is not None
                    self.newest = Frame(image=rgb, path=Path(self.name), index=self.frames, fps=fps / self.vid_stride)
                    self._last_frame_at = time.monotonic()
                    self.frames += 1
                    self.updated.notify_all()
            return True
        except cv2.error as error:
            LOGGER.warning(f"{self.name}: {str(error.err)[:80]}")
            return False
        finally:
            capture.release()


class LiveStreams:
    """Several streams at once, read in real time: only the newest frame is kept, older ones are dropped and counted.

    No frame is repeated: a stream that is silent yields nothing until it is reconnected.
    """

    def __init__(self, texts: Sequence[str], *, vid_stride: int = 1, reconnect: ReconnectPolicy | None = None) -> None:
        """Prepare the streams of webcam indices, addresses, `screen`; reading starts on entering the context."""
        self._updated = threading.Condition()
        names: list[str] = []
        for text in texts:
            names.append(unique_name(stream_name(text), names))
        self._readers = [
            _Reader(text, name, vid_stride=vid_stride, reconnect=reconnect or ReconnectPolicy(), updated=self._updated)
            for text, name in zip(texts, names, strict=True)
        ]

    def __enter__(self) -> LiveStreams:
        """Start reading."""
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading and log what was read."""
        for reader in self._readers:
            reader.stopped.set()
        for reader in self._readers:
            reader.join(timeout=2)
            counts = f"{reader.frames} frames, {reader.dropped} frames dropped, {reader.reconnects} reconnects"
            LOGGER.info(f"{reader.name}: {counts}")

    def newest(self) -> list[Frame]:
        """Wait for a new frame; return the newest one of each stream that has one not returned before.

        Raises:
            DataError: there is no such camera or screen.
            RunError: all streams were given up.
        """
        with self._updated:
            while not (frames := [reader.newest for reader in self._readers if reader.newest is not None]):
                if all(reader.ended or reader.overdue for reader in self._readers):
                    names = ", ".join(reader.name for reader in self._readers)
                    if any("://" in reader.text or reader.frames for reader in self._readers):
                        what, fix = f"all streams have ended ({names})", "check the cameras and the network"
                        raise RunError("--source", what, fix=fix)
                    raise DataError("--source", f"cannot be opened ({names})", fix="check the camera or the display")
                self._updated.wait(POLL_SECONDS)
            for reader in self._readers:
                reader.newest = None
            return frames

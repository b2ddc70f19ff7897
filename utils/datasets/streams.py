"""Frames that come by themselves: cameras, network streams and the screen, each read and revived by its own thread."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import cv2
import numpy as np
from PIL import ImageGrab

from utils.errors import DataError, RunError
from utils.files import unique_name
from utils.log import LOGGER

DEFAULT_FPS = 30.0
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "http://", "https://")
SCREEN = re.compile(r"screen(?:\s+0)?(?:\s+(\d+)\s+(\d+)\s+([1-9]\d*)\s+([1-9]\d*))?")
SCREEN_FPS = 30.0
LOOK_AGAIN = 0.5  # seconds a wait lasts at most, so that Ctrl-C is heard
# OpenCV hands these to FFmpeg. A packet that a broken connection cut short would else be decoded, half of it grey.
_FFMPEG_VARIABLE, _FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fflags;discardcorrupt"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image to look at.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        path: the file, or a name for the camera.
        number: frame number in a video or stream, from 0; None for an image.
        total: frames of the video; 0 where unknown.
        fps: frames per second of the video.
    """

    image: np.ndarray
    path: Path
    index: int | None = None
    total: int = 0
    fps: float = DEFAULT_FPS

    @property
    def is_video(self) -> bool:
        """Whether it belongs to a video or stream."""
        return self.index is not None


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """How long to bear with a stream that fell silent, in seconds.

    Attributes:
        pause: before the first new try; each further one that fails doubles it.
        max_delay: no pause is longer.
        give_up_after: without a frame for so long, the stream is given up.
        read: one attempt to connect or to read takes no longer.
    """

    initial_delay: float = 0.5
    max_delay: float = 8.0
    give_up_after: float = 30.0
    io_timeout: float = 10.0


class Capture(Protocol):
    """What `cv2.VideoCapture` offers, as far as it is needed here."""

    def isOpened(self) -> bool:  # noqa: D102, N802
        ...

    def grab(self) -> bool:  # noqa: D102
        ...

    def retrieve(self) -> tuple[bool, np.ndarray]:  # noqa: D102
        ...

    def get(self, propId: int) -> float:  # noqa: D102, N803
        ...

    def release(self) -> None:  # noqa: D102
        ...


class ScreenCapture:
    """The screen, or a rectangle of it, as a source of frames."""

    def __init__(self, left_top_width_height: tuple[int, int, int, int] | None) -> None:
        """Choose the part, in pixels; None is all of it."""
        self._box = None
        if left_top_width_height is not None:
            left, top, width, height = left_top_width_height
            self._box = (left, top, left + width, top + height)
        self._due = 0.0
        self._image: np.ndarray | None = None

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Tell whether there is a screen that may be seen."""
        return self.grab()

    def grab(self) -> bool:
        """Take an image when it is time for one."""
        time.sleep(max(self._due - time.monotonic(), 0))
        self._due = time.monotonic() + 1 / SCREEN_FPS
        try:
            with ImageGrab.grab(self._box) as image:
                self._image = np.asarray(image.convert("RGB"))[..., ::-1]
        except (OSError, ValueError, NotImplementedError):  # no display, or none that this library can read
            return False
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        """Return the image taken last, as BGR."""
        return (True, self._image) if self._image is not None else (False, np.empty(0))

    def get(self, propId: int) -> float:  # noqa: N803
        """Return the frames per second, and 0 for all else."""
        return SCREEN_FPS if propId == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        """Do nothing: a screen is not held."""


def is_stream(text: str) -> bool:
    """Tell whether a source is a camera's number, a stream's address, or the screen."""
    return text.isdigit() or text.lower().startswith(STREAM_SCHEMES) or SCREEN.fullmatch(text.strip()) is not None


def open_capture(text: str, reconnect: ReconnectPolicy) -> Capture:
    """Open a camera, an address or the screen; what comes back may turn out not to be open."""
    screen = SCREEN.fullmatch(text.strip())
    if screen is not None:
        numbers = [int(number) for number in screen.groups() if number is not None]
        return ScreenCapture((numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None)
    if text.isdigit():
        return cv2.VideoCapture(int(text))
    os.environ.setdefault(_FFMPEG_VARIABLE, _FFMPEG_OPTIONS)
    limit = round(reconnect.io_timeout * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
    return cv2.VideoCapture(text, cv2.CAP_FFMPEG, limits)


def stream_name(text: str) -> str:
    """Return a file name for a camera number or address, without its credentials and query."""
    if text.isdigit():
        return f"camera{text}"
    if "://" not in text:
        return re.sub(r"\s+", "_", text.strip())
    scheme, _, rest = text.partition("://")
    public = rest.rpartition("@")[2]  # a password may hold any letter, even @ and /
    shown = f"{scheme}_{re.split('[?#]', public)[0]}"
    return re.sub(r"[^A-Za-z0-9-]+", "_", shown).strip("_")[:80]  # without dots: what follows one is a suffix


class _Reader(threading.Thread):
    """Reads one stream, keeps its newest frame, and connects again when it reconnects.

    Attributes:
        shown: the stream's name without credentials.
        dead: whether it was given up.
        frames: frames that came; `dropped` of them were not looked at because newer ones came.
        reconnects: how often the connection broke or could not be made.
    """

    def __init__(
        self, text: str, shown: str, *, vid_stride: int, reconnect: ReconnectPolicy, news: threading.Condition
    ) -> None:
        super().__init__(name=shown, daemon=True)
        self.text, self.shown = text, shown
        self.vid_stride, self.reconnect, self.news = vid_stride, reconnect, news
        self.stopped = threading.Event()
        self.newest: Frame | None = None
        self._last = time.monotonic()
        self.dead = False
        self.frames = self.dropped = self.reconnects = 0

    def run(self) -> None:
        """Read, and revive, until stopped or given up."""
        pause = self.reconnect.initial_delay
        while not self.stopped.is_set():
            before = self.frames
            ever_opened = self._read()
            if self.stopped.is_set():
                break
            if self.frames > before:
                pause = self.reconnect.initial_delay
            self.reconnects += 1
            silent = time.monotonic() - self._last
            hopeless = not ever_opened and not self.frames and "://" not in self.text  # no such camera, no screen
            left = self.reconnect.give_up_after - silent
            if hopeless or left <= 0:
                LOGGER.warning(f"{self.shown}: giving up after {silent:.1f} s without a frame")
                break
            LOGGER.warning(f"{self.shown}: no frame for {silent:.1f} s, reconnecting in {min(pause, left):.1f} s")
            self.stopped.wait(min(pause, left))
            pause = min(2 * pause, self.reconnect.max_delay)
        with self.news:
            self.dead = True
            self.news.notify_all()

    def _read(self) -> bool:
        """Connect, and read until the connection reconnects; return whether it was there at all."""
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
                read, image = capture.retrieve()
                if not read or image is None or not image.size:
                    break
                self._publish(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), fps / self.vid_stride)
            return True
        except cv2.error as error:
            LOGGER.warning(f"{self.shown}: {str(error.err)[:80]}")
            return False
        finally:
            capture.release()

    def _publish(self, image: np.ndarray, fps: float) -> None:
        """Put a frame in the place of the newest."""
        with self.news:
            self.dropped += self.newest is not None
            self.newest = Frame(image=image, path=Path(self.shown), index=self.frames, fps=fps)
            self._last = time.monotonic()
            self.frames += 1
            self.news.notify_all()


class LiveStreams:
    """Several streams at once. A frame is looked at while it is new: what came in between is passed over and counted.

    No frame is ever made up: a stream that is silent gives nothing until it is back.
    """

    def __init__(self, texts: Sequence[str], *, vid_stride: int = 1, reconnect: ReconnectPolicy | None = None) -> None:
        """Name the streams; reading starts on entering the context.

        Args:
            texts: camera numbers, addresses, `screen`.
            vid_stride: take every n-th frame.
            reconnect: see `Patience`.
        """
        self._news = threading.Condition()
        names: list[str] = []
        for text in texts:
            names.append(unique_name(stream_name(text), names))
        self._readers = [
            _Reader(text, name, vid_stride=vid_stride, reconnect=reconnect or ReconnectPolicy(), news=self._news)
            for text, name in zip(texts, names, strict=True)
        ]

    def __enter__(self) -> LiveStreams:
        """Start reading."""
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop reading, and say how it went."""
        for reader in self._readers:
            reader.stopped.set()
        for reader in self._readers:
            reader.join(timeout=2)
            what = f"{reader.frames} frames, {reader.dropped} frames dropped, {reader.reconnects} reconnects"
            LOGGER.info(f"{reader.shown}: {what}")

    def newest(self) -> list[Frame]:
        """Wait for news; return the newest frame of each stream that has one not returned before.

        Raises:
            DataError: no camera or screen is there at all.
            RunError: all streams were given up.
        """
        with self._news:
            while True:
                fresh = [reader.newest for reader in self._readers if reader.newest is not None]
                for reader in self._readers:
                    reader.newest = None
                if fresh:
                    return fresh
                if all(reader.dead for reader in self._readers):
                    raise self._nothing_left()
                self._news.wait(LOOK_AGAIN)

    def _nothing_left(self) -> DataError | RunError:
        """Return the error that tells why there are no more frames."""
        names = ", ".join(reader.shown for reader in self._readers)
        if all("://" not in reader.text and not reader.frames for reader in self._readers):
            return DataError(
                "--source", f"cannot be opened ({names})", fix="check the camera, or that there is a screen"
            )
        return RunError(
            "--source", f"no stream gives frames any more ({names})", fix="check the cameras and the network"
        )

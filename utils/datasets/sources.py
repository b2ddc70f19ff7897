"""Inputs of detect.py: pictures, folders, globs, txt lists, videos and cameras, as one stream of frames."""

from __future__ import annotations

import contextlib
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from utils.datasets.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix, read_image
from utils.errors import DataError
from utils.log import LOGGER

STREAM_SCHEMES = ("rtsp://", "rtmp://", "http://", "https://")
DEFAULT_FPS = 30.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture to look at.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        path: the file, or a name for the camera.
        number: frame number in a video or stream, from 0; None for a picture.
        total: frames of the video; 0 where unknown.
        fps: frames per second of the video.
    """

    image: np.ndarray
    path: Path
    number: int | None = None
    total: int = 0
    fps: float = DEFAULT_FPS

    @property
    def is_video(self) -> bool:
        """Whether it belongs to a video or stream."""
        return self.number is not None


@dataclass(kw_only=True)
class Source:
    """All inputs of a run.

    Attributes:
        files: pictures and videos, in order.
        streams: camera numbers and addresses.
        skipped: path and reason of every file that could not be read, filled while iterating.
        vid_stride: take every n-th frame of a video.
    """

    files: list[Path] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    vid_stride: int = 1

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames; a file that cannot be read is skipped, warned of and remembered."""
        for path in self.files:
            try:
                if has_suffix(path, VIDEO_SUFFIXES):
                    yield from self._video(str(path), path)
                else:
                    yield Frame(image=read_image(path), path=path)
            except DataError as error:
                LOGGER.warning(f"skipped {error}")
                self.skipped.append((path, error.what))
        for stream in self.streams:
            yield from self._video(int(stream) if stream.isdigit() else stream, Path(stream_name(stream)))

    def _video(self, source: str | int, path: Path) -> Iterator[Frame]:
        """Yield every `vid_stride`-th frame of a video or stream, until it ends.

        Raises:
            DataError: it cannot be opened, or has no frame.
        """
        capture = cv2.VideoCapture(source)
        with contextlib.closing(_Released(capture)):
            if not capture.isOpened():
                raise DataError(path, "cannot be opened as a video or stream", fix="check the source")
            fps = capture.get(cv2.CAP_PROP_FPS)
            fps = fps if 0 < fps < 1000 else DEFAULT_FPS
            total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            number = 0
            while capture.grab():
                if number % self.vid_stride == 0:
                    read, image = capture.retrieve()
                    if not read:
                        break
                    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield Frame(image=rgb, path=path, number=number, total=total, fps=fps / self.vid_stride)
                number += 1
            if number == 0:
                raise DataError(path, "has no frame that can be decoded", fix="check the file")


class _Released:
    """Closes a capture when a frame loop ends, however it ends."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self.capture = capture

    def close(self) -> None:
        self.capture.release()


def stream_name(stream: str) -> str:
    """Return a file name for a camera number or address, without credentials."""
    if stream.isdigit():
        return f"camera{stream}"
    without_password = re.sub(r"//[^/@]*@", "//", stream)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", without_password)[:80]


def open_source(text: str, *, vid_stride: int = 1) -> Source:
    """Find out what `--source` means.

    Args:
        text: a picture, video, folder, glob (`**` goes through subfolders), txt list of these, camera number, or stream
            address.
        vid_stride: take every n-th frame of a video.

    Raises:
        DataError: nothing is there.
    """
    if text.isdigit() or text.lower().startswith(STREAM_SCHEMES):
        return Source(streams=[text], vid_stride=vid_stride)
    path = Path(text).expanduser()
    if path.suffix.lower() in (".txt", ".streams") and path.is_file():
        source = Source(vid_stride=vid_stride)
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                inner = open_source(_relative_to(line.strip(), path.parent), vid_stride=vid_stride)
                source.files += inner.files
                source.streams += inner.streams
        return source
    return Source(files=_files(path, text), vid_stride=vid_stride)


def _relative_to(line: str, folder: Path) -> str:
    """Return a list's entry as a path: as written if that exists, else relative to the list's folder."""
    if line.isdigit() or line.lower().startswith(STREAM_SCHEMES) or Path(line).exists():
        return line
    return str(folder / line)


def _files(path: Path, text: str) -> list[Path]:
    """Return the pictures and videos that a path or glob names, sorted.

    Raises:
        DataError: there are none.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if p.is_file()]
    elif path.exists():
        found = [path]
    elif any(star in text for star in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
    else:
        near = sorted(path.parent.glob(f"{path.name[:3]}*"))[:3] if path.parent.is_dir() and path.name else []
        fix = f"did you mean {', '.join(map(str, near))}?" if near else "pass a picture, folder, glob, video or camera"
        raise DataError("--source", f"{text} does not exist", fix=fix)
    known = [p for p in found if has_suffix(p, IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    if not known:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("--source", f"{text} holds no picture or video", fix=f"pictures end in {suffixes}")
    return known

"""Inputs of detect.py: images, folders, globs, lists, videos, cameras, streams and the screen, as frames."""

from __future__ import annotations

import contextlib
import glob
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from utils.datasets.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix, read_image
from utils.datasets.streams import (
    DEFAULT_FPS,
    STREAM_SCHEMES,
    Frame,
    LiveStreams,
    ReconnectPolicy,
    is_stream,
    open_capture,
    stream_name,
)
from utils.errors import DataError
from utils.log import LOGGER

LIST_SUFFIXES = frozenset(("txt", "streams"))
MAX_LIST_DEPTH = 8
PAGES = ("youtube.com", "youtu.be")  # pages around a video, whose address changes with every visit

Item = TypeVar("Item")


@dataclass(kw_only=True)
class Source:
    """All inputs of a run.

    Attributes:
        files: images and videos, in order.
        streams: camera numbers and addresses.
        skipped: path and reason of every file that could not be read, filled while iterating.
        vid_stride: take every n-th frame of a video.
        reconnect: how long to bear with streams that fell silent.
    """

    files: list[Path] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    vid_stride: int = 1
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)

    def __iter__(self) -> Iterator[Frame]:
        """Yield all frames; a file that cannot be read is skipped, warned of and remembered."""
        for frames in self.batches(1, lambda frame: frame):
            yield from frames

    def batches(self, size: int, prepare: Callable[[Frame], Item]) -> Generator[list[Item]]:
        """Yield prepared frames in lists of up to `size`.

        Files are read, decoded and prepared by threads beside the caller's work. Streams are not waited for: a list
        holds what is new at the moment.

        Raises:
            DataError: there is no such camera or screen.
            RunError: all streams were given up.
        """
        finite = [stream for stream in self.streams if _is_file_on_a_server(stream)]
        endless = [stream for stream in self.streams if stream not in finite]
        with contextlib.closing(prefetch((prepare(f) for f in self._read_files(finite)), ahead=size)) as items:
            while batch := list(islice(items, size)):
                yield batch
        if endless:
            with LiveStreams(endless, vid_stride=self.vid_stride, reconnect=self.reconnect) as live:
                while fresh := live.newest():
                    for start in range(0, len(fresh), size):
                        yield [prepare(frame) for frame in fresh[start : start + size]]

    def _read_files(self, addresses: list[str]) -> Iterator[Frame]:
        """Yield the frames of all files and of videos on servers; images are decoded ahead."""
        workers = max(min(8, (os.cpu_count() or 1) // 2), 1)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        reading: deque[tuple[Path, Future[np.ndarray] | str]] = deque()
        names: Iterator[Path | str] = iter([*self.files, *addresses])
        try:
            while True:
                for name in islice(names, workers + 1 - len(reading)):
                    if isinstance(name, str):
                        reading.append((Path(stream_name(name)), name))
                    elif has_suffix(name, VIDEO_SUFFIXES):
                        reading.append((name, str(name)))
                    else:
                        reading.append((name, pool.submit(read_image, name)))
                if not reading:
                    return
                path, content = reading.popleft()
                try:
                    if isinstance(content, str):
                        yield from self._video(content, path)
                    else:
                        yield Frame(image=content.result(), path=path)
                except DataError as error:
                    LOGGER.warning(f"skipped {error}")
                    self.skipped.append((path, error.what))
        finally:
            pool.shutdown(cancel_futures=True)

    def _video(self, source: str, path: Path) -> Iterator[Frame]:
        """Yield every `vid_stride`-th frame of a video, until it ends.

        Raises:
            DataError: it cannot be opened, or has no frame.
        """
        wrong = DataError(path, "cannot be opened as a video", fix="check the file")
        try:
            capture = open_capture(source, self.reconnect) if is_stream(source) else cv2.VideoCapture(source)
        except (cv2.error, UnicodeError) as error:
            raise wrong from error
        try:
            if not capture.isOpened():
                raise wrong
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
                    yield Frame(image=rgb, path=path, index=number, total=total, fps=fps / self.vid_stride)
                number += 1
            if number == 0:
                raise DataError(path, "has no frame that can be decoded", fix="check the file")
        finally:
            capture.release()


def prefetch(items: Iterator[Item], *, ahead: int) -> Generator[Item]:
    """Yield what an iterator yields, made by a thread beside the caller's work.

    Args:
        items: used by that thread alone; its error is raised here.
        ahead: how many may wait to be taken.
    """
    waiting: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(more: bool, item: Item | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put((more, item), timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put(True, item)
                if stopped.is_set():
                    break
            put(False, None)
        except BaseException as error:  # raised again where the items are taken
            put(False, error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name="beside", daemon=True)
    thread.start()
    try:
        while True:
            more, item = waiting.get()
            if isinstance(item, BaseException) and not more:
                raise item
            if not more:
                return
            yield item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def open_source(text: str, *, vid_stride: int = 1, reconnect: ReconnectPolicy | None = None) -> Source:
    """Find out what `--source` means.

    Args:
        text: an image, video, folder, glob (`**` goes through subfolders), `file://` address, txt or streams list of
            these, camera number, stream address, or `screen`, perhaps with left, top, width and height in pixels.
        vid_stride: take every n-th frame of a video.
        reconnect: how long to bear with streams that fell silent.

    Raises:
        DataError: nothing is there.
    """
    source = Source(vid_stride=vid_stride, reconnect=reconnect or ReconnectPolicy())
    _add(source, text, depth=0)
    if not source.files and not source.streams:
        raise DataError("--source", f"{text} names nothing", fix="write one source a line")
    return source


def _add(source: Source, text: str, *, depth: int) -> None:
    """Add what a text names to a source.

    Raises:
        DataError: nothing is there, or lists name each other.
    """
    if is_stream(text):
        if text.lower().startswith(STREAM_SCHEMES) and (urlsplit(text).hostname or "").endswith(PAGES):
            raise DataError("--source", f"{text} is a page, no video", fix="download the video, and pass the file")
        source.streams.append(text)
        return
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif "://" in text:
        fix = f"addresses begin with {', '.join(STREAM_SCHEMES)}"
        raise DataError("--source", f"{stream_name(text)} is of no kind that is known", fix=fix)
    path = Path(text).expanduser()
    if has_suffix(path, LIST_SUFFIXES) and path.is_file():
        if depth == MAX_LIST_DEPTH:
            raise DataError(path, f"is named by lists more than {MAX_LIST_DEPTH} deep", fix="let lists name no lists")
        for line in _lines(path):
            entry = _relative_to(line, path.parent)
            try:
                _add(source, entry, depth=depth + 1)
            except DataError as error:
                if "://" in entry or not error.where.startswith("--source"):
                    raise
                source.files.append(Path(entry))  # to be skipped, counted and named in its turn
        return
    source.files += _files(path, text)


def _lines(path: Path) -> list[str]:
    """Return the entries of a list, one a line; empty lines and those after # are left out.

    Raises:
        DataError: it is no text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(path, "is no list in UTF-8 text", fix="write one source a line, in UTF-8") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _relative_to(line: str, folder: Path) -> str:
    """Return a list's entry as a path: as written if that exists, else relative to the list's folder."""
    if is_stream(line) or "://" in line or Path(line).expanduser().exists():
        return line
    return str(folder / line)


def _is_file_on_a_server(address: str) -> bool:
    """Tell whether an address is that of an image or a video file, which ends, and not of a camera."""
    if not address.lower().startswith(("http://", "https://")):
        return False
    return has_suffix(urlsplit(address).path, IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def _files(path: Path, text: str) -> list[Path]:
    """Return the images and videos that a path or glob names, sorted.

    Raises:
        DataError: there are none.
    """
    if path.is_dir():
        found = [p for p in sorted(path.iterdir()) if not p.is_dir()]
    elif path.exists() or path.is_symlink():
        found = [path]
    elif any(star in text for star in "*?["):
        found = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if not Path(p).is_dir()]
    else:
        near = sorted(path.parent.glob(f"{glob.escape(path.name[:3])}*"))[:3] if path.parent.is_dir() else []
        fix = f"did you mean {', '.join(map(str, near))}?" if near else "pass an image, folder, glob, video or camera"
        raise DataError("--source", f"{text} does not exist", fix=fix)
    known = [p for p in found if has_suffix(p, IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    if not known:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("--source", f"{text} holds no image or video", fix=f"images end in {suffixes}")
    return known

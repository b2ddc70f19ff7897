"""The sources of detect.py as frames: images, folders, globs, lists, videos, cameras, streams and the screen."""

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
from utils.files import SAMPLE_IMAGES
from utils.log import LOGGER

LIST_SUFFIXES = frozenset(("txt", "streams"))
MAX_LIST_DEPTH = 8
DEFAULT_SOURCE = "data/images"  # of detect.py
VIDEO_PAGES = ("youtube.com", "youtu.be")  # web pages; the address of their video changes with every visit

Item = TypeVar("Item")


@dataclass(kw_only=True)
class Source:
    """All inputs of a run."""

    files: list[Path] = field(default_factory=list)  # images and videos, in order
    streams: list[str] = field(default_factory=list)  # webcam indices and addresses
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # unreadable files and reasons, filled while reading
    vid_stride: int = 1  # take every n-th frame of a video
    reconnect: ReconnectPolicy = field(default_factory=ReconnectPolicy)

    def batches(self, size: int, preprocess: Callable[[Frame], Item]) -> Generator[list[Item]]:
        """Yield preprocessed frames in lists of up to `size`.

        Files are read, decoded and preprocessed by background threads; one that cannot be read is skipped with a
        warning, and recorded. A list of frames of streams is not filled up: it contains those that are available.

        Raises:
            DataError: there is no such camera or screen.
            RunError: all streams were given up.
        """
        remote_files = [stream for stream in self.streams if _is_remote_file(stream)]
        live_streams = [stream for stream in self.streams if stream not in remote_files]
        prepared = (preprocess(frame) for frame in self._read_files(remote_files))
        with contextlib.closing(prefetch(prepared, ahead=size)) as items:
            while batch := list(islice(items, size)):
                yield batch
        if live_streams:
            with LiveStreams(live_streams, vid_stride=self.vid_stride, reconnect=self.reconnect) as live:
                while frames := live.newest():
                    for start in range(0, len(frames), size):
                        yield [preprocess(frame) for frame in frames[start : start + size]]

    def _read_files(self, addresses: list[str]) -> Iterator[Frame]:
        """Yield the frames of all files and of remote files at `addresses`; images are decoded in advance."""
        workers = max(min(8, (os.cpu_count() or 1) // 2), 1)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        pending: deque[tuple[Path, Future[np.ndarray] | str]] = deque()
        names: Iterator[Path | str] = iter([*self.files, *addresses])
        try:
            while True:
                for name in islice(names, workers + 1 - len(pending)):
                    if isinstance(name, str):
                        pending.append((Path(stream_name(name)), name))
                    elif has_suffix(name, VIDEO_SUFFIXES):
                        pending.append((name, str(name)))
                    else:
                        pending.append((name, pool.submit(read_image, name)))
                if not pending:
                    return
                path, content = pending.popleft()
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
        """Yield every `vid_stride`-th frame of a video; DataError if it cannot be opened, or has no frame."""
        unreadable = DataError(path, "cannot be opened as a video", fix="check the file")
        try:
            capture = open_capture(source, self.reconnect) if is_stream(source) else cv2.VideoCapture(source)
        except (cv2.error, UnicodeError) as error:
            raise unreadable from error
        try:
            if not capture.isOpened():
                raise unreadable
            fps = capture.get(cv2.CAP_PROP_FPS)
            fps = fps if 0 < fps < 1000 else DEFAULT_FPS
            total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
            index = 0
            while capture.grab():
                if index % self.vid_stride == 0:
                    decoded, image = capture.retrieve()
                    if not decoded:
                        break
                    rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield Frame(image=rgb, path=path, index=index, total=total, fps=fps / self.vid_stride)
                index += 1
            if index == 0:
                raise DataError(path, "has no frame that can be decoded", fix="check the file")
        finally:
            capture.release()


def prefetch(items: Iterator[Item], *, ahead: int) -> Generator[Item]:
    """Yield the items of an iterator, which runs in a background thread, up to `ahead` of them in advance.

    An error of the iterator is raised here.
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
        except BaseException as error:  # raised again in the consuming thread
            put(False, error)
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
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
    """Resolve `--source`.

    Args:
        text: an image, video, folder, glob (`**` includes subfolders), `file://` address, .txt or .streams list of
            these, webcam index, stream address, or `screen`, optionally with left, top, width and height in pixels;
            or `data/images`, which is found in any working directory.
        vid_stride: take every n-th frame of a video.
        reconnect: the default policy if None.

    Raises:
        DataError: there is no such source.
    """
    if text == DEFAULT_SOURCE and not os.path.exists(text):  # in another working directory
        text = str(SAMPLE_IMAGES)
    source = Source(vid_stride=vid_stride, reconnect=reconnect or ReconnectPolicy())
    _add(source, text, depth=0)
    if not source.files and not source.streams:
        raise DataError("--source", f"{text} contains no sources", fix="write one source per line")
    return source


def _add(source: Source, text: str, *, depth: int) -> None:
    """Add the files or the stream that a text names; DataError if there are none, or lists contain each other."""
    if is_stream(text):
        if text.lower().startswith(STREAM_SCHEMES) and (urlsplit(text).hostname or "").endswith(VIDEO_PAGES):
            raise DataError("--source", f"{text} is a web page", fix="download the video and pass the file")
        source.streams.append(text)
        return
    if text.lower().startswith("file://"):
        text = unquote(urlsplit(text).path)
    elif "://" in text:
        fix = f"use an address that begins with {', '.join(STREAM_SCHEMES)}"
        raise DataError("--source", f"unsupported source {stream_name(text)}", fix=fix)
    path = Path(os.path.expanduser(text))  # unlike Path.expanduser, leaves unknown users as they are
    if has_suffix(path, LIST_SUFFIXES) and path.is_file():
        if depth == MAX_LIST_DEPTH:
            raise DataError(path, f"is nested in more than {MAX_LIST_DEPTH} lists", fix="do not list lists")
        for entry in _entries(path):
            try:
                _add(source, entry, depth=depth + 1)
            except DataError as error:
                if "://" in entry or not error.where.startswith("--source"):
                    raise
                source.files.append(Path(entry))  # to be skipped and counted when it is read
        return
    source.files += _files(path, text)


def _entries(path: Path) -> Iterator[str]:
    """Yield the entries of a list, one per line: as written if they exist, else relative to the list's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(path, "is not UTF-8 text", fix="write one source per line, in UTF-8") from error
    for entry in filter(None, map(str.strip, lines)):
        if not entry.startswith("#"):
            as_written = is_stream(entry) or "://" in entry or os.path.exists(os.path.expanduser(entry))
            yield entry if as_written else str(path.parent / entry)


def _is_remote_file(address: str) -> bool:
    """Return whether an address is that of an image or video file, which ends, not of a camera."""
    if not address.lower().startswith(("http://", "https://")):
        return False
    return has_suffix(urlsplit(address).path, IMAGE_SUFFIXES | VIDEO_SUFFIXES)


def _files(path: Path, text: str) -> list[Path]:
    """Return the images and videos of a path or glob, sorted; DataError if there are none."""
    if path.is_dir():
        paths = [p for p in sorted(path.iterdir()) if not p.is_dir()]
    elif path.exists() or path.is_symlink():
        paths = [path]
    elif any(wildcard in text for wildcard in "*?["):
        paths = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if not Path(p).is_dir()]
    else:
        near = sorted(path.parent.glob(f"{glob.escape(path.name[:3])}*"))[:3] if path.parent.is_dir() else []
        fix = f"did you mean {', '.join(map(str, near))}?" if near else "pass an image, folder, glob, video or camera"
        raise DataError("--source", f"{text} does not exist", fix=fix)
    media = [p for p in paths if has_suffix(p, IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    if not media:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("--source", f"{text} has no image or video", fix=f"pass a file that ends in {suffixes}")
    return media

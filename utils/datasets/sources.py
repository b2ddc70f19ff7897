"""The sources of detect.py as frames: images, folders, globs, lists, videos, cameras, streams and the screen."""

from __future__ import annotations

import contextlib
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
from urllib.parse import urlsplit

import numpy as np

from utils.datasets.images import VIDEO_SUFFIXES, decode_image, has_suffix, read_image
from utils.datasets.remote import fetch, file_name, public_address
from utils.datasets.source_resolver import SourceResolver, shown
from utils.datasets.streams import Frame, LiveStreams, ReconnectPolicy, stream_name
from utils.datasets.videos import read_video
from utils.errors import DataError
from utils.files import SAMPLE_IMAGES
from utils.log import LOGGER

DEFAULT_SOURCE = "data/images"  # of detect.py

Item = TypeVar("Item")


@dataclass(kw_only=True)
class Source:
    """All inputs of a run."""

    files: list[Path | str] = field(default_factory=list)  # images and videos, in order; str: at a web address
    streams: list[str] = field(default_factory=list)  # webcam indices, stream addresses, `screen`
    skipped: list[tuple[Path | str, str]] = field(
        default_factory=list
    )  # unreadable files and reasons, filled while reading
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
        prepared = (preprocess(frame) for frame in self._read_files())
        with contextlib.closing(prefetch(prepared, ahead=size)) as items:
            while batch := list(islice(items, size)):
                yield batch
        if self.streams:
            with LiveStreams(self.streams, vid_stride=self.vid_stride, reconnect=self.reconnect) as live:
                while frames := live.newest():
                    for start in range(0, len(frames), size):
                        yield [preprocess(frame) for frame in frames[start : start + size]]

    def _read_files(self) -> Iterator[Frame]:
        """Yield the frames of all files; images are fetched and decoded in advance."""
        workers = max(min(8, (os.cpu_count() or 1) // 2), 1)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        pending: deque[tuple[int, Path | str, Future[np.ndarray] | None]] = deque()
        numbered = enumerate(self.files)
        try:
            while True:
                for number, file in islice(numbered, workers + 1 - len(pending)):
                    is_video = has_suffix(_url_path(file), VIDEO_SUFFIXES)
                    pending.append((number, file, None if is_video else pool.submit(_read_image, file)))
                if not pending:
                    return
                number, file, image = pending.popleft()
                path = file if isinstance(file, Path) else Path(stream_name(file) if image is None else file_name(file))
                try:
                    if image is None:
                        video = read_video(file, path, number=number, vid_stride=self.vid_stride, policy=self.reconnect)
                        yield from video
                    else:
                        yield Frame(image=image.result(), path=path, number=number)
                except DataError as error:
                    LOGGER.warning(f"skipped {error}")
                    self.skipped.append((public_address(file) if isinstance(file, str) else file, error.what))
        finally:
            pool.shutdown(cancel_futures=True)


def _read_image(file: Path | str) -> np.ndarray:
    """Read the image of a file, or of an address; DataError if that fails."""
    return read_image(file) if isinstance(file, Path) else decode_image(fetch(file), name=public_address(file))


def _url_path(file: Path | str) -> Path | str:
    """Return the path of an address, or a file as it is."""
    return file if isinstance(file, Path) else urlsplit(file).path


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
    named = SourceResolver()
    named.add(text)
    if not named.files and not named.streams:
        raise DataError("--source", f"{shown(text)} contains no sources", fix="write one source per line")
    return Source(
        files=named.files, streams=named.streams, vid_stride=vid_stride, reconnect=reconnect or ReconnectPolicy()
    )

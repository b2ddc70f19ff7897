"""Read a video file frame by frame, past what is damaged in it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from utils.datasets.images import has_suffix
from utils.datasets.streams import DEFAULT_FPS, Frame, ReconnectPolicy, ScreenCapture, open_capture
from utils.errors import DataError
from utils.library_messages import muted
from utils.log import LOGGER

MAX_FAILURES = 10_000  # attempts in a row to read a frame of a file that should have more
MAX_FAILURES_AT_END = 25  # the same after the last frame by the number that the file gives
EXACT_COUNT_SUFFIXES = frozenset(("avi", "mp4", "mov", "m4v"))  # the number of frames of others is an estimate
_PLAIN_NAME = re.compile(r"[\w/. +,=@-]+", re.ASCII)

Capture = cv2.VideoCapture | ScreenCapture


def read_video(
    source: Path | str, path: Path, *, number: int, vid_stride: int, policy: ReconnectPolicy
) -> Iterator[Frame]:
    """Yield every `vid_stride`-th frame of a video file, or of one at an address, in order.

    Frames that cannot be decoded are left out, and counted in a warning at the end; the others keep their indices.

    Args:
        source: the file or address.
        path: what to call it.
        number: its position among the sources.
        vid_stride: take every n-th frame.
        policy: how long a silent address is waited for.

    Raises:
        DataError: it cannot be opened, or has no frame that can be decoded.
    """
    with _opened(source, path, policy) as capture:
        fps, total = capture.get(cv2.CAP_PROP_FPS), max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = fps if 0 < fps < 1000 else DEFAULT_FPS
        index = failures = 0  # frames tried; failures in a row
        times = array("d")  # of the good frames, in milliseconds
        failing_since = 0.0
        while index < total or failures < MAX_FAILURES_AT_END:
            grabbed, image = _next_frame(capture, wanted=index % vid_stride == 0, times=times)
            index += 1
            if not grabbed:
                failing_since = failing_since if failures else time.monotonic()
                failures += 1
                if failures == MAX_FAILURES or time.monotonic() - failing_since > policy.io_timeout:
                    break
                continue
            if image is not None:
                yield Frame(image=image, path=path, index=index - 1, total=total, fps=fps / vid_stride, number=number)
            failures = 0
    if not times:
        raise DataError(path, "has no frame that can be decoded", fix="check the file")
    missing, at_end = _missing_frames(times, total, fps, exact=has_suffix(path, EXACT_COUNT_SUFFIXES))
    missing = max(missing, index - failures - len(times))
    if missing:
        cut_off = f", {at_end} of them at the end" if at_end else ""
        LOGGER.warning(f"{path}: {missing} of {len(times) + missing} frames cannot be decoded{cut_off}")


def _missing_frames(times: Sequence[float], total: int, fps: float, *, exact: bool) -> tuple[int, int]:
    """Return how many frames a video lacks, and how many of these at its end.

    Args:
        times: of the good frames, in milliseconds.
        total: number of frames that the file states, or its length times `fps`.
        fps: frames per second that the file states, which for some formats is a multiple of the true rate.
        exact: whether the file states `total`.
    """
    step, length = 1000 / fps, 1000 * total / fps
    if not exact and len(times) > 1:
        step = float(np.median(np.diff(times))) or step
        total = min(total, round(length / step))
    missing = max(total - len(times), 0)
    if not exact and missing <= 1 + total // 50:
        return 0, 0
    return missing, min(max(round((length - times[-1]) / step) - 1, 0), missing)


def _next_frame(capture: Capture, *, wanted: bool, times: array[float]) -> tuple[bool, np.ndarray | None]:
    """Advance by one frame; return whether it is good, and the (H, W, 3) uint8 RGB image if it is wanted.

    The time of a good frame is added to `times`.
    """
    try:
        if not capture.grab():
            return False, None
        milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
        decoded, image = capture.retrieve() if wanted else (True, None)
        if wanted and (not decoded or image is None or not image.size):
            return False, None
        times.append(milliseconds)
        return True, cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image is not None else None
    except cv2.error:
        return False, None


@contextlib.contextmanager
def _opened(source: Path | str, path: Path, policy: ReconnectPolicy) -> Iterator[Capture]:
    """Open a video for the time of the context; DataError if it cannot be opened.

    Libraries are muted as long: FFmpeg's threads decode, and complain, between the calls too.
    """
    unreadable = DataError(path, "cannot be opened as a video", fix="check the file")
    with contextlib.ExitStack() as stack:
        name = source if isinstance(source, str) else stack.enter_context(_plain_name(source))
        stack.enter_context(muted())
        try:
            if isinstance(source, str):
                capture = open_capture(source, policy)
            else:
                backend = cv2.CAP_FFMPEG if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG) else cv2.CAP_ANY
                capture = cv2.VideoCapture(name, backend)
            stack.callback(capture.release)
            opened = capture.isOpened()
        except (cv2.error, UnicodeError) as error:
            raise unreadable from error
        if not opened:
            raise unreadable
        yield capture


@contextlib.contextmanager
def _plain_name(path: Path) -> Iterator[str]:
    """Yield a name by which OpenCV can open a file for the time of the context.

    It ends the whole program with a segmentation fault at a name that is not UTF-8, does not find files in a locale
    that is not, and takes `%03d` in a name for a sequence. Linux has another name for each open file.

    Raises:
        DataError: not a regular file, empty, or not readable.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(path, "is not a regular file", fix="pass a video file")
        if status.st_size == 0:
            raise DataError(path, "is empty", fix="replace the file")
        name, descriptor = os.path.abspath(path), -1
        if sys.platform == "linux" and not _PLAIN_NAME.fullmatch(name):
            descriptor = os.open(path, os.O_RDONLY)
            name = f"/proc/self/fd/{descriptor}"
        name.encode("utf-8")
    except (OSError, ValueError) as error:  # ValueError: a null byte, or a name that is not UTF-8
        reason = getattr(error, "strerror", None) or "its name is not valid"
        raise DataError(path, f"cannot be read ({reason})", fix="check the file and its name") from error
    try:
        yield name
    finally:
        if descriptor >= 0:
            os.close(descriptor)

"""What detect.py writes: annotated images and videos, labels, crops and a table, beside the search itself."""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.images import write_image
from utils.datasets.sources import Frame
from utils.errors import ConfigError, RunError
from utils.files import atomic_write, unique_name, write_csv
from utils.inference.crops import detection_labels, write_crops
from utils.options import DetectOptions
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

TABLE_COLUMNS = ("Image Name", "Prediction", "Confidence", "Class", "xmin", "ymin", "xmax", "ymax")
KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(kw_only=True)
class Outputs:
    """Where results go; made as they are needed, by threads that draw and write beside the search.

    To be used as a context: leaving it finishes videos and the table, however it is left.
    """

    options: DetectOptions
    run_dir: Path
    names: tuple[str, ...]
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    stems: dict[Path, str] = field(default_factory=dict)
    videos: dict[tuple[Path, tuple[int, ...]], cv2.VideoWriter] = field(default_factory=dict)
    jobs: deque[Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Start the threads: some for images, one for videos, whose frames must stay in order."""
        self._taken_stems: set[str] = set()
        self._threads = max(min(4, (os.cpu_count() or 1) // 2), 1)
        self._images = ThreadPoolExecutor(self._threads, thread_name_prefix="write")
        self._frames = ThreadPoolExecutor(1, thread_name_prefix="video")

    def __enter__(self) -> Outputs:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is waiting, and finish videos and the table.

        Raises:
            RunError: something could not be written, and no other error is on its way.
        """
        self._images.shutdown()
        self._frames.shutdown()
        for writer in self.videos.values():
            writer.release()
        if self.options.save_csv:
            write_csv(self.run_dir / "predictions.csv", [TABLE_COLUMNS, *self.rows])
        if error is None:
            self._collect(0)

    def stem(self, path: Path) -> str:
        """Return a name for a source's outputs; sources of one name in several folders get a number."""
        if path not in self.stems:
            self.stems[path] = unique_name(path.stem, self._taken_stems)
            self._taken_stems.add(self.stems[path])
        return self.stems[path]

    def write(self, frame: Frame, found: Detections) -> None:
        """Note what was found in one frame, and have all that was asked for written by and by.

        Raises:
            RunError: an earlier frame could not be written.
        """
        self._collect(2 * self._threads)
        if self.options.save_csv:
            for box, score, number in _rows(found):
                corners = [round(v, 1) for v in box]
                self.rows.append((frame.path.name, self.names[number], f"{score:.2f}", number, *corners))
        if self.options.view_img:
            _show(frame.path.name, self._drawn(frame, found))
        lane = self._frames if frame.is_video else self._images
        self.jobs.append(lane.submit(self._write, frame, found, self.stem(frame.path)))

    def _collect(self, left: int) -> None:
        """Wait until no more than so many jobs are left; raise the error of one that failed."""
        while len(self.jobs) > left:
            self.jobs.popleft().result()

    def _write(self, frame: Frame, found: Detections, stem: str) -> None:
        """Write all that was asked for of one frame; runs in a thread."""
        label_stem = f"{stem}_{frame.index}" if frame.is_video else stem
        if self.options.save_txt:
            self._write_txt(label_stem, frame, found)
        if self.options.save_crop:
            write_crops(self.run_dir / "crops", label_stem, frame.image, found, self.names)
        if self.options.nosave:
            return
        drawn = self._drawn(frame, found)
        if frame.is_video:
            self._video(frame, stem).write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        else:
            suffix = frame.path.suffix if frame.path.suffix.lower() in KEPT_SUFFIXES else ".jpg"
            write_image(self.run_dir / f"{stem}{suffix}", drawn)

    def _drawn(self, frame: Frame, found: Detections) -> np.ndarray:
        """Return the frame with its boxes."""
        classes = found.classes.tolist()
        labels = detection_labels(
            found, self.names, hide_labels=self.options.hide_labels, hide_conf=self.options.hide_conf
        )
        return draw_boxes(frame.image, found.boxes.numpy(), labels, classes, thickness=self.options.line_thickness)

    def _write_txt(self, stem: str, frame: Frame, found: Detections) -> None:
        """Write one row for each box, coordinates as shares of the image."""
        height, width = frame.image.shape[:2]
        boxes = found.boxes if self.options.save_format else xyxy_to_cxcywh(found.boxes)
        shares = boxes / boxes.new_tensor((width, height, width, height))
        lines = []
        for box, score, number in zip(shares.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True):
            values = [*box, score] if self.options.save_conf else box
            lines.append(" ".join([str(number), *(f"{value:.6g}" for value in values)]) + "\n")
        atomic_write(self.run_dir / "labels" / f"{stem}.txt", "".join(lines))

    def _video(self, frame: Frame, stem: str) -> cv2.VideoWriter:
        """Return the writer of a video's annotated copy; a stream that comes back in another size gets a new file."""
        height, width = frame.image.shape[:2]
        key = (frame.path, (height, width))
        if key not in self.videos:
            number = sum(path == frame.path for path, _ in self.videos) + 1
            safe = stem.encode("utf-8", "replace").decode("utf-8")  # OpenCV takes no half letters
            path = self.run_dir / (f"{safe}.mp4" if number == 1 else f"{safe}_{number}.mp4")
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, (width, height))
            if not writer.isOpened():
                raise RunError(path, "cannot be written as a video", fix="use --nosave, or check the disk")
            self.videos[key] = writer
        return self.videos[key]


def _rows(found: Detections) -> list[tuple[list[float], float, int]]:
    """Return each detection's box, score and class as plain numbers."""
    return list(zip(found.boxes.tolist(), found.scores.tolist(), found.classes.tolist(), strict=True))


def require_screen() -> None:
    """Check that windows can be shown: without a display, OpenCV's window system would end the whole program.

    Raises:
        ConfigError: there is no screen.
    """
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in displays):
        raise ConfigError("--view-img", "no window can be opened here", fix="leave it out")


def _show(title: str, image: np.ndarray) -> None:
    """Show an image in a window.

    Raises:
        ConfigError: this OpenCV has no windows.
    """
    try:
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)
    except cv2.error as error:
        raise ConfigError("--view-img", "no window can be opened here", fix="leave it out") from error

"""Outputs of detect.py: annotated images and videos, label files, crops and a table, written in the background."""

from __future__ import annotations

import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.images import write_image
from utils.datasets.sources import Frame
from utils.errors import ConfigError, RunError
from utils.files import atomic_write, unique_name, write_csv
from utils.inference.annotations import box_labels, label_rows, write_crops
from utils.options import DetectOptions
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

CSV_COLUMNS = ("Image Name", "Prediction", "Confidence", "Class", "xmin", "ymin", "xmax", "ymax")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # kept; other images are written as .jpg


class DetectionWriter:
    """Writes the outputs of each frame in threads; a context manager that finishes videos and the table at its end."""

    def __init__(self, options: DetectOptions, run_dir: Path, names: tuple[str, ...]) -> None:
        """Start the threads: several for images, one for videos, whose frames must stay in order."""
        self._options, self.run_dir, self.names = options, run_dir, names
        self._rows: list[tuple[Any, ...]] = []
        self._stems: dict[Path, str] = {}
        self._taken_stems: set[str] = set()
        self._videos: dict[tuple[Path, tuple[int, ...]], cv2.VideoWriter] = {}
        self._jobs: deque[Future[None]] = deque()
        self._threads = max(min(4, (os.cpu_count() or 1) // 2), 1)
        self._image_pool = ThreadPoolExecutor(self._threads, thread_name_prefix="write")
        self._video_pool = ThreadPoolExecutor(1, thread_name_prefix="video")

    def __enter__(self) -> DetectionWriter:
        """Return itself."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Finish pending outputs, videos and the table; RunError if one failed and no other error is propagating."""
        self._image_pool.shutdown()
        self._video_pool.shutdown()
        for video in self._videos.values():
            video.release()
        if self._options.save_csv:
            write_csv(self.run_dir / "predictions.csv", [CSV_COLUMNS, *self._rows])
        if error is None:
            self._wait_for_jobs(0)

    def stem(self, path: Path) -> str:
        """Return the unique name of a source's outputs: equal names from different folders get a number."""
        if path not in self._stems:
            self._stems[path] = unique_name(path.stem, self._taken_stems)
            self._taken_stems.add(self._stems[path])
        return self._stems[path]

    def write(self, frame: Frame, detections: Detections) -> None:
        """Add a frame to the table, show it, and schedule its files; RunError if one of an earlier frame failed."""
        self._wait_for_jobs(2 * self._threads)
        if self._options.save_csv:
            columns = detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist()
            for box, score, class_id in zip(*columns, strict=True):
                corners = [round(v, 1) for v in box]
                self._rows.append((frame.path.name, self.names[class_id], f"{score:.2f}", class_id, *corners))
        if self._options.view_img:
            _show(frame.path.name, self._annotated(frame, detections))
        pool = self._video_pool if frame.is_video else self._image_pool
        self._jobs.append(pool.submit(self._write, frame, detections, self.stem(frame.path)))

    def _wait_for_jobs(self, remaining: int) -> None:
        """Wait until at most `remaining` jobs are pending; raise the error of a failed one."""
        while len(self._jobs) > remaining:
            self._jobs.popleft().result()

    def _write(self, frame: Frame, detections: Detections, stem: str) -> None:
        """Write the files of one frame; runs in a thread."""
        frame_stem = f"{stem}_{frame.index}" if frame.is_video else stem
        if self._options.save_txt:
            self._write_labels(frame_stem, frame, detections)
        if self._options.save_crop:
            write_crops(self.run_dir / "crops", frame_stem, frame.image, detections, self.names)
        if self._options.nosave:
            return
        annotated = self._annotated(frame, detections)
        if frame.is_video:
            self._video(frame, stem).write(cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))
        else:
            suffix = frame.path.suffix if frame.path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
            write_image(self.run_dir / f"{stem}{suffix}", annotated)

    def _annotated(self, frame: Frame, detections: Detections) -> np.ndarray:
        """Return the frame with its boxes drawn."""
        options = self._options
        labels = box_labels(detections, self.names, hide_labels=options.hide_labels, hide_conf=options.hide_conf)
        classes = detections.classes.tolist()
        return draw_boxes(frame.image, detections.boxes.numpy(), labels, classes, thickness=options.line_thickness)

    def _write_labels(self, stem: str, frame: Frame, detections: Detections) -> None:
        """Write one row per box with normalized coordinates."""
        height, width = frame.image.shape[:2]
        boxes = detections.boxes if self._options.save_format else xyxy_to_cxcywh(detections.boxes)
        normalized = boxes / boxes.new_tensor((width, height, width, height))
        columns = detections.classes.tolist(), normalized.tolist(), detections.scores.tolist()
        text = label_rows(*columns, with_confidence=self._options.save_conf)
        atomic_write(self.run_dir / "labels" / f"{stem}.txt", text)

    def _video(self, frame: Frame, stem: str) -> cv2.VideoWriter:
        """Return the writer of an annotated video; a stream that reconnects with another frame size gets a new file."""
        height, width = frame.image.shape[:2]
        key = (frame.path, (height, width))
        if key not in self._videos:
            number = sum(path == frame.path for path, _ in self._videos) + 1
            encodable = stem.encode("utf-8", "replace").decode("utf-8")  # OpenCV accepts no lone surrogates
            path = self.run_dir / (f"{encodable}.mp4" if number == 1 else f"{encodable}_{number}.mp4")
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, (width, height))
            if not writer.isOpened():
                raise RunError(path, "cannot be written as a video", fix="use --nosave, or check the disk")
            self._videos[key] = writer
        return self._videos[key]


def require_display() -> None:
    """Raise a ConfigError without a display, on which OpenCV's window system would abort the whole program."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in displays):
        raise ConfigError("--view-img", "no window can be opened: there is no display", fix="leave it out")


def _show(title: str, image: np.ndarray) -> None:
    """Show an image in a window; ConfigError if this OpenCV has no GUI support."""
    try:
        cv2.imshow(title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        cv2.waitKey(1)
    except cv2.error as error:
        raise ConfigError("--view-img", "no window can be opened: OpenCV failed", fix="leave it out") from error

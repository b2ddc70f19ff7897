"""Outputs of detect.py: annotated images and videos, label files, crops and a table, written in the background."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.image_writing import write_image
from utils.datasets.images import VIDEO_SUFFIXES, has_suffix
from utils.datasets.sources import Frame
from utils.errors import ConfigError, DataError, RunError
from utils.files import atomic_write, sync_file, sync_folder, write_csv
from utils.inference.annotations import box_labels, crop_names, label_rows, write_crops
from utils.library_messages import muted
from utils.log import LOGGER
from utils.options import DetectOptions
from utils.output_names import OutputNames
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

CSV_COLUMNS = ("Image Name", "Prediction", "Confidence", "Class", "xmin", "ymin", "xmax", "ymax", "Frame", "Path")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")  # kept; other images are written as .jpg


class DetectionWriter:
    """Writes the outputs of each frame in threads; a context manager that finishes videos and the table at its end."""

    def __init__(self, options: DetectOptions, run_dir: Path, names: tuple[str, ...]) -> None:
        """Start the threads: several for images, one for videos, whose frames must stay in order."""
        self._options, self.run_dir, self.names = options, run_dir, names
        self._rows: list[tuple[Any, ...]] = []
        self._names = OutputNames()
        self._stems: dict[tuple[Path, int], str] = {}
        self._videos: dict[str, dict[tuple[int, int], cv2.VideoWriter | None]] = {}  # by stem and (H, W)
        self._video_files: list[Path] = []
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
        for videos in self._videos.values():
            for video in videos.values():
                if video is not None:
                    video.release()
        if self._options.save_csv:
            write_csv(self.run_dir / "predictions.csv", [CSV_COLUMNS, *self._rows])
        if error is None:
            self._wait_for_jobs(0)
            self._sync_videos()

    def _sync_videos(self) -> None:
        """Flush the videos to disk, as all other files are; RunError if that fails."""
        for path in self._video_files:
            try:
                sync_file(path)
            except OSError as error:
                what = f"cannot be written ({error.strerror})"
                raise RunError(path, what, fix="free space or choose another --project") from error
        if self._video_files:
            sync_folder(self.run_dir)

    def stem(self, path: Path, number: int = 0) -> str:
        """Return the unique name of the outputs of a source, `number` being its position among the sources.

        Equal names from different folders, and those of a label file of a video's frame, get a number.
        """
        key = path, number
        if key not in self._stems:
            # OpenCV writes no videos to names that are not UTF-8; those of images stay as they are.
            is_video = has_suffix(path, VIDEO_SUFFIXES)
            self._stems[key] = self._names.claim(displayed(path.stem) if is_video else path.stem)
        return self._stems[key]

    def write(self, frame: Frame, detections: Detections) -> None:
        """Add a frame to the table, show it, and schedule its files; RunError if one of an earlier frame failed."""
        self._wait_for_jobs(2 * self._threads)
        options = self._options
        if options.save_csv:
            columns = detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist()
            index, path = "" if frame.index is None else frame.index, displayed(frame.path)
            name = displayed(f"{self.stem(frame.path, frame.number)}{frame.path.suffix}")
            for box, score, class_id in zip(*columns, strict=True):
                corners = [round(v, 1) for v in box]
                row = name, self.names[class_id], f"{score:.2f}", class_id, *corners, index, path
                self._rows.append(row)
        if options.view_img:
            _show(displayed(frame.path.name), self._annotated(frame, detections))
        # Names are given here, in order; the threads write in any order.
        stem = frame_stem = self.stem(frame.path, frame.number)
        if frame.is_video:
            frame_stem = f"{stem}_{frame.index}"
            if options.save_txt:
                frame_stem = self._names.claim(frame_stem, suffix=".txt")
        crops = crop_names(self._names, frame_stem, detections, self.names) if options.save_crop else []
        pool = self._video_pool if frame.is_video else self._image_pool
        self._jobs.append(pool.submit(self._write, frame, detections, stem, frame_stem, crops))

    def _wait_for_jobs(self, remaining: int) -> None:
        """Wait until at most `remaining` jobs are pending; raise the error of a failed one."""
        while len(self._jobs) > remaining:
            self._jobs.popleft().result()

    def _write(self, frame: Frame, detections: Detections, stem: str, frame_stem: str, crops: Sequence[str]) -> None:
        """Write the files of one frame; runs in a thread. What its format cannot hold is left out with a warning."""
        try:
            if self._options.save_txt:
                self._write_labels(frame_stem, frame, detections)
            if self._options.save_crop:
                write_crops(self.run_dir / "crops", crops, frame.image, detections)
            if self._options.nosave:
                return
            annotated = self._annotated(frame, detections)
            if not frame.is_video:
                suffix = frame.path.suffix if frame.path.suffix.lower() in IMAGE_SUFFIXES else ".jpg"
                write_image(self.run_dir / f"{stem}{suffix}", annotated)
            elif (video := self._video(frame, stem)) is not None:
                video.write(cv2.cvtColor(annotated, cv2.COLOR_RGB2BGR))
        except DataError as error:
            LOGGER.warning(f"not written: {error}")

    def _annotated(self, frame: Frame, detections: Detections) -> np.ndarray:
        """Return the frame with its boxes drawn."""
        options = self._options
        labels = box_labels(detections, self.names, hide_labels=options.hide_labels, hide_conf=options.hide_conf)
        classes = detections.classes.tolist()
        return draw_boxes(frame.image, detections.boxes, labels, classes, thickness=options.line_thickness)

    def _write_labels(self, stem: str, frame: Frame, detections: Detections) -> None:
        """Write one row per box with normalized coordinates."""
        height, width = frame.image.shape[:2]
        boxes = detections.boxes if self._options.save_format else xyxy_to_cxcywh(detections.boxes)
        normalized = boxes / np.array((width, height, width, height), np.float32)
        columns = detections.classes.tolist(), normalized.tolist(), detections.scores.tolist()
        text = label_rows(*columns, with_confidence=self._options.save_conf)
        atomic_write(self.run_dir / "labels" / f"{stem}.txt", text)

    def _video(self, frame: Frame, stem: str) -> cv2.VideoWriter | None:
        """Return the writer of an annotated video; a stream that reconnects with another frame size gets a new file.

        DataError for the first frame of a video that cannot be encoded; None for the others.
        """
        height, width = frame.image.shape[:2]
        videos = self._videos.setdefault(stem, {})
        if (height, width) not in videos:
            name = stem if not videos else self._names.claim(f"{stem}_{len(videos) + 1}", separator="_")
            path = self.run_dir / f"{name}.mp4"
            with muted():
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frame.fps, (width, height))
            videos[height, width] = writer if writer.isOpened() else None
            if not writer.isOpened():
                what = f"cannot be written as a video of {width}x{height} pixels"
                raise DataError(path, what, fix="use --nosave, or check the disk")
            self._video_files.append(path)
        return videos[height, width]


def displayed(text: Path | str) -> str:
    """Return a file name as UTF-8, with hexadecimal numbers for bytes that are not."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


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

"""Detections of the page: annotated images and videos, rows of a table, and files to download."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.app.models import LoadedModel, Settings
from utils.app.uploads import Uploads
from utils.boxes import xyxy_to_cxcywh
from utils.datasets.image_writing import write_image
from utils.datasets.streams import Frame
from utils.errors import DataError, DetectorError
from utils.files import atomic_write, dump_json, write_csv
from utils.inference.annotations import box_labels, label_rows, summarize
from utils.library_messages import muted
from utils.output_names import OutputNames
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

COLUMNS = ("image", "frame", "class", "confidence", "xmin", "ymin", "xmax", "ymax")
VIDEO_CODEC, VIDEO_SUFFIX = "VP80", ".webm"  # browsers play it, and OpenCV's wheels write it
MAX_TABLE_ROWS = 500  # the files hold all
Row = tuple[Any, ...]  # of `COLUMNS`


@dataclass(kw_only=True)
class Found:
    """What was detected in the files of one request."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    annotated: list[tuple[Path, str]] = field(default_factory=list)  # images and videos with their captions
    labels: list[Path] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # a line for each file that cannot be read
    cut: list[str] = field(default_factory=list)  # names of videos of which only the first frames were read
    milliseconds: float = 0.0
    names: OutputNames = field(default_factory=OutputNames)

    def add(self, stem: str, frame: int | str, model: LoadedModel, detections: Detections) -> None:
        """Add rows of the table."""
        columns = detections.boxes.tolist(), detections.scores.tolist(), detections.classes.tolist()
        for box, score, class_id in zip(*columns, strict=True):
            corners = [round(value, 1) for value in box]
            self.rows.append((stem, frame, model.metadata.names[class_id], round(score, 3), *corners))

    def downloads(self, name: str) -> list[Path]:
        """Write the tables, and with several files an archive of all; return the files to download."""
        table = [write_csv(self.folder / f"{name}.csv", [COLUMNS, *self.rows])]
        table.append(
            dump_json(self.folder / f"{name}.json", [dict(zip(COLUMNS, row, strict=True)) for row in self.rows])
        )
        files = [*(path for path, _ in self.annotated), *self.labels]
        if len(self.annotated) == 1:
            return [*files, *table]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in [*files, *table]:
                archive.write(path, path.relative_to(self.folder))
        return [atomic_write(self.folder / f"{name}.zip", buffer.getvalue()), *table]


def detect_files(
    uploads: Uploads, names: Sequence[str], model: LoadedModel, settings: Settings, *, videos: bool = True
) -> Found:
    """Detect objects in uploaded images and `videos`; a file that cannot be read is a line in the errors.

    Raises:
        DetectorError: a setting is out of range, there are too many files, or the only one cannot be read.
    """
    if len(names) > uploads.max_files:
        what = f"has {len(names)} files; at most {uploads.max_files} are read at a time"
        raise DataError("upload", what, fix="choose fewer files")
    model.config(settings)
    found = Found(folder=uploads.new_folder())
    for name in names:
        try:
            detect_in = _detect_video if videos and uploads.is_video(name) else _detect_image
            detect_in(uploads, name, model, settings, found)
        except DetectorError as error:
            if len(names) == 1:
                raise
            found.errors.append(str(error))
    return found


def _detect_image(uploads: Uploads, name: str, model: LoadedModel, settings: Settings, found: Found) -> None:
    image = uploads.read_image(name)
    detections, milliseconds = model.detect(image, settings)
    found.milliseconds += milliseconds
    stem = found.names.claim(Path(name).stem)
    found.add(stem, "", model, detections)
    annotated = write_image(found.folder / f"{stem}.jpg", annotate(image, model, detections))
    found.annotated.append((annotated, f"{stem}: {summarize(detections, model.metadata.names)}"))
    height, width = image.shape[:2]
    boxes = xyxy_to_cxcywh(detections.boxes) / np.array((width, height, width, height))
    columns = detections.classes.tolist(), boxes.tolist(), detections.scores.tolist()
    found.labels.append(atomic_write(found.folder / f"{stem}.txt", label_rows(*columns, with_confidence=False)))


def _detect_video(uploads: Uploads, name: str, model: LoadedModel, settings: Settings, found: Found) -> None:
    stem = found.names.claim(Path(name).stem)
    path, frames = found.folder / f"{stem}{VIDEO_SUFFIX}", 0
    with contextlib.closing(uploads.read_video(name)) as video, _video_writer(path) as write:
        for frame in video:
            detections, milliseconds = model.detect(frame.image, settings)
            found.milliseconds += milliseconds
            found.add(stem, frame.index if frame.index is not None else frames, model, detections)
            write(frame, annotate(frame.image, model, detections))
            frames += 1
    found.annotated.append((path, stem))
    if frames == uploads.max_frames:
        found.cut.append(Path(name).name)


@contextlib.contextmanager
def _video_writer(path: Path) -> Iterator[Callable[[Frame, np.ndarray], None]]:
    """Yield a function that appends an (H, W, 3) uint8 RGB image, in the size and rate of the first frame."""
    writers: list[cv2.VideoWriter] = []

    def write(frame: Frame, image: np.ndarray) -> None:
        height, width = image.shape[:2]
        with muted():
            if not writers:
                codec = cv2.VideoWriter.fourcc(*VIDEO_CODEC)
                writers.append(cv2.VideoWriter(str(path), codec, frame.fps, (width, height)))
                if not writers[0].isOpened():
                    raise DataError(path.name, "cannot be written as a video", fix="use detect.py")
            writers[0].write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    try:
        yield write
    finally:
        for writer in writers:
            writer.release()


def annotate(image: np.ndarray, model: LoadedModel, detections: Detections) -> np.ndarray:
    """Return an (H, W, 3) image with boxes, whose lines grow with it."""
    labels = box_labels(detections, model.metadata.names)
    classes = detections.classes.tolist()
    return draw_boxes(image, detections.boxes, labels, classes, thickness=line_width(image))


def line_width(image: np.ndarray) -> int:
    """Return a line width in pixels that is readable when the image is shown about 600 pixels wide."""
    return max(round(max(image.shape[:2]) / 320), 2)

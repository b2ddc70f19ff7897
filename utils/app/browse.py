"""A finished comparison: the images on which its models differ most, and their errors by kind, class and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.app.detect import line_width
from utils.comparison.predictions import cached_predictions
from utils.comparison.shown_runs import FALSE_NEGATIVE, LABEL, ShownBox, ShownRun, by_difference, shown_run
from utils.datasets.images import read_image
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.letterbox import resize_longest_side
from utils.datasets.splits import class_names, open_data
from utils.errors import ConfigError
from utils.files import file_hash, load_json
from utils.metrics.evaluated_set import box_areas
from utils.metrics.object_size import COCO_SCALE, size_bins
from utils.metrics.tide import MISSED, TRUE_POSITIVE
from utils.plots.boxes import draw_boxes

REPORT = "report.html"
KINDS = ("all", "false positive", "false negative", "true positive")
PANEL_PIXELS = 640
COLOURS = {"false positive": (213, 94, 0), "false negative": (230, 159, 0), "true positive": (0, 158, 115)}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which boxes are searched for; None or "all" is any."""

    kind: str = "all"
    class_id: int | None = None
    size: str | None = None  # a name of COCO's sizes
    model: str | None = None

    def accepts(self, box: ShownBox) -> bool:
        """Return whether a box has the kind, class and size."""
        if self.kind not in ("all", kind_of(box)) or self.class_id not in (None, box.class_id):
            return False
        area = box_areas(box.corners[None])
        return self.size is None or COCO_SCALE.names[int(size_bins(area)[0])] == self.size


def kind_of(box: ShownBox) -> str:
    """Return one of `KINDS`, or "" for a label that was found."""
    if box.kind == FALSE_NEGATIVE:
        return "false negative"
    if box.kind == TRUE_POSITIVE:
        return "true positive"
    return "false positive" if box.kind < MISSED else ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A finished comparison, with the run of each model that is drawn."""

    folder: Path
    names: Sequence[str]  # of the classes
    split: DatasetIndex
    runs: Sequence[ShownRun]
    order: Sequence[int]  # ids of the images, those first on which the models differ most

    def images(self, wanted: Filter) -> list[int]:
        """Return the ids of the images that have a box which the filter accepts."""
        if wanted == Filter():
            return list(self.order)
        return [
            i for i in self.order if any(wanted.accepts(box) for run in self._runs(wanted) for box in _boxes(run, i))
        ]

    def _runs(self, wanted: Filter) -> list[ShownRun]:
        return [run for run in self.runs if wanted.model in (None, run.model)]

    def panels(self, image_id: int, wanted: Filter) -> list[tuple[ShownRun | None, np.ndarray]]:
        """Return an image with its labels, and for each run with what it finds and misses; accepted boxes are thick."""
        image = read_image(str(self.split.paths[image_id]))
        scale = min(PANEL_PIXELS / max(image.shape[:2]), 1.0)
        small = resize_longest_side(image, PANEL_PIXELS, smooth=True) if scale < 1 else image
        panels: list[tuple[ShownRun | None, np.ndarray]] = [(None, self._draw_labels(small, image_id, scale))]
        for run in self._runs(wanted):
            canvas = small.copy()
            boxes = [box for box in _boxes(run, image_id) if kind_of(box)]
            for box in sorted(boxes, key=wanted.accepts):
                x1, y1, x2, y2 = (round(float(value) * scale) for value in box.corners)
                line = line_width(small) + 1 if wanted.accepts(box) else 1
                cv2.rectangle(canvas, (x1, y1), (x2, y2), COLOURS[kind_of(box)], line, cv2.LINE_AA)
            panels.append((run, canvas))
        return panels

    def _draw_labels(self, image: np.ndarray, image_id: int, scale: float) -> np.ndarray:
        labels = self.runs[0].labels[image_id]
        corners = np.array([label.corners for label in labels]).reshape(-1, 4) * scale
        texts = [self.names[label.class_id] for label in labels]
        return draw_boxes(image, corners, texts, [label.class_id for label in labels], thickness=line_width(image))

    def name(self, image_id: int) -> str:
        """Return the file name of an image."""
        return Path(str(self.split.paths[image_id])).name


def _boxes(run: ShownRun, image_id: int) -> list[ShownBox]:
    """Return what a run detects, and the labels that it misses."""
    return [*run.detections[image_id], *(box for box in run.labels[image_id] if box.kind != LABEL)]


def open_comparison(folder: Path) -> Comparison:
    """Read a comparison that compare.py has finished.

    Raises:
        DetectorError: it is not one, its data set is missing or has changed, or predictions of a run are missing.
    """
    content = load_json(folder / "results.json")
    try:
        options, results = content["options"], content["results"]
        data, task, single_class = options["data"], options["task"], options["single_cls"]
        rows = [(row["model"], row["checkpoints"], row["seed_numbers"], _scores(row["metrics"])) for row in results]
    except (LookupError, TypeError) as error:
        raise ConfigError("--comparison", f"{folder} is not a comparison", fix="pass a folder of compare.py") from error
    config = open_data(data)
    split = build_index(config, task)
    stored = cached_predictions(folder / "predictions", split)
    runs = []
    for label, checkpoints, seeds, points in rows:
        evaluated = [stored.get(_hash(folder, Path(checkpoint))) for checkpoint in checkpoints]
        found = [run for run in evaluated if run is not None]
        if not found or len(found) < len(evaluated):
            what = f"{folder} lacks predictions of {label} for the {task} split of {config.file}"
            raise ConfigError("--comparison", what, fix="run compare.py again with the same options")
        runs.append(shown_run(label, found, points=points, seeds=seeds))
    order = by_difference(runs)[0].tolist()
    return Comparison(
        folder=folder, names=class_names(config, single_class=single_class), split=split, runs=runs, order=order
    )


def _scores(metrics: Sequence[dict[str, object]]) -> np.ndarray:
    """Return mAP50-95 of each run."""
    (row,) = [row for row in metrics if (row["group"], row["name"], row["metric"]) == ("all", "", "map50_95")]
    return np.array(row["runs"], float)


def _hash(folder: Path, checkpoint: Path) -> str:
    """Return the hash of a checkpoint where it was, or in the comparison's folder; "" if it is in neither."""
    for path in (checkpoint, folder.joinpath(*checkpoint.parts[-3:])):
        if path.is_file():
            return file_hash(path)
    return ""

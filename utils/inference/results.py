"""Results of the Python API: boxes in four formats, tables, annotated images, crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.image_writing import write_image
from utils.files import make_run_dir
from utils.inference.annotations import box_labels, crop_box, crop_names, summarize, write_crops
from utils.output_names import OutputNames
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

CORNER_COLUMNS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTER_COLUMNS = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")
FORMATS = {"xyxy": CORNER_COLUMNS, "xyxyn": CORNER_COLUMNS, "xywh": CENTER_COLUMNS, "xywhn": CENTER_COLUMNS}
THICKNESS = 3


class Crop(TypedDict):
    """A box cut out of its image."""

    box: list[Tensor]  # x1, y1, x2, y2 in pixels
    conf: Tensor
    cls: Tensor
    label: str  # name and confidence
    im: np.ndarray  # (h, w, 3) uint8 RGB, empty if the box covers no pixel


class Results:
    """The detections of one call.

    Attributes:
        ims: the images, (H, W, 3) uint8 RGB; with boxes drawn after `render`.
        files: a file name for each.
        names: class id -> name.
        pred: for each image (n, 6) float32: x1, y1, x2, y2 in its pixels, confidence, class; best first.
        xyxy: the same as `pred`.
        xyxyn: the same with normalized coordinates.
        xywh: center x, center y, width, height in pixels instead of corners.
        xywhn: the same with normalized coordinates.
        n: number of images.
        t: mean milliseconds per image of preprocessing, inference and NMS.
        s: shape of the model's input, of the last batch if there were several.
    """

    def __init__(
        self,
        ims: Sequence[np.ndarray],
        detections: Sequence[Detections],
        files: Sequence[str],
        *,
        names: Mapping[int, str],
        times: Sequence[float] = (0.0, 0.0, 0.0),
        shape: tuple[int, ...] = (),
    ) -> None:
        """Compute the four formats; for the parameters see the attributes."""
        self.ims = list(ims)
        self.files = list(files)
        self.names = dict(names)
        self.n = len(self.ims)
        self.t, self.s = tuple(times), shape
        self._originals, self._detections = tuple(ims), tuple(detections)
        self.pred: list[Tensor] = [torch.from_numpy(_rows(of_image)) for of_image in detections]
        sizes = [torch.tensor((im.shape[1], im.shape[0], im.shape[1], im.shape[0])).float() for im in self.ims]
        self.xyxy: list[Tensor] = self.pred
        self.xywh: list[Tensor] = [torch.cat((xyxy_to_cxcywh(p[:, :4]), p[:, 4:]), 1) for p in self.pred]
        self.xyxyn: list[Tensor] = [_normalize(p, size) for p, size in zip(self.xyxy, sizes, strict=True)]
        self.xywhn: list[Tensor] = [_normalize(p, size) for p, size in zip(self.xywh, sizes, strict=True)]

    def __len__(self) -> int:
        """Return the number of images."""
        return self.n

    def __str__(self) -> str:
        """Return one line per image, and one of timings."""
        lines = [
            f"image {number}/{self.n}: {image.shape[0]}x{image.shape[1]} {summarize(detections, self.names)}"
            for number, (image, detections) in enumerate(zip(self._originals, self._detections, strict=True), 1)
        ]
        preprocessing, inference, nms = self.t
        times = f"{preprocessing:.1f}ms pre-process, {inference:.1f}ms inference, {nms:.1f}ms NMS per image"
        return "\n".join([*lines, f"Speed: {times} at shape {self.s}"])

    def __repr__(self) -> str:
        """Return the class, the number of images and their lines."""
        return f"{type(self).__name__} of {self.n} images\n{self}"

    def print(self) -> None:
        """Print the detections of each image."""
        print(self)

    def pandas(self) -> ResultTables:
        """Return a copy whose `xyxy`, `xyxyn`, `xywh`, `xywhn` are lists of tables, one per image."""
        tables = ResultTables.__new__(ResultTables)
        tables.__dict__.update(vars(self))
        for name, columns in FORMATS.items():
            setattr(tables, name, [self._table(rows, columns) for rows in getattr(self, name)])
        return tables

    def _table(self, rows: Tensor, columns: tuple[str, ...]) -> pd.DataFrame:
        table = pd.DataFrame(rows.numpy(), columns=list(columns[:6]))
        table["class"] = rows[:, 5].numpy().astype(int)
        table["name"] = [self.names[class_id] for class_id in table["class"]]
        return table

    def tolist(self) -> list[Results]:
        """Return one `Results` per image."""
        return [
            Results([im], [detections], [file], names=self.names, times=self.t, shape=self.s)
            for im, detections, file in zip(self._originals, self._detections, self.files, strict=True)
        ]

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes on copies of the images; `ims` holds these from now on."""
        self.ims = [
            draw_boxes(
                image,
                detections.boxes,
                box_labels(detections, self._names(), hide_labels=not labels),
                detections.classes.tolist(),
                thickness=THICKNESS,
            )
            for image, detections in zip(self._originals, self._detections, strict=True)
        ]
        return self.ims

    def show(self, labels: bool = True) -> None:
        """Show the images with their boxes, in the notebook or the system's viewer."""
        for image in self.render(labels):
            Image.fromarray(image).show()

    def save(self, labels: bool = True, save_dir: str = "runs/detect/exp", exist_ok: bool = False) -> Path:
        """Write the images with their boxes, and with `labels` names and confidences, as JPEG; return the folder.

        The folder `exp` becomes `exp2` if it exists, unless `exist_ok`. DetectorError if it cannot be written.
        """
        folder = make_run_dir(Path(save_dir).parent, Path(save_dir).name, exist_ok=exist_ok)
        for stem, image in zip(self._stems(), self.render(labels), strict=True):
            write_image(folder / f"{stem}.jpg", image)
        return folder

    def crop(self, save: bool = True, save_dir: str = "runs/detect/exp", exist_ok: bool = False) -> list[Crop]:
        """Cut out each box, best first, image by image.

        With `save`, also write them as `save_dir/crops/<class>/<image>.jpg`; the folder is chosen as in `save`.
        """
        crops: list[Crop] = []
        taken = OutputNames()
        folder = make_run_dir(Path(save_dir).parent, Path(save_dir).name, exist_ok=exist_ok) if save else None
        for stem, image, detections, rows in zip(
            self._stems(), self._originals, self._detections, self.pred, strict=True
        ):
            if folder is not None:
                write_crops(folder / "crops", crop_names(taken, stem, detections, self._names()), image, detections)
            for row, label in zip(rows, box_labels(detections, self._names()), strict=True):
                crop = crop_box(image, row[:4].tolist())
                crops.append({"box": list(row[:4]), "conf": row[4], "cls": row[5], "label": label, "im": crop})
        return crops

    def _names(self) -> tuple[str, ...]:
        return tuple(self.names[class_id] for class_id in range(len(self.names)))

    def _stems(self) -> list[str]:
        """Return the file names without suffix, made unique."""
        taken = OutputNames()
        return [taken.claim(Path(file).stem) for file in self.files]


class ResultTables(Results):
    """`Results` with one table per image in each format: `CORNER_COLUMNS` or `CENTER_COLUMNS`."""

    xyxy: list[pd.DataFrame]  # type: ignore[assignment]
    xyxyn: list[pd.DataFrame]  # type: ignore[assignment]
    xywh: list[pd.DataFrame]  # type: ignore[assignment]
    xywhn: list[pd.DataFrame]  # type: ignore[assignment]


def _rows(detections: Detections) -> np.ndarray:
    """Return (n, 6) float32: x1, y1, x2, y2, confidence, class."""
    return np.column_stack((detections.boxes, detections.scores, detections.classes)).astype(np.float32)


def _normalize(rows: Tensor, size_whwh: Tensor) -> Tensor:
    """Return (n, 6) rows with coordinates divided by the image's size."""
    return torch.cat((rows[:, :4] / size_whwh, rows[:, 4:]), 1)

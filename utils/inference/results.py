"""What the Python call returns: boxes in four forms, tables, images, crops."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from utils.boxes import xyxy_to_cxcywh
from utils.datasets.images import write_image
from utils.files import make_run_dir, unique_name
from utils.inference.crops import crop_box, detection_labels, write_crops
from utils.plots.boxes import draw_boxes
from utils.structures import Detections

CORNER_COLUMNS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTRE_COLUMNS = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")
FORMS = {"xyxy": CORNER_COLUMNS, "xyxyn": CORNER_COLUMNS, "xywh": CENTRE_COLUMNS, "xywhn": CENTRE_COLUMNS}
THICKNESS = 3


class Results:
    """What was found in some images.

    Attributes:
        ims: the images, (H, W, 3) uint8 RGB; after `render` with boxes drawn.
        files: a file name for each.
        names: class number -> name.
        pred: for each image (n, 6) float32: x1, y1, x2, y2 in its pixels, confidence, class; best first.
        xyxy: the same as `pred`.
        xyxyn: likewise, coordinates as shares of the image.
        xywh: likewise, centre x, centre y, width, height in pixels.
        xywhn: likewise, as shares.
        n: number of images.
        t: mean milliseconds of preparing, inference and suppression for an image.
        s: shape of the network's input, of the last batch if there were several.
    """

    def __init__(
        self,
        ims: Sequence[np.ndarray],
        found: Sequence[Detections],
        files: Sequence[str],
        *,
        names: Mapping[int, str],
        times: tuple[float, float, float] = (0.0, 0.0, 0.0),
        shape: tuple[int, ...] = (),
    ) -> None:
        """Compute the four forms.

        Args:
            ims: (H, W, 3) uint8 RGB each.
            found: what was found in each.
            files: a name for each.
            names: class number -> name.
            times: see `t`.
            shape: see `s`.
        """
        self.ims = list(ims)
        self.files = list(files)
        self.names = dict(names)
        self.n = len(self.ims)
        self.t, self.s = times, shape
        self._originals, self._found = tuple(ims), tuple(found)
        self.pred = [torch.cat((f.boxes, f.scores[:, None], f.classes[:, None].float()), 1) for f in found]
        sizes = [torch.tensor((im.shape[1], im.shape[0], im.shape[1], im.shape[0])).float() for im in self.ims]
        self.xyxy: list[Any] = self.pred
        self.xywh: list[Any] = [torch.cat((xyxy_to_cxcywh(p[:, :4]), p[:, 4:]), 1) for p in self.pred]
        self.xyxyn: list[Any] = [_shares(p, size) for p, size in zip(self.xyxy, sizes, strict=True)]
        self.xywhn: list[Any] = [_shares(p, size) for p, size in zip(self.xywh, sizes, strict=True)]

    def __len__(self) -> int:
        """Return the number of images."""
        return self.n

    def __str__(self) -> str:
        """Return a line for each image, and one of the time spent."""
        lines = []
        for number, (image, found) in enumerate(zip(self._originals, self._found, strict=True), 1):
            counts = sorted(Counter(found.classes.tolist()).items())
            listed = ", ".join(f"{count} {self.names[n]}{'s' * (count > 1)}" for n, count in counts)
            size = f"{image.shape[0]}x{image.shape[1]}"
            lines.append(f"image {number}/{self.n}: {size} {listed or '(no detections)'}")
        preparing, inference, suppression = self.t
        times = f"{preparing:.1f}ms pre-process, {inference:.1f}ms inference, {suppression:.1f}ms NMS per image"
        return "\n".join([*lines, f"Speed: {times} at shape {self.s}"])

    def __repr__(self) -> str:
        """Return what it is and holds."""
        return f"{type(self).__name__} of {self.n} images\n{self}"

    def print(self) -> None:
        """Print what was found in each image."""
        print(self)

    def pandas(self) -> Results:
        """Return a copy whose `xyxy`, `xyxyn`, `xywh`, `xywhn` are lists of tables, one for each image."""
        new = copy.copy(self)
        for form, columns in FORMS.items():
            setattr(new, form, [self._table(rows, columns) for rows in getattr(self, form)])
        return new

    def _table(self, rows: Tensor, columns: tuple[str, ...]) -> pd.DataFrame:
        """Return (n, 6) rows as a table with the class as a whole number, and its name."""
        table = pd.DataFrame(rows.numpy(), columns=list(columns[:6]))
        table["class"] = rows[:, 5].numpy().astype(int)
        table["name"] = [self.names[number] for number in table["class"]]
        return table

    def tolist(self) -> list[Results]:
        """Return the results of each image on its own."""
        return [
            Results([im], [found], [file], names=self.names, times=self.t, shape=self.s)
            for im, found, file in zip(self._originals, self._found, self.files, strict=True)
        ]

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw the boxes; return the images, which `ims` holds from now on."""
        self.ims = [
            draw_boxes(
                image,
                found.boxes.numpy(),
                detection_labels(found, self._names(), hide_labels=not labels),
                found.classes.tolist(),
                thickness=THICKNESS,
            )
            for image, found in zip(self._originals, self._found, strict=True)
        ]
        return self.ims

    def show(self, labels: bool = True) -> None:
        """Show the images with their boxes: in the notebook, or in the system's viewer."""
        for image in self.render(labels):
            Image.fromarray(image).show()

    def save(self, labels: bool = True, save_dir: str = "runs/detect/exp", exist_ok: bool = False) -> Path:
        """Write the images with their boxes as JPEG.

        Args:
            labels: with names and confidences.
            save_dir: a folder; `exp` becomes `exp2` when it exists.
            exist_ok: write into an existing folder.

        Returns:
            The folder.

        Raises:
            DetectorError: it cannot be written.
        """
        folder = make_run_dir(Path(save_dir).parent, Path(save_dir).name, exist_ok=exist_ok)
        for stem, image in zip(self._stems(), self.render(labels), strict=True):
            write_image(folder / f"{stem}.jpg", image)
        return folder

    def crop(
        self, save: bool = True, save_dir: str = "runs/detect/exp", exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Cut out each box, best first, image after image.

        Args:
            save: also write them as `save_dir/crops/<class>/<image>.jpg`.
            save_dir: a folder; `exp` becomes `exp2` when it exists.
            exist_ok: write into an existing folder.

        Returns:
            For each box `box` (four numbers x1, y1, x2, y2 in pixels), `conf`, `cls`, `label` (name and confidence) and
            `im`, the (h, w, 3) uint8 RGB part, empty for a box without a pixel.

        Raises:
            DetectorError: it cannot be written.
        """
        crops = []
        folder = make_run_dir(Path(save_dir).parent, Path(save_dir).name, exist_ok=exist_ok) if save else None
        for stem, image, found, rows in zip(self._stems(), self._originals, self._found, self.pred, strict=True):
            if folder is not None:
                write_crops(folder / "crops", stem, image, found, self._names())
            labels = detection_labels(found, self._names())
            for row, label in zip(rows, labels, strict=True):
                part = crop_box(image, row[:4].tolist())
                crops.append({"box": list(row[:4]), "conf": row[4], "cls": row[5], "label": label, "im": part})
        return crops

    def _names(self) -> tuple[str, ...]:
        """Return the class names in order."""
        return tuple(self.names[number] for number in range(len(self.names)))

    def _stems(self) -> list[str]:
        """Return the images' file names without suffix, each once."""
        stems: list[str] = []
        for file in self.files:
            stems.append(unique_name(Path(file).stem, stems))
        return stems


def _shares(rows: Tensor, size_whwh: Tensor) -> Tensor:
    """Return (n, 6) rows with coordinates as shares of the image's size."""
    return torch.cat((rows[:, :4] / size_whwh, rows[:, 4:]), 1)

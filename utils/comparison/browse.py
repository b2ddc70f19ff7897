"""compare.py --browse: all images with labels and each model's detections, in pages that a browser opens as files.

An image is stored once and shown in several panels; boxes are SVG above it, so a thousand images take 30 to 100 MB.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np

from utils.comparison.figures import CONFIDENCE, JPEG_QUALITY
from utils.comparison.result import ComparisonResult
from utils.comparison.shown_runs import ShownRun, by_difference
from utils.datasets.images import read_image
from utils.datasets.letterbox import resize_longest_side
from utils.files import atomic_write
from utils.log import LOGGER
from utils.metrics.tide import ERRORS, MISSED, TRUE_POSITIVE

TEMPLATE = Path(__file__).with_suffix(".html")
IMAGES_PER_PAGE, IMAGE_PIXELS = 60, 640
LABEL, FALSE_NEGATIVE = 7, 8  # kinds of boxes, beside those of `utils.metrics.tide`
KINDS = {TRUE_POSITIVE: "true positive", **dict(enumerate(ERRORS[:MISSED])), FALSE_NEGATIVE: "false negative"}
LABELS = -1  # the panel before those of the models

Box = tuple[int, int, np.ndarray, str]  # class id, kind, corners in pixels of the image, text
Panel = tuple[int, list[Box]]  # index of the model, or `LABELS`


def write_browse(result: ComparisonResult, runs: Sequence[ShownRun], *, folder: Path) -> Path:
    """Write pages of 60 images in place of earlier ones, those first on which models differ; return the first page."""
    shutil.rmtree(folder, ignore_errors=True)
    order, _ = by_difference(runs)
    pages = [order[start : start + IMAGES_PER_PAGE].tolist() for start in range(0, len(order), IMAGES_PER_PAGE)]
    panels = [[_panels(runs, image_id, result.names) for image_id in page] for page in pages]
    # By page, which kinds of boxes there are, so that a filter can tell which pages have any.
    contents = [
        sorted({(panel, c, k) for image in page for panel, boxes in image for c, k, _, _ in boxes}) for page in panels
    ]
    options = {
        "classes": _options(dict(enumerate(result.names))),
        "models": _options({index: run.model for index, run in enumerate(runs)}),
        "kinds": _options(KINDS),
    }
    for number, (page, of_page) in enumerate(zip(pages, panels, strict=True)):
        items = [
            _item(Path(str(result.val.paths[image_id])), image_id, runs, of_image, folder)
            for image_id, of_image in zip(page, of_page, strict=True)
        ]
        text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
            options,
            header=html.escape(result.header),
            confidence=CONFIDENCE,
            first=number * IMAGES_PER_PAGE + 1,
            last=number * IMAGES_PER_PAGE + len(page),
            total=len(order),
            page=number,
            pages=json.dumps([_page_name(index) for index in range(len(pages))]),
            contents=json.dumps(contents, separators=(",", ":")),
            items="\n".join(items),
        )
        atomic_write(folder / _page_name(number), text)
    LOGGER.info(f"All images: {folder / _page_name(0)}")
    return folder / _page_name(0)


def _page_name(number: int) -> str:
    return f"page-{number + 1}.html" if number else "index.html"


def _options(titles: dict[int, str]) -> str:
    return "".join(f'<option value="{key}">{html.escape(title)}</option>' for key, title in titles.items())


def _panels(runs: Sequence[ShownRun], image_id: int, names: Sequence[str]) -> list[Panel]:
    """Return the boxes of the labels, and of each model with the labels that it does not find."""
    first = runs[0].evaluated
    rows = np.flatnonzero(first.label_image_ids == image_id).tolist()
    labels = [(int(first.label_classes[i]), LABEL, first.label_boxes[i], names[first.label_classes[i]]) for i in rows]
    panels: list[Panel] = [(LABELS, labels)]
    for index, run in enumerate(runs):
        of = run.evaluated
        missed = [
            (c, FALSE_NEGATIVE, box, text)
            for (c, _, box, text), row in zip(labels, rows, strict=True)
            if not run.found[row]
        ]
        start, end = np.searchsorted(of.image_ids[run.detections], (image_id, image_id + 1))
        found = [
            (c, int(run.errors.kinds[i]), of.boxes[i], f"{names[c]} {of.confidences[i]:.2f}")
            for i in run.detections[start:end].tolist()
            for c in [int(of.classes[i])]
        ]
        panels.append((index, [*missed, *found]))
    return panels


def _item(path: Path, image_id: int, runs: Sequence[ShownRun], panels: Sequence[Panel], folder: Path) -> str:
    """Write an image, scaled down, and return its HTML."""
    image = read_image(str(path))
    size_hw = image.shape[:2]
    small = resize_longest_side(image, IMAGE_PIXELS, smooth=True) if max(size_hw) > IMAGE_PIXELS else image
    _, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    file = atomic_write(folder / "images" / f"{image_id:06d}.jpg", encoded.tobytes())
    parts = []
    for panel, boxes in panels:
        title = "labels" if panel == LABELS else runs[panel].caption(image_id)
        parts.append(
            f'<figure class="m{panel}"><div><img loading="lazy" src="images/{file.name}" width="{small.shape[1]}" '
            f'height="{small.shape[0]}" alt=""><svg viewBox="0 0 {size_hw[1]} {size_hw[0]}">'
            f"{''.join(_svg(boxes, size_hw))}</svg></div><figcaption>{html.escape(title)}</figcaption></figure>"
        )
    return f"<section><h2>{html.escape(path.name)}</h2><div>{''.join(parts)}</div></section>"


def _svg(boxes: Sequence[Box], size_hw: tuple[int, int]) -> Iterator[str]:
    """Yield each box with its text, in pixels of the image."""
    font = max(size_hw) / 32
    for class_id, kind, box, text in boxes:
        x1, y1, x2, y2 = (round(float(v), 1) for v in box)
        title = html.escape(f"{text}, {KINDS[kind]}" if kind in KINDS else text)
        x, side = (x1, "start") if x1 < 0.8 * size_hw[1] else (x2, "end")
        y = y1 - font / 4 if y1 > font else y1 + font
        yield (
            f'<g class="c{class_id} k{kind}"><title>{title}</title><rect x="{x1}" y="{y1}" width="{x2 - x1:.1f}" '
            f'height="{y2 - y1:.1f}"/><text x="{x}" y="{y:.1f}" font-size="{font:.0f}" '
            f'text-anchor="{side}">{html.escape(text)}</text></g>'
        )

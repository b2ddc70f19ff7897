"""compare.py --browse: all images with labels and each model's detections, in pages that a browser opens as files.

An image is stored once and shown in several panels; boxes are SVG above it, so a thousand images take 30 to 100 MB.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

import cv2

from utils.comparison.figures import CONFIDENCE, JPEG_QUALITY
from utils.comparison.result import ComparisonResult
from utils.comparison.shown_runs import FALSE_NEGATIVE, KINDS, LABEL, ShownBox, ShownRun, by_difference
from utils.datasets.images import read_image
from utils.datasets.letterbox import resize_longest_side
from utils.files import atomic_write
from utils.log import LOGGER

TEMPLATE = Path(__file__).with_suffix(".html")
IMAGES_PER_PAGE, IMAGE_PIXELS = 60, 640
LABELS = -1  # the panel before those of the models

Panels = Mapping[int, Sequence[ShownBox]]  # boxes by index of the model, or `LABELS`


def write_browse(result: ComparisonResult, runs: Sequence[ShownRun], *, folder: Path) -> Path:
    """Write pages of 60 images in place of earlier ones, those first on which models differ; return the first page."""
    shutil.rmtree(folder, ignore_errors=True)
    order = by_difference(runs)[0].tolist()
    pages = [order[start : start + IMAGES_PER_PAGE] for start in range(0, len(order), IMAGES_PER_PAGE)]
    panels = {image_id: _panels(runs, image_id) for image_id in order}
    # By page, which kinds of boxes there are, so that a filter can tell which pages have any.
    contents = [
        sorted({(p, box.class_id, box.kind) for i in page for p, boxes in panels[i].items() for box in boxes})
        for page in pages
    ]
    files = [folder / (f"page-{number}.html" if number > 1 else "index.html") for number in range(1, len(pages) + 1)]
    fixed = {
        "classes": _options(dict(enumerate(result.names))),
        "models": _options({index: run.model for index, run in enumerate(runs)}),
        "kinds": _options(KINDS),
        "header": html.escape(result.header),
        "confidence": CONFIDENCE,
        "total": len(order),
        "pages": json.dumps([file.name for file in files]),
        "contents": json.dumps(contents, separators=(",", ":")),
    }
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    for number, (file, page) in enumerate(zip(files, pages, strict=True)):
        first = number * IMAGES_PER_PAGE + 1
        items = "\n".join(_item(result, runs, i, panels[i], folder) for i in page)
        text = template.substitute(fixed, page=number, first=first, last=first + len(page) - 1, items=items)
        atomic_write(file, text)
    LOGGER.info(f"All images: {files[0]}")
    return files[0]


def _options(titles: Mapping[int, str]) -> str:
    return "".join(f'<option value="{key}">{html.escape(title)}</option>' for key, title in titles.items())


def _panels(runs: Sequence[ShownRun], image_id: int) -> Panels:
    """Return the labels, and the detections of each model with the labels that it does not find."""
    missed = ([box for box in run.labels[image_id] if box.kind == FALSE_NEGATIVE] for run in runs)
    models = {i: [*of_run, *run.detections[image_id]] for i, (run, of_run) in enumerate(zip(runs, missed, strict=True))}
    return {LABELS: [replace(box, kind=LABEL) for box in runs[0].labels[image_id]], **models}


def _item(result: ComparisonResult, runs: Sequence[ShownRun], image_id: int, panels: Panels, folder: Path) -> str:
    """Write an image, scaled down, and return its HTML."""
    path = Path(str(result.val.paths[image_id]))
    image = read_image(str(path))
    height, width = image.shape[:2]
    small = resize_longest_side(image, IMAGE_PIXELS, smooth=True) if max(height, width) > IMAGE_PIXELS else image
    _, encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    file = atomic_write(folder / "images" / f"{image_id:06d}.jpg", encoded.tobytes())
    figures = []
    for panel, boxes in panels.items():
        title = html.escape("labels" if panel == LABELS else runs[panel].caption(image_id))
        figures.append(
            f'<figure class="m{panel}"><div><img loading="lazy" src="images/{file.name}" width="{small.shape[1]}" '
            f'height="{small.shape[0]}" alt=""><svg viewBox="0 0 {width} {height}">'
            f"{_svg(boxes, result.names, width, height)}</svg></div><figcaption>{title}</figcaption></figure>"
        )
    return f"<section><h2>{html.escape(path.name)}</h2><div>{''.join(figures)}</div></section>"


def _svg(boxes: Sequence[ShownBox], names: Sequence[str], width: int, height: int) -> str:
    """Return the boxes, and above all of them their texts, in pixels of the image."""
    font = max(width, height) / 32
    outlines, texts = [], []
    for box in boxes:
        x1, y1, x2, y2 = (round(float(v), 1) for v in box.corners)
        text = html.escape(box.text(names))
        title = f"{text}, {KINDS[box.kind]}" if box.kind in KINDS else text
        group = f'<g class="c{box.class_id} k{box.kind}">'
        rect = f'<rect x="{x1}" y="{y1}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"/>'
        outlines.append(f"{group}<title>{title}</title>{rect}</g>")
        x, side = (x1, "start") if x1 < 0.8 * width else (x2, "end")
        y = y1 - font / 4 if y1 > font else y1 + font
        texts.append(f'{group}<text x="{x}" y="{y:.1f}" font-size="{font:.0f}" text-anchor="{side}">{text}</text></g>')
    return "".join(outlines + texts)

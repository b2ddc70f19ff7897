"""LabelMe's JSON: one file per image, shapes in pixels; X-AnyLabeling and others write the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Objects
from utils.datasets.convert.coco import read_json
from utils.datasets.convert.images import ImagesByStem
from utils.datasets.convert.layout import Source, format_errors, image_size, split_of_folders


def find_labelme(source: Source) -> list[str]:
    """Return the names of all JSON files with shapes."""
    return [name for name in source.with_suffix("json") if "shapes" in source.json_keys(name)]


def read_labelme(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read every JSON with shapes: rectangles, polygons, circles and rotated boxes; points and lines are skipped.

    Raises:
        DataError: a file cannot be read, or matches several images.
    """
    found = AnnotatedSet(images=[])
    images = ImagesByStem(source.images)
    for name in source.track(find_labelme(source), "Reading"):
        content = read_json(source.files[name](), name)
        with format_errors(name, "LabelMe"):
            file = images.find(name, str(content.get("imagePath") or ""))
            width, height = float(content.get("imageWidth") or 0), float(content.get("imageHeight") or 0)
            if not (width > 0 and height > 0):
                if not file:
                    found.images.append(AnnotatedImage(file="", source=name))
                    continue
                width, height = image_size(source.files, file)
            objects = Objects((width, height), found.report, polygons=polygons)
            for shape in content["shapes"]:
                _add(objects, shape, found)
        split = split_of_folders(name) or split_of_folders(file)
        image = AnnotatedImage(file=file, source=name, labels=objects.labels, split=split, size_wh=(width, height))
        found.images.append(image)
    return found


def _add(objects: Objects, shape: dict[str, Any], found: AnnotatedSet) -> None:
    """Add one shape."""
    label, kind = str(shape["label"]).strip(), shape.get("shape_type") or "polygon"
    label.encode()  # a lone surrogate is a ValueError
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind == "rectangle" and len(points) >= 2:
        objects.add_box(label, (*points.min(0), *points.max(0)))
    elif kind in ("polygon", "rotation"):
        objects.add_polygon(label, points)
    elif kind == "circle" and len(points) == 2:
        radius = float(np.linalg.norm(points[1] - points[0]))
        objects.add_box(label, (*(points[0] - radius), *(points[0] + radius)))
    else:
        found.report[f"{str(kind)[:20]} shapes skipped"] += 1

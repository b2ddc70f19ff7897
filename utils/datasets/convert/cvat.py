"""CVAT's XML for images: one file for all images, boxes and polygons in pixels."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Objects
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import Source, format_errors, relative_name, split_of_folders
from utils.datasets.convert.xml_tree import read_xml
from utils.errors import DataError

_SHAPES = {"box", "polygon", "ellipse", "mask", "polyline", "points", "cuboid", "skeleton"}


def find_cvat(source: Source) -> list[str]:
    """Return the names of all XML files whose root is `annotations`."""
    return [name for name in source.with_suffix("xml") if source.xml_root(name) == "annotations"]


def read_cvat(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read `annotations.xml` of CVAT's format for images.

    The order of the labels in the task is that of the classes. A split is the subset that an image states, or else is
    named by its folders. A rotated box becomes the box around it; an ellipse likewise; polylines, points, masks and
    cuboids are skipped.

    Raises:
        DataError: a file cannot be read, or is of CVAT's format for videos.
    """
    found = AnnotatedSet(images=[], names_from="the labels of the task")
    names: dict[str, None] = {}
    trees = {name: read_xml(source.files[name](), name) for name in find_cvat(source)}
    for name, tree in trees.items():
        if tree.find("track") is not None:
            fix = "export the task as `CVAT for images`"
            raise DataError(name, "has tracks of a video, not images", fix=fix)
        names |= dict.fromkeys(
            (item.text or "").strip() for item in tree.iterfind("meta//labels/label/name") if item.text
        )
    image_names = {name: [image.get("name", "") for image in tree.iter("image")] for name, tree in trees.items()}
    files = ImageFiles(source.images)
    for name, tree in trees.items():
        with format_errors(name, "CVAT"):
            file_of = files.match(map(relative_name, image_names[name]), annotations=name, split="")
            for image in tree.iter("image"):
                relative = relative_name(image.get("name", ""))
                size_wh = (float(image.get("width", "nan")), float(image.get("height", "nan")))
                objects = Objects(size_wh, found.report, polygons=polygons)
                for shape in image:
                    if shape.tag in _SHAPES:
                        _add(objects, shape, found)
                split = image.get("subset") or split_of_folders(relative) or split_of_folders(file_of.get(relative, ""))
                found.images.append(
                    AnnotatedImage(
                        file=file_of.get(relative, ""),
                        source=name,
                        labels=objects.labels,
                        split=split or split_of_folders(f"{PurePosixPath(name).stem}/"),
                        size_wh=size_wh,
                    )
                )
    found.names = tuple(names)
    return found


def _add(objects: Objects, shape: Element, found: AnnotatedSet) -> None:
    """Add one shape of an image."""
    label = shape.attrib["label"].strip()
    if shape.tag == "box":
        x1, y1, x2, y2 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        angle = math.radians(float(shape.get("rotation") or 0))
        half_w, half_h = (x2 - x1) / 2, (y2 - y1) / 2
        reach_x = abs(half_w * math.cos(angle)) + abs(half_h * math.sin(angle)) if angle else half_w
        reach_y = abs(half_w * math.sin(angle)) + abs(half_h * math.cos(angle)) if angle else half_h
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        corners = (cx - reach_x, cy - reach_y, cx + reach_x, cy + reach_y) if angle else (x1, y1, x2, y2)
        objects.add_box(label, corners)
        found.report["of them boxes around rotated ones"] += bool(angle)
    elif shape.tag == "polygon":
        points = [pair.split(",") for pair in shape.attrib["points"].split(";") if pair]
        objects.add_polygon(label, np.array(points, np.float64).reshape(-1, 2))
    elif shape.tag == "ellipse":
        cx, cy, rx, ry = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
        objects.add_box(label, (cx - rx, cy - ry, cx + rx, cy + ry))
    else:
        found.report[f"{shape.tag} shapes skipped"] += 1

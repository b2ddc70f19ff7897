"""Data sets as published (VOC, VisDrone, COCO), written for the tests of the converters, and the conversion itself."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from utils.datasets.convert.__main__ import convert
from utils.errors import DataError

WIDTH, HEIGHT = 120, 80
SIDE = 40


def write(path, content=None):
    """Write text, bytes, a JSON object, or by default an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        buffer = io.BytesIO()
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 90, np.uint8)).save(buffer, "JPEG")
        content = buffer.getvalue()
    elif isinstance(content, dict):
        content = json.dumps(content)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data)
    return data


def rows_in(path):
    """Return the rows of a label file."""
    return [[float(v) for v in line.split()] for line in path.read_text().splitlines()]


def run_convert(*args):
    """Convert with the arguments of the command line; return the report."""
    return convert([str(arg) for arg in args])


def voc_object(name, box, difficult=0):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    hard = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    return f"<object><name>{name}</name>{hard}<bndbox>{corners}</bndbox>{part}</object>"


def voc_xml(*objects, width=WIDTH, height=HEIGHT):
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{''.join(objects)}</annotation>"


def write_voc(root, splits, year="2007"):
    base = root / f"VOCdevkit/VOC{year}"
    for split, annotations in splits.items():
        for stem, xml in annotations.items():
            write(base / f"JPEGImages/{stem}.jpg")
            write(base / f"Annotations/{stem}.xml", xml)
        write(base / f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in annotations))
    return base


def square(x, y, side=10):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def coco_json():
    """Categories out of order with gaps, a crowd, several parts, a run-length encoding, a box beyond the image."""
    annotations = [
        {
            "image_id": 5,
            "category_id": 90,
            "bbox": [10, 20, 30, 40],
            "segmentation": [[10, 20, 40, 20, 40, 60, 20, 60]],
        },
        {
            "image_id": 5,
            "category_id": 1,
            "bbox": [0, 0, 50, 50],
            "iscrowd": 1,
            "segmentation": {"counts": [], "size": []},
        },
        {"image_id": 5, "category_id": 13, "bbox": [5, 5, 60, 20], "segmentation": [square(5, 5), square(55, 15)]},
        {
            "image_id": 5,
            "category_id": 1,
            "bbox": [100, 60, 40, 40],
            "segmentation": {"counts": "abc", "size": [80, 120]},
        },
        {"image_id": 5, "category_id": 1, "bbox": [3, 3, 0, 5], "segmentation": []},
        {"image_id": 5, "category_id": 1, "bbox": [1, 1, 8, 8]},
    ]
    return {
        "images": [
            {"id": 5, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 6, "file_name": "empty.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 7, "file_name": "gone.jpg", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [{"id": i, "iscrowd": 0, **a} for i, a in enumerate(annotations)],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}],
    }


def png(shade):
    buffer = io.BytesIO()
    Image.fromarray(np.full((SIDE, SIDE, 3), shade, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_coco(path, entries, categories=("cat",)):
    """Write a JSON of images with one object each; `entries` maps file names to category names."""
    ids = dict(categories) if isinstance(categories, dict) else {name: n for n, name in enumerate(categories, start=1)}
    images = [{"id": n, "file_name": name, "width": SIDE, "height": SIDE} for n, name in enumerate(entries)]
    annotations = [
        {"id": n, "image_id": n, "category_id": ids[name], "bbox": [4, 4, 20, 20], "iscrowd": 0}
        for n, name in enumerate(entries.values())
    ]
    listed = [{"id": category_id, "name": name} for name, category_id in ids.items()]
    write(path, {"images": images, "annotations": annotations, "categories": listed})


def convert_coco(tmp_path, *flags):
    """Convert, and return the target."""
    report_of(tmp_path, *flags)
    return tmp_path / "out"


def report_of(tmp_path, *flags):
    """Convert, and return the report."""
    return convert(["coco", str(tmp_path / "in"), str(tmp_path / "out"), *flags])


def refused_coco(tmp_path, *flags):
    """Return the error message, after checking that it is one line and nothing was written."""
    with pytest.raises(DataError) as caught:
        convert_coco(tmp_path, *flags)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_below(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def class_in(path):
    return int(path.read_text().split()[0])

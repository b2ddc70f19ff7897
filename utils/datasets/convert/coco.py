"""COCO's JSON -> YOLO: boxes from the top left in pixels, or outlines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from utils.datasets.convert.files import Files
from utils.datasets.convert.layout import Entry, Row, Tally, box_row, label_text
from utils.errors import DataError


def convert_coco(
    files: Files,
    *,
    polygons: bool = False,
    labels_only: bool = False,
    tally: Tally | None = None,
    names: list[str] | None = None,
) -> Iterator[Entry]:
    """Yield names and contents of a YOLO data set.

    Every `instances_SPLIT.json` becomes `labels/SPLIT`; if there is none, every JSON file with categories does. Its
    pictures are found by name wherever they lie, and become `images/SPLIT`. A class is the place of its category in the
    order of ids, so COCO's ids 1 to 90 with gaps become 0 to 79.

    Args:
        files: the set as it was published.
        polygons: write outlines where there are some; several parts of an object are joined into one outline. Objects
            given as run lengths are written as boxes.
        labels_only: yield no pictures.
        tally: counts what was met.
        names: takes the class names in order.

    Raises:
        DataError: no annotations, or such as cannot be read.
    """
    tally = Tally() if tally is None else tally
    jsons = [name for name in files.names if name.endswith(".json")]
    found = False
    for name in [name for name in jsons if PurePosixPath(name).name.startswith("instances_")] or jsons:
        content = _load(files.read(name), name)
        if content is None:
            continue
        found = True
        split = PurePosixPath(name).stem.removeprefix("instances_")
        try:
            rows_of, class_names = _rows_by_image(content, polygons=polygons, tally=tally)
            targets = [(image["id"], _plain(image["file_name"])) for image in content["images"]]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"is not as COCO has it ({type(error).__name__}: {error})"
            raise DataError(name, reason, fix="correct it") from error
        if names is not None:
            names[:] = class_names
        pictures = {} if labels_only else _by_file_name(files.names, split)
        for number, target in targets:
            picture = pictures.get(PurePosixPath(target).name)
            if picture is None and not labels_only:
                tally["pictures without a file left out"] += 1
                continue
            tally["pictures"] += 1
            if picture is not None:
                yield f"images/{split}/{target}", files.read(picture)
            yield f"labels/{split}/{PurePosixPath(target).with_suffix('.txt')}", label_text(rows_of.get(number, []))
    if not found:
        raise DataError("coco", "has no JSON with images, annotations and categories", fix="pass the folder with it")


def _load(data: bytes, name: str) -> dict[str, Any] | None:
    """Return a JSON's content, or None if it is no list of objects.

    Raises:
        DataError: it is no JSON.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(name, f"is no JSON ({error})", fix="correct or remove it") from error
    keys = {"images", "annotations", "categories"}
    return content if isinstance(content, dict) and keys <= content.keys() else None


def _plain(file_name: str) -> str:
    """Return a picture's name and folders, but never a way out of the target folder."""
    return "/".join(part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part not in ("/", ".."))


def _by_file_name(names: Sequence[str], split: str) -> dict[str, str]:
    """Map pictures' names to where they lie; of several of one name that in the split's folder counts."""
    elsewhere_first = sorted(names, key=lambda name: split in name.split("/"))
    return {PurePosixPath(name).name: name for name in elsewhere_first if not name.endswith(".json")}


def _rows_by_image(content: dict[str, Any], *, polygons: bool, tally: Tally) -> tuple[dict[Any, list[Row]], list[str]]:
    """Return the label rows by the pictures' ids, and the class names."""
    categories = sorted(content["categories"], key=lambda category: int(category["id"]))
    class_of = {category["id"]: number for number, category in enumerate(categories)}
    size_of = {image["id"]: (float(image["width"]), float(image["height"])) for image in content["images"]}
    rows_of: dict[Any, list[Row]] = {}
    for thing in content["annotations"]:
        if thing.get("iscrowd"):
            tally["crowds left out"] += 1
            continue
        label, size_wh = class_of[thing["category_id"]], size_of[thing["image_id"]]
        if min(size_wh) <= 0:
            raise ValueError(f"picture {thing['image_id']} has size {size_wh}")
        left, top, width, height = (float(value) for value in thing["bbox"])
        row = box_row(label, (left, top, left + width, top + height), size_wh)
        if row is None:
            tally["boxes without area left out"] += 1
            continue
        outline = _outline(thing.get("segmentation"), size_wh) if polygons else None
        tally["objects"] += 1
        tally["of them with outlines"] += outline is not None
        rows_of.setdefault(thing["image_id"], []).append((label, outline) if outline is not None else row)
    return rows_of, [str(category["name"]) for category in categories]


def _outline(segmentation: Any, size_wh: tuple[float, float]) -> list[float] | None:  # noqa: ANN401
    """Return x, y, x, y... as shares of the picture, or None where there are run lengths or nothing."""
    if not isinstance(segmentation, list):
        return None
    rings = [
        np.array(part, np.float64).reshape(-1, 2) for part in segmentation if len(part) >= 6 and len(part) % 2 == 0
    ]
    if not rings:
        return None
    shares = (join_rings(rings) / size_wh).clip(0, 1)
    enclosed = (shares.max(0) - shares.min(0)).min() > 0
    return [float(value) for value in shares.reshape(-1)] if enclosed else None


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join (k, 2) rings into one, by bridges that are walked there and back and so enclose nothing."""
    joined, *rest = rings
    while rest:
        distances = [((joined[:, None] - ring[None]) ** 2).sum(2) for ring in rest]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        here, there = (int(v) for v in np.unravel_index(distances[nearest].argmin(), distances[nearest].shape))
        ring = rest.pop(nearest)
        joined = np.concatenate((joined[: here + 1], ring[there:], ring[: there + 1], joined[here:]))
    return joined

"""COCO's JSON -> YOLO: boxes from the top left in pixels, or outlines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from utils.datasets.convert.files import Files
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import ConversionReport, FileEntry, LabelFiles, Row, box_row, label_text, split_in
from utils.errors import DataError


@dataclass(frozen=True, kw_only=True)
class _Annotations:
    """What one JSON says.

    Attributes:
        file: its name.
        split: what the folders of its images and labels are called.
        images: their ids and names.
        rows_of: label rows by the images' ids; a class is a place in `categories`.
        categories: ids and names, in the order of ids.
        tally: what was met.
    """

    file: str
    split: str
    images: list[tuple[Any, str]]
    rows_of: dict[Any, list[Row]]
    categories: list[tuple[int, str]]
    tally: ConversionReport


def convert_coco(
    files: Files,
    *,
    polygons: bool = False,
    labels_only: bool = False,
    tally: ConversionReport | None = None,
    names: list[str] | None = None,
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set.

    Every `instances_SPLIT.json` becomes `labels/SPLIT`; if there is none, every JSON file with categories does. Where a
    file's name tells no split, its folders' may: `valid/_annotations.coco.json` becomes `labels/valid`. Images are
    found by name wherever they lie, and become `images/SPLIT`. A class is the place of its category in the order of
    ids, so COCO's ids 1 to 90 with gaps become 0 to 79; categories of one name are one class, also in several files.

    Args:
        files: the set as it was published.
        polygons: write outlines where there are some; several parts of an object are joined into one outline. Objects
            given as run lengths are written as boxes.
        labels_only: yield no images.
        tally: counts what was met.
        names: takes the class names in order.

    Raises:
        DataError: no annotations, such as cannot be read, or such as leave open which image is meant.
    """
    tally = ConversionReport() if tally is None else tally
    jsons = [name for name in files.names if name.endswith(".json")]
    jsons = [name for name in jsons if PurePosixPath(name).name.startswith("instances_")] or jsons
    # All are read before anything is written, since the classes of one file depend on the others.
    read = [part for name in jsons if (part := _read(files.read(name), name, polygons=polygons)) is not None]
    if not read:
        raise DataError("coco", "has no JSON with images, annotations and categories", fix="pass the folder with it")
    read = _without_joins(read, tally)
    class_names = _joined_classes(read, tally)
    if names is not None:
        names[:] = class_names
    label_files = LabelFiles()
    depth = max((name.count("/") + 1 for part in read for _, name in part.images), default=1)
    image_files = ImageFiles(() if labels_only else (n for n in files.names if not n.endswith(".json")), depth=depth)
    for part in read:
        tally.update(part.tally)
        classes = [class_names.index(name) for _, name in part.categories]
        wanted = (name for _, name in part.images)
        found = image_files.match(wanted, annotations=part.file, split=part.split)
        for number, name in part.images:
            if name not in found and not labels_only:
                tally["images without a file left out"] += 1
                continue
            tally["images"] += 1
            target = f"{part.split}/{_below_images(name)}"
            label_file = label_files.claim(f"labels/{target}", image=found.get(name, name), where=part.file)
            if not labels_only:
                yield f"images/{target}", files.read(found[name])
            yield label_file, label_text((classes[label], values) for label, values in part.rows_of.get(number, ()))


def _read(data: bytes, name: str, *, polygons: bool) -> _Annotations | None:
    """Return what a JSON says, or None if it is no list of objects.

    Raises:
        DataError: it is no JSON, or not as COCO has it.
    """
    content = _load(data, name)
    if content is None:
        return None
    tally = ConversionReport()
    try:
        rows_of, categories = _rows_by_image(content, polygons=polygons, tally=tally)
        images = [(image["id"], _plain(image["file_name"])) for image in content["images"]]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"is not as COCO has it ({type(error).__name__}: {error})"
        raise DataError(name, reason, fix="correct it") from error
    path = PurePosixPath(name)
    stem = path.stem.removeprefix("instances_")
    split = next((word for word in (stem, *reversed(path.parent.parts)) if split_in(word)), stem)
    return _Annotations(file=name, split=split, images=images, rows_of=rows_of, categories=categories, tally=tally)


def _without_joins(read: Sequence[_Annotations], tally: ConversionReport) -> list[_Annotations]:
    """Leave out `trainval` where `train` and `val` are there too: trained on, it would hold what is validated on."""
    splits = {part.split for part in read}
    kept = [
        part
        for part in read
        if "trainval" not in part.split or not splits >= {part.split.replace("trainval", s) for s in ("train", "val")}
    ]
    tally["files that join train and val left out"] += len(read) - len(kept)
    return kept


def _joined_classes(read: Sequence[_Annotations], tally: ConversionReport) -> list[str]:
    """Return the names of all files' categories, each once, in the order of ids; of one id, the first file's first."""
    first_id: dict[str, int] = {}
    for part in read:
        for number, name in part.categories:
            first_id[name] = min(number, first_id.get(name, number))
        tally["categories of one name joined"] += len(part.categories) - len({name for _, name in part.categories})
    return sorted(first_id, key=first_id.__getitem__)


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
    """Return an image's name and folders, but never a way out of the target folder.

    Raises:
        ValueError: nothing is left, or no file can have that name.
    """
    plain = "/".join(part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part not in ("/", ".."))
    if not plain or "\0" in plain:
        raise ValueError(f"{file_name!r} is no file name")
    plain.encode()  # half a letter, which JSON can hold, is a ValueError
    return plain


def _below_images(name: str) -> str:
    """Return an image's name without folders `images`: the last one is what `labels` lies beside."""
    *folders, last = name.split("/")
    return "/".join((*(folder for folder in folders if folder != "images"), last))


def _categories(content: dict[str, Any]) -> list[tuple[Any, str]]:
    """Return the categories' ids and names, in the order of ids.

    Raises:
        ValueError: two have one id, or a name cannot be written.
    """
    name_of: dict[Any, str] = {}
    for category in content["categories"]:
        number, name = category["id"], str(category["name"])
        name.encode()
        if name_of.setdefault(number, name) != name:
            raise ValueError(f"categories {name_of[number]!r} and {name!r} have one id ({number})")
    return sorted(name_of.items(), key=lambda category: int(category[0]))


def _rows_by_image(
    content: dict[str, Any], *, polygons: bool, tally: ConversionReport
) -> tuple[dict[Any, list[Row]], list[tuple[int, str]]]:
    """Return the label rows by the images' ids, and the categories' ids and names."""
    categories = _categories(content)
    class_of = {number: place for place, (number, _) in enumerate(categories)}
    size_of = {image["id"]: (float(image["width"]), float(image["height"])) for image in content["images"]}
    rows_of: dict[Any, list[Row]] = {}
    for thing in content["annotations"]:
        if thing.get("iscrowd"):
            tally["crowds left out"] += 1
            continue
        label, size_wh = class_of[thing["category_id"]], size_of[thing["image_id"]]
        if min(size_wh) <= 0:
            raise ValueError(f"image {thing['image_id']} has size {size_wh}")
        left, top, width, height = (float(value) for value in thing["bbox"])
        row = box_row(label, (left, top, left + width, top + height), size_wh)
        if row is None:
            tally["boxes without area left out"] += 1
            continue
        outline = _outline(thing.get("segmentation"), size_wh) if polygons else None
        tally["objects"] += 1
        tally["of them with outlines"] += outline is not None
        rows_of.setdefault(thing["image_id"], []).append((label, outline) if outline is not None else row)
    return rows_of, [(int(number), name) for number, name in categories]


def _outline(segmentation: Any, size_wh: tuple[float, float]) -> list[float] | None:  # noqa: ANN401
    """Return x, y, x, y... as shares of the image, or None where there are run lengths or nothing."""
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

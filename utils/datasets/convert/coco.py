"""COCO's JSON to YOLO: boxes given by their top-left corner and size in pixels, or polygons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import ConversionReport, FileEntry, Files, Row, box_row, label_entry, split_in
from utils.errors import DataError


@dataclass(frozen=True, kw_only=True)
class _Annotations:
    """The content of one JSON file."""

    file: str  # its name
    split: str  # name of the folders of its images and labels
    images: list[tuple[Any, str]]  # ids and names
    rows_of: dict[Any, list[Row]]  # label rows by image id; the class id is an index into `categories`
    categories: list[tuple[int, str]]  # ids and names, in the order of ids
    report: ConversionReport  # counts of what was read and skipped


def convert_coco(
    files: Files,
    *,
    polygons: bool = False,
    labels_only: bool = False,
    report: ConversionReport | None = None,
    names: list[str] | None = None,
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set.

    Every `instances_SPLIT.json` becomes `labels/SPLIT`; without such files, every JSON file with categories does. If
    the name of a file has no split, that of its folders is used: `valid/_annotations.coco.json` becomes
    `labels/valid`. Images are found by name in any folder, and become `images/SPLIT`. Class ids number the categories
    in the order of their ids, so that COCO's ids 1 to 90 with gaps become 0 to 79; categories of equal names are one
    class, also across files.

    With `polygons`, polygons are written where the annotations have them, the parts of an object joined into one;
    objects in run-length encoding are written as boxes. `names` is filled with the class names in order.

    Raises:
        DataError: there are no annotations, they cannot be read, or the image that they name is ambiguous.
    """
    report = ConversionReport() if report is None else report
    jsons = [name for name in files if name.endswith(".json")]
    jsons = [name for name in jsons if PurePosixPath(name).name.startswith("instances_")] or jsons
    # All are read before anything is written, since the class ids of one file depend on the others.
    parts = [part for name in jsons if (part := _read(files[name](), name, polygons=polygons)) is not None]
    if not parts:
        raise DataError("coco", "has no JSON with images, annotations and categories", fix="pass the folder with it")
    parts = _without_unions(parts, report)
    class_names = _merged_classes(parts, report)
    if names is not None:
        names[:] = class_names
    image_of: dict[str, str] = {}
    depth = max((name.count("/") + 1 for part in parts for _, name in part.images), default=1)
    image_files = ImageFiles(() if labels_only else (n for n in files if not n.endswith(".json")), depth=depth)
    for part in parts:
        report.update(part.report)
        class_ids = [class_names.index(name) for _, name in part.categories]
        images = (name for _, name in part.images)
        file_of = image_files.match(images, annotations=part.file, split=part.split)
        for image_id, name in part.images:
            if name not in file_of and not labels_only:
                report["images without a file skipped"] += 1
                continue
            report["images"] += 1
            target = f"{part.split}/{_below_images(name)}"
            rows = [(class_ids[index], values) for index, values in part.rows_of.get(image_id, ())]
            labels = label_entry(image_of, target, rows, image=file_of.get(name, name), where=part.file)
            if not labels_only:
                yield f"images/{target}", files[file_of[name]]()
            yield labels


def _read(data: bytes, name: str, *, polygons: bool) -> _Annotations | None:
    """Return the content of a JSON file, or None if it has no annotated objects; DataError if it is damaged."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(name, f"is not JSON ({error})", fix="correct or remove it") from error
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        return None
    report = ConversionReport()
    try:
        rows_of, categories = _rows_by_image(content, polygons=polygons, report=report)
        images = [(image["id"], _relative(image["file_name"])) for image in content["images"]]
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"does not follow COCO's format ({type(error).__name__}: {error})"
        raise DataError(name, reason, fix="correct it") from error
    path = PurePosixPath(name)
    stem = path.stem.removeprefix("instances_")
    split = next((word for word in (stem, *reversed(path.parent.parts)) if split_in(word)), stem)
    return _Annotations(file=name, split=split, images=images, rows_of=rows_of, categories=categories, report=report)


def _without_unions(parts: Sequence[_Annotations], report: ConversionReport) -> list[_Annotations]:
    """Skip `trainval` if `train` and `val` exist too: it would add the validation images to the training split."""
    splits = {part.split for part in parts}
    halves = {split: {split.replace("trainval", half) for half in ("train", "val")} for split in splits}
    kept = [part for part in parts if "trainval" not in part.split or not halves[part.split] <= splits]
    report["files of train and val together skipped"] += len(parts) - len(kept)
    return kept


def _merged_classes(parts: Sequence[_Annotations], report: ConversionReport) -> list[str]:
    """Return the names of all categories, each once, in the order of ids; for equal ids in the order of files."""
    first_id: dict[str, int] = {}
    for part in parts:
        for category_id, name in part.categories:
            first_id[name] = min(category_id, first_id.get(name, category_id))
        report["categories of equal names merged"] += len(part.categories) - len({name for _, name in part.categories})
    return sorted(first_id, key=first_id.__getitem__)


def _relative(file_name: str) -> str:
    """Return an image's name and folders, without parts that lead out of the target; ValueError if it is invalid."""
    relative = "/".join(part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part not in ("/", ".."))
    if not relative or "\0" in relative:
        raise ValueError(f"{file_name!r} is not a file name")
    relative.encode()  # a lone surrogate, which JSON can contain, is a ValueError
    return relative


def _below_images(name: str) -> str:
    """Return an image's name without folders `images`: `labels` replaces the last `images` of a path."""
    *folders, last = name.split("/")
    return "/".join((*(folder for folder in folders if folder != "images"), last))


def _categories(content: dict[str, Any]) -> list[tuple[Any, str]]:
    """Return ids and names in the order of ids; ValueError for two names of an id, or one that cannot be encoded."""
    name_of: dict[Any, str] = {}
    for category in content["categories"]:
        category_id, name = category["id"], str(category["name"])
        name.encode()
        if name_of.setdefault(category_id, name) != name:
            raise ValueError(f"categories {name_of[category_id]!r} and {name!r} have the same id ({category_id})")
    return sorted(name_of.items(), key=lambda category: int(category[0]))


def _rows_by_image(
    content: dict[str, Any], *, polygons: bool, report: ConversionReport
) -> tuple[dict[Any, list[Row]], list[tuple[int, str]]]:
    """Return the label rows by image id, and the categories' ids and names."""
    categories = _categories(content)
    index_of = {category_id: index for index, (category_id, _) in enumerate(categories)}
    size_of = {image["id"]: (float(image["width"]), float(image["height"])) for image in content["images"]}
    rows_of: dict[Any, list[Row]] = {}
    for annotation in content["annotations"]:
        if annotation.get("iscrowd"):
            report["crowds skipped"] += 1
            continue
        index, size_wh = index_of[annotation["category_id"]], size_of[annotation["image_id"]]
        if min(size_wh) <= 0:
            raise ValueError(f"image {annotation['image_id']} has size {size_wh}")
        left, top, width, height = (float(value) for value in annotation["bbox"])
        row = box_row(index, (left, top, left + width, top + height), size_wh)
        if row is None:
            report["boxes without area skipped"] += 1
            continue
        polygon = _polygon(annotation.get("segmentation"), size_wh) if polygons else None
        report["objects"] += 1
        report["of them with polygons"] += polygon is not None
        rows_of.setdefault(annotation["image_id"], []).append((index, polygon) if polygon is not None else row)
    return rows_of, [(int(category_id), name) for category_id, name in categories]


def _polygon(segmentation: Any, size_wh: tuple[float, float]) -> list[float] | None:  # noqa: ANN401
    """Return normalized x, y, x, y..., or None if the segmentation is run-length encoded, empty or without area."""
    if not isinstance(segmentation, list):
        return None
    valid = [part for part in segmentation if len(part) >= 6 and len(part) % 2 == 0]
    rings = [np.array(part, np.float64).reshape(-1, 2) for part in valid]
    if not rings:
        return None
    polygon = (join_rings(rings) / size_wh).clip(0, 1)
    has_area = (polygon.max(0) - polygon.min(0)).min() > 0
    return [float(value) for value in polygon.reshape(-1)] if has_area else None


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join (k, 2) rings into one, by bridges traversed in both directions, which enclose no area."""
    joined, *rest = rings
    while rest:
        distances = [((joined[:, None] - ring[None]) ** 2).sum(2) for ring in rest]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        start, end = (int(v) for v in np.unravel_index(distances[nearest].argmin(), distances[nearest].shape))
        ring = rest.pop(nearest)
        joined = np.concatenate((joined[: start + 1], ring[end:], ring[: end + 1], joined[start:]))
    return joined

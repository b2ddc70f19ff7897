"""COCO's JSON: boxes given by their top-left corner and size in pixels, or polygons."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Label, Objects
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import (
    ConversionReport,
    FileEntry,
    Files,
    Source,
    format_errors,
    image_size,
    relative_name,
    split_in,
    split_of_folders,
)
from utils.datasets.convert.write import converted
from utils.errors import DataError
from utils.files import decode_text

KEYS = ("images", "annotations", "categories")
MAX_RING_DISTANCES = 400_000_000  # up to this many, the parts of a polygon are joined by the shortest bridges
Size = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class _Content:
    """The content of one JSON file."""

    file: str  # its name
    split: str  # name of the folders of its images and labels
    images: list[tuple[Any, str, Size | None]]  # ids, names and sizes
    ids: frozenset[Any]  # of the images
    annotations: dict[Any, list[dict[str, Any]]]  # by image id, without crowds
    name_of: dict[Any, str]  # class names by category id, in the order of ids
    crowds: int  # number of annotations of crowds


def find_coco(source: Source) -> list[str]:
    """Return the names of the JSON files with images, annotations and categories, `instances_*.json` preferred."""
    names = [name for name in source.with_suffix("json") if source.json_keys(name) >= {*KEYS}]
    return [name for name in names if PurePosixPath(name).name.startswith("instances_")] or names


def read_coco(source: Source, *, polygons: bool = False, with_images: bool = True) -> AnnotatedSet:
    """Read all JSON files of a data set.

    `instances_SPLIT.json` holds a split; if the name of a file has no split, that of its folders is used, as in
    `valid/_annotations.coco.json`. Images are found by name in any folder. Categories of equal names are one class,
    also across files. With `polygons`, polygons are kept where the annotations have them, the parts of an object
    joined into one; objects in run-length encoding are boxes.

    Args:
        source: the files.
        polygons: keep polygons.
        with_images: look for the image files; otherwise `AnnotatedImage.file` is "".

    Raises:
        DataError: a file cannot be read or does not follow the format, or an image that it names is ambiguous.
    """
    contents = [_read(source.files[name](), name) for name in find_coco(source)]
    found = AnnotatedSet(images=[], names_from="the ids of the categories", names_fixed=True)
    contents = _without_unions(contents, found.report)
    found.names = _merged_classes(contents, found.report)
    image_files = ImageFiles(source.images if with_images else ())
    for content in contents:
        found.report["annotations without an image skipped"] += sum(
            len(items) for image_id, items in content.annotations.items() if image_id not in content.ids
        )
        names = (name for _, name, _ in content.images)
        file_of = image_files.match(names, annotations=content.file, split=content.split)
        for image_id, name, size_wh in content.images:
            file = file_of.get(name, "")
            with format_errors(content.file, "COCO"):
                labels, size_wh = _labels(source.files, content, image_id, file, size_wh, polygons, found.report)
            found.images.append(
                AnnotatedImage(
                    file=file,
                    source=content.file,
                    split=content.split,
                    size_wh=size_wh,
                    target=_below_images(name),
                    labels=labels,
                )
            )
    return found


def _read(data: bytes, name: str) -> _Content:
    """Return the content of a JSON file; DataError if it is damaged or does not follow the format."""
    content = read_json(data, name)
    with format_errors(name, "COCO"):
        name_of = _categories(content)
        annotations: dict[Any, list[dict[str, Any]]] = {}
        crowds = 0
        for annotation in content["annotations"]:
            if annotation.get("iscrowd"):
                crowds += 1
                continue
            if annotation["category_id"] not in name_of:
                raise ValueError(
                    f"annotation {annotation.get('id')} has category {annotation['category_id']}, which is not listed"
                )
            annotations.setdefault(annotation.get("image_id"), []).append(annotation)
        images = [(image["id"], relative_name(image["file_name"]), _size(image)) for image in content["images"]]
        ids = frozenset(image_id for image_id, _, _ in images)
    path = PurePosixPath(name)
    stem = path.stem.removeprefix("instances_")
    split = stem if split_in(stem) else split_of_folders(name) or stem
    return _Content(
        file=name, split=split, images=images, ids=ids, annotations=annotations, name_of=name_of, crowds=crowds
    )


def read_json(data: bytes, name: str) -> Any:  # noqa: ANN401
    """Return the value of a JSON; DataError if it is damaged or nested too deeply."""
    try:
        return json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise DataError(name, f"is not JSON ({str(error)[:120]})", fix="correct or remove it") from error


def _size(image: dict[str, Any]) -> Size | None:
    """Return width and height of an image's entry; None if it has none."""
    width, height = float(image.get("width") or 0), float(image.get("height") or 0)
    return (width, height) if width > 0 and height > 0 else None


def _without_unions(contents: Sequence[_Content], report: ConversionReport) -> list[_Content]:
    """Skip `trainval` if `train` and `val` exist too: it would add the validation images to the training split."""
    splits = {content.split for content in contents}
    halves = {split: {split.replace("trainval", half) for half in ("train", "val")} for split in splits}
    kept = [part for part in contents if "trainval" not in part.split or not halves[part.split] <= splits]
    report["files of train and val together skipped"] += len(contents) - len(kept)
    return kept


def _merged_classes(contents: Sequence[_Content], report: ConversionReport) -> tuple[str, ...]:
    """Return the names of all categories, each once, in the order of ids; for equal ids in the order of files."""
    first_id: dict[str, int] = {}
    for content in contents:
        for category_id, name in content.name_of.items():
            first_id[name] = min(int(category_id), first_id.get(name, int(category_id)))
        report["categories of equal names merged"] += len(content.name_of) - len(set(content.name_of.values()))
        report["crowds skipped"] += content.crowds
    return tuple(sorted(first_id, key=first_id.__getitem__))


def _below_images(name: str) -> str:
    """Return an image's name without folders `images`: `labels` replaces the last `images` of a path."""
    *folders, last = name.split("/")
    return "/".join((*(folder for folder in folders if folder != "images"), last))


def _categories(content: dict[str, Any]) -> dict[Any, str]:
    """Return names by id, in the order of ids; ValueError for two names of an id, or one that cannot be encoded."""
    name_of: dict[Any, str] = {}
    for category in content["categories"]:
        category_id, name = category["id"], str(category["name"])
        name.encode()
        if name_of.setdefault(category_id, name) != name:
            raise ValueError(f"categories {name_of[category_id]!r} and {name!r} have the same id ({category_id})")
    return dict(sorted(name_of.items(), key=lambda category: int(category[0])))


def _labels(
    files: Files,
    content: _Content,
    image_id: Any,  # noqa: ANN401
    file: str,
    size_wh: Size | None,
    polygons: bool,
    report: ConversionReport,
) -> tuple[list[Label], Size | None]:
    """Return the labels of one image, and its size: as stated, or else that of the file."""
    annotations = content.annotations.get(image_id, ())
    size_wh = size_wh or (image_size(files, file) if file else None)
    if not annotations or size_wh is None:
        if annotations:
            report["objects of images without a size skipped"] += len(annotations)
        return [], size_wh
    objects = Objects(size_wh, report, polygons=polygons)
    for annotation in annotations:
        name, box = content.name_of[annotation["category_id"]], annotation.get("bbox")
        rings = _rings(annotation.get("segmentation")) if polygons or not box else []
        if rings and polygons:
            objects.add_polygon(name, join_rings(rings))
        elif box or rings:
            left, top, width, height = box or _bounds(rings)
            left, top = float(left), float(top)
            objects.add_box(name, (left, top, left + float(width), top + float(height)))
        else:
            report["annotations without a box skipped"] += 1
    return objects.labels, size_wh


def _rings(segmentation: Any) -> list[np.ndarray]:  # noqa: ANN401
    """Return the (k, 2) points in pixels of each part of an outline; none if it is run-length encoded or empty."""
    if not isinstance(segmentation, list):
        return []
    if segmentation and isinstance(segmentation[0], (int, float)):
        segmentation = [segmentation]
    valid = [part for part in segmentation if isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0]
    return [np.array(part, np.float64).reshape(-1, 2) for part in valid]


def _bounds(rings: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    points = np.concatenate(rings)
    (left, top), (right, bottom) = points.min(0), points.max(0)
    return float(left), float(top), float(right - left), float(bottom - top)


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Join (k, 2) rings into one, by bridges traversed in both directions, which enclose no area.

    The bridges are the shortest between what is joined and the nearest ring that is not; among very many points they
    lead from each ring's first point to the next ring's instead, which takes linear time.
    """
    count = sum(len(ring) for ring in rings)
    if len(rings) * count**2 > MAX_RING_DISTANCES:
        walk = np.concatenate([np.concatenate((ring, ring[:1])) for ring in rings])
        return np.concatenate((walk, *[ring[:1] for ring in reversed(rings[:-1])]))
    joined, *rest = rings
    while rest:
        distances = [((joined[:, None] - ring[None]) ** 2).sum(2) for ring in rest]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        start, end = (int(v) for v in np.unravel_index(distances[nearest].argmin(), distances[nearest].shape))
        ring = rest.pop(nearest)
        joined = np.concatenate((joined[: start + 1], ring[end:], ring[: end + 1], joined[start:]))
    return joined


def convert_coco(
    files: Files,
    *,
    polygons: bool = False,
    labels_only: bool = False,
    report: ConversionReport | None = None,
    names: list[str] | None = None,
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set: `images/SPLIT` and `labels/SPLIT` for what `read_coco` reads.

    Class ids number the categories in the order of their ids, so that COCO's ids 1 to 90 with gaps become 0 to 79.
    `names` is filled with the class names in order.

    Raises:
        DataError: there are no annotations, they cannot be read, or the image that they name is ambiguous.
    """
    report = ConversionReport() if report is None else report
    source = Source(files)
    if not find_coco(source):
        raise DataError("coco", "has no JSON with images, annotations and categories", fix="pass the folder with it")
    found = read_coco(source, polygons=polygons, with_images=not labels_only)
    if names is not None:
        names[:] = found.names
    report.update(found.report)
    report["objects"] = 0
    class_ids = {name: class_id for class_id, name in enumerate(found.names)}
    yield from converted(
        files,
        found,
        class_ids,
        lambda image: f"{image.split}/{image.target}",
        labels_only=labels_only,
        report=report,
        missing="images without a file skipped",
    )

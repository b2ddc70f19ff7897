"""YOLO's txt: one label file per image, in any arrangement of folders, lists and a data yaml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from utils.datasets.config import SPLITS
from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Label
from utils.datasets.convert.class_names import class_name, data_yaml, find_class_names
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import Source, relative_name, split_in, split_of_folders
from utils.datasets.labels import MAX_LABEL_BYTES, label_rows
from utils.errors import DataError
from utils.files import decode_text
from utils.log import LOGGER


def find_yolo(source: Source) -> list[str]:
    """Return the names of the label files that belong to images and hold rows."""
    return [name for name in label_files(source).values() if source.txt_kind(name) == "yolo"]


def label_files(source: Source) -> dict[str, str]:
    """Return the label file of each image that has one: in `labels` in place of `images`, beside it, or of its name.

    The last kind is a txt of the same name anywhere, if only one txt and one image have this name.
    """
    found: dict[str, str] = {}
    lower = {name.lower(): name for name in source.with_suffix("txt")}
    by_stem: dict[str, list[str]] = {}
    for name in lower.values():
        by_stem.setdefault(PurePosixPath(name).stem.lower(), []).append(name)
    stems = [PurePosixPath(image).stem.lower() for image in source.images]
    count_of = Counter(stems)
    for image, stem in zip(source.images, stems, strict=True):
        path = PurePosixPath(image).with_suffix(".txt")
        folders = [*path.parts[:-1]]
        at = [
            index for index, folder in enumerate(folders) if folder.lower() in ("images", "image", "imgs", "jpegimages")
        ]
        in_labels = "/".join((*folders[: at[-1]], "labels", *folders[at[-1] + 1 :], path.name)) if at else ""
        name = lower.get(in_labels.lower()) or lower.get(path.as_posix().lower()) or ""
        if not name and len(by_stem.get(stem, ())) == 1 and count_of[stem] == 1:
            name = by_stem[stem][0]
        if name:
            found[image] = name
    return found


def read_yolo(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read label files; boxes and polygons stay as they are.

    The splits are those of a data yaml, of lists such as train.txt or those that `obj.data` names, or of folders. An
    image without a label file has no objects. A broken row is counted and stays in `AnnotatedImage.text`.

    Raises:
        ConfigError: the data yaml is invalid.
        DataError: a class id has no name, or a label file is too large.
    """
    del polygons
    names, names_from = find_class_names(source)
    found = AnnotatedSet(images=[], names=names, names_from=names_from, names_fixed=True)
    labels = label_files(source)
    largest = -1
    split_of = _splits(source)
    for image in source.track(source.images, "Reading"):
        if split_of is not None and image not in split_of:
            found.report["images outside the splits of the data yaml or lists skipped"] += 1
            continue
        split = split_of[image] if split_of is not None else split_of_folders(image)
        file = labels.get(image, "")
        rows, text, class_ids = _rows(source, file, names, found) if file else ([], None, -1)
        largest = max(largest, class_ids)
        found.report["images without a label file"] += not file
        found.images.append(AnnotatedImage(file=image, source=file, labels=rows, split=split, text=text))
    if not names:
        found.names, found.names_from = tuple(f"class{i}" for i in range(largest + 1)), "class ids, there are no names"
    return found


def _rows(source: Source, name: str, names: tuple[str, ...], found: AnnotatedSet) -> tuple[list[Label], bytes, int]:
    """Return the labels in a file, its content, and the largest class id (-1 if it has none)."""
    data = source.files[name]()
    if len(data) > MAX_LABEL_BYTES:
        raise DataError(name, f"is too large for a label file ({len(data)} bytes)", fix="remove it")
    labels: list[Label] = []
    largest = -1
    try:
        text = decode_text(data)
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    for row in label_rows(text):
        if row.problem:
            found.report["rows that are broken (`--check` lists them)"] += 1
            continue
        class_id = int(row.values[0])
        labels.append(Label(class_name(names, class_id, f"{name}:{row.line}"), row.values[1:]))
        largest = max(largest, class_id)
    found.report["objects"] += len(labels)
    return labels, data, largest


def _splits(source: Source) -> dict[str, str] | None:
    """Return the split of each image that a data yaml or lists name; None if there are none, so that folders decide."""
    entries = _entries_of_yaml(source) or _entries_of_lists(source)
    split_of: dict[str, str] = {}
    by_folder: dict[str, list[str]] = {}
    for image in source.images:
        for parent in PurePosixPath(image).parents:
            by_folder.setdefault(parent.as_posix(), []).append(image)
    for split, texts in entries.items():
        for text in texts:
            images = _images_of(source, text, by_folder)
            if not images:
                LOGGER.warning(f"no images are found for {split!r} ({text})")
            for image in images:
                split_of.setdefault(image, split)
    return split_of or None


def _entries_of_yaml(source: Source) -> dict[str, list[str]]:
    """Return the paths of each split in the outermost data yaml."""
    names = sorted(source.with_suffix("yaml", "yml"), key=lambda name: (name.count("/"), name))
    found = {name: content for name in names if (content := data_yaml(source, name))}
    if len(found) > 1:
        LOGGER.warning(f"there are {len(found)} data yamls ({', '.join([*found][:3])}); the first is used")
    for content in found.values():
        entries = {split: content.get(split) for split in SPLITS}
        entries["val"] = entries["val"] or content.get("valid")
        return {split: _texts(value) for split, value in entries.items() if value}
    return {}


def _texts(value: Any) -> list[str]:  # noqa: ANN401
    return [str(item) for item in (value if isinstance(value, list) else [value])]


def _entries_of_lists(source: Source) -> dict[str, list[str]]:
    """Return the list files of each split, by the names in darknet's `obj.data` or by their own names."""
    lists = [name for name in source.with_suffix("txt") if source.txt_kind(name) == "list"]
    lists = [name for name in lists if PurePosixPath(name).parent.name.lower() not in ("main", "imagesets")]
    entries: dict[str, list[str]] = {}
    for name in lists:
        if split := split_in(PurePosixPath(name).stem):
            entries.setdefault(split, []).append(name)
    for name in source.with_suffix("data"):
        for line in source.text(name).splitlines():
            key, _, value = (part.strip() for part in line.partition("="))
            if split_in(key) and value:
                matching = [file for file in lists if PurePosixPath(file).name == PurePosixPath(value).name]
                entries = {split: [file for file in files if file not in matching] for split, files in entries.items()}
                entries.setdefault(split_in(key), []).extend(matching)
    return entries


def _images_of(source: Source, text: str, by_folder: Mapping[str, list[str]]) -> list[str]:
    """Return the images that an entry names: a folder, a glob's folder, a list, or one image, wherever its path leads.

    The longest end of the path that exists counts, so that `../train/images` and absolute paths of another machine
    are found.
    """
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..") and ":" not in part]
    while parts and any(character in parts[-1] for character in "*?"):
        parts.pop()
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        if end in by_folder:
            return by_folder[end]
        if end in source.files:
            if not end.lower().endswith(".txt"):
                return [end]
            try:
                lines = [relative_name(line.strip()) for line in source.text(end).splitlines() if line.strip()]
            except ValueError as error:
                raise DataError(end, f"has an invalid line ({error})", fix="correct it") from error
            return [*ImageFiles(source.images).match(lines, annotations=end, split=split_in(end)).values()]
    return by_folder.get(".", []) if not parts else []

"""Writes annotated images as a YOLO data set: a new folder that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from utils.datasets.config import SPLITS
from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet
from utils.datasets.convert.layout import ConversionReport, FileEntry, Files, data_yaml_text, label_text
from utils.errors import DataError
from utils.folders import FileLink

MAX_NAME_BYTES = 240  # of a file name, below the 255 that file systems allow


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is written: each image once, and one data yaml, or one for each fold."""

    folder: Path  # of the source, against which `AnnotatedImage.file` is relative
    images: Sequence[AnnotatedImage]
    names: tuple[str, ...]  # class names by class id
    same_ids: bool  # class ids are those of `AnnotatedImage.text`, which is then written as it is
    splits: Sequence[str]  # of each image
    folds: Sequence[int] = ()  # of each image; -1 for one that is in no fold, such as those of the test split
    link: str = "hard"  # how images are written, as in `FileLink`
    lists: bool = False  # write the splits as lists of images in one folder instead of as folders

    @property
    def uses_lists(self) -> bool:
        """Whether splits are lists."""
        return self.lists or bool(len(self.folds))


def entries(
    output: Output, progress: Callable[[Sequence[int]], Iterator[int]]
) -> Iterator[tuple[str, bytes | FileLink]]:
    """Yield the files of a data set, by names relative to its folder.

    Images are `images/SPLIT/NAME`, or `images/NAME` if the splits are lists; the labels lie in `labels` likewise.
    Images of equal names get numbers, also if the names differ in suffix or case only.

    Args:
        output: what to write.
        progress: wraps the indices of the images, to show a progress bar.
    """
    class_ids = {name: class_id for class_id, name in enumerate(output.names)}
    targets = target_names(output)
    for index in progress(range(len(output.images))):
        image, target = output.images[index], targets[index]
        yield f"images/{target}", FileLink(output.folder / image.file, output.link)
        label = PurePosixPath("labels", target).with_suffix(".txt").as_posix()
        if image.text is not None and output.same_ids:
            yield label, image.text
        elif image.source:
            yield label, label_text([(class_ids[name], values) for name, values in image.labels])
    yield from _data_yamls(output, targets)


def converted(
    files: Files,
    found: AnnotatedSet,
    class_ids: Mapping[str, int],
    target_of: Callable[[AnnotatedImage], str],
    *,
    labels_only: bool,
    report: ConversionReport,
    missing: str,
) -> Iterator[FileEntry]:
    """Yield names and contents of images and labels at the place below `images` and `labels` that `target_of` returns.

    What is written and skipped is counted in `report`, images without a file as `missing`. Objects of classes
    that have no id are skipped.

    Raises:
        DataError: images have the same label file, for example if the names differ in the suffix only.
    """
    image_of: dict[str, str] = {}  # by label file
    for image in found.images:
        if not image.file and not labels_only:
            report[missing] += 1
            continue
        for name, _ in image.labels:
            if name not in class_ids:
                report[f"objects of class {name[:40]!r} skipped"] += 1
        rows = [(class_ids[name], values) for name, values in image.labels if name in class_ids]
        report["images"] += 1
        report["objects"] += len(rows)
        target = target_of(image)
        label_file = str(PurePosixPath("labels", target).with_suffix(".txt"))
        file = image.file or image.target or image.source
        if label_file in image_of:
            what = f"{file!r} would overwrite the labels of {image_of[label_file]!r} ({label_file})"
            raise DataError(image.source, what, fix="rename one of the images, or name it once")
        image_of[label_file] = file
        if not labels_only:
            yield f"images/{target}", files[image.file]()
        yield label_file, label_text(rows)


def target_names(output: Output) -> list[str]:
    """Return the names of all images below `images`, whose label files differ in more than case."""
    seen: dict[str, int] = {}
    result = []
    for image, split in zip(output.images, output.splits, strict=True):
        name = PurePosixPath(image.file).name.replace("\n", "_").replace("\r", "_")
        stem, suffix = os.path.splitext(name)
        stem = os.fsencode(stem)[: MAX_NAME_BYTES - len(suffix)].decode("utf-8", "ignore") if len(name) > 60 else stem
        folder = "" if output.uses_lists else f"{split}/"
        unique = stem
        while (key := f"{folder}{unique}".lower()) in seen:
            seen[f"{folder}{stem}".lower()] = number = seen.get(f"{folder}{stem}".lower(), 1) + 1
            unique = f"{stem}-{number}"
        seen[key] = 1
        result.append(f"{folder}{unique}{suffix}")
    return result


def _data_yamls(output: Output, targets: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the data yamls, and before them the lists that they name."""
    used = [split for split in SPLITS if split in set(output.splits)]
    if not output.uses_lists:
        yield "data.yaml", data_yaml_text({split: f"images/{split}" for split in used}, output.names)
        return
    members: dict[str, list[str]] = {split: [] for split in used}
    for target, split in zip(targets, output.splits, strict=True):
        members[split].append(target)
    if not len(output.folds):
        for split, names in members.items():
            yield f"{split}.txt", _list(names)
        yield "data.yaml", data_yaml_text({split: f"{split}.txt" for split in used}, output.names)
        return
    test: Mapping[str, str] = {"test": "test.txt"} if members.get("test") else {}
    if test:
        yield "test.txt", _list(members["test"])
    for fold in range(max(output.folds) + 1):
        pairs = list(zip(targets, output.folds, strict=True))
        yield f"fold{fold}_train.txt", _list([target for target, other in pairs if other not in (fold, -1)])
        yield f"fold{fold}_val.txt", _list([target for target, other in pairs if other == fold])
        splits = {"train": f"fold{fold}_train.txt", "val": f"fold{fold}_val.txt", **test}
        yield f"data_fold{fold}.yaml", data_yaml_text(splits, output.names)


def _list(targets: Sequence[str]) -> bytes:
    return b"".join(os.fsencode(f"./images/{target}\n") for target in targets)

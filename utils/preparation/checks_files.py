"""Checks of files: images that are damaged, odd, unlabelled or not read, and label files without an image."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from utils.datasets.config import DataConfig
from utils.datasets.images import UNREAD_SUFFIXES, has_suffix
from utils.datasets.labels import label_path
from utils.preparation.checks_boxes import marks_of
from utils.preparation.findings import MAX_LISTED, Example, Finding, found, joined
from utils.preparation.kinds import REMARKS
from utils.preparation.survey import SplitSurvey

MOST = 0.5  # fraction of a split that is too much to lose
LOST = ("image-missing", "image-damaged", "image-tiny", "label-unreadable")  # remarks by which images are left out
NOT_LABELS = frozenset("classes.txt obj.names train.txt val.txt valid.txt test.txt readme.txt license.txt".split())


def check_remarks(splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Report what the survey remarked about images and label files, by kind."""
    findings = []
    for kind, about in REMARKS.items():
        remarked = {split.name: split.remarks.get(kind, []) for split in splits}
        examples = [
            Example(
                path=split.paths[index],
                words=words,
                split=split.name,
                marks=marks_of(split, index, names),
                drawn=bool(split.decoded[index]),
            )
            for split in splits
            for index, words in remarked[split.name][:MAX_LISTED]
        ]
        loses = kind in LOST and any(len(remarked[split.name]) > MOST * len(split.paths) for split in splits)
        modes = Counter(words for remarks in remarked.values() for _, words in remarks) if kind == "image-mode" else {}
        counts = "; ".join(f"{count} {words}" for words, count in modes.items())
        findings += found(
            kind,
            examples,
            words=f"{counts}. {about.words}" if counts else "",
            severity="spoils" if loses else None,
            count=sum(map(len, remarked.values())),
            details=dict(modes),
        )
    return findings


def check_missing_labels(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report images without a label file, and splits without any object."""
    without = {split.name: np.flatnonzero(~split.has_label & split.decoded).tolist() for split in splits}
    most = any(len(without[split.name]) > MOST * len(split.paths) for split in splits if split.name != "test")
    parts = [f"{s.name}: {len(without[s.name])} of {len(s.paths)}" for s in splits if without[s.name]]
    empty = [split.name for split in splits if not len(split.rows)]
    return [
        *found(
            "images-without-labels",
            [
                Example(path=split.paths[i], words=f"{label_path(split.paths[i])} does not exist", split=split.name)
                for split in splits
                for i in without[split.name][:MAX_LISTED]
            ],
            words=f"{'; '.join(parts)}. They count as images without objects, and are learned as background.",
            severity="spoils" if most else None,
            count=sum(map(len, without.values())),
        ),
        *found(
            "split-without-objects",
            [Example(words=name, split=name) for name in empty],
            words=f"{joined(empty)}: no label row in any file; every metric there is 0.",
            severity="warning" if empty == ["test"] else None,  # the labels of a test split may be secret
        ),
    ]


def check_stray_files(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report label files without an image, and files beside the images that are not read as images."""
    images = {os.path.abspath(path) for split in splits for path in split.paths}
    expected = {os.path.abspath(label_path(path)) for path in images}
    label_folders = {os.path.dirname(path) for path in expected}
    image_folders = {os.path.dirname(path) for path in images}
    orphans = [
        path
        for path in _entries(label_folders)
        if path.endswith(".txt") and path not in expected and os.path.basename(path).lower() not in NOT_LABELS
    ]
    orphans = list(filter(os.path.isfile, orphans))
    if label_folders & image_folders:  # labels beside images: other txt files may lie there
        orphans = list(filter(_begins_with_numbers, orphans))
    hidden: list[str] = []
    shown: list[str] = []
    for path in _entries(image_folders):
        (hidden if os.path.basename(path).startswith(".") else shown).append(path)
    stray = {
        "labels-without-image": orphans,
        "images-unread": [path for path in shown if has_suffix(path, UNREAD_SUFFIXES) and os.path.isfile(path)],
        "files-hidden": hidden,
    }
    folder = config.file.resolve().parent
    findings = []
    for kind, paths in stray.items():
        findings += found(kind, [Example(path=p, words=os.path.relpath(p, folder), drawn=False) for p in paths])
    return findings


def _entries(folders: Collection[str]) -> list[str]:
    """Return the sorted paths of the files and folders in folders, not below them."""
    paths: list[str] = []
    for folder in folders:
        with contextlib.suppress(OSError):  # there is no folder of labels, or none of the images of a list
            paths += [os.path.join(folder, name) for name in os.listdir(folder)]
    return sorted(paths)


def _begins_with_numbers(path: str) -> bool:
    """Return whether a txt file begins with a row of at least five numbers."""
    try:
        with Path(path).open("rb") as file:
            fields = file.readline(400).split()
    except OSError:
        return False
    return len(fields) >= 5 and all(field.replace(b".", b"").replace(b"-", b"").isalnum() for field in fields[:5])

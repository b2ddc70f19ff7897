"""Checks of files: images that are damaged, odd, unlabelled or not read, and label files without an image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.datasets.config import DataConfig
from utils.datasets.images import IMAGE_SUFFIXES, has_suffix
from utils.datasets.labels import label_path
from utils.preparation.checks_boxes import marks_of
from utils.preparation.findings import MAX_LISTED, Example, Finding, Severity, joined
from utils.preparation.survey import SplitSurvey

MOST = 0.5  # fraction of a split that is too much to lose
UNREAD_SUFFIXES = frozenset("heic heif jfif jp2 j2k jpx avif gif ppm pgm pbm jxl tga svg ico psd cr2 nef arw".split())
NOT_LABELS = frozenset("classes.txt obj.names train.txt val.txt valid.txt test.txt readme.txt license.txt".split())


@dataclass(frozen=True)
class RemarkKind:
    """How remarks of one kind are reported."""

    title: str
    severity: Severity
    words: str
    fix: str


REMARKS = {
    "image-missing": RemarkKind(
        "Listed images that do not exist", "warning", "Training leaves them out.", "correct the list"
    ),
    "image-damaged": RemarkKind(
        "Damaged images", "warning", "They cannot be decoded; training leaves them out.", "replace them"
    ),
    "image-tiny": RemarkKind(
        "Images of a few pixels", "warning", "Training leaves out images below 10 pixels.", "remove them"
    ),
    "image-extreme-aspect": RemarkKind(
        "Images of extreme aspect ratio",
        "warning",
        "Scaled to the network's square input, their shorter side keeps few pixels.",
        "cut them into tiles",
    ),
    "image-exif-rotated": RemarkKind(
        "Images rotated by EXIF",
        "note",
        "They are read upright. Boxes that were drawn in a program that ignores EXIF lie elsewhere: see the examples.",
        "compare the drawn boxes with the objects",
    ),
    "image-mode": RemarkKind(
        "Images that are not 8-bit RGB",
        "note",
        "Grey and palette images become RGB, deeper ones lose bits, transparency is put on black.",
        "convert them if that loses what matters",
    ),
    "image-animated": RemarkKind(
        "Images of several frames", "warning", "Only the first frame is read.", "save the frames as images"
    ),
    "image-wrong-suffix": RemarkKind(
        "Images whose suffix is not that of their format",
        "note",
        "They are read by content here; other programs may refuse them.",
        "rename them",
    ),
    "label-unreadable": RemarkKind(
        "Label files with lines that are no rows",
        "warning",
        "Training leaves out the whole image.",
        "write class cx cy w h in each line",
    ),
}


def check_remarks(splits: Sequence[SplitSurvey], names: Sequence[str]) -> list[Finding]:
    """Report what the survey remarked about images and label files, by kind."""
    findings = []
    for kind, about in REMARKS.items():
        concerned = [split for split in splits if split.remarks.get(kind)]
        if not concerned:
            continue
        examples = [
            Example(
                path=split.paths[index],
                words=words,
                split=split.name,
                marks=marks_of(split, index, names),
                drawn=bool(split.decoded[index]),
            )
            for split in concerned
            for index, words in split.remarks[kind][:MAX_LISTED]
        ]
        count = sum(len(split.remarks[kind]) for split in concerned)
        most = [s.name for s in concerned if len(s.remarks[kind]) > MOST * len(s.paths)]
        loses = about.severity == "warning" and kind.endswith(("missing", "damaged", "tiny", "unreadable"))
        modes = Counter(words for split in concerned for _, words in split.remarks[kind])
        details = dict(modes) if kind == "image-mode" else {}
        kinds = "; ".join(f"{count} {words}" for words, count in details.items())
        findings.append(
            Finding(
                kind=kind,
                severity="spoils" if most and loses else about.severity,
                title=about.title,
                words=f"{kinds}. {about.words}" if kinds else about.words,
                fix=about.fix,
                count=count,
                splits=tuple(split.name for split in concerned),
                examples=examples[:MAX_LISTED],
                details=details,
            )
        )
    return findings


def check_missing_labels(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report images without a label file, and splits without any object."""
    findings = []
    without = {split.name: np.flatnonzero(~split.has_label & split.decoded) for split in splits}
    concerned = [split for split in splits if len(without[split.name])]
    if concerned:
        most = [s.name for s in concerned if len(without[s.name]) > MOST * len(s.paths) and s.name != "test"]
        parts = [f"{split.name}: {len(without[split.name])} of {len(split.paths)}" for split in concerned]
        findings.append(
            Finding(
                kind="images-without-labels",
                severity="spoils" if most else "note",
                title="Images without a label file",
                words=f"{'; '.join(parts)}. They count as images without objects, and are learned as background.",
                fix="put their txt files where the first one is expected, or leave empty files to confirm",
                count=sum(map(len, without.values())),
                splits=tuple(split.name for split in concerned),
                examples=[
                    Example(path=split.paths[i], words=f"{label_path(split.paths[i])} does not exist", split=split.name)
                    for split in concerned
                    for i in without[split.name][:MAX_LISTED]
                ],
            )
        )
    empty = [split for split in splits if not len(split.rows)]
    if empty:
        names = tuple(split.name for split in empty)
        findings.append(
            Finding(
                kind="split-without-objects",
                severity="spoils" if names != ("test",) else "warning",  # the labels of a test split may be secret
                title="Splits without objects",
                words=f"{joined(names)}: no label row in any file; every metric there is 0.",
                fix="check where the label files are",
                count=len(empty),
                splits=names,
            )
        )
    return findings


def check_stray_files(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report label files without an image, and files beside the images that are not read as images."""
    images = {os.path.abspath(path) for split in splits for path in split.paths}
    expected = {os.path.abspath(label_path(path)) for path in images}
    label_folders = {os.path.dirname(path) for path in expected}
    image_folders = {os.path.dirname(path) for path in images}
    orphans = [
        path
        for path in _files_in(label_folders)
        if path.endswith(".txt") and path not in expected and os.path.basename(path).lower() not in NOT_LABELS
    ]
    if not any(folder in image_folders for folder in label_folders):
        beside = orphans
    else:  # labels beside images: other txt files may lie there
        beside = [path for path in orphans if _looks_like_labels(path)]
    unread, hidden = [], []
    for path in _files_in(image_folders):
        name = os.path.basename(path)
        if name.startswith("."):
            hidden.append(path)
        elif has_suffix(path, UNREAD_SUFFIXES - IMAGE_SUFFIXES) and path not in images:
            unread.append(path)
    hidden += [f for folder in image_folders for f in _hidden_folders(folder)]
    lists = (
        (
            *("labels-without-image", "Label files without an image", beside, "warning"),
            *(
                "Their objects are not in the set.",
                "add the images or remove the files; letter case counts",
            ),
        ),
        (
            *("images-unread", "Images of suffixes that are not read", unread, "warning"),
            *("They are not in the set.", "save them as .jpg or .png"),
        ),
        (
            *("files-hidden", "Hidden files and folders beside the images", hidden, "note"),
            *("Copies that macOS and Jupyter leave; some programs read them as images.", "remove them"),
        ),
    )
    return [
        Finding(
            kind=kind,
            severity=severity,  # type: ignore[arg-type]
            title=title,
            words=words,
            fix=fix,
            count=len(found),
            examples=[Example(path=p, words=_place(p, config), drawn=False) for p in sorted(found)[:MAX_LISTED]],
        )
        for kind, title, found, severity, words, fix in lists
        if found
    ]


def _place(path: str, config: DataConfig) -> str:
    """Return the path from the data yaml's folder."""
    return os.path.relpath(path, config.file.resolve().parent)


def _files_in(folders: Iterable[str]) -> list[str]:
    """Return the files that lie in folders, not below them."""
    files = []
    for folder in sorted(folders):
        try:
            with os.scandir(folder) as entries:
                files += [entry.path for entry in entries if entry.is_file()]
        except OSError:  # no labels folder
            continue
    return files


def _hidden_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_dir() and entry.name.startswith(".")]


def _looks_like_labels(path: str) -> bool:
    """Return whether a txt file begins with a row of at least five numbers."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY), "rb") as file:
            fields = file.readline(400).split()
        return len(fields) >= 5 and all(field.replace(b".", b"").replace(b"-", b"").isalnum() for field in fields[:5])
    except OSError:
        return False

"""What a comparison says about itself: its heading, and whether a model has seen the validation images before."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from utils.comparison.candidates import Candidate
from utils.comparison.initial_weights import initial_weights
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import open_data
from utils.errors import DataError, DetectorError
from utils.options import CompareOptions

SPLITS = {"val": "validation", "test": "test"}
# What a reader wants to know of the training of finished weights: option -> how it is said.
TOLD = {"imgsz": "{} px", "epochs": "{} epochs", "batch_size": "batch {}", "optimizer": "{}"}


def require_objects(val: DatasetIndex, *, data_file: Path, split: str) -> None:
    """Check before anything is trained that the set to judge on has something to judge by.

    Raises:
        DataError: all its label files are empty.
    """
    if not len(val.labels):
        raise DataError(
            data_file,
            f"'{split}' has no objects to judge by, all labels of its {len(val)} images being empty",
            fix=f"label them, or name another split in the line `{split}`",
        )


def heading(
    options: CompareOptions,
    val: DatasetIndex,
    candidates: Sequence[Candidate],
    *,
    device: torch.device,
    judged_at: Collection[int] = (),
) -> str:
    """Say in a sentence or two what was done.

    Args:
        options: of compare.py.
        val: the validation set.
        candidates: of the comparison.
        device: where the models were judged.
        judged_at: image sides in pixels, if --imgsz asked for them in place of the finished weights' own.
    """
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    told = [f"{options.data}: {len(val)} {SPLITS[options.task]} images with {len(val.labels)} objects, on {gpu}."]
    if options.cfg:
        told.append(
            f"Trained alike from scratch: {options.imgsz} px, {options.epochs} epochs, batch {options.batch_size}, "
            f"{options.optimizer}, {', '.join(options.hyp)}, seeds {', '.join(map(str, options.all_seeds))}, the same "
            "data order and augmentation for all."
        )
    finished = [candidate.options for candidate in candidates if candidate.options]
    shared = [
        form.format(finished[0][key])
        for key, form in TOLD.items()
        if finished and len({str(stored.get(key)) for stored in finished}) == 1 and key in finished[0]
    ]
    if shared:
        told.append(f"The finished weights were trained with {', '.join(shared)}.")
    started = initial_weights(candidates)
    if started:
        told.append(started)
    if judged_at:
        told.append(f"All were judged at {' and '.join(map(str, sorted(set(judged_at))))} px, as --imgsz says.")
    return " ".join(told)


def overlaps(data_name: str, val: DatasetIndex, candidates: Sequence[Candidate]) -> list[str]:
    """Return warnings about validation images that a model was trained on.

    Args:
        data_name: data yaml of the comparison, on which its own runs were trained.
        val: its validation set.
        candidates: of the comparison.
    """
    trained_on = {data_name} if any(candidate.cfg for candidate in candidates) else set()
    trained_on |= {candidate.data for candidate in candidates if candidate.data}
    warnings, seen = [], set()
    for name in sorted(trained_on):
        try:
            data = open_data(name)
            train = build_index(data, "train")
        except DetectorError as error:
            warnings.append(f"Whether images judged on were trained on is not known for {name} ({error.what}).")
            continue
        found = overlapping_images(train, val) if data.file not in seen else []
        seen.add(data.file)
        if found:
            warnings.append(overlap_warning(found, images=len(val), trained_on=name))
    unknown = [candidate.label for candidate in candidates if not candidate.cfg and not candidate.data]
    if unknown:
        warnings.append(f"What {', '.join(unknown)} was trained on is not known; it may have seen these images.")
    return warnings


def selected_on_eval_split(data_name: str, judged: DatasetIndex, candidates: Sequence[Candidate]) -> list[str]:
    """Return warnings about images of a test split on which a model's best epoch was chosen.

    Args:
        data_name: data yaml of the comparison, on which its own runs were trained.
        judged: its test split.
        candidates: of the comparison.
    """
    names = {candidate.data or data_name for candidate in candidates if candidate.data or candidate.cfg}
    warnings, seen = [], set()
    for name in sorted(names):
        try:
            data = open_data(name)
            found = overlapping_images(build_index(data, "val"), judged) if data.file not in seen else []
        except DetectorError:  # `overlaps` says so
            continue
        seen.add(data.file)
        if found:
            warnings.append(
                f"{len(found)} of {len(judged)} images judged on are also validation images of {name} (the first: "
                f"{Path(found[0]).name}), on which best.pt was chosen: this is not the last word."
            )
    return warnings


def overlapping_images(train: DatasetIndex, val: DatasetIndex) -> list[str]:
    """Return the validation images whose file is, byte for byte, also among the training images."""
    by_size: dict[int, list[str]] = {}
    for path in map(str, train.paths):
        by_size.setdefault(_bytes_of(path), []).append(path)
    hashes: dict[int, set[bytes]] = {}
    found = []
    for path in map(str, val.paths):
        size = _bytes_of(path)
        if size not in by_size:
            continue
        if size not in hashes:
            hashes[size] = {hashlib.sha256(Path(other).read_bytes()).digest() for other in by_size[size]}
        if hashlib.sha256(Path(path).read_bytes()).digest() in hashes[size]:
            found.append(path)
    return found


def _bytes_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def overlap_warning(found: Sequence[str], *, images: int, trained_on: str) -> str:
    """Say that a model has seen validation images in training."""
    name = Path(found[0]).name
    return (
        f"{len(found)} of {images} images judged on are also training images of {trained_on} (the first: "
        f"{name}): figures on them are no test."
    )

"""Checks of images between splits and within them: shared files, identical and near-identical images, sizes."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np

from utils.preparation.findings import MAX_LISTED, Example, Finding
from utils.preparation.survey import SplitSurvey

SIZE_RATIO = 1.5  # of the median sides of the images of two splits


def check_shared_files(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report splits of the same image files."""
    findings = []
    files = {split.name: {os.path.realpath(path) for path in split.paths} for split in splits}
    for first, second in itertools.combinations(files, 2):
        shared = files[first] & files[second]
        if shared:
            equal = files[first] == files[second]
            trained = first == "train"
            findings.append(
                Finding(
                    kind="splits-equal" if equal else "leak-same-file",
                    severity="spoils" if trained else "warning",
                    title=f"{second} is {first}" if equal else f"{first} and {second} name the same files",
                    words=f"{len(shared)} of the {len(files[second])} images of {second} are also in {first}."
                    + (" The metrics are measured on images the model was trained on." if trained else ""),
                    fix=f"give {second} images of its own",
                    count=len(shared),
                    splits=(first, second),
                    examples=[
                        Example(path=path, words=f"in {first} and {second}", split=second)
                        for path in sorted(shared)[: 6 if equal else MAX_LISTED]
                    ],
                )
            )
    return findings


def check_image_sizes(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report splits whose images or objects are of other sizes than train's."""
    trained = next((split for split in splits if split.name == "train" and split.decoded.any()), None)
    if trained is None:
        return []
    examples = []
    for split in splits:
        if split is trained or not split.decoded.any():
            continue
        here, there = (np.median(np.sqrt(s.sizes_hw[s.decoded].prod(1, dtype=float))) for s in (split, trained))
        if max(here / there, there / here) > SIZE_RATIO:
            text = f"{split.name}: images of {here:.0f}² pixels, train: {there:.0f}² (medians)"
            examples.append(Example(path="", words=text, split=split.name))
    if not examples:
        return []
    return [
        Finding(
            kind="image-sizes-differ",
            severity="warning",
            title="Images of other sizes than in train",
            words="Scaled to one size, their objects are larger or smaller than those that are learned.",
            fix="check whether the splits have the same origin",
            count=len(examples),
            splits=tuple(example.split for example in examples),
            examples=examples,
        )
    ]

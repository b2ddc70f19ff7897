"""Checks of images between splits and within them: shared files, identical and near-identical images, sizes."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.datasets.near_duplicates import DuplicatePair, compute_signatures, find_duplicates
from utils.preparation.findings import MAX_LISTED, Example, Finding, Severity
from utils.preparation.survey import SplitSurvey

NEAR_LEAK = 0.01  # fraction of a split: near duplicates of more of its images spoil the result
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


def check_duplicates(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report identical and near-identical images between splits and within each."""
    split_of: dict[str, tuple[SplitSurvey, int]] = {}  # by real path; an image of two splits is reported elsewhere
    paths = []
    for split in splits:
        for index in np.flatnonzero(split.decoded).tolist():
            real = os.path.realpath(split.paths[index])
            if real not in split_of:
                split_of[real] = split, index
                paths.append(real)
    pairs = find_duplicates(compute_signatures(paths, progress=True), progress=True)
    by_splits: dict[tuple[str, str, bool], list[DuplicatePair]] = {}
    order = [split.name for split in splits]
    for pair in pairs:
        first, second = sorted((split_of[paths[i]][0].name for i in (pair.first, pair.second)), key=order.index)
        by_splits.setdefault((first, second, pair.identical), []).append(pair)
    findings = []
    for (first, second, identical), found in sorted(by_splits.items()):
        if first != second:
            findings.append(_leak(first, second, identical, found, paths, split_of))
        else:
            findings.append(_within(first, identical, found, paths, split_of))
    return findings


def _leak(
    first: str,
    second: str,
    identical: bool,
    pairs: Sequence[DuplicatePair],
    paths: Sequence[str],
    split_of: dict[str, tuple[SplitSurvey, int]],
) -> Finding:
    """Return the finding of images that two splits share."""
    size = next(len(s.paths) for s, _ in split_of.values() if s.name == second)
    ordered = [
        (pair.first, pair.second) if split_of[paths[pair.first]][0].name == first else (pair.second, pair.first)
        for pair in pairs
    ]
    by_second: dict[int, int] = {}  # one example for each image of the second split
    for one, other in ordered:
        by_second.setdefault(other, one)
    times: Counter[int] = Counter()  # examples of an image come after those of others
    rank = {}
    for other, one in by_second.items():
        rank[other] = times[one]
        times[one] += 1
    shown = sorted(by_second, key=lambda other: rank[other])[:MAX_LISTED]
    how = "identical" if identical else "near-identical"
    spoils = first == "train" and (identical or len(by_second) > NEAR_LEAK * size)
    severity: Severity = "spoils" if spoils else "warning"
    return Finding(
        kind=f"leak-{how}",
        severity=severity,
        title=f"{how.capitalize()} images in {first} and {second}",
        words=f"{len(by_second)} of the {size} images of {second} have {'an' if identical else 'a'} {how} image in "
        f"{first}." + (" The metrics there are too high." if first == "train" else ""),
        fix=f"keep such images in one split: remove them from {second}, or split again",
        count=len(by_second),
        splits=(first, second),
        examples=[_pair_example(paths[by_second[other]], paths[other], split_of, identical) for other in shown],
    )


def _within(
    name: str,
    identical: bool,
    pairs: Sequence[DuplicatePair],
    paths: Sequence[str],
    split_of: dict[str, tuple[SplitSurvey, int]],
) -> Finding:
    """Return the finding of duplicates within a split."""
    how = "identical" if identical else "near-identical"
    copies: dict[int, int] = {}
    for pair in pairs:
        copies.setdefault(max(pair.first, pair.second), min(pair.first, pair.second))
    examples = [_pair_example(paths[one], paths[other], split_of, identical) for other, one in copies.items()]
    differ = sum("labels differ" in example.words for example in examples)
    conflict = f" The labels of {differ} pairs differ." if differ else ""
    examples.sort(key=lambda example: "labels differ" not in example.words)
    return Finding(
        kind=f"duplicates-{how}",
        severity="warning" if identical else "note",
        title=f"{how.capitalize()} images within {name}",
        words=f"{len(copies)} images of {name} have {'an' if identical else 'a'} {how} one before them; "
        f"they count more than others.{conflict}",
        fix="remove the copies" if identical else "",
        count=len(copies),
        splits=(name,),
        examples=examples[:MAX_LISTED],
        details={"labels_differ": differ},
    )


def _pair_example(one: str, other: str, split_of: dict[str, tuple[SplitSurvey, int]], identical: bool) -> Example:
    """Return an example of two images; identical ones whose labels differ are named."""
    (split, index), (other_split, other_index) = split_of[one], split_of[other]
    rows, other_rows = split.rows_of(index), other_split.rows_of(other_index)
    same = not identical or (
        rows.shape == other_rows.shape
        and bool(np.abs(rows[np.lexsort(rows.T)] - other_rows[np.lexsort(other_rows.T)]).max(initial=0) < 0.01)
    )
    words = f"{split.name}: {os.path.basename(split.paths[index])}, {other_split.name}: "
    words += os.path.basename(other_split.paths[other_index]) + ("" if same else ", labels differ")
    return Example(path=split.paths[index], other=other_split.paths[other_index], words=words, split=other_split.name)


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

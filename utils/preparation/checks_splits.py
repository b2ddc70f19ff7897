"""Checks of images between splits and within them: shared files, identical and near-identical images, sizes."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.datasets.near_duplicates import compute_signatures, find_duplicates
from utils.preparation.findings import Example, Finding, found
from utils.preparation.kinds import Severity
from utils.preparation.survey import SplitSurvey

NEAR_LEAK = 0.01  # fraction of a split: near duplicates of more of its images spoil the result
SIZE_RATIO = 1.5  # of the median sides of the images of two splits
ImageOfSplit = tuple[SplitSurvey, int]  # with the index of the image


def check_shared_files(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report splits of the same image files."""
    findings = []
    files = {split.name: {os.path.realpath(path) for path in split.paths} for split in splits}
    for first, second in itertools.combinations(files, 2):
        shared, equal = sorted(files[first] & files[second]), files[first] == files[second]
        words = f"{len(shared)} of the {len(files[second])} images of {second} are also in {first}."
        findings += found(
            "splits-equal" if equal else "leak-same-file",
            [Example(path=path, words=f"in {first} and {second}", split=second) for path in shared],
            words=words + " The metrics are measured on images the model was trained on." * (first == "train"),
            severity="spoils" if first == "train" else None,
            splits=(first, second),
        )
    return findings


def check_duplicates(splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report identical and near-identical images between splits and within each."""
    images: dict[str, ImageOfSplit] = {}  # by real path; an image of two splits is reported elsewhere
    for split in splits:
        for index in np.flatnonzero(split.decoded).tolist():
            images.setdefault(os.path.realpath(split.paths[index]), (split, index))
    places = list(images.values())
    pairs = find_duplicates(compute_signatures(list(images)))
    by_splits: dict[tuple[str, str, bool], list[tuple[ImageOfSplit, ImageOfSplit]]] = {}
    for pair in pairs:
        first, second = places[pair.first], places[pair.second]  # in the order of the splits
        by_splits.setdefault((first[0].name, second[0].name, pair.identical), []).append((first, second))
    return [finding for key, found_pairs in sorted(by_splits.items()) for finding in _pairs_finding(key, found_pairs)]


def _pairs_finding(key: tuple[str, str, bool], pairs: Sequence[tuple[ImageOfSplit, ImageOfSplit]]) -> list[Finding]:
    """Return the finding of images of the second split that the first has too, or of copies within one split."""
    first, second, identical = key
    size = len(pairs[0][1][0].paths)
    copies: dict[int, ImageOfSplit] = {}  # one example for each image of the second split
    for one, (_, index) in pairs:
        copies.setdefault(index, one)
    times: Counter[tuple[str, int]] = Counter()
    ranked = []  # labels that differ first; examples of an image come after those of others
    for index, (split, original) in copies.items():
        example = _pair_example((split, original), (pairs[0][1][0], index), identical)
        ranked.append(("labels differ" not in example.words, times[split.name, original], example))
        times[split.name, original] += 1
    examples = [example for *_, example in sorted(ranked, key=lambda item: item[:2])]
    kind = "identical" if identical else "near-identical"
    how = f"{'an' if identical else 'a'} {kind}"
    if first != second:
        spoils = first == "train" and (identical or len(copies) > NEAR_LEAK * size)
        words = f"{len(copies)} of the {size} images of {second} have {how} image in {first}."
        words += " The metrics there are too high." * (first == "train")
        severity: Severity | None = "spoils" if spoils else None
        return found(f"leak-{kind}", examples, words=words, severity=severity, splits=(first, second))
    differ = sum("labels differ" in example.words for example in examples)
    words = f"{len(copies)} images of {first} have {how} one before them; they count more than others."
    words += f" The labels of {differ} pairs differ." if differ else ""
    return found(f"duplicates-{kind}", examples, words=words, details={"labels_differ": differ})


def _pair_example(one: ImageOfSplit, other: ImageOfSplit, identical: bool) -> Example:
    """Return an example of two images; identical ones whose labels differ are named."""
    (split, index), (other_split, other_index) = one, other
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
            examples.append(Example(words=text, split=split.name))
    return found("image-sizes-differ", examples)

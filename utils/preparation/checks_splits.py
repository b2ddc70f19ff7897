"""Checks of images between splits and within them: shared files, identical and near-identical images."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from utils.preparation.findings import MAX_LISTED, Example, Finding
from utils.preparation.survey import SplitSurvey


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

"""Checks of classes: ids without a name, classes that are rare, unused or unevenly split, and repeated names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.datasets.config import DataConfig
from utils.preparation.checks_boxes import marks_of
from utils.preparation.findings import MAX_LISTED, Example, Finding, found, joined
from utils.preparation.survey import SplitSurvey

MIN_OBJECTS = 10  # of a class in a split: below, its AP depends on single objects
MIN_DIFFERENCE = 0.15  # of class fractions between splits, half the sum of absolute differences


def check_classes(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report class ids beyond the names, rare and unused classes, and class fractions that differ between splits."""
    objects = class_counts(splits, config.num_classes)
    unused = [config.names[i] for i in np.flatnonzero(objects.sum(0) == 0)] if any(len(s.rows) for s in splits) else []
    times = Counter(name.strip().lower() for name in config.names)
    repeated = [name for name, count in times.items() if count > 1]
    return [
        *_ids_beyond_names(config, splits),
        *_rare_classes(config.names, splits, objects),
        *found(
            "names-unused",
            [Example(words=name) for name in unused],
            words=f"{joined(unused)}: in names, but in no label file; left out of every mean.",
        ),
        *found(
            "names-repeated",
            [Example(words=name) for name in repeated],
            words=f"{joined(repeated)}: two ids have the same name, in the same or another letter case.",
        ),
        *_fractions(config.names, splits, objects),
    ]


def _ids_beyond_names(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report class ids that have no name."""
    count = config.num_classes
    ids = np.concatenate([split.rows[:, 0] for split in splits]).astype(int)
    beyond = {split.name: np.flatnonzero(split.rows[:, 0] >= count) for split in splits}
    lowest, highest = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    return found(
        "class-ids-from-one" if (lowest, highest) == (1, count) else "class-ids-out-of-range",
        [
            _row_example(split, row, config.names)
            for split in splits
            for row in beyond[split.name][:MAX_LISTED].tolist()
        ],
        words=f"{config.file.name} has {count} names, ids 0 to {count - 1}; the labels have ids {lowest} to {highest}. "
        "Training refuses such a set.",
        count=sum(map(len, beyond.values())),
        details={"ids": np.unique(ids[ids >= count])[:MAX_LISTED].tolist()},
    )


def class_counts(splits: Sequence[SplitSurvey], num_classes: int) -> np.ndarray:
    """Return (splits, classes) numbers of rows."""
    valid = [split.rows[split.rows[:, 0] < num_classes, 0].astype(int) for split in splits]
    return np.array([np.bincount(ids, minlength=num_classes) for ids in valid]).reshape(len(splits), num_classes)


def _row_example(split: SplitSurvey, row: int, names: Sequence[str]) -> Example:
    image = int(np.searchsorted(split.starts, row, "right")) - 1
    mark = marks_of(split, image, names)[row - split.starts[image]]
    words = f"line {split.lines[row]}: class {split.rows[row, 0]:.0f}"
    drawn = bool(split.decoded[image])
    return Example(path=split.paths[image], words=words, split=split.name, marks=(mark,), drawn=drawn)


def _rare_classes(names: Sequence[str], splits: Sequence[SplitSurvey], objects: np.ndarray) -> list[Finding]:
    """Report classes with too few objects in a split to evaluate or to learn."""
    rare: list[tuple[int, Example]] = []
    untrained: list[Example] = []
    for split, counts in zip(splits, objects, strict=True):
        if not counts.any():  # reported as a whole
            continue
        for class_id in np.flatnonzero((objects.sum(0) > 0) & (counts < MIN_OBJECTS)).tolist():
            count, name = int(counts[class_id]), names[class_id]
            if split.name == "train" and not count:
                text = f"{name}: {objects[:, class_id].sum()} objects elsewhere"
                untrained.append(Example(words=text, split="train"))
                continue
            if split.name == "train":
                text = f"train: {name}, {count} objects to learn from"
            elif count:
                text = f"{split.name}: {name}, {count} objects; one of them moves its recall by {1 / count:.0%}"
            else:
                text = f"{split.name}: {name}, no object; it cannot be evaluated and is left out of the mean"
            rare.append((count, Example(words=text, split=split.name)))
    words = f"Fewer than {MIN_OBJECTS} objects in a split: the AP of the class depends on single objects."
    examples = [example for _, example in sorted(rare, key=lambda item: item[0])]
    return [*found("classes-not-in-train", untrained), *found("classes-rare", examples, words=words)]


def _fractions(names: Sequence[str], splits: Sequence[SplitSurvey], objects: np.ndarray) -> list[Finding]:
    """Report splits whose class fractions differ from train's by far more than chance."""
    by_split = {split.name: counts for split, counts in zip(splits, objects, strict=True) if counts.any()}
    if "train" not in by_split:
        return []
    train = by_split["train"] / by_split.pop("train").sum()
    examples, distances = [], {}
    for split, counts in by_split.items():
        fraction = counts / counts.sum()
        distances[split] = distance = float(np.abs(fraction - train).sum() / 2)
        chance = float(np.sqrt(train * (1 - train) / counts.sum()).sum() / 2)
        if distance > MIN_DIFFERENCE and distance > 3 * chance:
            class_id = int(np.abs(fraction - train).argmax())
            text = f"{split}: {names[class_id]} {fraction[class_id]:.1%}, train {train[class_id]:.1%}"
            examples.append(Example(words=text, split=split))
    words = (
        f"By more than {MIN_DIFFERENCE:.0%} of the objects, far more than chance: the metrics are of another mix than "
        "the one learned."
    )
    return found("class-fractions-differ", examples, words=words, details=distances)

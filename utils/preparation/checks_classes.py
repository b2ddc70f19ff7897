"""Checks of classes: ids without a name, classes that are rare, unused or unevenly split, and repeated names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from utils.datasets.config import DataConfig
from utils.preparation.checks_boxes import marks_of
from utils.preparation.findings import MAX_LISTED, Example, Finding, joined
from utils.preparation.survey import SplitSurvey

MIN_OBJECTS = 10  # of a class in a split: below, its AP depends on single objects
MIN_DIFFERENCE = 0.15  # of class fractions between splits, half the sum of absolute differences


def check_classes(config: DataConfig, splits: Sequence[SplitSurvey]) -> list[Finding]:
    """Report class ids beyond the names, rare and unused classes, and class fractions that differ between splits."""
    findings = []
    count = config.num_classes
    beyond = {split.name: np.flatnonzero(split.rows[:, 0] >= count) for split in splits}
    ids = np.concatenate([split.rows[:, 0] for split in splits]).astype(int)
    if any(map(len, beyond.values())):
        from_one = len(ids) > 0 and int(ids.min()) == 1 and int(ids.max()) == count
        largest = int(ids.max())
        findings.append(
            Finding(
                kind="class-ids-from-one" if from_one else "class-ids-out-of-range",
                severity="spoils",
                title="Class ids start at 1" if from_one else "Class ids without a name",
                words=f"{config.file.name} has {count} names, ids 0 to {count - 1}; the labels have ids "
                f"{int(ids.min())} to {largest}. Training refuses such a set.",
                fix="subtract 1 from every class id" if from_one else "add the names or correct the rows",
                count=sum(map(len, beyond.values())),
                splits=tuple(name for name, rows in beyond.items() if len(rows)),
                examples=[
                    _row_example(split, int(row), config.names)
                    for split in splits
                    for row in beyond[split.name][:MAX_LISTED]
                ][:MAX_LISTED],
                details={"ids": sorted({int(i) for i in ids if i >= count})[:MAX_LISTED]},
            )
        )
    objects = class_counts(splits, count)
    findings += _rare_classes(config, splits, objects)
    unused = [config.names[i] for i in np.flatnonzero(objects.sum(0) == 0)]
    if unused and len(ids):
        findings.append(
            Finding(
                kind="names-unused",
                severity="note",
                title="Classes without any object",
                words=f"{joined(unused)}: in names, but in no label file; left out of every mean.",
                fix="remove the names and renumber, or check whether the class ids are shifted",
                count=len(unused),
                examples=[Example(path="", words=name) for name in unused[:MAX_LISTED]],
            )
        )
    repeated = [name for name, times in Counter(name.strip().lower() for name in config.names).items() if times > 1]
    if repeated:
        findings.append(
            Finding(
                kind="names-repeated",
                severity="warning",
                title="Class names that occur twice",
                words=f"{joined(repeated)}: two ids have the same name, in the same or another letter case.",
                fix="merge the classes or rename them",
                count=len(repeated),
                examples=[Example(path="", words=name) for name in repeated[:MAX_LISTED]],
            )
        )
    return findings + _shares(config, splits, objects)


def class_counts(splits: Sequence[SplitSurvey], num_classes: int) -> np.ndarray:
    """Return (splits, classes) numbers of rows."""
    valid = [split.rows[split.rows[:, 0] < num_classes, 0].astype(int) for split in splits]
    return np.array([np.bincount(ids, minlength=num_classes) for ids in valid]).reshape(len(splits), num_classes)


def _row_example(split: SplitSurvey, row: int, names: Sequence[str]) -> Example:
    image = int(np.searchsorted(split.starts, row, "right")) - 1
    class_id = int(split.rows[row, 0])
    mark = marks_of(split, image, names)[row - split.starts[image]]
    words = f"line {split.lines[row]}: class {class_id}"
    drawn = bool(split.decoded[image])
    return Example(path=split.paths[image], words=words, split=split.name, marks=(mark,), drawn=drawn)


def _rare_classes(config: DataConfig, splits: Sequence[SplitSurvey], objects: np.ndarray) -> list[Finding]:
    """Report classes with too few objects in a split to evaluate or to learn."""
    names = [split.name for split in splits]
    rare, untrained = [], []
    trained = objects[names.index("train")] if "train" in names else None
    for position, split in enumerate(splits):
        if not objects[position].sum():  # reported as a whole
            continue
        for class_id in np.flatnonzero((objects.sum(0) > 0) & (objects[position] < MIN_OBJECTS)):
            found, name = int(objects[position, class_id]), config.names[class_id]
            if split.name == "train":
                if not found:  # reported as not in train
                    continue
                text = f"train: {name}, {found} objects to learn from"
            elif found:
                text = f"{split.name}: {name}, {found} objects; one of them moves its recall by {1 / found:.0%}"
            else:
                text = f"{split.name}: {name}, no object; it cannot be evaluated and is left out of the mean"
            rare.append((found, Example(path="", words=text, split=split.name)))
    if trained is not None and trained.sum():
        for class_id in np.flatnonzero((trained == 0) & (objects.sum(0) > 0)):
            text = f"{config.names[class_id]}: {int(objects[:, class_id].sum())} objects elsewhere"
            untrained.append(Example(path="", words=text))
    findings = []
    if untrained:
        findings.append(
            Finding(
                kind="classes-not-in-train",
                severity="warning",
                title="Classes that train does not have",
                words="They cannot be learned; their AP of 0 lowers the mean.",
                fix="split again, stratified by class",
                count=len(untrained),
                splits=("train",),
                examples=untrained[:MAX_LISTED],
            )
        )
    if rare:
        rare.sort(key=lambda item: item[0])
        findings.append(
            Finding(
                kind="classes-rare",
                severity="warning",
                title="Classes too rare to evaluate",
                words=f"Fewer than {MIN_OBJECTS} objects in a split: the AP of the class depends on single objects.",
                fix="label more images, merge classes, or split again",
                count=len(rare),
                splits=tuple(dict.fromkeys(example.split for _, example in rare)),
                examples=[example for _, example in rare[:MAX_LISTED]],
            )
        )
    return findings


def _shares(config: DataConfig, splits: Sequence[SplitSurvey], objects: np.ndarray) -> list[Finding]:
    """Report splits whose class fractions differ from train's by far more than chance."""
    names = [split.name for split in splits]
    if "train" not in names or not objects[names.index("train")].sum():
        return []
    totals = objects.sum(1)
    train = objects[names.index("train")] / totals[names.index("train")]
    examples, worst = [], {}
    for position, split in enumerate(splits):
        if split.name == "train" or not totals[position]:
            continue
        fraction = objects[position] / totals[position]
        distance = float(np.abs(fraction - train).sum() / 2)
        chance = float(np.sqrt(train * (1 - train) / totals[position]).sum() / 2)
        worst[split.name] = distance
        if distance > MIN_DIFFERENCE and distance > 3 * chance:
            class_id = int(np.abs(fraction - train).argmax())
            text = f"{split.name}: {config.names[class_id]} {fraction[class_id]:.1%}, train {train[class_id]:.1%}"
            examples.append(Example(path="", words=text, split=split.name))
    if not examples:
        return []
    return [
        Finding(
            kind="class-fractions-differ",
            severity="warning",
            title="Class fractions differ between splits",
            words=f"By more than {MIN_DIFFERENCE:.0%} of the objects, far more than chance: the metrics are of another "
            "mix than the one learned.",
            fix="split again, stratified by class",
            count=len(examples),
            splits=tuple(example.split for example in examples),
            examples=examples,
            details=worst,
        )
    ]

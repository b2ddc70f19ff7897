"""The kinds of findings, by the identifiers in check.json: how bad they are, what they mean, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["spoils", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("spoils", "warning", "note")  # the worst first


@dataclass(frozen=True)
class Kind:
    """What all findings of one kind have in common."""

    severity: Severity  # unless the finding concerns so much of a split that it is worse
    title: str  # a few words
    fix: str  # what to do, in the imperative
    words: str = ""  # sentences: what it is and does to a result; "" if the check writes them


_OWN_IMAGES = "give each split images of its own"
_ONE_SPLIT = "keep such images in one split: remove them from the other, or split again"
_BY_CLASS = "split again, stratified by class"
_EXAMPLES = "check the examples and correct what is wrong"

SPLITS = {
    "split-missing": Kind("spoils", "Splits without images", "correct the data yaml"),
    "splits-equal": Kind("warning", "Splits of the same files", _OWN_IMAGES),
    "leak-same-file": Kind("warning", "Files in two splits", _OWN_IMAGES),
    "leak-identical": Kind("warning", "Identical images in two splits", _ONE_SPLIT),
    "leak-near-identical": Kind("warning", "Near-identical images in two splits", _ONE_SPLIT),
    "duplicates-identical": Kind("warning", "Identical images within a split", "remove the copies"),
    "duplicates-near-identical": Kind("note", "Near-identical images within a split", ""),
    "split-without-objects": Kind("spoils", "Splits without objects", "check where the label files are"),
    "image-sizes-differ": Kind(
        *("warning", "Images of other sizes than in train", "check whether the splits have the same origin"),
        "Scaled to one size, their objects are larger or smaller than those that are learned.",
    ),
}
# What the survey of images and label files remarks.
REMARKS = {
    "image-missing": Kind("warning", "Listed images that do not exist", "correct the list", "Training skips them."),
    "image-damaged": Kind("warning", "Images that cannot be read", "replace them", "Training skips them."),
    "image-tiny": Kind("warning", "Images of less than 10 pixels", "remove them", "Training skips them."),
    "image-extreme-aspect": Kind(
        *("warning", "Images of extreme aspect ratio", "cut them into tiles"),
        "Scaled to the network's square input, their shorter side keeps few pixels.",
    ),
    "image-exif-rotated": Kind(
        *("note", "Images rotated by EXIF", "compare the drawn boxes with the objects"),
        "They are read upright. Boxes that were drawn in a program that ignores EXIF lie elsewhere: see the examples.",
    ),
    "image-mode": Kind(
        *("note", "Images that are not 8-bit RGB", "convert them if that loses what matters"),
        "Grey and palette images become RGB, deeper ones lose bits, transparency is put on black.",
    ),
    "image-animated": Kind(
        "warning", "Images of several frames", "save the frames as images", "Only the first frame is read."
    ),
    "image-wrong-suffix": Kind(
        *("note", "Images whose suffix is not that of their format", "rename them"),
        "They are read by content here; other programs may refuse them.",
    ),
    "label-unreadable": Kind(
        *("warning", "Label files with lines that are no rows", "write class cx cy w h in each line"),
        "Training leaves out the whole image.",
    ),
}
FILES = {
    "images-without-labels": Kind(
        *("note", "Images without a label file"),
        "put their txt files where the first one is expected, or leave empty files to confirm",
    ),
    "labels-without-image": Kind(
        *("warning", "Label files without an image", "add the images or remove the files; letter case counts"),
        "Their objects are not in the set.",
    ),
    "images-unread": Kind(
        *("warning", "Images of suffixes that are not read", "save them as .jpg or .png"),
        "They are not in the set.",
    ),
    "files-hidden": Kind(
        *("note", "Hidden files and folders beside the images", "remove them"),
        "Copies that macOS and Jupyter leave; some programs read them as images.",
    ),
}
ROWS = {
    "values-out-of-range": Kind(
        *("warning", "Values out of range", "correct the rows"),
        "A value of the row is below 0 or above 1. Training leaves out the whole image.",
    ),
    "boxes-beyond-image": Kind(
        *("warning", "Boxes beyond the image", "clip the boxes, or check whether they belong to another image"),
        "Centre and size are in range, but the box leaves the image; training clips it.",
    ),
    "boxes-without-area": Kind(
        *("warning", "Boxes without area", "remove or redraw them"),
        "Width or height is 0; training leaves the row out.",
    ),
    "boxes-tiny": Kind(
        *("warning", "Absurdly small boxes", "remove or redraw them"),
        "A side is below 2 pixels of the image file: mostly a click by mistake.",
    ),
    "boxes-whole-image": Kind(
        *("note", "Boxes as large as the image", "check whether the object really fills the image"),
        "The box covers more than 95 % of the image.",
    ),
    "rows-repeated": Kind("note", "Rows that occur twice", "remove the second row", "Training drops the second."),
    "boxes-nearly-equal": Kind(
        *("warning", "Two boxes on one object", "keep one of them"),
        "Two rows of one image have an IoU above 0.9: one object labelled twice, or with two classes.",
    ),
}
ORDERS = {
    "coordinates-in-pixels": Kind(
        *("spoils", "Coordinates in pixels"),
        "divide x by the image's width and y by its height, and write cx cy w h",
    ),
    "coordinates-in-other-order": Kind("spoils", "Coordinates in another order", "write the rows as cx cy w h"),
}
CLASSES = {
    "class-ids-from-one": Kind("spoils", "Class ids start at 1", "subtract 1 from every class id"),
    "class-ids-out-of-range": Kind("spoils", "Class ids without a name", "add the names or correct the rows"),
    "names-unused": Kind(
        *("note", "Classes without any object"),
        "remove the names and renumber, or check whether the class ids are shifted",
    ),
    "names-repeated": Kind("warning", "Class names that occur twice", "merge the classes or rename them"),
    "classes-not-in-train": Kind(
        *("warning", "Classes that train does not have", _BY_CLASS),
        "They cannot be learned; their AP of 0 lowers the mean.",
    ),
    "classes-rare": Kind("warning", "Classes too rare to evaluate", "label more images, merge classes, or split again"),
    "class-fractions-differ": Kind("warning", "Class fractions differ between splits", _BY_CLASS),
}
# What a model contradicts.
SUSPECTS = {
    "classes-swapped": Kind(
        "spoils", "Classes that seem to be swapped", "compare the examples with the order of `names`"
    ),
    "labels-of-another-class": Kind("warning", "Labels whose class the model contradicts", _EXAMPLES),
    "objects-unlabelled": Kind("warning", "Objects that seem to have no label", _EXAMPLES),
    "labels-unconfirmed": Kind("note", "Labels where the model sees nothing", _EXAMPLES),
}
KINDS = SPLITS | REMARKS | FILES | ROWS | ORDERS | CLASSES | SUSPECTS

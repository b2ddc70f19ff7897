"""Lists of `path x1,y1,x2,y2,class x1,y1,x2,y2,class ...`, one line per image, in pixels, as Keras ports read them."""

from __future__ import annotations

import re

from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet, Objects
from utils.datasets.convert.class_names import class_name, find_class_names
from utils.datasets.convert.images import ImageFiles
from utils.datasets.convert.layout import Source, image_size, relative_name, split_of_file, split_of_folders
from utils.errors import DataError

_LINE = re.compile(r"(.+?\.\w{3,5})((?:\s+-?[\d.]+(?:,-?[\d.]+){3},\d+)*)\s*")


def find_keras_txt(source: Source) -> list[str]:
    """Return the names of all txt files whose first lines are an image and boxes."""
    return [name for name in source.with_suffix("txt") if source.txt_kind(name) == "keras"]


def read_keras_txt(source: Source, *, polygons: bool = False) -> AnnotatedSet:
    """Read every list of images and boxes; class names are those of `_classes.txt` or another file of names.

    Raises:
        DataError: a line is invalid, or an image that it names is ambiguous.
    """
    del polygons
    names, names_from = find_class_names(source)
    found = AnnotatedSet(images=[], names=names, names_from=names_from, names_fixed=bool(names))
    for name in find_keras_txt(source):
        entries: dict[str, list[str]] = {}
        for number, line in enumerate(source.text(name).splitlines(), start=1):
            if not line.strip():
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                what = f"is not `image x1,y1,x2,y2,class ...` ({line.strip()[:60]!r})"
                raise DataError(f"{name}:{number}", what, fix="correct it")
            try:
                entries.setdefault(relative_name(match[1]), []).extend(match[2].split())
            except ValueError as error:
                raise DataError(f"{name}:{number}", f"is invalid ({error})", fix="correct it") from error
        split = split_of_file(name)
        file_of = ImageFiles(source.images).match(entries, annotations=name, split=split)
        for image, boxes in entries.items():
            file = file_of.get(image, "")
            if not file:
                found.images.append(AnnotatedImage(file="", source=name))
                continue
            size_wh = image_size(source.files, file)
            objects = Objects(size_wh, found.report, polygons=False)
            for box in boxes:
                *corners, class_id = box.split(",")
                try:
                    objects.add_box(class_name(names, int(class_id), name), [float(value) for value in corners])
                except ValueError as error:
                    raise DataError(name, f"has an invalid box ({box[:40]!r})", fix="correct it") from error
            found.images.append(
                AnnotatedImage(
                    file=file,
                    source=name,
                    labels=objects.labels,
                    split=split or split_of_folders(file),
                    size_wh=size_wh,
                )
            )
    return found

"""Finds the class names that a data set brings along: a data yaml, classes.txt, obj.names, and the like."""

from __future__ import annotations

import fnmatch
import re
from pathlib import PurePosixPath
from typing import Any

from utils.datasets.config import names_in_order
from utils.datasets.convert.coco import read_json
from utils.datasets.convert.layout import DiskFile, Source
from utils.errors import DataError
from utils.strict_yaml import load_yaml

# In the order in which they are preferred.
PATTERNS = (
    *("*.yaml", "*.yml", "classes.txt", "_classes.txt", "*.names", "*darknet.labels", "class*.txt", "names.txt"),
    *("labels.txt", "notes.json", "predefined_classes.txt"),
)
MAX_CLASS_ID = 99_999


def find_class_names(source: Source) -> tuple[tuple[str, ...], str]:
    """Return the class names by class id and the file that holds them; () and "" if there is none.

    Of several files the one whose kind comes first in `PATTERNS` counts, then the one in the outermost folder.

    Raises:
        ConfigError: a data yaml is invalid.
        DataError: a file of names is not text.
    """
    if source.names:
        return source.names, "--names"
    text_files = source.with_suffix("yaml", "yml", "txt", "names", "labels", "json")
    names_of = {name: PurePosixPath(name).name.lower() for name in text_files}
    for pattern in PATTERNS:
        matching = [name for name in text_files if fnmatch.fnmatchcase(names_of[name], pattern)]
        for name in sorted(matching, key=lambda name: (name.count("/"), name)):
            names = names_in(source, name)
            if names:
                return names, name
    return (), ""


def names_in(source: Source, name: str) -> tuple[str, ...]:
    """Return the class names in one file, () if it has none."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in (".yaml", ".yml"):
        return yaml_names(data_yaml(source, name), name)
    if suffix == ".json":
        content = read_json(source.files[name](), name)
        categories = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(categories, list) or not all(
            isinstance(item, dict) and "name" in item for item in categories
        ):
            return ()
        return tuple(
            str(item.get("name")) for item in sorted(categories, key=lambda item: str(item.get("id")).zfill(9))
        )
    lines = [line.strip() for line in source.text(name).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return tuple(lines)


def data_yaml(source: Source, name: str) -> dict[str, Any]:
    """Return the content of a data yaml, {} if it has no names or lies in an archive."""
    reader = source.files[name]
    if not isinstance(reader, DiskFile) or not re.search(r"^(names|nc)\s*:", source.text(name), re.M):
        return {}
    return load_yaml(reader.path)


def yaml_names(content: dict[str, Any], where: str) -> tuple[str, ...]:
    """Return the class names of a data yaml, () if it has none; ConfigError if they are not valid."""
    names = content.get("names")
    return names_in_order(names, where) if names and isinstance(names, (dict, list)) else ()


def class_name(names: tuple[str, ...], class_id: int, where: str) -> str:
    """Return the name of a class id, `class7` if the data set has no names; DataError if the id is out of range."""
    if names and class_id >= len(names):
        what = f"has class {class_id}, but there are {len(names)} names"
        raise DataError(where, what, fix="pass --names with all names in order")
    if class_id > MAX_CLASS_ID:
        raise DataError(where, f"has class {class_id}, which is too large for a class id", fix="correct it")
    return names[class_id] if names else f"class{class_id}"

"""What all converters read and write: files by name, label files, a data yaml, and a report of what was skipped."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from utils.datasets.images import FIRST_TRANSPOSED, IMAGE_SUFFIXES, ORIENTATION_TAG, has_suffix
from utils.datasets.paths import ResolvedPath, find_files
from utils.errors import DataError
from utils.files import decode_text
from utils.log import LOGGER

Files = Mapping[str, Callable[[], bytes]]  # functions that read a file, by relative name with `/`, in a fixed order
T = TypeVar("T")
FileEntry = tuple[str, bytes]
Row = tuple[int, Sequence[float]]
HEAD_BYTES = 4096
JSON_KEYS = ("images", "annotations", "categories", "shapes", "imagePath")
MAX_FILE_BYTES = 2_000_000_000
# Words in names of files and folders that begin or end like a split, but are not one.
_NO_SPLITS = "constrain contest festival interval latest strain valley valleys value values valve valves".split()
_SUFFIX = rf"\.({'|'.join(sorted(IMAGE_SUFFIXES))})"
_KERAS_ROW = re.compile(rf".+{_SUFFIX}(\s+-?[\d.]+(,-?[\d.]+){{3}},\d+)+$", re.I)
_ROWS = {
    "yolo": re.compile(r"\d+(\.0*)?(\s+[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?){4,}", re.I),
    "visdrone": re.compile(r"-?[\d.]+(\s*,\s*-?[\d.]+){7}\s*,?"),
    "list": re.compile(rf".+{_SUFFIX}", re.I),
}


class ConversionReport(Counter[str]):
    """Counts of what a conversion wrote and skipped, by description."""

    def __str__(self) -> str:
        """Return all counts in one line."""
        return ", ".join(f"{count} {description}" for description, count in self.items() if count)


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A function that reads a file on disk."""

    path: Path

    def __call__(self) -> bytes:
        """Return the whole content; DataError if it is too large or cannot be read."""
        return self.head(MAX_FILE_BYTES + 1)

    def head(self, size: int) -> bytes:
        """Return the first bytes."""
        try:
            with self.path.open("rb") as file:
                data = file.read(size)
        except OSError as error:
            raise DataError(self.path, f"cannot be read ({error.strerror})", fix="check permissions") from error
        if len(data) > MAX_FILE_BYTES:
            raise DataError(self.path, f"is larger than {MAX_FILE_BYTES:,} bytes", fix="move it out of the folder")
        return data


def files_below(folder: Path) -> Files:
    """Return the regular files below a folder by name, following links, without hidden files and folders.

    The files of a folder that several links lead to are returned once. DataError if there are no files.
    """
    try:
        paths = sorted(find_files(ResolvedPath(path=folder)).files)
    except OSError as error:
        raise DataError(folder, f"cannot be read ({error.strerror})", fix="check permissions") from error
    parents: dict[str, bool] = {}  # whether a folder is not one that another path has led to before
    seen: set[tuple[int, int]] = set()
    files: dict[str, DiskFile] = {}
    for path in paths:
        parent = os.path.dirname(path)
        if parent not in parents:
            status = os.stat(parent)
            parents[parent] = (status.st_dev, status.st_ino) not in seen
            seen.add((status.st_dev, status.st_ino))
        if parents[parent] and os.path.isfile(path):
            files[os.path.relpath(path, folder).replace(os.sep, "/")] = DiskFile(Path(path))
    if not files:
        raise DataError(folder, "is not a folder with files", fix="check the path")
    return dict(sorted(files.items()))


@contextlib.contextmanager
def format_errors(name: str, form: str) -> Iterator[None]:
    """Turn what a value of another type or a missing key in a file raises into a DataError."""
    try:
        yield
    except KeyError as error:
        raise DataError(name, f"has no {error.args[0]!r}", fix="correct it") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(name, f"does not follow {form}'s format ({str(error)[:120]})", fix="correct it") from error


def read_text(data: bytes, name: str) -> str:
    """Return a text file's content: UTF-8, UTF-16 with a byte order mark, or else GBK; DataError if it is neither."""
    for decode in (decode_text, lambda data: data.decode("gb18030")):
        with contextlib.suppress(UnicodeDecodeError):
            return decode(data)
    raise DataError(name, "is not UTF-8 text", fix="save it as UTF-8")


class Source:
    """The files of a data set, sorted by kind; what their kinds are recognised by is read once."""

    def __init__(self, files: Files, *, names: tuple[str, ...] = (), progress: bool = True) -> None:
        self.files = files
        self.names = names  # class names that replace those of the source
        self._progress = progress
        self.images = [name for name in files if has_suffix(name, IMAGE_SUFFIXES)]
        self._json_keys: dict[str, set[str]] = {}
        self._kinds: dict[str, str] = {}  # by name of a file: root of an XML, kind of a txt
        self._by_suffix: dict[str, list[str]] = {}
        for name in files:
            self._by_suffix.setdefault(PurePosixPath(name).suffix[1:].lower(), []).append(name)

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Return the names of all files with one of the suffixes, in lower case without a dot."""
        return [name for suffix in suffixes for name in self._by_suffix.get(suffix, ())]

    def track(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Yield the items, with a progress bar on a terminal."""
        yield from tqdm(items, desc=what, leave=False, disable=None if self._progress else True)

    def text(self, name: str) -> str:
        """Return the content of a text file, as `read_text` does."""
        return read_text(self.files[name](), name)

    def head(self, name: str) -> bytes:
        """Return the first bytes of a file, enough to recognise its format."""
        reader = self.files[name]
        return reader.head(HEAD_BYTES) if isinstance(reader, DiskFile) else reader()[:HEAD_BYTES]

    def xml_root(self, name: str) -> str:
        """Return the name of an XML's first element, or ""."""
        if name not in self._kinds:
            root = re.search(rb"<\s*([A-Za-z_][\w.-]*)", self.head(name).replace(b"\0", b""))
            self._kinds[name] = root[1].decode("ascii") if root else ""
        return self._kinds[name]

    def json_keys(self, name: str) -> set[str]:
        """Return the keys of a JSON mapping that formats differ by, as far as they can be seen without parsing."""
        head = self.head(name)
        found = {key for key in JSON_KEYS if f'"{key}"'.encode() in head}
        if "shapes" not in found and (found or b'"imageData"' in head):
            if name not in self._json_keys:
                data = self.files[name]()
                self._json_keys[name] = {key for key in JSON_KEYS if f'"{key}"'.encode() in data}
            return self._json_keys[name]
        return found

    def txt_kind(self, name: str) -> str:
        """Return what a txt holds by its first line: yolo, visdrone, keras or list, "empty", or "" for anything else.

        A list in which the first images have no boxes is `keras` if a later line has boxes.
        """
        if name not in self._kinds:
            self._kinds[name] = _txt_kind(self.head(name))
        return self._kinds[name]


def _txt_kind(head: bytes) -> str:
    if len(head) == HEAD_BYTES:
        head = head.rsplit(maxsplit=1)[0]  # the last word may be cut off
    lines = [line.strip() for line in head.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if not lines:
        return "empty"
    if any(map(_KERAS_ROW.match, lines)):
        return "keras"
    return next((kind for kind, pattern in _ROWS.items() if pattern.fullmatch(lines[0])), "")


def relative_name(file_name: str) -> str:
    """Return an image's name and folders, without parts that lead out of the target; ValueError if it is invalid."""
    relative = "/".join(part for part in PurePosixPath(file_name.replace("\\", "/")).parts if part not in ("/", ".."))
    if not relative or "\0" in relative:
        raise ValueError(f"{file_name!r} is not a file name")
    relative.encode()  # a lone surrogate, which JSON can contain, is a ValueError
    return relative


def label_text(rows: Iterable[Row]) -> bytes:
    """Return the content of a label file: class id and normalized values in each line."""
    return "".join(
        f"{class_id} {' '.join(f'{value:.12g}' for value in values)}\n" for class_id, values in rows
    ).encode()


def image_header(files: Files, name: str) -> tuple[tuple[int, int], int]:
    """Return width and height as stored, and the EXIF orientation (1 to 8), from an image's header.

    Raises:
        DataError: it is not an image.
    """
    reader = files[name]
    try:
        with Image.open(reader.path if isinstance(reader, DiskFile) else io.BytesIO(reader())) as header:
            orientation = header.getexif().get(ORIENTATION_TAG, 1)
            return header.size, orientation if orientation in range(1, 9) else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(name, f"is not an image ({str(error)[:80]})", fix="replace the file") from error


def image_size(files: Files, name: str) -> tuple[int, int]:
    """Return an image's width and height after EXIF orientation; DataError if it is not an image."""
    (width, height), orientation = image_header(files, name)
    return (width, height) if orientation < FIRST_TRANSPOSED else (height, width)


def with_data_yaml(entries: Iterable[FileEntry], names: Sequence[str]) -> Iterator[FileEntry]:
    """Yield the entries, then a data yaml whose splits are the image folders named train..., val..., test..."""
    folders: dict[str, None] = {}
    for name, content in entries:
        parts = name.split("/")[:-1]
        if "images" in parts:
            folders["/".join(parts[: parts.index("images") + 2])] = None  # deeper folders are found from there
        yield name, content
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for folder in folders:  # its split is that of the last part of its path that names one
        splits[next(filter(None, map(split_in, reversed(folder.split("/")))), "train")].append(folder)
    if not splits["val"]:
        other = "test" if splits["test"] else "train"
        splits["val"] = splits[other]
        LOGGER.warning(f"the source has no val split; data.yaml names {other} as val. Use prepare.py to divide it")
    yield "data.yaml", data_yaml_text({split: paths for split, paths in splits.items() if paths}, names)


def data_yaml_text(splits: Mapping[str, str | Sequence[str]], names: Sequence[str]) -> bytes:
    """Return the content of a data yaml that lies in the folder of the data set; `splits` are paths relative to it."""
    lines = ["path: .", *(f"{split}: {json.dumps(paths)}" for split, paths in splits.items()), "names:"]
    lines += [f"  {class_id}: {json.dumps(name, ensure_ascii=False)}" for class_id, name in enumerate(names)]
    return ("\n".join(lines) + "\n").encode()


def split_in(name: str) -> str:
    """Return the split in a name, or "": that of the first word that starts or ends with train, val or test.

    For example, `trainval2017` is train, `valid` and `minival2014` are val, `VisDrone2019-DET-test-dev` is test.
    """
    for word in re.findall("[a-z]+", name.lower()):
        for split in ("train", "val", "test"):
            if (word.startswith(split) or word.endswith(split)) and word not in _NO_SPLITS:
                return split
    return ""


def split_of_file(name: str) -> str:
    """Return the stem of a file if it names a split, else the folder that does; "" if there is none."""
    stem = PurePosixPath(name).stem
    return stem if split_in(stem) else split_of_folders(name)


def split_of_folders(name: str) -> str:
    """Return the last part of a name, or folder of it, that names a split; "" if there is none."""
    *folders, _ = name.split("/")
    return next((folder for folder in reversed(folders) if split_in(folder)), "")

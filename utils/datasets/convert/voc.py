"""Pascal VOC's XML to YOLO: one file per image, boxes in pixels counted from 1."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from utils.datasets.convert.layout import ConversionReport, FileEntry, Files, Row, box_row, image_size, label_entry
from utils.errors import DataError

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
MAX_XML_BYTES = 10_000_000
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")


def convert_voc(
    files: Files, *, names: Sequence[str] = NAMES, labels_only: bool = False, report: ConversionReport | None = None
) -> Iterator[FileEntry]:
    """Yield names and contents of a YOLO data set.

    Every folder with `Annotations` is converted, such as `VOC2007`: its lists `ImageSets/Main/{train,val,test}.txt`
    become `images/train2007` and so on, with `labels` next to `images`. Without lists, all images are in
    `images/train`. Objects of classes that are not in `names` are skipped, and those marked difficult.

    Raises:
        DataError: there are no annotations, one cannot be read, or two images of a split have the same name.
    """
    report = ConversionReport() if report is None else report
    image_of: dict[str, str] = {}
    stems_of: dict[str, list[str]] = {}
    for path in map(PurePosixPath, files):
        if path.match("Annotations/*.xml"):
            stems_of.setdefault(path.parent.parent.as_posix(), []).append(path.stem)
    if not stems_of:
        raise DataError("voc", "has no Annotations/*.xml", fix="pass the folder that holds VOCdevkit or VOC2007")
    for root, stems in sorted(stems_of.items()):
        prefix = "" if root == "." else f"{root}/"
        year = re.search(r"VOC(\d{4})$", root)
        for split, split_stems in _splits(files, prefix, sorted(stems)):
            folder = split + (year[1] if year else "")
            for stem in split_stems:
                images = (f"{prefix}JPEGImages/{stem}{suffix}" for suffix in _IMAGE_SUFFIXES)
                image = next((name for name in images if name in files), None)
                annotation = f"{prefix}Annotations/{stem}.xml"
                if annotation not in files or (image is None and not labels_only):
                    report["images without a file or annotation skipped"] += 1
                    continue
                rows = _rows(files, annotation, image, names, report)
                report["images"] += 1
                target = f"{folder}/{PurePosixPath(image or f'{stem}.xml').name}"
                labels = label_entry(image_of, target, rows, image=image or annotation, where=annotation)
                if image is not None and not labels_only:
                    yield f"images/{target}", files[image]()
                yield labels


def _splits(files: Files, prefix: str, stems: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each split and the names of its images without suffix."""
    lists = [(split, f"{prefix}ImageSets/Main/{split}.txt") for split in ("train", "val", "test", "trainval")]
    listed = {split: name for split, name in lists if name in files}
    if listed.keys() & {"train", "val"}:
        listed.pop("trainval", None)  # the union of these two
    known_stems = frozenset(stems)
    for split, name in listed.items():
        lines = files[name]().decode("utf-8-sig", "replace").splitlines()
        yield split, list(dict.fromkeys(_stem_in(line.strip(), known_stems) for line in lines if line.strip()))
    if not listed:
        yield "train", stems


def _stem_in(line: str, stems: Collection[str]) -> str:
    """Return the stem of a line `stem` or `stem -1|0|1`. A stem may itself contain spaces and end in a number."""
    return line if line in stems else re.sub(r"\s+[-+]?[01]$", "", line)


def _parse(data: bytes) -> Element:
    """Return an XML's root element.

    Entities, which can expand a short file without end or include other files, are declared in a DOCTYPE only. So a
    DOCTYPE is refused when the parser reaches it, by a ValueError; a search in the bytes would miss it in other
    encodings. ExpatError if it is not XML, LookupError if its encoding is unknown.
    """

    def refuse(*_: object) -> None:
        raise ValueError("it has a DOCTYPE, which no annotation needs")

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.DefaultHandler = lambda _: None  # with a handler, the parser does not expand entities
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(data, True)
    return builder.close()


def _rows(
    files: Files, annotation: str, image: str | None, names: Sequence[str], report: ConversionReport
) -> list[Row]:
    """Return the label rows of one annotation; DataError if it does not follow the format."""
    data = files[annotation]()
    if len(data) > MAX_XML_BYTES:
        raise DataError(annotation, f"is too large for an annotation ({len(data)} bytes)", fix="remove it")
    rows = []
    try:
        tree = _parse(data)
        size_wh = tuple(float(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
        if not all(side > 0 for side in size_wh):
            size_wh = image_size(files[image](), image) if image is not None else (0.0, 0.0)
        for item in tree.iter("object"):
            name = (item.findtext("name") or "").strip()
            if name not in names:
                report[f"objects of class {name[:40]!r} skipped"] += 1
            elif (item.findtext("difficult") or "0").strip() == "1":
                report["difficult objects skipped"] += 1
            else:
                corners = [float(item.findtext(f"bndbox/{key}") or "nan") for key in ("xmin", "ymin", "xmax", "ymax")]
                row = box_row(names.index(name), [value - 1 for value in corners], (size_wh[0], size_wh[1]))
                report["objects" if row else "boxes without area skipped"] += 1
                rows += [row] if row else []
    except (expat.ExpatError, ValueError, LookupError, ZeroDivisionError) as error:
        raise DataError(annotation, f"cannot be read ({error})", fix="correct or remove it") from error
    return rows

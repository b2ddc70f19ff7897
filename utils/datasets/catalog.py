"""The data sets that `download:` may name: where their archives lie, and how they become YOLO's folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from utils.datasets.convert.coco import convert_coco
from utils.datasets.convert.files import Files
from utils.datasets.convert.layout import FileEntry
from utils.datasets.convert.visdrone import convert_visdrone
from utils.datasets.convert.voc import convert_voc

DEFAULT_MAX_BYTES = 50_000_000_000


@dataclass(frozen=True, kw_only=True)
class Source:
    """One archive.

    Attributes:
        url: its https address.
        max_bytes: a longer one is refused.
        sha256: of its bytes, in hexadecimal; "" if it is not known beforehand, then it is only told.
    """

    url: str
    max_bytes: int = DEFAULT_MAX_BYTES
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Archives that are needed together, and what makes of them names and contents of the data set's files."""

    sources: tuple[Source, ...]
    convert: Callable[[Files], Iterator[FileEntry]]


def without_top_folder(files: Files) -> Iterator[FileEntry]:
    """Yield the files as they are, from inside the one folder that holds them all, if there is one."""
    tops = {name.split("/")[0] if "/" in name else "" for name in files.names}
    skipped = len(next(iter(tops))) + 1 if len(tops) == 1 and not tops & {"", "images", "labels"} else 0
    for name in files.names:
        yield name[skipped:], files.read(name)


def _below(folder: str, files: Files) -> Iterator[FileEntry]:
    """Yield the files in a folder of that name."""
    for name in files.names:
        yield f"{folder}/{name}", files.read(name)


_COCO = "https://s3.amazonaws.com/images.cocodataset.org"
_ASSETS = "https://github.com/ultralytics/assets/releases/download/v0.0.0"
_VISDRONE = "https://github.com/ultralytics/yolov5/releases/download/v1.0/VisDrone2019-DET"


def _coco(*, polygons: bool) -> tuple[Part, ...]:
    labels = partial(convert_coco, polygons=polygons, labels_only=True)
    annotations = Source(url=f"{_COCO}/annotations/annotations_trainval2017.zip", max_bytes=500_000_000)
    images = (("val2017", 2_000_000_000), ("train2017", 25_000_000_000))
    return (
        Part(sources=(annotations,), convert=labels),
        *(
            Part(sources=(Source(url=f"{_COCO}/zips/{split}.zip", max_bytes=most),), convert=partial(_below, "images"))
            for split, most in images
        ),
    )


KNOWN: dict[str, tuple[Part, ...]] = {
    "coco": _coco(polygons=False),
    "coco-polygons": _coco(polygons=True),
    "coco128": (
        Part(sources=(Source(url=f"{_ASSETS}/coco128.zip", max_bytes=20_000_000),), convert=without_top_folder),
    ),
    "VOC": (
        Part(
            sources=(
                Source(url=f"{_ASSETS}/VOCtrainval_06-Nov-2007.zip", max_bytes=1_000_000_000),
                Source(url=f"{_ASSETS}/VOCtest_06-Nov-2007.zip", max_bytes=1_000_000_000),
                Source(url=f"{_ASSETS}/VOCtrainval_11-May-2012.zip", max_bytes=4_000_000_000),
            ),
            convert=convert_voc,
        ),
    ),
    "VisDrone": tuple(
        Part(sources=(Source(url=f"{_VISDRONE}-{split}.zip", max_bytes=4_000_000_000),), convert=convert_visdrone)
        for split in ("train", "val", "test-dev")
    ),
}

"""The data sets that `download:` may name: the addresses of their archives, and their conversion to YOLO folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from utils.datasets.convert.coco import convert_coco
from utils.datasets.convert.layout import FileEntry, Files
from utils.datasets.convert.visdrone import convert_visdrone
from utils.datasets.convert.voc import convert_voc

DEFAULT_MAX_BYTES = 50_000_000_000


@dataclass(frozen=True)
class RemoteArchive:
    """An archive on a server."""

    url: str  # https address
    max_bytes: int = DEFAULT_MAX_BYTES  # largest size accepted
    sha256: str = ""  # expected hash in hexadecimal; if "", the hash is logged but not verified


@dataclass(frozen=True)
class DatasetPart:
    """Archives that are needed together, and the function that yields names and contents of the files from them."""

    archives: tuple[RemoteArchive, ...]
    convert: Callable[[Files], Iterator[FileEntry]]


def without_top_folder(files: Files) -> Iterator[FileEntry]:
    """Yield the files unchanged; if one folder contains all of them, relative to that folder."""
    tops = {name.split("/")[0] if "/" in name else "" for name in files}
    prefix = len(next(iter(tops))) + 1 if len(tops) == 1 and not tops & {"", "images", "labels"} else 0
    for name, read in files.items():
        yield name[prefix:], read()


def _below(folder: str, files: Files) -> Iterator[FileEntry]:
    """Yield the files, moved into a folder."""
    for name, read in files.items():
        yield f"{folder}/{name}", read()


_COCO = "https://s3.amazonaws.com/images.cocodataset.org"
_ASSETS = "https://github.com/ultralytics/assets/releases/download/v0.0.0"
_VISDRONE = "https://github.com/ultralytics/yolov5/releases/download/v1.0/VisDrone2019-DET"


def _coco(*, polygons: bool) -> tuple[DatasetPart, ...]:
    annotations = RemoteArchive(f"{_COCO}/annotations/annotations_trainval2017.zip", max_bytes=500_000_000)
    val = RemoteArchive(f"{_COCO}/zips/val2017.zip", max_bytes=2_000_000_000)
    train = RemoteArchive(f"{_COCO}/zips/train2017.zip", max_bytes=25_000_000_000)
    return (
        DatasetPart((annotations,), convert=partial(convert_coco, polygons=polygons, labels_only=True)),
        DatasetPart((val,), convert=partial(_below, "images")),
        DatasetPart((train,), convert=partial(_below, "images")),
    )


_COCO128 = RemoteArchive(f"{_ASSETS}/coco128.zip", max_bytes=20_000_000)
_VOC = (
    RemoteArchive(f"{_ASSETS}/VOCtrainval_06-Nov-2007.zip", max_bytes=1_000_000_000),
    RemoteArchive(f"{_ASSETS}/VOCtest_06-Nov-2007.zip", max_bytes=1_000_000_000),
    RemoteArchive(f"{_ASSETS}/VOCtrainval_11-May-2012.zip", max_bytes=4_000_000_000),
)
KNOWN: dict[str, tuple[DatasetPart, ...]] = {
    "coco": _coco(polygons=False),
    "coco-polygons": _coco(polygons=True),
    "coco128": (DatasetPart((_COCO128,), convert=without_top_folder),),
    "VOC": (DatasetPart(_VOC, convert=convert_voc),),
    "VisDrone": tuple(
        DatasetPart((RemoteArchive(f"{_VISDRONE}-{split}.zip", max_bytes=4_000_000_000),), convert=convert_visdrone)
        for split in ("train", "val", "test-dev")
    ),
}

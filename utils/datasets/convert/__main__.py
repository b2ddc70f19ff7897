"""Convert a data set to YOLO's format: `python -m utils.datasets.convert voc VOCdevkit datasets/VOC`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.cli import OneLineParser, run_script
from utils.datasets.convert.coco import convert_coco
from utils.datasets.convert.layout import ConversionReport, FileEntry, files_below, with_data_yaml
from utils.datasets.convert.visdrone import NAMES as VISDRONE_NAMES
from utils.datasets.convert.visdrone import convert_visdrone
from utils.datasets.convert.voc import convert_voc
from utils.errors import ConfigError, DataError
from utils.folders import atomic_write_folder
from utils.log import LOGGER


def build_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = OneLineParser(prog="python -m utils.datasets.convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("kind", choices=("voc", "visdrone", "coco"), help="format of the source")
    parser.add_argument("source", type=Path, help="folder with images and annotations as published")
    parser.add_argument("target", type=Path, help="folder to create, with images, labels and data.yaml")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="voc: class names in order (default: VOC's 20)")
    parser.add_argument("--polygons", action="store_true", help="coco: write polygons where the annotations have them")
    parser.add_argument("--labels-only", action="store_true", help="write labels, without copying images")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def convert(arguments: Sequence[str] | None = None) -> ConversionReport:
    """Convert a data set as the command line says, and return what was converted and skipped.

    Raises:
        ConfigError: an argument is invalid, or the target exists.
        DataError: the source has another format.
        RunError: the target cannot be written.
    """
    options = build_parser().parse_args(arguments)
    target: Path = options.target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(target, "exists already", fix="choose another target")
    for flag, value, kind in (("--names", options.names, "voc"), ("--polygons", options.polygons, "coco")):
        if value and options.kind != kind:
            raise ConfigError("convert", f"{flag} is for {kind} only", fix=f"remove it for {options.kind}")
    report = ConversionReport()
    atomic_write_folder(target, _entries(options, report))
    LOGGER.info(f"{target}: {report}")
    if not options.labels_only:
        LOGGER.info(f"Train with `python train.py --data {target / 'data.yaml'}`")
    return report


def _entries(options: argparse.Namespace, report: ConversionReport) -> Iterator[FileEntry]:
    """Yield names and contents of all files to write."""
    files = files_below(options.source)
    common = {"labels_only": options.labels_only, "report": report}
    names: list[str] = []
    if options.kind == "voc":
        names = list(options.names or ())
        entries = convert_voc(files, names=names, **common)
    elif options.kind == "visdrone":
        names = list(VISDRONE_NAMES)
        entries = convert_visdrone(files, **common)
    else:
        entries = convert_coco(files, polygons=options.polygons, names=names, **common)
    yield from entries if options.labels_only else with_data_yaml(entries, names)
    if not report["images"]:
        fix = "pass the folder that contains images and annotations"
        raise DataError(options.source, f"has no usable image ({report})", fix=fix)


if __name__ == "__main__":
    run_script(convert)

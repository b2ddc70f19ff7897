"""The whole of prepare.py: recognise, read, check the classes, divide, write; or check a prepared data set."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from utils.datasets.config import ARCHIVE_SUFFIXES
from utils.datasets.convert.annotated import AnnotatedImage, AnnotatedSet
from utils.datasets.convert.class_names import yaml_names
from utils.datasets.convert.layout import DiskFile, Source, files_below, read_text
from utils.datasets.convert.recognise import FORMATS, recognise
from utils.datasets.convert.write import Output, entries
from utils.datasets.images import UNREAD_SUFFIXES
from utils.datasets.paths import suffix_counts
from utils.errors import ConfigError, DataError
from utils.folders import atomic_write_folder
from utils.log import LOGGER
from utils.options.preparation import PrepareOptions
from utils.preparation.classes import Classes, choose_classes, listed, without_ignored
from utils.preparation.orientation import orient
from utils.preparation.splitting import Division, divide
from utils.strict_yaml import load_yaml

DEFAULT_FOLDER = Path("datasets")


def run_preparation(options: PrepareOptions, given: Collection[str]) -> int:
    """Prepare the data set, or check it with `--check`, and return the exit code.

    Args:
        options: the command line.
        given: names of the options that were given; a given `--split` replaces the splits of the source.

    Raises:
        ConfigError: an option is invalid, or the target exists.
        DataError: the source is in no format that is known, or in several, or is damaged.
        RunError: the target cannot be written.
    """
    if options.check:
        from utils.preparation.doctor import run_check

        return run_check(options)
    folder = _source_folder(options.source)
    target = _target(options.out, folder)
    source = Source(files_below(folder), names=_given_names(options.names))
    form, evidence = recognise(source, str(folder), options.format)
    LOGGER.info(f"{folder}: {form} ({evidence})")
    found = FORMATS[form].read(source, polygons=options.polygons)
    _keep_usable(found, source, folder)
    orient(found, source)
    classes = choose_classes(
        found, source, given=source.names, ignored=options.ignore_class, sort_names=options.sort_names
    )
    found.report["objects of ignored classes left out"] += without_ignored(found, options.ignore_class)
    _log_what_was_found(found, classes)
    division = divide(
        found.images,
        folder,
        classes.names,
        fractions=options.split,
        replace_splits="split" in given,
        folds=options.folds,
        seed=options.seed,
    )
    LOGGER.info(f"Splits: {division.words}")
    _write(target, folder, source, found, classes, division, options)
    _log_commands(target, options)
    return 0


def _source_folder(text: str) -> Path:
    """Return the folder to read; ConfigError if there is none."""
    path = Path(text)
    if path.is_dir():
        return path
    if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise ConfigError(path, "is an archive", fix="pass the folder that it unpacks to")
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return path.parent
    what = "is not a folder" if path.exists() else "does not exist"
    raise ConfigError(path, what, fix="pass the folder that contains images and annotations")


def _target(out: str, folder: Path) -> Path:
    """Return the folder to create; ConfigError if it exists with content or lies in the source."""
    resolved = folder.resolve()
    target = Path(out) if out else DEFAULT_FOLDER / resolved.name
    if not out and (target.resolve() == resolved or resolved in target.resolve().parents):
        target = resolved.with_name(f"{resolved.name}-yolo")
    if resolved == target.resolve() or resolved in target.resolve().parents:
        raise ConfigError(
            "--out", f"{target} lies in the source, which is never written to", fix="choose another --out"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(target, "exists already", fix="delete it, or choose another folder with --out")
    return target


def _given_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of `--names`: themselves, or those in the one file that it names."""
    if len(names) != 1 or not Path(names[0]).is_file():
        return names
    path = Path(names[0])
    if path.suffix.lower() in (".yaml", ".yml"):
        found = yaml_names(load_yaml(path), names[0])
    else:
        lines = read_text(DiskFile(path)(), path.name).splitlines()
        found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise ConfigError("--names", f"{path} has no names", fix="pass a file with one name per line, or a data yaml")
    return found


def _keep_usable(found: AnnotatedSet, source: Source, folder: Path) -> None:
    """Leave out annotations without an image, and count images without an annotation; DataError if nothing is left."""
    usable: dict[str, AnnotatedImage] = {}
    for image in found.images:
        other = usable.setdefault(image.file, image) if image.file else image
        if not image.file:
            found.report["annotations without an image skipped"] += 1
        elif other is not image and other.source != image.source:
            what = f"is annotated in {other.source!r} and in {image.source!r}"
            raise DataError(folder / image.file, what, fix="remove one of them")
        elif other is not image:
            found.report["images named in several splits, kept in the first"] += 1
    found.images = [*usable.values()]
    missing = [name for name in source.images if name not in usable]
    skipped_already = found.report["images outside the splits of the data yaml or lists skipped"]
    found.report["images without an annotation left out"] += len(missing) - skipped_already
    if not found.images:
        fix = "pass the folder that contains images and annotations"
        raise DataError(folder, f"has no usable image ({found.report})", fix=fix)
    if unread := source.with_suffix(*sorted(UNREAD_SUFFIXES)):
        LOGGER.warning(f"left out {suffix_counts(unread)}; these suffixes are not read")
    if len(missing) > skipped_already:
        LOGGER.warning(f"{len(missing)} images have no annotation and are left out, such as {missing[0]}")


def _log_what_was_found(found: AnnotatedSet, classes: Classes) -> None:
    """Log the counts, the classes, and what is odd about them."""
    found.report["objects"] = sum(len(image.labels) for image in found.images)
    empty = sum(not image.labels for image in found.images)
    notes = {key: count for key, count in found.report.items() if count and key != "objects"}
    words = "".join(f"; {count} {key}" for key, count in notes.items())
    LOGGER.info(f"{len(found.images)} images, {found.report['objects']} objects, {empty} images without objects{words}")
    LOGGER.info(f"{len(classes.names)} classes in the order of {classes.words}: {listed(classes.names)}")
    used = {label.name for image in found.images for label in image.labels}
    unused = [name for name in classes.names if name not in used]
    if unused:
        LOGGER.warning(f"{len(unused)} classes have no objects: {listed(unused)}")


def _write(
    target: Path,
    folder: Path,
    source: Source,
    found: AnnotatedSet,
    classes: Classes,
    division: Division,
    options: PrepareOptions,
) -> None:
    """Write the data set."""
    output = Output(
        folder=folder,
        images=found.images,
        names=classes.names,
        same_ids=found.names_fixed and classes.names == found.names,
        splits=division.splits,
        folds=division.folds,
        link="copy" if options.copy else "symbolic" if options.in_place_lists else "hard",
        lists=options.in_place_lists,
    )
    atomic_write_folder(target, entries(output, lambda indices: source.track(indices, "Writing")))


def _log_commands(target: Path, options: PrepareOptions) -> None:
    """Log what was written, and the commands that use it."""
    data = shlex.quote(str(target / ("data_fold0.yaml" if options.folds else "data.yaml")))
    LOGGER.info(f"Written to {target}. Next:")
    LOGGER.info(f"  python prepare.py {data} --check")
    LOGGER.info(f"  python train.py --data {data} --cfg yolov5n-AKConv.yaml")
    LOGGER.info(f"  python compare.py --data {data} --cfg yolov5n.yaml yolov5n-AKConv.yaml")

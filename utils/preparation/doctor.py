"""`prepare.py data.yaml --check`: survey every split, run all checks, and write the report."""

from __future__ import annotations

from collections.abc import Sequence

from utils.datasets.config import SPLITS, DataConfig
from utils.datasets.scan import list_images
from utils.datasets.splits import open_data
from utils.errors import ConfigError, DataError
from utils.files import make_run_dir
from utils.options import PrepareOptions
from utils.preparation.check_report import write_check
from utils.preparation.checks_boxes import check_boxes, check_coordinates
from utils.preparation.checks_classes import check_classes
from utils.preparation.checks_files import check_missing_labels, check_remarks, check_stray_files
from utils.preparation.checks_splits import check_duplicates, check_image_sizes, check_shared_files
from utils.preparation.findings import Example, Finding, found, spoils
from utils.preparation.survey import SplitSurvey, survey_split
from utils.preparation.suspects import find_suspects, open_detector, suspect_findings


def run_check(options: PrepareOptions) -> int:
    """Check a data set and return the exit code: 1 if something would spoil a result, else 0.

    Raises:
        ConfigError, DataError: the data yaml is invalid, or none of its splits can be read.
        CheckpointError: `--weights` cannot be used.
    """
    try:
        config = open_data(options.source)
    except ConfigError as error:
        if error.where != "--data":
            raise
        raise ConfigError("SOURCE", error.what, fix=error.fix) from error  # the flag of other commands
    paths, findings = list_splits(config)
    opened = open_detector(options, config) if options.weights else None  # before the long scan: it may fail
    splits = [survey_split(name, images) for name, images in paths.items()]
    misread, explained = check_coordinates(splits)
    legible = [split for split in splits if split.name not in explained]  # whose boxes mean something
    findings += [*misread, *find_faults(config, splits, legible)]
    if opened:
        findings += suspect_findings(find_suspects(opened[0], legible, opened[1]), legible, config.names)
    run_dir = make_run_dir(options.project, options.name)
    write_check(config, splits, findings, run_dir=run_dir, weights=options.weights)
    return int(spoils(findings))


def list_splits(config: DataConfig) -> tuple[dict[str, list[str]], list[Finding]]:
    """Return the images of each split that can be listed, and findings about those that cannot.

    Raises:
        DataError: no split can be listed.
    """
    paths: dict[str, list[str]] = {}
    findings: list[Finding] = []
    errors = []
    for split in SPLITS:
        if not config.splits.get(split) and split == "test":  # optional
            continue
        try:
            paths[split] = list_images(config, split)
        except DataError as error:
            errors.append(error)
            example = Example(words=f"{split}: {error.fix}", split=split)
            findings += found("split-missing", [example], words=f"The data yaml {error.what}.")
    if not paths:
        raise errors[0]
    return paths, findings


def find_faults(config: DataConfig, splits: Sequence[SplitSurvey], legible: Sequence[SplitSurvey]) -> list[Finding]:
    """Run every check that needs no model; `legible` are the splits with boxes in the right order and unit."""
    return [
        *check_shared_files(splits),
        *check_duplicates(splits),
        *check_image_sizes(splits),
        *check_missing_labels(splits),
        *check_classes(config, splits),
        *check_boxes(legible, config.names),
        *check_remarks(splits, config.names),
        *check_stray_files(config, splits),
    ]

"""COCO's metrics by pycocotools, the reference implementation."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from utils.metrics.coco import FIGURES


def pycocotools_figures(
    truth: Mapping[str, Any] | Path, predictions: Sequence[Mapping[str, Any]] | Path
) -> dict[str, float]:
    """Return the twelve metrics of a COCO instances file and a results list, given as their contents or as files.

    The test is skipped without pycocotools.
    """
    reason = "a reference implementation of requirements-dev.txt"
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason=reason)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO(str(truth) if isinstance(truth, Path) else None)
        if not isinstance(truth, Path):
            dataset.dataset = truth
            dataset.createIndex()
        results = dataset.loadRes(str(predictions) if isinstance(predictions, Path) else predictions)
        evaluation = cocoeval.COCOeval(dataset, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, evaluation.stats.tolist(), strict=True))

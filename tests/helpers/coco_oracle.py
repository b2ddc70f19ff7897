"""COCO's metrics by pycocotools, the reference implementation."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from utils.metrics.coco import FIGURES


def pycocotools_figures(truth: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the twelve metrics of a COCO instances file and a results list; skips the test without pycocotools."""
    reason = "a reference implementation of requirements-dev.txt"
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason=reason)
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = truth
        dataset.createIndex()
        evaluation = cocoeval.COCOeval(dataset, dataset.loadRes(predictions), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, evaluation.stats.tolist(), strict=True))

"""A finished comparison: read by the hashes of its checkpoints, filtered by kind, class, size and model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.evaluations import image_evaluation
from utils.app.browse import Filter, kind_of, open_comparison
from utils.comparison.predictions import CACHE_VERSION
from utils.datasets.index import DatasetIndex, build_index
from utils.datasets.splits import open_data
from utils.errors import ConfigError
from utils.files import file_hash
from utils.metrics.evaluated_set import EvaluatedSet

SMALL, MEDIUM = (10.0, 10.0, 30.0, 25.0), (60.0, 40.0, 120.0, 110.0)


def evaluated(images: int, found: dict[int, list[tuple[tuple[float, ...], int]]]) -> EvaluatedSet:
    """Predictions on images that each have a small object of class 0 and a medium one of class 1."""
    labels = np.array((SMALL, MEDIUM))
    of_images = []
    for image_id in range(images):
        rows = found.get(image_id, [(SMALL, 0), (MEDIUM, 1)])
        boxes = np.array([box for box, _ in rows]).reshape(-1, 4)
        classes = [class_id for _, class_id in rows]
        confidences = np.linspace(0.9, 0.5, len(rows))
        of_images.append(image_evaluation(boxes, confidences, classes, labels, [0, 1], image_id=image_id))
    return EvaluatedSet.concatenate(of_images)


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A comparison of two models; the second misses the small object of image 2, and has a wrong class on image 4."""
    split = build_index(open_data(str(data)), "val")
    wrong = {2: [(MEDIUM, 1)], 4: [(SMALL, 0), (MEDIUM, 0)]}
    rows = []
    for label, found in (("first", {}), ("second", wrong)):
        weights = tmp_path / "run" / label / "weights" / "best.pt"
        weights.parent.mkdir(parents=True)
        weights.write_text(label)
        store(tmp_path / "run", label, file_hash(weights), split, evaluated(len(split), found))
        metrics = [{"group": "all", "name": "", "metric": "map50_95", "runs": [0.5]}]
        rows.append({"model": label, "checkpoints": [str(weights)], "seed_numbers": [0], "metrics": metrics})
    options = {"data": str(data), "task": "val", "single_cls": False}
    (tmp_path / "run" / "results.json").write_text(json.dumps({"options": options, "results": rows}))
    return tmp_path / "run"


def store(run: Path, label: str, weights: str, split: DatasetIndex, content: EvaluatedSet) -> None:
    (run / "predictions").mkdir(exist_ok=True)
    key = f"{CACHE_VERSION} {weights} {split.fingerprint()} 0 64"
    np.savez_compressed(run / "predictions" / f"any name {label}.npz", key=np.array(key), **vars(content))


def test_images_on_which_models_differ_come_first(folder: Path) -> None:
    comparison = open_comparison(folder)
    assert [run.model for run in comparison.runs] == ["first", "second"]
    images = comparison.images(Filter())
    assert sorted(images) == list(range(6)) and set(images[:2]) == {2, 4}
    assert comparison.names[:2] == ("ring", "cross")


@pytest.mark.parametrize(
    ("wanted", "images"),
    [
        (Filter(kind="false negative"), {2, 4}),
        (Filter(kind="false positive"), {4}),
        (Filter(kind="false negative", class_id=0), {2}),
        (Filter(kind="false negative", size="medium"), {4}),
        (Filter(kind="false positive", size="small"), set()),
        (Filter(kind="false negative", model="first"), set()),
        (Filter(kind="true positive", model="second", class_id=1), {0, 1, 2, 3, 5}),
        (Filter(class_id=5), set()),
    ],
)
def test_filters(folder: Path, wanted: Filter, images: set[int]) -> None:
    comparison = open_comparison(folder)
    assert set(comparison.images(wanted)) == images


def test_panels_show_labels_and_each_model(folder: Path) -> None:
    comparison = open_comparison(folder)
    panels = comparison.panels(2, Filter(kind="false negative"))
    assert [run.model if run else None for run, _ in panels] == [None, "first", "second"]
    assert len({pixels.shape for _, pixels in panels}) == 1
    assert [run.model for run, _ in comparison.panels(2, Filter(model="second")) if run] == ["second"]
    second = comparison.runs[1]
    assert [kind_of(box) for box in second.labels[2]] == ["false negative", ""]


def test_a_moved_comparison_is_read(folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "moved")
    assert len(open_comparison(moved).runs) == 2


def test_what_is_not_a_comparison_is_an_error(folder: Path, data: Path) -> None:
    (folder / "predictions" / "any name second.npz").unlink()
    with pytest.raises(ConfigError) as raised:
        open_comparison(folder)
    assert "second" in raised.value.what
    (folder / "results.json").write_text('{"options": 3}')
    with pytest.raises(ConfigError):
        open_comparison(folder)
    with pytest.raises(ConfigError):
        open_comparison(data.parent)

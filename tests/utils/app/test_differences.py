"""Detections of two models, matched by class name and place."""

import numpy as np

from utils.app.differences import draw_differences, match_detections
from utils.app.models import LoadedModel
from utils.inference.metadata import ModelMetadata
from utils.structures import Detections


def model(*names: str) -> LoadedModel:
    return LoadedModel(
        label="m",
        model=None,  # type: ignore[arg-type] - not run
        metadata=ModelMetadata(names=names, stride=32, image_size=64, data="", single_class=False),
    )


def detections(*boxes: tuple[float, float, float, float, int]) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    return Detections(boxes=rows[:, :4], scores=np.linspace(0.9, 0.5, len(rows)), classes=rows[:, 4].astype(np.int64))


def test_shared_different_and_single_detections() -> None:
    first = detections((0, 0, 10, 20, 0), (30, 0, 40, 20, 1), (50, 50, 60, 70, 0))
    second = detections((0, 0, 10, 20, 1), (30, 1, 40, 20, 1), (80, 0, 90, 10, 0))
    # Ids differ, names decide: `b` of the first is 1, of the second 0.
    found = match_detections((model("a", "b"), model("b", "a")), (first, second))
    kinds = {(pair.first, pair.second): pair.kind for pair in found}
    assert kinds == {(0, 0): "both", (1, 1): "class", (2, -1): "first", (-1, 2): "second"}
    assert {pair.iou for pair in found if -1 in (pair.first, pair.second)} == {0.0}


def test_equal_classes_are_matched_before_larger_overlap() -> None:
    first = detections((0, 0, 10, 20, 0))
    second = detections((0, 0, 10, 20, 1), (0, 4, 10, 20, 0))
    found = match_detections((model("a", "b"), model("a", "b")), (first, second))
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [(0, 1, "both"), (-1, 0, "second")]


def test_without_detections() -> None:
    both = model("a"), model("a")
    assert match_detections(both, (detections(), detections())) == []
    (only,) = match_detections(both, (detections(), detections((0, 0, 4, 8, 0))))
    assert only.kind == "second"


def test_only_the_differences_have_the_colour_of_their_class() -> None:
    image = np.zeros((120, 200, 3), np.uint8)
    drawn = draw_differences(image, model("a"), detections((5, 5, 15, 90, 0), (120, 30, 160, 90, 0)), {0})
    assert drawn[:, :30].any() and np.ptp(drawn[:, :30], axis=2).max() == 0  # grey
    assert np.ptp(drawn[60:, 100:], axis=2).max() > 0 and not image.any()

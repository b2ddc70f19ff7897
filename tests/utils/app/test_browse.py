"""A finished comparison: read by the hashes of its checkpoints, filtered by kind, class, size and model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.finished_comparison import finished_comparison
from utils.app.browse import Filter, kind_of, open_comparison
from utils.errors import ConfigError


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    return finished_comparison(data, tmp_path / "run")


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

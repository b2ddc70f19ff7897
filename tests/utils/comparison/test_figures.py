"""The images in a report: which validation images and runs are shown, and sampling points."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.comparison import index_of, trained_model
from tests.helpers.random_model import random_model
from tests.helpers.random_runs import COST, random_scores
from tests.helpers.sampling import NAMES, model_with_offsets
from utils.comparison import figures
from utils.comparison.figures import (
    draw_figures,
    example_images,
    image_f1,
    image_for_sampling,
    largest_differences,
    representative_seed_pair,
    sampling_images,
)
from utils.comparison.report import EXAMPLES, SAMPLING
from utils.comparison.result import ComparisonResult
from utils.comparison.statistics import ModelScores, compare_with_baseline
from utils.datasets.image_writing import write_image
from utils.datasets.index import DatasetIndex
from utils.document import Image
from utils.errors import DataError
from utils.metrics.evaluated_set import EvaluatedSet
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

Seeds = tuple[int | None, ...]
PANEL_HW, STRIP = (40, 60), 22


def run(true_positives: list[int], false_positives: list[int]) -> EvaluatedSet:
    """Return a run on three images with two objects each."""
    image_ids = np.repeat(np.arange(3), np.add(true_positives, false_positives))
    tp = [[True] * n + [False] * m for n, m in zip(true_positives, false_positives, strict=True)]
    return EvaluatedSet(
        num_images=3,
        image_ids=image_ids,
        boxes=np.tile(np.array([5, 5, 30, 20], np.float32), (len(image_ids), 1)),
        confidences=np.full(len(image_ids), 0.9),
        classes=np.zeros(len(image_ids), np.int64),
        tp=np.repeat(np.concatenate(tp).astype(bool)[:, None], 10, 1),
        claimed_areas=np.zeros(len(image_ids)),
        label_image_ids=np.repeat(np.arange(3), 2),
        label_classes=np.zeros(6, np.int64),
        label_boxes=np.zeros((6, 4)),
    )


def index(folder: Path, *, starts: tuple[int, ...] = (0, 2, 4, 6)) -> DatasetIndex:
    """Return three images with equal labels."""
    paths = [str(write_image(folder / f"{i}.png", np.full((*PANEL_HW, 3), 90, np.uint8))) for i in range(3)]
    return DatasetIndex(
        paths=np.array(paths),
        sizes_hw=np.full((3, 2), PANEL_HW, np.int32),
        labels=np.tile(np.array([0, 0.5, 0.5, 0.4, 0.4], np.float32), (starts[-1], 1)),
        starts=np.array(starts),
    )


def examples(
    folder: Path, model: list[EvaluatedSet], *, name: str = "a", seeds: tuple[Seeds, Seeds] = ((None,), (None,))
) -> list[Image]:
    new, old = (
        ModelScores(label=label, fixed_weights=True, metrics={}, seeds=of)
        for label, of in zip(("new", "old"), seeds, strict=True)
    )
    result = ComparisonResult(
        header="", val=index(folder), names=[name, "b"], models=[], scores=[old, new], pairs=[], costs=[]
    )
    return example_images(result, [[run([0, 1, 2], [0] * 3)], model], 1, folder=folder / "examples")


def test_images_are_ranked_by_the_mean_gain_over_runs():
    assert image_f1(run([2, 1, 0], [0, 1, 0])) == pytest.approx([1, 0.5, 0])
    assert image_f1(run([2, 1, 0], [0, 1, 0]), confidence=0.95) == pytest.approx([0, 0, 0])
    model, baseline = [run([2, 1, 1], [0] * 3), run([2, 1, 0], [0] * 3)], [run([0, 1, 2], [0] * 3)]
    (first, gain), (last, loss) = largest_differences(model, baseline)
    assert (first, gain, last) == (0, 1, 2) and loss == pytest.approx((2 / 3 + 0) / 2 - 1)


def test_the_runs_shown_are_the_most_representative_ones_of_a_shared_seed():
    f1 = (1, 2 / 3, 0), (2 / 3, 0)
    gain = float(np.mean(f1[0]) - np.mean(f1[1]))
    assert representative_seed_pair(f1, ((None,) * 3, (None,) * 2), gain) == (0, 0), "1 - 2/3 is nearest to 0.22"
    assert representative_seed_pair(f1, ((0, 1, 2), (1, 2)), gain) == (1, 0), "of 2/3 - 2/3 and 0 - 0 the first"
    assert representative_seed_pair(f1, ((0, 1, 2), (7, 2)), gain) == (2, 1), "the only shared seed"


def test_examples_show_labels_baseline_and_model_from_left_to_right(tmp_path):
    best, worst = examples(tmp_path, [run([2, 1, 0], [0] * 3)])
    assert [example.path.relative_to(tmp_path).as_posix() for example in (best, worst)] == [
        "examples/new-1.jpg",
        "examples/new-2.jpg",
    ]
    assert (
        best.caption.index("old") < best.caption.index("new") and "0.png" in best.caption and "2.png" in worst.caption
    )
    assert best.caption.index("0.00") < best.caption.index("1.00"), "F1 of what is shown"
    shown = cv2.imread(str(best.path))
    height, width = PANEL_HW
    assert shown.shape == (STRIP + height, 3 * width, 3)
    panels = [shown[STRIP + 2 : -2, start + 2 : start + width - 2].std() for start in (0, width, 2 * width)]
    assert panels[0] > 3 and panels[1] < 3 and panels[2] > 3, "the old model detects nothing here"


def test_large_images_are_scaled_before_boxes_are_drawn(tmp_path, monkeypatch):
    sizes, boxes = [], []
    monkeypatch.setattr(
        figures, "draw_boxes", lambda image, b, *_, **__: sizes.append(image.shape) or boxes.append(b) or image
    )
    monkeypatch.setattr(figures, "PANEL_PIXELS", 30)
    examples(tmp_path, [run([2, 1, 0], [0] * 3)])
    assert set(sizes) == {(20, 30, 3)}
    assert boxes[0][0].tolist() == pytest.approx([9, 6, 21, 14]) and boxes[2][0].tolist() == [2.5, 2.5, 15, 10]


def test_the_caption_has_the_f1_of_the_runs_shown_and_the_mean_gain(tmp_path):
    several = [run([1, 1, 0], [0] * 3), run([2, 1, 0], [0, 0, 1])]
    best = examples(tmp_path, several, seeds=((3, 4), (4,)))[0]
    shown, mean = best.caption.split("F1 ")[1].split(".", 2)[:2], best.caption.rsplit(" ", 1)[1]
    assert "seed 4" in best.caption and "seed 3" not in best.caption
    assert shown[0] == "0" and "1.00" in best.caption and mean == "0.83."


def test_a_class_name_that_no_font_can_show_is_replaced_by_its_id(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "draw_boxes", lambda image, _, texts, *__, **___: drawn.append(texts) or image)
    examples(tmp_path, [run([2, 1, 0], [0] * 3)], name="\ufdd0\U00012000")
    assert drawn[0] == ["0", "0"] and drawn[2] == ["0 0.90", "0 0.90"]


@pytest.fixture(scope="module")
def result() -> ComparisonResult:
    scores = [random_scores(label, seeds, noise=6) for label, seeds in (("old", [1, 2]), ("new", [3, 4]))]
    models, pairs = [trained_model("old"), trained_model("new")], compare_with_baseline(scores, images=24)
    return ComparisonResult(
        header="", val=index_of([], [], []), names="ab", models=models, scores=scores, pairs=pairs, costs=[COST] * 2
    )


def test_images_of_an_earlier_report_are_removed_and_other_files_kept(result, tmp_path, monkeypatch):
    for name in ("examples/old-1.jpg", "sampling/old.jpg", "examples/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise DataError("0.png", "cannot be read", fix="restore it")

    for name in ("example_images", "sampling_images"):
        monkeypatch.setattr(figures, name, fail)
    runs = [[run([2, 1, 0], [0] * 3)] * 2] * 2
    models = [trained_model(label, Path("1.pt"), Path("2.pt")) for label in ("old", "new")]
    drawn = draw_figures(replace(result, models=models, val=index(tmp_path)), runs, folder=tmp_path)
    assert drawn == {EXAMPLES: [], SAMPLING: []}
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["0.png", "1.png", "2.png", "notes.txt"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model without AKConv, and one with learned offsets."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for label, model in (("plain", random_model("yolov5n.yaml", len(NAMES))), ("ak", model_with_offsets())):
        content = {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96}
        found[label] = folder / f"{label}.pt"
        save_checkpoint(found[label], content)
    return found


@pytest.mark.slow
def test_sampling_points_of_models_with_akconv_are_drawn_at_the_labels_of_one_image(weights, tmp_path):
    val = index(tmp_path, starts=(0, 1, 3, 12))
    assert image_for_sampling(val) == 1, "nine objects are too many"
    models = [trained_model(label, path) for label, path in weights.items()]
    scores = [random_scores(label, [1], noise=6) for label in weights]
    shown = ComparisonResult(header="", val=val, names=NAMES, models=models, scores=scores, pairs=[], costs=[])
    images = sampling_images(shown, folder=tmp_path / "sampling")
    assert [image.path.name for image in images] == ["ak.jpg", "ak-offsets.jpg"]
    assert all("ak" in image.caption and cv2.imread(str(image.path)).std() > 5 for image in images)

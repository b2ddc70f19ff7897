"""Sampling plots of a comparison's report."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.random_model import lively_model
from tests.helpers.sampling import NAMES, model_with_offsets
from utils.comparison.report_sampling import sampling_images, shown_image
from utils.datasets.index import DatasetIndex
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of


@pytest.mark.slow
def test_the_report_plots_models_with_akconv_at_the_labels_of_one_image(tmp_path: Path) -> None:
    weights = {}
    for name, model in (("plain", lively_model("yolov5n.yaml", len(NAMES))), ("ak", model_with_offsets())):
        weights[name] = tmp_path / f"{name}.pt"
        save_checkpoint(weights[name], {**describe_model(model, NAMES), "ema": weights_of(model)})
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (7, 9, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), cv2.resize(noise, (60, 40), interpolation=cv2.INTER_CUBIC))
    split = DatasetIndex(
        paths=np.array([str(tmp_path / f"{index}.png") for index in range(3)]),
        sizes_hw=np.full((3, 2), (40, 60), np.int32),
        labels=np.tile(np.array([2, 0.5, 0.5, 0.4, 0.4], np.float32), (12, 1)),
        starts=np.array([0, 1, 3, 12]),
    )
    assert shown_image(split) == 1
    images = sampling_images(list(weights), list(weights.values()), val=split, names=NAMES, folder=tmp_path / "c")
    assert [image.path.name for image in images] == ["ak.jpg", "ak-offsets.jpg"]
    assert images[0].markdown(tmp_path / "c").startswith("![ak: initial and learned") and "(sampling/ak.jpg)" in (
        images[0].markdown(tmp_path / "c")
    )
    for image in images:
        assert cv2.imread(str(image.path)).std() > 5

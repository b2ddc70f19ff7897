"""Sizes and class names of the data set that a run opens."""

import pytest

from utils.datasets.config import load_data_config
from utils.datasets.letterbox import round_image_size
from utils.datasets.splits import batch_bytes, class_names, open_data


@pytest.mark.parametrize(("size", "stride", "rounded"), [(640, 32, 640), (641, 32, 672), (1, 64, 64), (100, 8, 104)])
def test_image_sizes_are_rounded_up_to_the_stride_with_a_warning(size, stride, rounded, caplog):
    with caplog.at_level("WARNING", logger="akyolo"):
        assert round_image_size(size, stride) == rounded
    assert len(caplog.records) == (rounded != size)
    assert all(str(value) in caplog.text for value in (size, stride, rounded)) or not caplog.records


def test_a_single_class_model_has_one_name():
    config = load_data_config("coco.yaml")
    assert class_names(config, single_class=False) == config.names and len(config.names) == 80
    assert class_names(config, single_class=True) == ("object",)


def test_the_bytes_of_a_batch_are_those_of_its_rgb_images():
    assert batch_bytes(4, 96) == 4 * 3 * 96 * 96


def test_opening_the_embedded_data_set_draws_it_once(tmp_path):
    yaml = tmp_path / "shapes.yaml"
    yaml.write_text(
        "path: s\ntrain: images/train\nval: images/val\nnames: [ring]\n"
        "generator: {seed: 1, train: 2, val: 1, test: 0}\n"
    )
    open_data(str(yaml))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*.jpg")}
    open_data(str(yaml))
    assert len(files) == 3 and all(path.stat().st_mtime_ns == time for path, time in files.items())

"""Every layout becomes a YOLO data set with the same boxes, and the source stays as it was."""

import numpy as np
import pytest

from tests.helpers.data_oracles import tree_hash
from tests.helpers.layouts import LAYOUTS, NAMES, STEMS, TRUTH, image_bytes
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.labels import label_path
from utils.datasets.scan import list_images


def stem_by_content():
    return {image_bytes(stem, suffix): stem for stem in STEMS for suffix in (".png", ".jpg", ".bmp")}


def boxes_in_pixels(config):
    """Return the class names and corners of each stem, and the split of each stem."""
    known, boxes, split_of = stem_by_content(), {}, {}
    for split, entries in config.splits.items():
        for path in list_images(config, split) if entries else ():
            with open(path, "rb") as file:
                stem = known[file.read()]
            assert stem not in boxes
            width, height, _ = TRUTH[stem]
            with open(label_path(path), encoding="utf-8") as file:
                rows = [[float(value) for value in line.split()] for line in file]
            boxes[stem] = [
                (
                    config.names[int(c)],
                    ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height),
                )
                for c, x, y, w, h in rows
            ]
            split_of[stem] = split
    return boxes, split_of


def require_truth(boxes, stems=STEMS):
    assert boxes.keys() == {*stems}
    for stem in stems:
        assert [name for name, _ in boxes[stem]] == [name for name, _ in TRUTH[stem][2]]
        expected = [box for _, box in TRUTH[stem][2]]
        np.testing.assert_allclose([box for _, box in boxes[stem]], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognised_and_read_to_the_same_boxes(name, tmp_path, prepare):
    splits = LAYOUTS[name](tmp_path / "数据")
    before = tree_hash(tmp_path / "数据")
    prepare(tmp_path / "数据", "--out", tmp_path / "out")
    assert tree_hash(tmp_path / "数据") == before
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    boxes, split_of = boxes_in_pixels(config)
    require_truth(boxes)
    if splits:
        assert split_of == splits
    else:
        assert {"train", "val"} <= {*split_of.values()}
    orders = [
        NAMES,
        ("圆环", "dog", "red light"),
        ("dog", "圆环", "red light"),
    ]  # the last: LabelImg
    assert config.names in orders
    assert sum(len(build_index(config, split, use_cache=False)) for split in ("train", "val")) >= 2

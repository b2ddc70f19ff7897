"""A COCO data set as published."""

import pytest

from tests.helpers.published_labels import coco_json, write


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "in"
    for name in ("a", "empty"):
        write(root / f"val2017/{name}.jpg")
    write(root / "annotations/instances_val2017.json", coco_json())
    write(root / "annotations/captions_val2017.json", {"images": [], "annotations": []})
    return root

"""VisDrone's text files to YOLO."""

import numpy as np
import pytest

from tests.helpers.published_labels import HEIGHT, WIDTH, rows_in, run_convert, write
from utils.datasets.config import load_data_config
from utils.datasets.convert import visdrone
from utils.datasets.index import build_index
from utils.errors import DataError


def test_visdrone_categories_shift_by_one_and_ignored_rows_are_skipped(tmp_path):
    root = tmp_path / "in/VisDrone2019-DET-train"
    write(root / "images/a.jpg")
    lines = "10,20,30,40,1,4,0,0\n5,5,10,10,0,4,0,0\n0,0,50,50,0,0,0,0,\r\n1,2,3,4,1,10,1,2,\n\n1,1,9,9,1,11,0,0\n"
    write(root / "annotations/a.txt", lines + "110,70,30,30,1,1,0,0\n")
    write(root / "annotations/gone.txt", lines)
    report = run_convert("visdrone", tmp_path / "in", tmp_path / "out")
    rows = rows_in(tmp_path / "out/VisDrone2019-DET-train/labels/a.txt")
    expected = [
        [3, 25 / WIDTH, 40 / HEIGHT, 30 / WIDTH, 40 / HEIGHT],
        [9, 2.5 / WIDTH, 4 / HEIGHT, 3 / WIDTH, 4 / HEIGHT],
        [0, 115 / WIDTH, 75 / HEIGHT, 10 / WIDTH, 10 / HEIGHT],  # clipped to the image
    ]
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    counts = {"images": 1, "objects": 3, "rows to ignore skipped": 2, "rows of other categories skipped": 1}
    assert report == {**counts, "annotations without an image skipped": 1}
    config = load_data_config(str(tmp_path / "out/data.yaml"))
    assert config.names == visdrone.NAMES == load_data_config("VisDrone.yaml").names
    assert len(build_index(config, "train", use_cache=False).labels) == 3


@pytest.mark.parametrize("line", ["1,2,3", "a,b,c,d,1,4,0,0", "1,2,3,4,1,car,0,0", "1 2 3 4 1 4 0 0"])
def test_an_invalid_visdrone_row_is_named(tmp_path, line):
    write(tmp_path / "in/x/images/a.jpg")
    write(tmp_path / "in/x/annotations/a.txt", f"1,2,3,4,1,4,0,0\n{line}\n")
    with pytest.raises(DataError, match=r"x/annotations/a\.txt:2"):
        run_convert("visdrone", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()

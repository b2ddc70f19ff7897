"""What `prepare.py --check` reads in a label file is what training reads: the same boxes, or both refuse the file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.label_files import REPEATABLE, damaged_label_files, label_files
from utils.boxes import cxcywh_to_xyxy
from utils.datasets.config import DataConfig
from utils.datasets.labels import parse_labels
from utils.preparation.doctor import find_faults
from utils.preparation.survey import survey_split

NAMES = ("a", "b c", "自行车")
REFUSALS = {"label-unreadable", "values-out-of-range", "class-ids-out-of-range", "class-ids-from-one"}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / "images/a.png"), np.full((24, 36, 3), 90, np.uint8))
    return folder


def boxes_of_check(folder: Path, data: bytes) -> list[list[float]] | None:
    """Return class and corners, clipped to the image, of the rows with area; None if a finding refuses the file."""
    (folder / "labels/a.txt").write_bytes(data)
    config = DataConfig(file=folder / "data.yaml", names=NAMES, roots=(folder,), splits={"train": ("images",)})
    split = survey_split("train", [str(folder / "images/a.png")])
    if REFUSALS & {finding.kind for finding in find_faults(config, [split], [split])}:
        return None
    rows = np.concatenate((split.rows[:, :1], split.boxes(0).clip(0, 1)), 1)
    return rows[((rows[:, 3:] - rows[:, 1:3]).astype(np.float32) > 0).all(1)].tolist()


def boxes_of_training(data: bytes) -> list[list[float]] | None:
    parsed = parse_labels(data, num_classes=len(NAMES))
    if parsed.problems:
        return None
    return np.concatenate((parsed.rows[:, :1], cxcywh_to_xyxy(parsed.rows[:, 1:].astype(float))), 1).tolist()


def assert_agreement(folder: Path, data: bytes) -> None:
    checked, trained = boxes_of_check(folder, data), boxes_of_training(data)
    assert (checked is None) == (trained is None), (checked, trained)
    for ours, theirs in ((checked or [], trained or []), (trained or [], checked or [])):
        for box in ours:
            assert any(np.allclose(box, other, rtol=0, atol=1e-6) for other in theirs), (box, theirs)


@pytest.mark.slow
@settings(REPEATABLE, max_examples=150)
@given(data=st.one_of(label_files(), damaged_label_files()), encoding=st.sampled_from(ENCODINGS))
def test_generated_files_are_read_equally(folder: Path, data: bytes, encoding: str) -> None:
    assert_agreement(folder, data)
    assert_agreement(folder, data.decode("latin-1").encode(encoding))


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n \n", "0 .5 .5 .2 .2", "0 .1 .1 .5 .1 .5 .5", "0 .1 .1 -.5 .1 .5 .5", "0 .1 .1 .5 .1 .5 1.5"),
        *("0 .9 .5 .4 .2", "0 .5 .5 0 .2", "0 .5 .5 1e-50 .2", "-0 .5 .5 .2 .2", "-1 .5 .5 .2 .2", "1.0 .5 .5 .2 .2"),
        *(
            "3 .5 .5 .2 .2",
            "1e9 .5 .5 .2 .2",
            "0 1e300 .5 .2 .2",
            "0 nan .5 .2 .2",
            "0 1_0 .5 .2 .2",
            "\uff10 .5 .5 .2 .2",
        ),
        *("0 .5 .5 .2 .2 .9", "0,.5,.5,.2,.2", "0 -0 .5 .2 .2", "0 1.0000001 .5 .2 .2", "0\x0b.5 .5 .2 .2"),
        *("0 .5 .5 .2 .2\r1 .5 .5 .2 .2", "0 .5 .5 .2 .2\x851 .5 .5 .2 .2", "\ufeff0 .5 .5 .2 .2", "0 .5 .5 .2 .2\0"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_edge_cases_are_read_equally(folder: Path, text: str, encoding: str) -> None:
    assert_agreement(folder, text.encode(encoding))


def test_a_polygon_beyond_the_image_is_refused_by_both_though_its_box_is_in_range(folder: Path) -> None:
    data = b"0 .1 .1 -.1 .3 .3 .3\n"
    assert boxes_of_check(folder, data) is None and boxes_of_training(data) is None

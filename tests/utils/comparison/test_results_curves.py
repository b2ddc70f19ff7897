"""Training curves read from results.csv, of this program or of YOLOv5."""

import pytest

from tests.helpers.comparison import trained_model
from utils.comparison.results_curves import read_curves
from utils.files import write_csv


@pytest.mark.parametrize(
    ("content", "readable"),
    [
        (b"  epoch,   metrics/mAP_0.5,  train/box_loss\n  0, 0.1, inf\n", True),
        (b"", False),
        (b"metrics/mAP_0.5,train/box_loss\n0.1,broken\n", False),
        (b"\xff\xfe\x00metrics", False),
        (b'metrics/mAP_0.5\n0.1\n0.2,0.3,0.4\n"', False),
    ],
)
def test_curves_of_another_program_are_read_or_skipped(content, readable, tmp_path, caplog):
    (tmp_path / "results.csv").write_bytes(content)
    curves = read_curves([trained_model("a", tmp_path / "weights/best.pt")])
    messages = [record.getMessage() for record in caplog.records]
    if readable:
        assert curves["mAP50"][0].values.tolist() == [0.1] and messages == []
        assert list(curves) == ["mAP50"], "a column without a number is no curve"
    else:
        assert curves == {} and len(messages) == 1
        assert str(tmp_path / "results.csv") in messages[0] and "\n" not in messages[0]


def test_losses_of_both_splits_are_curves_of_one_title(tmp_path):
    for run in range(2):
        rows = [("train/cls_loss", "val/cls_loss", "metrics/mAP_0.5:0.95"), (0.5 + run, 0.7, 0.1), (0.4, 0.6, 0.2)]
        write_csv(tmp_path / f"{run}" / "results.csv", rows)
    paths = [tmp_path / f"{run}" / "weights/best.pt" for run in range(2)]
    curves = read_curves([trained_model("without", tmp_path / "x.pt"), trained_model("a", *paths)])
    assert {curve.model for curve in curves["class loss"]} == {1} and list(curves) == ["mAP50-95", "class loss"]
    found = [(curve.run, curve.split, curve.values.tolist()) for curve in curves["class loss"]]
    assert found == [
        (0, "training", [0.5, 0.4]),
        (0, "validation", [0.7, 0.6]),
        (1, "training", [1.5, 0.4]),
        (1, "validation", [0.7, 0.6]),
    ]

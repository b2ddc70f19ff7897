"""Labels that a model contradicts, with a model that sees the coloured rectangles of the test set exactly."""

from pathlib import Path

import pytest
import torch

from tests.helpers.faulty_data import COLOURS, FAULTY_NAMES, WIDTH, FaultySet
from tests.helpers.small_model import small_checkpoint
from utils.datasets.config import load_data_config
from utils.datasets.scan import list_images
from utils.errors import ConfigError
from utils.inference.detector import TorchNetwork
from utils.inference.nms import NmsSettings
from utils.inference.predict import InferenceConfig
from utils.options import PrepareOptions
from utils.preparation.doctor import run_check
from utils.preparation.findings import Finding
from utils.preparation.survey import survey_split
from utils.preparation.suspects import SEEN, find_suspects, suspect_findings

SETTINGS = InferenceConfig(size_hw=(WIDTH, WIDTH), stride=16, nms=NmsSettings(conf_threshold=SEEN))


class ColourDetector:
    """Detects each rectangle of the test set by its colour, with confidence 0.9."""

    num_classes = len(COLOURS)
    max_stride = 16

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        predictions = torch.zeros(len(images), len(COLOURS), 5 + len(COLOURS))
        for index, image in enumerate(images):
            for class_id, colour in enumerate(COLOURS):
                mask = ((image * 255 - torch.tensor(colour)[:, None, None]).abs() < 2).all(0)
                y, x = torch.nonzero(mask, as_tuple=True)
                corner, end = torch.stack([x.min(), y.min()]), torch.stack([x.max(), y.max()]) + 1
                predictions[index, class_id, :4] = torch.cat([(corner + end) / 2, end - corner])
                predictions[index, class_id, 4] = 0.9
                predictions[index, class_id, 5 + class_id] = 1
        return predictions, []


def suspects_of(data: FaultySet) -> dict[str, Finding]:
    """Return the findings by kind."""
    config = load_data_config(str(data.yaml))
    splits = [survey_split(name, list_images(config, name)) for name in ("train", "val")]
    findings = suspect_findings(
        find_suspects(TorchNetwork(detector=ColourDetector()), splits, SETTINGS), splits, config.names
    )
    return {finding.kind: finding for finding in findings}


def test_right_labels_are_not_suspected(tmp_path: Path) -> None:
    assert suspects_of(FaultySet(tmp_path / "set")) == {}


def test_a_label_of_another_class_is_found_with_the_pair(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    (_, *box), *rest = data.rows("val", 3)
    data.write_rows("val", 3, [*rest, [2, *box]])
    (finding,) = suspects_of(data).values()
    assert (finding.kind, finding.severity, finding.count) == ("labels-of-another-class", "warning", 1)
    assert finding.details["pairs"] == [{"labelled": FAULTY_NAMES[2], "predicted": FAULTY_NAMES[0], "count": 1}]
    (example,) = finding.examples
    assert Path(example.path) == data.image("val", 3)
    x, y, w, h = box
    assert example.marks[0].box == pytest.approx((x - w / 2, y - h / 2, x + w / 2, y + h / 2), abs=1e-5)


def test_classes_exchanged_throughout_spoil_a_result(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    for split in ("train", "val"):
        data.rewrite(split, lambda row: [{0: 1, 1: 0}.get(int(row[0]), row[0]), *row[1:]])
    found = suspects_of(data)
    assert found["classes-swapped"].severity == "spoils" and found["classes-swapped"].count == 1
    assert {FAULTY_NAMES[0], FAULTY_NAMES[1]} == set(found["classes-swapped"].examples[0].words.split(" and "))
    assert found["labels-of-another-class"].count == 56


def test_missing_and_invented_labels_are_found(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    data.write_rows("train", 1, data.rows("train", 1)[1:])
    empty = (0.02, 0.02, 0.03, 0.03)
    data.write_rows("train", 2, [*data.rows("train", 2), [1, *empty]])
    found = suspects_of(data)
    assert found.keys() == {"objects-unlabelled", "labels-unconfirmed"}
    assert [Path(e.path) for e in found["objects-unlabelled"].examples] == [data.image("train", 1)]
    assert [Path(e.path) for e in found["labels-unconfirmed"].examples] == [data.image("train", 2)]


def test_two_labels_on_one_object_do_not_accuse_the_right_one(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    rows = data.rows("train", 1)
    data.write_rows("train", 1, [*rows, [2, *rows[0][1:]]])  # the second label is another finding's
    assert suspects_of(data) == {}


def test_a_checkpoint_is_run_over_all_splits(tmp_path: Path) -> None:
    data = FaultySet(tmp_path / "set")
    weights = small_checkpoint(tmp_path / "w.pt", "yolov5n.yaml")
    options = PrepareOptions(
        source=str(data.yaml), check=True, weights=str(weights), imgsz=96, project=str(tmp_path / "check")
    )
    assert run_check(options) in (0, 1)
    assert (tmp_path / "check/exp/check.json").is_file()
    data.write_yaml(names=["a", "b", "c", "d"])
    with pytest.raises(ConfigError):
        run_check(options)

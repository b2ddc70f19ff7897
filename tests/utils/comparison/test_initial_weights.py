"""What the compared models were trained from stands in the heading, as far as their runs tell."""

from pathlib import Path

import numpy as np
import pytest
import torch

from utils.comparison.candidates import Candidate, from_configs
from utils.comparison.checks import heading
from utils.comparison.initial_weights import initial_weights
from utils.datasets.index import DatasetIndex
from utils.options import CompareOptions
from utils.weights.transfer import transfer_weights

CONFIG = from_configs(["yolov5n.yaml"])[0].config


def finished(folder: Path, label: str, **options: object) -> Candidate:
    return Candidate(label=label, config=CONFIG, weights=(folder / label / "weights/best.pt",), options=options)


def test_finished_weights_tell_what_they_were_trained_from(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scratch, other = finished(tmp_path, "a", weights="", epochs=1), finished(tmp_path, "b", weights="")
    assert initial_weights([scratch, other]) == "The finished weights were trained from scratch."
    taken, unknown = finished(tmp_path, "c", weights="d/best.pt"), finished(tmp_path, "e")
    with caplog.at_level("INFO", "akyolo"):  # the log of the run says what the training said
        transfer_weights(
            torch.nn.Sequential(torch.nn.Linear(3, 1), torch.nn.Linear(1, 1)),
            {"0.weight": torch.ones(1, 3), "0.bias": torch.ones(1)},
            source="d/best.pt",
        )
    assert initial_weights([taken]) == "The finished weights were trained from d/best.pt."
    (tmp_path / "c.log").write_text("\n".join(["$ python train.py", *caplog.messages]))
    assert initial_weights([scratch, taken, unknown]) == (
        "Of the finished weights were trained: a from scratch, c from d/best.pt (66.7% of the parameters); of e it is "
        "not known."
    )
    assert initial_weights([unknown]) == "" and initial_weights([]) == ""


def test_the_heading_tells_what_models_were_trained_from(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    val = DatasetIndex(
        paths=np.array(["1.png"]),
        sizes_hw=np.full((1, 2), 64, np.int32),
        labels=np.array([(0, 0.5, 0.5, 0.2, 0.2)], np.float32),
        starts=np.array([0, 1]),
    )
    told = heading(CompareOptions(cfg=("a.yaml", "b.yaml")), val, [], device=cpu)
    assert "Trained alike from scratch: 640 px" in told and "finished" not in told
    told = heading(CompareOptions(weights=("a", "b")), val, [finished(tmp_path, "a", weights="")], device=cpu)
    assert "trained from scratch." in told and "alike" not in told

"""Checkpoints of this program: written with a hash, verified on loading, inconsistent ones refused in one line."""

import os
from pathlib import Path

import pytest
import torch

from utils import __version__
from utils.errors import CheckpointError
from utils.weights.checkpoint import content_hash, load_checkpoint, load_model, save_checkpoint


def test_our_checkpoints_are_read_and_an_altered_byte_is_detected(tmp_path: Path) -> None:
    content = {"epoch": 3, "ema": {"a.weight": torch.randn(7, 5)}, "names": ["a"], "optimizer": {"state": {0: {}}}}
    path = tmp_path / "ours.pt"
    save_checkpoint(path, content)
    expected = {"schema": 1, **content, "software_version": __version__}
    assert content_hash(load_checkpoint(path)) == content_hash(expected)
    data = path.read_bytes()
    start = data.index(content["ema"]["a.weight"].numpy().tobytes())
    path.write_bytes(data[: start + 9] + bytes([data[start + 9] ^ 1]) + data[start + 10 :])
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert caught.value.where == str(path)


def test_a_value_altered_in_an_intact_file_is_detected(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours.pt", {"epoch": 3, "ema": {"a.weight": torch.randn(7, 5)}})
    content = torch.load(tmp_path / "ours.pt", weights_only=True)
    content["ema"]["a.weight"][3, 2] += 1e-6
    torch.save(content, tmp_path / "altered.pt")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "altered.pt")
    assert caught.value.where == str(tmp_path / "altered.pt")


def test_a_checkpoint_from_before_versions_were_recorded_is_read(tmp_path: Path) -> None:
    content = {"schema": 1, "epoch": 3, "ema": {"a.weight": torch.randn(7, 5)}}
    torch.save({**content, "sha256": content_hash(content)}, tmp_path / "old.pt")
    assert content_hash(load_checkpoint(tmp_path / "old.pt")) == content_hash(content)


HEAD = [[-1, 1, "Detect", ["nc", "anchors"]]]
CONFIG = {"nc": 2, "anchors": 1, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": HEAD}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"config": "yolov5n"}, "model"),
        ({"ema": [torch.zeros(2)]}, "model"),
        ({"ema": {"a": 1.0}}, "model"),
        ({"names": ["a"]}, "2 classes"),
        ({"names": [torch.zeros(2)] * 2}, "2 classes"),
        ({"config": {**CONFIG, "backbone": [[-1, 1, "os.system\nerror: fine", ["x"]]]}}, "yaml"),
        ({"config": {**CONFIG, "backbone": [[-1, 1, "Conv", [100_000_000, 9, 2]]]}}, "model"),
        ({"config": {**CONFIG, "backbone": [[-1, 1, "Conv", [40_000, 3, 2]]]}}, "model.0.conv.weight"),
        ({"config": {**CONFIG, "backbone": [[-1, 999, "Conv", [8]]]}}, "1000 layers, but has 0 tensors"),
    ],
)
def test_inconsistent_content_with_a_correct_hash_is_refused(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    content = {"config": CONFIG, "config_name": "x.yaml", "names": ["a", "b"], "ema": {}, **changes}
    save_checkpoint(tmp_path / "ours.pt", content)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "ours.pt")
    assert caught.value.where == str(tmp_path / "ours.pt") and named in caught.value.what
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("pipe.pt", "none.pt", "."):
        with pytest.raises(CheckpointError) as caught:
            load_model(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        load_model("a\0b.pt")
    assert caught.value.where == r"'a\x00b.pt'"

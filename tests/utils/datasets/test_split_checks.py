"""Images that splits share, splits without objects, and missing label files are warned of before training."""

import io
import shutil
from pathlib import Path

import pytest

from tests.helpers.faulty_data import FaultySet
from utils.datasets import split_checks
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.split_checks import HEAD, overlapping_images, split_warnings


def warnings_of(data: FaultySet, split: str = "val") -> list[str]:
    config = load_data_config(str(data.yaml))
    return split_warnings(config, build_index(config, split, use_cache=False), split)


def test_images_overlap_if_their_files_are_equal_byte_for_byte(tmp_path: Path) -> None:
    head = b"0" * HEAD
    contents = {"a": b"12", "b": b"34", "c": b"12", "d": b"12345", "e": head + b"x", "f": head + b"y", "g": head + b"x"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    split = [str(tmp_path / name) for name in ("a", "missing", "e")]
    evaluated = [str(tmp_path / name) for name in "bcdfgm"]
    assert overlapping_images(split, evaluated) == [str(tmp_path / "c"), str(tmp_path / "g")]


def test_a_clean_split_has_no_warnings(tmp_path: Path) -> None:
    assert warnings_of(FaultySet(tmp_path)) == []


def test_images_shared_with_train_are_counted(tmp_path: Path) -> None:
    data = FaultySet(tmp_path)
    shutil.copy(data.image("train", 3), data.image("val", "copy"))
    (warning,) = warnings_of(data)
    assert "1 of 13" in warning and str(data.image("val", "copy")) in warning
    assert warnings_of(data, "train") == []


def test_a_val_that_is_train_reads_no_file_to_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FaultySet(tmp_path)
    data.yaml.write_text(data.yaml.read_text().replace("images/val", "images/train"))
    monkeypatch.setattr(split_checks, "_read", None)
    (warning,) = warnings_of(data)
    assert "16 of 16" in warning


def test_a_linked_image_is_the_same_image(tmp_path: Path) -> None:
    data = FaultySet(tmp_path)
    data.image("val", 0).unlink()
    data.image("val", 0).symlink_to(data.image("train", 0))
    (warning,) = warnings_of(data)
    assert "1 of 12" in warning


def test_more_objects_than_are_evaluated_are_one_warning(tmp_path: Path) -> None:
    """Of 400 objects, 300 detections find three quarters at best."""
    data = FaultySet(tmp_path)
    rows = [f"0 {(i % 20 + 0.5) / 20} {(i // 20 + 0.5) / 20} 0.04 0.04" for i in range(400)]
    data.write_rows("val", 0, "\n".join(rows))
    (warning,) = warnings_of(data)
    assert "300" in warning and "400" in warning
    config = load_data_config(str(data.yaml))
    index = build_index(config, "val", use_cache=False)
    assert split_warnings(config, index, "val", max_detections=400) == []
    assert split_warnings(config, index, "val", max_detections=399) != []


@pytest.mark.parametrize("kept", [0, 1])
def test_missing_labels_and_objects_are_two_warnings(kept: int, tmp_path: Path) -> None:
    data = FaultySet(tmp_path)
    for index in range(kept, 12):
        data.label("val", index).unlink()
    data.write_rows("val", 0, data.rows("val", 0) if kept else "")
    warnings = warnings_of(data)
    assert ["have no label file" in warning for warning in warnings] == ([True] if kept else [False, True])


def test_files_that_cannot_be_read_are_equal_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FaultySet(tmp_path)
    train, val = (str(data.image(split, 0)) for split in ("train", "val"))
    shutil.copy(val, train)
    assert overlapping_images([train], [val]) == [val]
    opened, denied = io.FileIO, set()

    def refuse(path: str) -> io.FileIO:
        if path in denied:
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(io, "FileIO", refuse)
    for path in (train, val):
        denied.add(path)
        assert overlapping_images([train], [val]) == []

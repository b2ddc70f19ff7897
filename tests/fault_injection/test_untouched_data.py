"""No command changes a byte of a data set: its tree of hashes stays the same, and a read-only one is enough."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.data_oracles import tree_hash
from tests.helpers.faulty_data import FaultySet
from tests.helpers.forked_scripts import ForkedScripts, can_isolate, forked_scripts
from tests.helpers.small_model import small_checkpoint
from tests.helpers.training_runs import SMALL_MODEL

SMALL = "--imgsz 64 --device cpu"
TRAINING = f"--cfg small.yaml --epochs 1 --batch-size 2 --workers 0 {SMALL}"
COMMANDS = [
    f"train.py --data set/data.yaml {TRAINING}",
    f"train.py --data set/data.yaml {TRAINING} --cache disk --image-weights --multi-scale",
    f"train.py --data set/data.yaml {TRAINING} --evolve 1",
    f"val.py --data set/data.yaml --weights best.pt --workers 0 --save-txt --save-json {SMALL}",
    f"detect.py --source set/images/val --weights best.pt --save-txt --save-crop --save-csv {SMALL}",
    "export.py --data set/data.yaml --weights best.pt --include onnx torchscript --benchmark --repeats 1 --imgsz 64",
    f"compare.py --data set/data.yaml --weights best.pt run/exp --workers 0 --browse {SMALL}",
    "prepare.py set --out prepared",
    "prepare.py set --out linked --in-place-lists --split 8 2",
    "prepare.py set/data.yaml --check",
    f"prepare.py set/data.yaml --check --weights best.pt {SMALL}",
    f"-m utils.explain --weights best.pt --data set/data.yaml --images 1 {SMALL}",
]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not can_isolate(), reason="needs Linux and the right to mount"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untouched")
    data = FaultySet(folder / "set", sizes={"train": 4, "val": 3})
    data.write_yaml(names=["car", "bus", "bike"], test="images/val")
    # Faults that a program might want to repair: a damaged image, an invalid row, a file without a label.
    data.image("train", 0).write_bytes(data.image("train", 0).read_bytes()[:-40])
    data.write_rows("train", 1, "0 1.5 0.5 0.1 0.1\n")
    data.label("train", 2).unlink()
    (folder / "small.yaml").write_text(SMALL_MODEL)
    small_checkpoint(folder / "best.pt", "yolov5n-AKConv.yaml")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ForkedScripts]:
    with forked_scripts() as server:
        outcome = server.run(f"train.py --data set/data.yaml {TRAINING} --noplots --project run".split(), cwd=place)
        assert outcome.code == 0, outcome.err
        yield server


@pytest.mark.parametrize("read_only", [False, True], ids=["hashed", "read-only"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_data_set_is_not_touched(command: str, read_only: bool, place: Path, server: ForkedScripts) -> None:
    before = tree_hash(place / "set"), [os.stat(path).st_mtime_ns for path in sorted((place / "set").rglob("*"))]
    words = [f"{word}-{read_only}" if word in ("prepared", "linked") else word for word in command.split()]
    folders = [str(place / "set")] if read_only else []
    outcome = server.run(words, cwd=place, read_only=folders, timeout=1200)
    # --check has found the faults of the data set, which is its exit code 1.
    assert outcome.code == int("--check" in words) and not outcome.errors, outcome
    assert (
        tree_hash(place / "set"),
        [os.stat(path).st_mtime_ns for path in sorted((place / "set").rglob("*"))],
    ) == before


def test_the_mount_is_read_only(place: Path, server: ForkedScripts) -> None:
    command = ["val.py", "--data", "set/data.yaml", "--weights", "best.pt", "--project", "set/runs", *SMALL.split()]
    outcome = server.run(command, cwd=place, read_only=[str(place / "set")])
    assert outcome.code == 2 and "Read-only file system" in outcome.err and not (place / "set/runs").exists()

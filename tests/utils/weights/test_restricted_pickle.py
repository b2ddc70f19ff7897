"""Checkpoint files are read without being run: honest ones as torch reads them, hostile ones end in one error line."""

import json
import os
import pickle
import random
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.helpers.assemble_pickle import call, make, pickled
from tests.helpers.hostile_pickles import CANARY, COMMAND, corpus
from utils.errors import CheckpointError
from utils.weights.checkpoint import content_hash, load_checkpoint, load_model
from utils.weights.restricted_pickle import DamagedError, PickleStub, PickleStubClass, RefusedError, RestrictedUnpickler
from utils.weights.torch_file import DTYPES, TensorUnpickler, read_torch_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


def saved(value: object, *, legacy: bool = False) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def unpickle(data: bytes) -> object:
    return RestrictedUnpickler(BytesIO(data)).load()


def honest() -> dict[str, object]:
    flat = torch.arange(60.0)
    tensors = {str(dtype): torch.randn(3, 5).mul(3).to(dtype) for dtype in DTYPES.values()}
    views = [flat[5:25].view(4, 5).t(), flat[::7], flat.view(3, 4, 5).permute(2, 0, 1), torch.zeros(0, 3), flat.sum()]
    plain = {"a": [1, -1, 2**70, 1.5, None, True, "é\n", b"b", (), (1, (2, 3, 4, 5))], 7: {}, "": []}
    layer = torch.nn.Conv2d(3, 5, (1, 2))
    return {"tensors": tensors, "views": views, "plain": plain, "state": layer.state_dict(), "p": layer.weight}


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_values_and_tensors_are_read_as_torch_reads_them(legacy: bool) -> None:
    data = saved(honest(), legacy=legacy)
    read, expected = read_torch_file(data), torch.load(BytesIO(data), weights_only=True)
    assert content_hash(read) == content_hash(expected) and read["plain"] == expected["plain"]
    for view, other in zip(read["views"], expected["views"], strict=True):
        assert view.stride() == other.stride() and view.shape == other.shape
    assert read["views"][0].untyped_storage().data_ptr() == read["views"][1].untyped_storage().data_ptr()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol_is_read(protocol: int) -> None:
    value = {"a": [1, 300, 70_000, -5, "x" * 300, b"\xff" * 300, b"", 2.5, (1, 2)], "b": {"c": None}, "d": [[]] * 3}
    assert unpickle(pickle.dumps(value, protocol)) == value
    stub = unpickle(pickle.dumps({3, "x"}, protocol))
    assert isinstance(stub, PickleStub) and stub.kind == "builtins.set" and set(stub.args[0]) == {3, "x"}


def test_objects_become_stubs_and_their_modules_are_not_imported() -> None:
    data = saved({"layer": torch.nn.Linear(2, 3), "path": Path("a/b"), "set": {1}})
    before = set(sys.modules)
    read = read_torch_file(data)
    foreign = unpickle(pickled(make("pip._internal.Thing", {"a": 1})))
    assert set(sys.modules) == before
    assert isinstance(foreign, PickleStub) and foreign.kind == "pip._internal.Thing" and foreign.state == {"a": 1}
    layer = read["layer"]
    assert isinstance(layer, PickleStub) and layer.kind == "torch.nn.modules.linear.Linear"
    assert layer.state["in_features"] == 2 and layer.state["_parameters"]["weight"].shape == (3, 2)
    assert read["path"].kind.startswith("pathlib.") and read["path"].args == ("a", "b")
    assert read["set"].args == ([1],)


def test_all_storages_together_are_no_larger_than_the_file() -> None:
    reader = TensorUnpickler(BytesIO(), budget=1000)
    kind = PickleStubClass("torch.FloatStorage", callable=False)
    first = reader.persistent_load(("storage", kind, "0", "cpu", 200))
    assert first.nbytes == 800 and reader.persistent_load(("storage", kind, "0", "cpu", 200)) is first
    for count in (51, 2**40):  # before their memory is allocated
        with pytest.raises(DamagedError):
            reader.persistent_load(("storage", kind, "1", "cpu", count))
    assert list(reader.storages) == ["0"]


def test_only_listed_names_may_be_called() -> None:
    for name in ("pip._internal.Thing", "torch.nn.Linear"):
        assert isinstance(unpickle(pickled(make(name, {"a": 1}))), PickleStub)
        with pytest.raises(RefusedError):
            unpickle(pickled(call(name, "x")))


def test_altered_pickles_give_a_typed_error_or_a_value() -> None:
    layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    with zipfile.ZipFile(BytesIO(saved({"model": layers, "names": {0: "a", 1: "b"}, "x": [1, 2.5, (3,)]}))) as archive:
        data = archive.read("archive/data.pkl")
    rng = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        altered = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            altered[rng.randrange(len(altered))] = rng.choice((*b"\x80.(}]ucRb\x85\x81Q0e", rng.randrange(256)))
        cut = bytes(altered[: rng.randrange(len(altered))] if rng.random() < 0.2 else altered)
        try:
            TensorUnpickler(BytesIO(cut), budget=10_000).load()
            outcomes["read"] += 1
        except (DamagedError, RefusedError) as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def test_the_reader_refuses_every_hostile_file() -> None:
    cases = corpus(saved({"model": torch.nn.Conv2d(30, 40, 3), "epoch": 3}))
    for label, data, expected in cases:
        with pytest.raises(CheckpointError) as error:
            load_model("x.pt", content=load_checkpoint("x.pt", data=data))
        assert expected in str(error.value) and "\n" not in str(error.value), label


Outcomes = tuple[list[tuple[str, str]], list[dict[str, object]], Path]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What detect.py did with every file of the corpus, in a process that records every dangerous event."""
    folder = tmp_path_factory.mktemp("hostile")
    cases = corpus(saved({"model": torch.nn.Conv2d(30, 40, 3), "epoch": 3}))
    paths = []
    for index, (_, data, _) in enumerate(cases):
        paths.append(str(folder / f"{index}.pt"))
        Path(paths[-1]).write_bytes(data)
    cv2.imwrite(str(folder / "image.png"), np.zeros((32, 64, 3), np.uint8))
    (folder / "paths.json").write_text(json.dumps(paths))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tests.helpers.tripwire", "paths.json"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [(label, expected) for label, _, expected in cases], lines, folder


def test_hostile_files_do_nothing_and_end_in_one_line(outcomes: Outcomes) -> None:
    cases, (*lines, total), folder = outcomes
    assert len(cases) == len(lines) >= 290
    for (label, expected), line in zip(cases, lines, strict=True):
        message = str(line["err"])
        started = str(line["out"])  # what the command was given
        assert line["events"] == [] and started.startswith("detect: ") and started.count("\n") == 1, (label, line)
        assert line["code"] == 2 and message.startswith("error: ") and message.count("\n") == 1, (label, line)
        assert message.endswith("\n") and len(message) < 800 and expected and expected in message, (label, message)
        assert float(str(line["seconds"])) < 20, (label, line)
    assert total["grown_kilobytes"] < 400_000
    assert not (folder / CANARY).exists() and not (folder / "runs").exists()


def test_the_corpus_is_dangerous_and_the_tripwire_records_it(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickled(call("os.system", COMMAND)))
    program = (
        "import sys, json, pickle, pathlib\n"
        "from tests.helpers.tripwire import Recorder\n"
        "recorder = Recorder(); sys.addaudithook(recorder); data = pathlib.Path('x.pkl').read_bytes()\n"
        "recorder.on = True; pickle.loads(data); recorder.on = False\n"
        "print(json.dumps(recorder.events))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    events = " ".join(json.loads(result.stdout))
    assert "pickle.find_class" in events and "os.system" in events and (tmp_path / CANARY).exists()

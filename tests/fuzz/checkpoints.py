"""Checkpoints, ours and those in the format of YOLOv5."""

from __future__ import annotations

import copy
import io
import os
import pickle
import pickletools
import random
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.yolo import DetectionModel
from tests.fuzz.isolation import WrongResultError
from tests.fuzz.kind import Bases, Kind
from tests.fuzz.mutation import hostile, hostile_key, mutate_bytes, mutate_tree, near, nodes, pick
from tests.fuzz.yamls import TINY
from tests.helpers import yolov5_writer
from tests.helpers.assemble_pickle import MAGIC, call, edit_zip, emit, pickled, push_global
from tests.helpers.tiny_data import TINY_DATA
from tests.helpers.training_runs import SMALL_MODEL, train_options
from utils.inference.model_loading import checkpoint_metadata
from utils.training.resume_checks import check_run
from utils.training.run import run_training
from utils.weights.checkpoint import checkpoint_bytes, describe_model, load_checkpoint, load_model, weights_of

NAMES = ("ring", "cro'ss", "细胞")
OFFICIAL: dict[str, dict[str, Any]] = {
    "plain": {},
    "legacy": {"legacy": True, "optimizer": True},
    "old": {"old": True, "network": "Model", "half": False},
    "ema": {"in_ema": True, "names_as": "dict"},
}
OFFICIAL_YAML = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Conv", [8, 6, 2, 2]],
        [-1, 1, "LDConv", [8, 5, 2]],
        [-1, 1, "C3", [16]],
        [-1, 1, "Conv", [16, 3, 2]],
    ],
    "head": [[[1, 3], 1, "Detect", ["nc", "anchors"]]],
}
GLOBALS = (
    "os.system",
    "builtins.eval",
    "torch.load",
    "models.yolo.Model",
    "collections.OrderedDict",
    "torch.Size",
    "numpy.dtype",
)
PUSHED = (
    *map(emit, (0, -1, 2**40, 2**70, 1.5, None, True, "x", "\n", b"y", (), [], {}, (1, 2), {"a": 1})),
    *map(push_global, GLOBALS),
    *map(call, GLOBALS),
    *(pickle.POP, pickle.DUP, pickle.MARK, pickle.REDUCE, pickle.BUILD, pickle.TUPLE1, pickle.APPEND, pickle.SETITEM),
    *(pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.BINPERSID, pickle.NEWOBJ, pickle.BINGET + b"\1", pickled(MAGIC)),
)


def in_child(make: Callable[[], object]) -> None:
    """Call a function in a forked process, which may change modules and start threads."""
    child = os.fork()
    if not child:
        code = 1
        try:
            make()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the intact inputs could not be made")


def small_model(config: dict[str, Any]) -> DetectionModel:
    """Return a small model with random weights."""
    torch.manual_seed(0)
    return DetectionModel({**copy.deepcopy(config), "nc": config["nc"]}).eval()


def checkpoint_bases(folder: Path, quick: bool) -> Bases:
    """Return checkpoints as files, and the content of ours; a last.pt of a real training unless quick."""
    model = small_model(TINY)
    state = {"ema": weights_of(model), "image_size": 96, "options": {"data": "own.yaml", "single_cls": False}}
    content = {**describe_model(model, NAMES), "strides": list(model.head.strides), **state}
    contents, official = {"best": content}, folder / "official"
    official.mkdir()

    def write_official() -> None:
        network = small_model(OFFICIAL_YAML)
        yaml = {k: v for k, v in network.config.to_dict().items() if k not in ("channel_multiple", "activation")}
        for name, settings in OFFICIAL.items():
            plain = {"state": dict(network.state_dict()), "yaml": yaml}
            yolov5_writer.write(
                plain, str(official / f"{name}.pt"), {"strides": list(network.head.strides), **settings}
            )

    in_child(write_official)
    if not quick:

        def train() -> None:
            os.chdir(folder)
            Path("tiny.yaml").write_text(TINY_DATA)
            Path("small.yaml").write_text(SMALL_MODEL)
            run_training(train_options(folder / "tiny.yaml", folder, cfg="small.yaml", epochs=1, imgsz=32), frozenset())

        in_child(train)
        contents["last"] = load_checkpoint(next(folder.rglob("last.pt")))
    files = {f"{name}.pt": checkpoint_bytes(value) for name, value in contents.items()}
    files |= {f"official {file.stem}": file.read_bytes() for file in sorted(official.iterdir())}
    return {
        "files": files,
        "contents": contents,
        **{name: data for name, data in files.items() if name.endswith(".pt")},
    }


def mutate_checkpoint(bases: Bases, rng: random.Random) -> tuple[str, bytes]:
    """Return a checkpoint of ours with another content and the right hash, a changed pickle, or damaged bytes."""
    choice = rng.random()
    if choice < 0.4:
        return "case.pt", _other_content(rng.choice(list(bases["contents"].values())), rng)
    name = rng.choice(list(bases["files"]))
    data = bases["files"][name]
    if choice < 0.85:
        data = _other_pickle(data, rng)
    return "case.pt", mutate_bytes(data, rng) if choice > 0.8 else data


def _other_content(content: dict[str, Any], rng: random.Random) -> bytes:
    """Return one of our checkpoints with a changed content, whose hash is right where it can be computed."""
    content = {**content}
    parts = [key for key in content if not isinstance(content[key], torch.Tensor)]
    for _ in range(pick(rng, 1, 1, 2)):
        key = rng.choice(parts)
        if key in content and isinstance(content[key], (dict, list)) and rng.random() < 0.8:
            content[key] = _shallow(content[key])
            places = nodes(content[key])
            if places and isinstance((tensor := (at := rng.choice(places))[0][at[1]]), torch.Tensor):
                at[0][at[1]] = _other_tensor(tensor, rng)
            else:
                mutate_tree(content[key], rng)
        elif rng.random() < 0.3:
            content.pop(key, None)
        else:
            content[key] = pick(rng, hostile(rng), near(content.get(key), rng), torch.zeros(3))
    if rng.random() < 0.1:
        content[hostile_key(rng)] = hostile(rng)
    try:
        return checkpoint_bytes(content)
    except (TypeError, ValueError, RuntimeError, UnicodeEncodeError):
        buffer = io.BytesIO()
        torch.save({**content, "schema": 1, "sha256": "0" * 64}, buffer)
        return buffer.getvalue()


def _shallow(value: Any) -> Any:
    """Return nested lists and mappings anew, with the same tensors."""
    if isinstance(value, dict):
        return {key: _shallow(item) for key, item in value.items()}
    return [_shallow(item) for item in value] if isinstance(value, (list, tuple)) else value


def _other_tensor(tensor: torch.Tensor, rng: random.Random) -> object:
    """Return a tensor of another shape, type or content, or none."""
    other = tensor.clone(memory_format=torch.contiguous_format)
    if other.numel() and other.is_floating_point() and rng.random() < 0.4:
        other.view(-1)[rng.randrange(other.numel())] = pick(rng, float("nan"), float("inf"), -6e4, 0.0)
        return other
    return pick(
        rng,
        other.double(),
        other.half(),
        other.long(),
        other[None],
        other.flatten(),
        other.sum(),
        other.T,
        [],
        None,
        0.5,
    )


def _other_pickle(data: bytes, rng: random.Random) -> bytes:
    """Return a torch file whose pickle has a changed opcode or name; its other members and checksums stay right."""
    if not data.startswith(b"PK"):
        place = rng.randrange(min(len(data), 20_000))
        return data[:place] + bytes([rng.choice(b"\x80.(}]ucRb\x85\x81Q0eX\x8a")]) + data[place + rng.randrange(2) :]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("/data.pkl"))
    members[name] = _changed_pickle(members[name], rng)
    match rng.randrange(12):
        case 0:
            members.pop(rng.choice(list(members)))
        case 1:
            members[rng.choice(list(members))] = pick(rng, b"", b"\0" * 7, bytes(1000))
        case 2:
            members[f"{name.split('/')[0]}/{pick(rng, 'constants.pkl', 'byteorder', '../x', 'code/a.py')}"] = b"big"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    changed = buffer.getvalue()
    if rng.random() < 0.05:
        changed = edit_zip(
            changed,
            offset=pick(rng, 8, 10, 16, 20, 24, 28, 42),
            value=pick(rng, b"\1\0", b"\xff" * 4),
            member=name.encode(),
        )
    return changed


def _changed_pickle(data: bytes, rng: random.Random) -> bytes:
    """Return a pickle with one opcode replaced, removed, repeated, or followed by others."""
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    for _ in range(pick(rng, 1, 1, 2)):
        place = rng.randrange(1, len(starts) - 1)
        before, opcode, after = (
            data[: starts[place]],
            data[starts[place] : starts[place + 1]],
            data[starts[place + 1] :],
        )
        pushed = rng.choice(PUSHED)
        data = before + pick(rng, pushed, pushed + opcode, b"", opcode + opcode) + after
        starts = [start for start in starts if start < len(data)] + [len(data)]
    return data


def check_checkpoint(path: Path) -> None:
    """Load a checkpoint as detect.py and --resume do, run the model, and compare its weights with torch's reading."""
    content = load_checkpoint(path)
    if "optimizer" in content:
        check_run(content, path)
    model, names = load_model(path, content=content)
    metadata = checkpoint_metadata(content, names, model.max_stride, path)
    if len(names) != model.num_classes or not all(isinstance(name, str) for name in names) or metadata.stride < 1:
        raise WrongResultError(f"names {names}, {model.num_classes} classes")
    run_model(model, 5 + len(names))
    try:
        stored = torch.load(path, weights_only=True)["ema"]
    except Exception:  # of YOLOv5, or with arguments that only torch's own functions refuse
        return
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.nan_to_num(), stored[name].to(tensor.dtype).nan_to_num()):
            raise WrongResultError(f"{name} differs from the file")


def run_model(model: torch.nn.Module, columns: int) -> None:
    """Run a model at a size that is not square."""
    stride = int(model.max_stride)
    with torch.no_grad():
        predictions = model(torch.zeros(1, 3, 2 * stride, 3 * stride))[0]
    if predictions.ndim != 3 or predictions.shape[::2] != (1, columns):
        raise WrongResultError(f"predictions of shape {tuple(predictions.shape)}")


KIND = Kind(
    name="checkpoints",
    cases=5000,
    quick=50,
    batch=50,
    prepare=checkpoint_bases,
    mutate=mutate_checkpoint,
    check=check_checkpoint,
    warm_up=("best.pt",),
)

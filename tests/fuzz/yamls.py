"""Data yamls, model yamls and hyperparameter yamls, with oracles that read the file as text."""

from __future__ import annotations

import random
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

from models.build import count_parameters
from models.config import ModelConfig, load_model_config
from models.registry import registered_names
from models.yolo import DetectionModel
from tests.fuzz.isolation import Limits, WrongResultError
from tests.fuzz.kind import Bases, Kind
from tests.fuzz.mutation import hostile, mutate_tree, mutated_yaml, near, pick
from utils.datasets.config import SPLITS, load_data_config
from utils.datasets.scan import list_images
from utils.datasets.transforms import draw_hsv_gains, draw_perspective, hsv_jitter, warp
from utils.files import PROJECT_ROOT, decode_text
from utils.options.hyperparameters import PROBABILITIES, Hyperparameters, load_hyperparameters
from utils.structures import Sample

NAMES = ["car", "自行车", "red light"]
DATA: dict[str, dict[str, Any]] = {
    "list": {"path": ".", "train": "images/train", "val": ["images/val", "list.txt"], "nc": 3, "names": NAMES},
    "mapping": {"path": "", "train": "images/train/*.png", "val": "images/val", "names": dict(enumerate(NAMES))},
    "roboflow": {"train": "../train/images", "val": "images/val", "test": "images/val/0.png", "nc": 3, "names": NAMES},
    "download": {"train": "images/train", "val": "images/val", "names": NAMES, "download": "https://a.org/b.zip"},
}
TINY: dict[str, Any] = {  # a detector with most kinds of rows, built and run in milliseconds
    "nc": 3,
    "depth_multiple": 0.5,
    "width_multiple": 0.5,
    "channel_multiple": 4,
    "activation": "nn.LeakyReLU(0.1)",
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "AKConv", [16, 5, 2, {"padding": "zeros", "points": "centered"}]],
        [-1, 2, "C3", [16]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]],
        [[-1, 2], 1, "Concat", [1]],
        [-1, 1, "LDConv", [16, 3, 1, {"points": [[0, 0], [1, 1], [2, 2]]}]],
        [[7, 4], 1, "Detect", ["nc", "anchors"]],
    ],
}
ARGUMENTS = (
    *("padding", "points", "offsets", "modulated", "act", "bias", "groups", "g", "k", "s", "p", "d", "e", "n"),
    *("shortcut",),
    *("kernel_size", "stride", "dilation", "size", "scale_factor", "mode", "num_param", "negative_slope", "eps"),
    *("num_features",),
)
PREDICTED_PIXELS, RUNNABLE = (2, 3), 30_000_000  # height and width in strides; parameters


def text_of(path: Path) -> Any:
    """Read a yaml with all scalars as text."""
    return yaml.load(decode_text(path.read_bytes()), Loader=yaml.BaseLoader)


def number_of(text: str) -> float:
    """Return a number as YAML 1.2 writes it."""
    return float(int(text, 0)) if text[:2] in ("0x", "0o") else float(text)


def pick_base(bases: Bases, rng: random.Random, name: str) -> tuple[str, bytes]:
    """Return one of the yamls, mutated."""
    return name, mutated_yaml(rng.choice(list(bases.values())), rng)


def data_bases(folder: Path, quick: bool) -> Bases:
    """Return data yamls, and keep an image for their folders."""
    return DATA


def check_data(path: Path) -> None:
    """Read a data yaml and list its splits; compare with the text."""
    for split in ("train", "val"):
        image = path.parent / "images" / split / "0.png"
        if not image.exists():
            image.parent.mkdir(parents=True)
            cv2.imwrite(str(image), np.zeros((24, 36, 3), np.uint8))
            (path.parent / "list.txt").write_text("images/val/0.png\n")
    config, written = load_data_config(str(path)), text_of(path)
    names = written.get("names")
    if isinstance(names, (list, dict)) and len(names) != config.num_classes:
        raise WrongResultError(f"{config.num_classes} names of {names}")
    if "nc" in written and written["nc"] not in ("", "~", "null", "Null", "NULL"):
        if number_of(written["nc"]) != config.num_classes:
            raise WrongResultError(f"{config.num_classes} classes, but nc is {written['nc']}")
    if not all(isinstance(name, str) and name.strip() for name in config.names):
        raise WrongResultError(f"names {config.names}")
    for split in SPLITS:
        stated = written.get(split)
        if isinstance(stated, str) and stated and config.splits[split] not in ((stated,), ()):
            raise WrongResultError(f"{split} is {config.splits[split]}, not {stated}")
        if config.splits[split] and all(path.parent in e.path.parents for e in config.locate(split)):
            list_images(config, split)


def hyp_bases(folder: Path, quick: bool) -> Bases:
    """Return the shipped hyperparameters."""
    return {
        file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in sorted((PROJECT_ROOT / "data/hyps").glob("*.yaml"))
    }


def check_hyp(path: Path) -> None:
    """Read hyperparameters, compare each with the text, and augment an image with them."""
    hyp, written = load_hyperparameters(str(path)), text_of(path)
    for item in fields(Hyperparameters):
        value = getattr(hyp, item.name)
        if item.name in written and value != number_of(written[item.name]):
            raise WrongResultError(f"{item.name} is {value!r}, not {written[item.name]}")
        if type(value) is not float or not 0 <= value < float("inf") or (item.name in PROBABILITIES and value > 1):
            raise WrongResultError(f"{item.name} is {value!r}")
    image = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
    boxes = np.array([[8, 8, 40, 40], [0, 0, 64, 48]], np.float32)
    for seed in range(3):
        rng, strength = np.random.default_rng(seed), hyp.augmentation
        sample = Sample(image=image, boxes=boxes, classes=np.array([0, 1], np.int64))
        matrix = draw_perspective(rng, strength, size_hw=(48, 64), out_hw=(40, 72))
        warped = warp(sample, matrix, (40, 72))
        result = hsv_jitter(warped.image, draw_hsv_gains(rng, strength))
        inside = (
            np.isfinite(warped.boxes).all() and (warped.boxes >= 0).all() and (warped.boxes <= (72, 40, 72, 40)).all()
        )
        if result.shape != (40, 72, 3) or result.dtype != np.uint8 or not inside:
            raise WrongResultError(f"an augmented image {result.shape}, boxes {warped.boxes.tolist()}")


def model_bases(folder: Path, quick: bool) -> Bases:
    """Return small models; the shipped ones only in their first rows, where they are as wide as they are written."""
    bases: dict[str, Any] = {"tiny": TINY, "again": TINY, "plain": {**TINY, "activation": None, "anchors": 3}}
    for file in [] if quick else sorted((PROJECT_ROOT / "models").glob("yolov5n*.yaml")):
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
        bases[file.stem] = {**tree, "nc": 2, "width_multiple": 0.05, "channel_multiple": 4}
    return bases


def change_model(tree: dict, rng: random.Random) -> None:
    """Change a row of a model as people and attackers do, or any place of the yaml."""
    parts = [tree[part] for part in ("backbone", "head") if isinstance(tree.get(part), list) and tree[part]]
    if rng.random() < 0.25 or not parts:
        mutate_tree(tree, rng)
        return
    rows = rng.choice(parts)
    place = rng.randrange(len(rows))
    row = rows[place]
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[3], list):
        rows[place] = [-1, 1, "Conv", [8]]
        return
    match rng.randrange(10):
        case 0:
            row[0] = pick(rng, -1, -2, -99, 0, 1, 5, place, 99, [-1, 1], [-1, -1], [0, 2, 4], [], hostile(rng))
        case 1:
            row[1] = pick(rng, 0, 1, 2, 3, 10, 500, 1001, 10**9, -1, 0.5, hostile(rng))
        case 2 | 3:
            row[2] = rng.choice(registered_names()) if rng.random() < 0.8 else near(row[2], rng)
        case 4 | 5 if row[3]:
            place = rng.randrange(len(row[3]))
            row[3][place] = pick(rng, 1, 2, 3, 4, 5, 8, 0.5, True, near(row[3][place], rng), hostile(rng))
        case 6:
            row[3].insert(rng.randrange(len(row[3]) + 1), pick(rng, 1, 2, 3, True, hostile(rng)))
        case 7:
            keywords = row[3].pop() if row[3] and isinstance(row[3][-1], dict) else {}
            keywords[pick(rng, *ARGUMENTS)] = pick(rng, 1, 2, 3, "zeros", "centered", "full", "depthwise", hostile(rng))
            row[3].append(keywords)
        case 8:
            rows.insert(place, [-1, 1, rng.choice(registered_names()), [pick(rng, 8, 16, 3), *row[3][1:]]])
        case _:
            del rows[place]


def check_model(path: Path) -> None:
    """Build an accepted model, run it at a size it was not built for, and compare its layers with the rows."""
    config = load_model_config(str(path))
    if ModelConfig.from_dict(config.to_dict(), name=config.name) != config:
        raise WrongResultError("it is not restored from its mapping")
    written = text_of(path)
    model = DetectionModel(config).eval()
    if len(model.model) != len(written["backbone"]) + len(written["head"]):
        raise WrongResultError(f"{len(model.model)} layers")
    rows, columns = (stride * model.max_stride for stride in PREDICTED_PIXELS)
    if model.max_stride > 64 or count_parameters(model) > RUNNABLE:
        return
    with torch.no_grad():
        predictions = model(torch.zeros(1, 3, rows, columns))[0]
    anchors = config.anchors if isinstance(config.anchors, int) else len(config.anchors[0]) // 2
    cells = sum((rows // stride) * (columns // stride) for stride in model.head.strides)
    if predictions.shape != (1, anchors * cells, 5 + config.num_classes):
        raise WrongResultError(f"predictions of shape {tuple(predictions.shape)} at {rows} x {columns}")


DATA_KIND = Kind(
    name="data-yamls",
    cases=5000,
    quick=60,
    batch=100,
    prepare=data_bases,
    mutate=partial(pick_base, name="data.yaml"),
    check=check_data,
)
HYP_KIND = Kind(
    name="hyp-yamls",
    cases=3000,
    quick=30,
    batch=200,
    prepare=hyp_bases,
    mutate=partial(pick_base, name="hyp.yaml"),
    check=check_hyp,
)
MODEL_KIND = Kind(
    name="model-yamls",
    cases=10_000,
    quick=60,
    batch=50,
    prepare=model_bases,
    mutate=lambda bases, rng: ("model.yaml", mutated_yaml(rng.choice(list(bases.values())), rng, change_model)),
    check=check_model,
    limits=Limits(seconds=10, megabytes=1000),
)

"""A small detector with random weights whose predictions vary over the image, and a data set labelled by itself."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from models.config import ModelConfig
from models.modules import AKConv
from models.sampling.offset_convolution import last_convolution
from models.yolo import DetectionModel
from utils.files import PROJECT_ROOT
from utils.inference.nms import NmsSettings, non_max_suppression
from utils.strict_yaml import load_yaml
from utils.weights.checkpoint import describe_model, save_checkpoint, weights_of

SMALL_NAMES = ("ring", "cro'ss", "细胞")


def small_model(name: str) -> DetectionModel:
    """A shipped model at half its width, with statistics and offsets as training leaves them."""
    torch.manual_seed(3)
    content = {**load_yaml(PROJECT_ROOT / "models" / name), "width_multiple": 0.125}
    model = DetectionModel(ModelConfig.from_dict(content, name=name), nc=len(SMALL_NAMES)).eval()
    for layer in model.modules():
        if isinstance(layer, AKConv):
            nn.init.normal_(last_convolution(layer.p_conv).weight, std=0.15)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.1, 0.4)
            nn.init.uniform_(layer.weight, 0.8, 1.4)
    for conv in model.head.m:
        nn.init.normal_(conv.weight, std=12 / conv.in_channels**0.5)
        with torch.no_grad():
            conv.bias.view(model.head.num_anchors, -1)[:, 4:] += 1.5
    return model


def small_checkpoint(path: Path, name: str) -> Path:
    """Write a checkpoint of `small_model`."""
    model = small_model(name)
    state = {"ema": weights_of(model), "image_size": 96, "options": {"data": "own.yaml"}}
    save_checkpoint(path, {**describe_model(model, SMALL_NAMES), **state})
    return path


def self_labelled_data(folder: Path, model: DetectionModel, images: int = 6) -> Path:
    """Write random images labelled with a model's best detections: its mAP is high, and any change lowers it."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name / "val").mkdir(parents=True)
    for index in range(images):
        height, width = (96, 64) if index % 2 else (72, 96)
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"images/val/{index}.png"), image)
        padded = np.full((96, 96, 3), 114, np.uint8)
        top, left = (96 - height) // 2, (96 - width) // 2
        padded[top : top + height, left : left + width] = image[..., ::-1]
        pixels = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            detections = non_max_suppression(model(pixels)[0], NmsSettings(conf_threshold=0.05, max_detections=5))[0]
        boxes = (detections.boxes - (left, top, left, top)).clip(0, (width, height, width, height))
        lines = []
        for (x1, y1, x2, y2), class_id in zip(boxes.tolist(), detections.classes.tolist(), strict=True):
            if min(x2 - x1, y2 - y1) > 4:
                normalized = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(f"{class_id} " + " ".join(f"{v:.5f}" for v in normalized) + "\n")
        (folder / f"labels/val/{index}.txt").write_text("".join(lines))
    names = "\n".join(f'  - "{name}"' for name in SMALL_NAMES)
    path = folder / "own.yaml"
    path.write_text(f"path: .\ntrain: images/val\nval: images/val\nnames:\n{names}\n", encoding="utf-8")
    return path

"""The hyperparameter yaml as a validated, immutable value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from utils.datasets.transforms import Augmentation
from utils.errors import ConfigError, did_you_mean
from utils.files import find_file
from utils.losses.detection import LossSettings, LossWeights
from utils.options.base import HYP_FOLDER
from utils.strict_yaml import load_yaml

OPTIONAL = ("iou_t", "anchors", "fl_gamma", "copy_paste", "offset_lr", "close_mosaic", "nbs")
MAX_VALUE = 1e6  # far above any useful one; the arithmetic of the augmentations stays finite
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste")


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """All hyperparameters of a training, by YOLOv5's names."""

    lr0: float = 0.01  # learning rate after warm-up
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    momentum: float = 0.937  # momentum of SGD, or beta1 of Adam and AdamW
    weight_decay: float = 0.0005  # weight decay at the nominal batch size
    warmup_epochs: float = 3.0  # length of the warm-up in epochs; at least 100 batches
    warmup_momentum: float = 0.8  # momentum at its start
    warmup_bias_lr: float = 0.1  # learning rate of biases at its start
    box: float = 0.05  # weight of the box loss
    cls: float = 0.5  # weight of the class loss
    cls_pw: float = 1.0  # weight of the true class in the class loss
    obj: float = 1.0  # weight of the objectness loss
    obj_pw: float = 1.0  # weight of positive cells in objectness
    iou_t: float = 0.2  # accepted but not used
    anchor_t: float = 4.0  # largest ratio of an object's side to the anchor's for which the two are matched
    anchors: float = 0.0  # number of anchors per level to fit to the data; 0 keeps the model's
    fl_gamma: float = 0.0  # focal loss gamma; 0 is plain cross entropy
    hsv_h: float = 0.015  # hue gain
    hsv_s: float = 0.7  # saturation gain
    hsv_v: float = 0.4  # value gain
    degrees: float = 0.0  # largest rotation angle
    translate: float = 0.1  # largest shift as a fraction of the image size
    scale: float = 0.5  # scale gain
    shear: float = 0.0  # largest shear angle in degrees
    perspective: float = 0.0  # largest projective coefficient per pixel
    flipud: float = 0.0  # probability of a vertical flip
    fliplr: float = 0.5  # probability of a horizontal flip
    mosaic: float = 1.0  # probability of a mosaic of four images
    mixup: float = 0.0  # probability of MixUp with a second mosaic
    copy_paste: float = 0.0  # probability of copying an object with a polygon
    offset_lr: float = 0.1  # factor on the learning rate of AKConv's offset convolutions
    close_mosaic: float = 0.0  # number of last epochs without mosaic
    nbs: float = 64.0  # nominal batch size: gradients are accumulated over about so many images per optimizer step

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation settings."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the loss's components, not yet scaled."""
        return LossWeights(box=self.box, obj=self.obj, cls=self.cls)

    def loss_settings(self, *, label_smoothing: float) -> LossSettings:
        """Return the shape of the loss."""
        names = ("obj_pw", "cls_pw", "anchor_t", "fl_gamma")
        return LossSettings(label_smoothing=label_smoothing, **{name: getattr(self, name) for name in names})


def load_hyperparameters(name: str) -> Hyperparameters:
    """Read a hyperparameter yaml by path or bare name.

    Raises:
        ConfigError: no such file, an unknown or missing key, or a value out of range.
    """
    path = find_file(name, folders=[HYP_FOLDER], flag="--hyp")
    return check_hyperparameters(load_yaml(path), where=str(path))


def check_hyperparameters(value: dict[str, Any], *, where: str) -> Hyperparameters:
    """Check the content of a hyperparameter yaml; `where` is its name for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value out of range.
    """
    known = [field.name for field in fields(Hyperparameters)]
    for key, item in value.items():
        if key not in known:
            hint = did_you_mean(str(key), known) or "remove it"
            raise ConfigError(where, f"unknown hyperparameter {key!r}", fix=hint)
        if isinstance(item, bool) or not isinstance(item, (int, float)) or not math.isfinite(item) or item < 0:
            raise ConfigError(where, f"{key} must be a number of at least 0 (got {item!r})", fix=f"correct {key}")
        if item > MAX_VALUE:
            raise ConfigError(where, f"{key} must be at most {MAX_VALUE:.0f} (got {item!r})", fix=f"correct {key}")
        if key in PROBABILITIES and item > 1:
            raise ConfigError(where, f"{key} is a probability (got {item})", fix=f"correct {key}")
    missing = [key for key in known if key not in value and key not in OPTIONAL]
    if missing:
        raise ConfigError(where, f"hyperparameters missing: {', '.join(missing)}", fix="copy them from data/hyps")
    if value["lr0"] <= 0 or value["anchor_t"] <= 1 or value.get("nbs", 64) < 1:
        raise ConfigError(where, "lr0 must be above 0, anchor_t above 1, nbs at least 1", fix="correct them")
    if max(value["momentum"], value["warmup_momentum"]) >= 1:
        raise ConfigError(where, "momentum and warmup_momentum must be below 1", fix="correct them")
    return Hyperparameters(**{key: float(item) + 0.0 for key, item in value.items()})  # + 0.0: no negative zero

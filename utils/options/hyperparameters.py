"""The hyperparameter yaml as a checked, immutable value."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from utils.datasets.dataset import Augmentation
from utils.errors import ConfigError, did_you_mean
from utils.files import PROJECT_ROOT, find_file
from utils.losses.detection import LossSettings, LossWeights
from utils.strict_yaml import load_yaml

HYP_FOLDER = PROJECT_ROOT / "data" / "hyps"
OPTIONAL = ("iou_t", "anchors", "fl_gamma", "copy_paste", "offset_lr", "close_mosaic", "nbs")
PROBABILITIES = ("flipud", "fliplr", "mosaic", "mixup", "copy_paste")


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """All numbers of a training recipe, by the names users' files have.

    Attributes:
        lr0: learning rate after warm-up.
        lrf: final learning rate as a share of lr0.
        momentum: of SGD; beta1 of Adam.
        weight_decay: for a nominal batch of 64.
        warmup_epochs: length of the warm-up, at least 100 steps.
        warmup_momentum: momentum at its start.
        warmup_bias_lr: learning rate of biases at its start.
        box: weight of the box loss.
        cls: weight of the class loss.
        cls_pw: weight of the true class.
        obj: weight of the objectness loss.
        obj_pw: weight of cells with an object.
        iou_t: accepted for old files, used by nothing.
        anchor_t: how many times a box may differ from an anchor.
        anchors: anchors per level to fit to the data, in place of the model's; 0 keeps those.
        fl_gamma: focal exponent.
        hsv_h: hue gain.
        hsv_s: saturation gain.
        hsv_v: value gain.
        degrees: rotation.
        translate: shift, a share of the size.
        scale: magnification gain.
        shear: degrees.
        perspective: projective terms per pixel.
        flipud: probability of mirroring top and bottom.
        fliplr: probability of mirroring left and right.
        mosaic: probability of joining four images.
        mixup: probability of mixing two mosaics.
        copy_paste: probability of pasting copies of objects with polygons.
        offset_lr: factor on the learning rate of AKConv's offset convolutions.
        close_mosaic: epochs at the end that are trained without mosaic.
        nbs: nominal batch, up to which gradients of smaller batches are added before a step.
    """

    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    box: float = 0.05
    cls: float = 0.5
    cls_pw: float = 1.0
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2
    anchor_t: float = 4.0
    anchors: float = 0.0
    fl_gamma: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    offset_lr: float = 0.1
    close_mosaic: float = 0.0
    nbs: float = 64.0

    @property
    def augmentation(self) -> Augmentation:
        """The part that changes samples."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    @property
    def loss_weights(self) -> LossWeights:
        """The weights of the loss's components, not yet scaled."""
        return LossWeights(box=self.box, obj=self.obj, cls=self.cls)

    def loss_settings(self, *, label_smoothing: float) -> LossSettings:
        """Return the shape of the loss."""
        return LossSettings(
            obj_pw=self.obj_pw,
            cls_pw=self.cls_pw,
            anchor_t=self.anchor_t,
            fl_gamma=self.fl_gamma,
            label_smoothing=label_smoothing,
        )


def load_hyperparameters(name: str) -> Hyperparameters:
    """Read a hyperparameter yaml by path or by bare name.

    Raises:
        ConfigError: no such file, an unknown or missing key, or a value out of range.
    """
    path = find_file(name, folders=[HYP_FOLDER], flag="--hyp")
    return check_hyperparameters(load_yaml(path), where=str(path))


def check_hyperparameters(value: dict[str, Any], *, where: str) -> Hyperparameters:
    """Check a mapping as a hyperparameter yaml holds it; `where` is its name for messages.

    Raises:
        ConfigError: an unknown or missing key, or a value out of range.
    """
    known = [field.name for field in fields(Hyperparameters)]
    for key, number in value.items():
        if key not in known:
            hint = did_you_mean(str(key), known) or "remove it"
            raise ConfigError(where, f"unknown hyperparameter {key!r}", fix=hint)
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number) or number < 0:
            raise ConfigError(where, f"{key} must be a number from 0 (got {number!r})", fix=f"correct {key}")
        if key in PROBABILITIES and number > 1:
            raise ConfigError(where, f"{key} is a probability (got {number})", fix=f"correct {key}")
    missing = [key for key in known if key not in value and key not in OPTIONAL]
    if missing:
        raise ConfigError(where, f"hyperparameters missing: {', '.join(missing)}", fix="copy them from data/hyps")
    if value["lr0"] <= 0 or value["anchor_t"] <= 1 or value.get("nbs", 64) < 1:
        raise ConfigError(where, "lr0 must be above 0, anchor_t above 1, nbs at least 1", fix="correct them")
    if max(value["momentum"], value["warmup_momentum"]) >= 1:
        raise ConfigError(where, "momentum and warmup_momentum must be below 1", fix="correct them")
    return Hyperparameters(**{key: float(number) for key, number in value.items()})

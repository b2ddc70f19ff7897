"""The shipped hyperparameter presets hold the numbers that users know, and every key of them is used or known."""

from dataclasses import asdict
from pathlib import Path

import pytest

from utils.datasets.transforms import Augmentation
from utils.options.hyperparameters import load_hyperparameters
from utils.strict_yaml import load_yaml

HYPS = Path(__file__).resolve().parent.parent / "data" / "hyps"
LOW = """lr0 .01 lrf .01 momentum .937 weight_decay .0005 warmup_epochs 3 warmup_momentum .8 warmup_bias_lr .1 box .05
cls .5 cls_pw 1 obj 1 obj_pw 1 iou_t .2 anchor_t 4 fl_gamma 0 hsv_h .015 hsv_s .7 hsv_v .4 degrees 0 translate .1
scale .5 shear 0 perspective 0 flipud 0 fliplr .5 mosaic 1 mixup 0 copy_paste 0"""
MED = "lrf .1 cls .3 obj .7 scale .9 mixup .1"
PRESETS = {
    "scratch-low": "",
    "scratch-med": MED,
    "scratch-high": f"{MED} copy_paste .1",
    "no-augmentation": "lrf .1 cls .3 obj .7 hsv_h 0 hsv_s 0 hsv_v 0 translate 0 scale 0 fliplr 0 mosaic 0",
    "VOC": """lr0 .00334 lrf .15135 momentum .74832 weight_decay .00025 warmup_epochs 3.3835 warmup_momentum .59462
    warmup_bias_lr .18657 box .02 cls .21638 cls_pw .5 obj .51728 obj_pw .67198 anchor_t 3.3744 anchors 3.412
    hsv_h .01041 hsv_s .54703 hsv_v .27739 translate .04591 scale .75544 mosaic .85834 mixup .04266""",
    "Objects365": """lr0 .00258 lrf .17 momentum .779 weight_decay .00058 warmup_epochs 1.33 warmup_momentum .86
    warmup_bias_lr .0711 box .0539 cls .299 cls_pw .825 obj .632 anchor_t 3.44 anchors 3.2 hsv_h .0188 hsv_s .704
    hsv_v .36 translate .0902 scale .491""",
}


def numbers(text):
    words = text.split()
    return dict(zip(words[::2], map(float, words[1::2]), strict=True))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_holds_the_numbers_users_know(name):
    expected = {"offset_lr": 0.1, **numbers(LOW), **numbers(PRESETS[name])}
    written = {key: float(value) for key, value in load_yaml(HYPS / f"hyp.{name}.yaml").items()}
    loaded = asdict(load_hyperparameters(f"hyp.{name}.yaml"))
    assert {key: loaded[key] for key in expected} == expected
    assert {key: written.get(key, loaded[key]) for key in expected} == expected


@pytest.mark.parametrize("path", sorted(HYPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_key_of_a_preset_is_loaded(path):
    loaded = load_hyperparameters(str(path))
    assert {key: getattr(loaded, key) for key in load_yaml(path)} == load_yaml(path)
    assert asdict(loaded.augmentation).keys() == asdict(Augmentation()).keys() <= asdict(loaded).keys()
    assert loaded.augmentation.copy_paste == loaded.copy_paste

"""The shipped hyperparameter presets hold YOLOv5's published values, and every key of them takes effect."""

from dataclasses import asdict
from pathlib import Path

import pytest

from utils.datasets.transforms import Augmentation
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.strict_yaml import load_yaml

HYPS = Path(__file__).resolve().parent.parent / "data" / "hyps"
# "=" is the value of scratch-low, "-" a key that the file does not have. Not of YOLOv5: offset_lr, nbs, demo and small.
TABLE = """
key              scratch-low  scratch-med  scratch-high  no-augmentation  VOC      Objects365  demo      small
lr0              0.01         =            =             =                0.00334  0.00258     0.002     0.002
lrf              0.01         0.1          0.1           0.1              0.15135  0.17        0.1       =
momentum         0.937        =            =             =                0.74832  0.779       0.9       0.9
weight_decay     0.0005       =            =             =                0.00025  0.00058     0.01      0.01
warmup_epochs    3            =            =             =                3.3835   1.33        2         =
warmup_momentum  0.8          =            =             =                0.59462  0.86        =         =
warmup_bias_lr   0.1          =            =             =                0.18657  0.0711      0.01      0.01
box              0.05         =            =             =                0.02     0.0539      =         =
cls              0.5          0.3          0.3           0.3              0.21638  0.299       =         =
cls_pw           1            =            =             =                0.5      0.825       =         =
obj              1            0.7          0.7           0.7              0.51728  0.632       =         =
obj_pw           1            =            =             =                0.67198  =           =         =
iou_t            0.2          =            =             =                =        =           =         =
anchor_t         4            =            =             =                3.3744   3.44        =         =
anchors          -            -            -             -                3.412    3.2         -         -
fl_gamma         0            =            =             =                =        =           =         =
hsv_h            0.015        =            =             0                0.01041  0.0188      =         =
hsv_s            0.7          =            =             0                0.54703  0.704       =         =
hsv_v            0.4          =            =             0                0.27739  0.36        =         =
degrees          0            =            =             =                =        =           =         =
translate        0.1          =            =             0                0.04591  0.0902      =         =
scale            0.5          0.9          0.9           0                0.75544  0.491       0.2       =
shear            0            =            =             =                =        =           =         =
perspective      0            =            =             =                =        =           =         =
flipud           0            =            =             =                =        =           =         =
fliplr           0.5          =            =             0                =        =           =         =
mosaic           1            =            =             0                0.85834  =           0         =
mixup            0            0.1          0.1           =                0.04266  =           =         =
copy_paste       0            =            0.1           =                =        =           =         =
offset_lr        0.1          =            =             =                =        =           =         =
nbs              -            -            -             -                -        -           8         16
"""


def expected_presets() -> dict[str, dict[str, float]]:
    """The table's values by preset and key."""
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    presets: dict[str, dict[str, float]] = {name: {} for name in header[1:]}
    for key, *cells in rows:
        for name, cell in zip(presets, cells, strict=True):
            if cell != "-":
                presets[name][key] = float(cells[0] if cell == "=" else cell)
    return presets


def test_every_preset_is_in_the_table() -> None:
    assert {path.name for path in HYPS.iterdir()} == {f"hyp.{name}.yaml" for name in expected_presets()}


@pytest.mark.parametrize("name", expected_presets())
def test_a_preset_has_exactly_the_values_of_the_table(name: str) -> None:
    expected = expected_presets()[name]
    assert load_yaml(HYPS / f"hyp.{name}.yaml") == expected
    loaded = load_hyperparameters(f"hyp.{name}.yaml")
    assert asdict(loaded) == {**asdict(Hyperparameters()), **expected}
    assert asdict(loaded.augmentation) == {key: asdict(loaded)[key] for key in asdict(Augmentation())}


def test_defaults_are_those_of_scratch_low() -> None:
    defaults = asdict(Hyperparameters())
    scratch_low = expected_presets()["scratch-low"]
    assert {key: defaults[key] for key in scratch_low} == scratch_low
    assert {key: defaults[key] for key in defaults.keys() - scratch_low} == {"anchors": 0, "close_mosaic": 0, "nbs": 64}

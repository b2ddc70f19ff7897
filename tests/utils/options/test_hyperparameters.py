"""Hyperparameter yamls: values out of range, unknown and missing keys, and what the loss and the augmentation get."""

import math
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from tests.helpers.training_runs import ROOT
from utils.datasets.dataset import Augmentation
from utils.errors import ConfigError
from utils.losses.detection import LossSettings, LossWeights
from utils.options.hyperparameters import OPTIONAL, Hyperparameters, check_hyperparameters, load_hyperparameters

VALID = asdict(Hyperparameters())


def test_valid_values_are_kept_as_floats() -> None:
    checked = check_hyperparameters({**VALID, "mosaic": 1, "nbs": 32}, where="hyp.yaml")
    assert checked.mosaic == 1.0 and checked.nbs == 32.0
    assert all(type(value) is float for value in asdict(checked).values())


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"lr0": 0}, "lr0"),
        ({"lr0": "0.01"}, "lr0"),
        ({"momentum": 1.0}, "momentum"),
        ({"warmup_momentum": 1.5}, "warmup_momentum"),
        ({"anchor_t": 1.0}, "anchor_t"),
        ({"nbs": 0}, "nbs"),
        ({"box": -0.1}, "box"),
        ({"cls": True}, "cls"),
        ({"obj": float("nan")}, "obj"),
        ({"hsv_h": float("inf")}, "hsv_h"),
        ({"scale": 1e38}, "scale"),
        ({"mixup": 1.01}, "mixup"),
        ({"mosiac": 1.0}, "mosaic"),
    ],
)
def test_invalid_values_are_refused_with_file_and_key(changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters({**VALID, **changes}, where="my.yaml")
    assert caught.value.where == "my.yaml" and key in f"{caught.value.what} {caught.value.fix}"


def test_a_negative_zero_is_zero() -> None:
    checked = check_hyperparameters({**VALID, "degrees": -0.0}, where="hyp.yaml")
    assert math.copysign(1, checked.degrees) == 1  # a range from -degrees to degrees that runs backwards is an error


@pytest.mark.parametrize("key", VALID)
def test_only_keys_that_older_files_lack_may_be_missing(key: str) -> None:
    values = {name: value for name, value in VALID.items() if name != key}
    if key in OPTIONAL:
        assert getattr(check_hyperparameters(values, where="my.yaml"), key) == VALID[key]
        return
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters(values, where="my.yaml")
    assert key in caught.value.what


def test_a_yaml_is_found_by_path_or_bare_name(tmp_path: Path) -> None:
    text = (ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text + "nbs: 8\n")
    assert load_hyperparameters(str(tmp_path / "mine.yaml")).nbs == 8
    assert load_hyperparameters("hyp.scratch-low.yaml").nbs == 64
    with pytest.raises(ConfigError):
        load_hyperparameters(str(tmp_path / "other.yaml"))


def test_loss_and_augmentation_get_their_values() -> None:
    values = {name: (index + 1) / 1000 for index, name in enumerate(VALID)}
    hyperparameters = Hyperparameters(**values)
    assert hyperparameters.loss_weights == LossWeights(box=values["box"], obj=values["obj"], cls=values["cls"])
    settings = asdict(hyperparameters.loss_settings(label_smoothing=0.5))
    names = {field.name for field in fields(LossSettings)} - {"label_smoothing"}
    assert settings == {**{name: values[name] for name in names}, "label_smoothing": 0.5}
    expected = {field.name: values[field.name] for field in fields(Augmentation)}
    assert asdict(hyperparameters.augmentation) == expected

"""Parts of a run built from its options: anchors, frozen layers, transferred weights."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.config import ModelConfig, load_model_config
from models.yolo import DetectionModel
from tests.helpers.data_oracles import write_data_set
from tests.helpers.small_model import small_checkpoint
from tests.helpers.training_runs import ROOT, train_options
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.errors import ConfigError
from utils.log import LOGGER
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters, load_hyperparameters
from utils.training.run import run_training
from utils.training.setup import build_model, check_anchors, choose_config


@pytest.fixture(autouse=True)
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("INFO", logger=LOGGER.name)


@pytest.fixture(autouse=True)
def repository_as_working_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def recipe_with(tmp_path: Path, anchors: object) -> str:
    """A hyperparameter yaml with the given `anchors`."""
    path = tmp_path / "hyp.yaml"
    path.write_text(Path("data/hyps/hyp.scratch-low.yaml").read_text() + f"anchors: {anchors}\n")
    return str(path)


def test_without_cfg_the_baseline_or_the_model_of_the_weights_is_built_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hyperparameters = load_hyperparameters("hyp.scratch-low.yaml")
    config, content = choose_config(TrainOptions(), hyperparameters)
    assert (config.name, content) == ("yolov5n.yaml", None) and "yolov5n.yaml" in caplog.text
    path = small_checkpoint(tmp_path / "a.pt", "yolov5n-AKConv.yaml")
    caplog.clear()
    config, content = choose_config(TrainOptions(weights=str(path)), hyperparameters)
    assert config.name == "yolov5n-AKConv.yaml" and "yolov5n-AKConv.yaml" in caplog.text and content is not None
    caplog.clear()
    choose_config(TrainOptions(cfg="yolov5n.yaml"), hyperparameters)
    assert caplog.text == ""


@pytest.mark.parametrize(("anchors", "count"), [(3.6, 4), (3.412, 3), (2.5, 2), (100, 100)])
def test_a_count_of_anchors_is_rounded(anchors: float, count: int, tmp_path: Path) -> None:
    options = train_options(tmp_path, tmp_path, hyp=recipe_with(tmp_path, anchors))
    config, _ = choose_config(options, load_hyperparameters(options.hyp))
    assert config.anchors == count
    anchors_wh = DetectionModel(config, nc=2).head.anchors
    assert anchors_wh.shape == (3, count, 2) and anchors_wh.isfinite().all() and (anchors_wh > 0).all()


@pytest.mark.parametrize("anchors", [101, 100_000_000, 1e300])
def test_too_many_anchors_are_refused_in_one_line(anchors: float, tmp_path: Path) -> None:
    options = train_options(tmp_path, tmp_path, hyp=recipe_with(tmp_path, anchors))
    with pytest.raises(ConfigError) as caught:
        choose_config(options, load_hyperparameters(options.hyp))
    assert caught.value.where == options.hyp and "100" in caught.value.what
    assert f"{anchors:g}" in caught.value.what or str(anchors) in caught.value.what
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def model_with_count(tmp_path: Path) -> str:
    """A model yaml with a number of anchors to fit."""
    text = Path("models/yolov5n.yaml").read_text()
    head, rest = text.split("anchors:\n")
    path = tmp_path / "counted.yaml"
    path.write_text(f"{head}anchors: 3\n{rest[rest.index('backbone:') :]}")
    return str(path)


def test_anchors_to_fit_contradict_noautoanchor(tmp_path: Path) -> None:
    for changes, named in (
        ({"hyp": "hyp.VOC.yaml"}, "hyp.VOC.yaml"),
        ({"cfg": model_with_count(tmp_path)}, "counted.yaml"),
    ):
        options = train_options(tmp_path, tmp_path, noautoanchor=True, **changes)
        with pytest.raises(ConfigError) as caught:
            choose_config(options, load_hyperparameters(options.hyp))
        assert caught.value.where == "--noautoanchor" and "3" in caught.value.what and "\n" not in str(caught.value)
        assert named in caught.value.what and named in caught.value.fix
        choose_config(replace(options, noautoanchor=False), load_hyperparameters(options.hyp))
    choose_config(train_options(tmp_path, tmp_path, noautoanchor=True), Hyperparameters())


def test_too_few_objects_to_fit_anchors_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_data_set(tmp_path, count=5)
    index = build_index(load_data_config(str(tmp_path / "data.yaml")), "train")
    config = load_model_config("yolov5n.yaml")
    for anchors, warned in ((config.anchors, False), (3, True)):
        caplog.clear()
        model = DetectionModel(replace(config, anchors=anchors), nc=2)
        before = model.head.anchors.clone()
        check_anchors(model, index, image_size=64, max_ratio=4.0, seed=0)
        assert torch.equal(model.head.anchors, before)
        warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == warned and all(re.findall(r"\d+", text)[:2] == ["5", "9"] for text in warnings)


def test_placeholder_anchors_are_squares_that_double_every_second_time_and_stay_finite() -> None:
    config = load_model_config("yolov5n.yaml")
    for count in (1, 3, 5):
        model = DetectionModel(replace(config, anchors=count), nc=2)
        sides = (model.head.anchors * torch.tensor(model.head.strides).view(-1, 1, 1)).reshape(-1, 2)
        expected = 8 * 2 ** (np.arange(3 * count) / 2)
        np.testing.assert_allclose(sides.numpy(), np.stack((expected, expected), 1), rtol=1e-6)
    sides = DetectionModel(replace(config, anchors=60), nc=2).head.anchors
    assert float(sides.max()) * 32 == pytest.approx(1024)


def build(freeze: Iterable[int], config: ModelConfig | None = None) -> DetectionModel:
    config = config or load_model_config("yolov5n.yaml")
    model, transferred = build_model(TrainOptions(freeze=tuple(freeze)), config, num_classes=2, content=None)
    assert transferred is None
    return model


@pytest.mark.parametrize("freeze", [(-1,), (26,), (10**6,), (0, 25), (-1, 3), (3, -2)])
def test_layers_that_do_not_exist_are_refused(freeze: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(freeze)
    assert caught.value.where == "--freeze" and " ".join(map(str, freeze)) in caught.value.what
    assert "0 to 24" in caught.value.fix


@pytest.mark.parametrize("freeze", [(25,), tuple(range(25))])
def test_freezing_every_layer_is_refused(freeze: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(freeze)
    assert caught.value.where == "--freeze" and "25" in caught.value.what and "24" in caught.value.fix


def test_layers_are_frozen_by_number_or_by_list() -> None:
    for freeze, trained in (((24,), {24}), ((0,), set(range(25))), ((0, 3), set(range(25)) - {0, 3})):
        model = build(freeze)
        trainable = {int(name.split(".")[1]) for name, p in model.named_parameters() if p.requires_grad}
        assert trainable == {n for n in trained if list(model.model[n].parameters())}


def test_a_wrong_freeze_is_found_before_a_run_folder_is_created(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_training(train_options(data, tmp_path, freeze=(25,)))
    assert caught.value.where == "--freeze"
    assert not os.listdir(tmp_path)

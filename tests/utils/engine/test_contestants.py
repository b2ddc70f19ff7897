from pathlib import Path

import pytest

from models.config import load_model_config
from models.yolo import DetectionModel
from utils.engine.checkpoint import describe_model, save_checkpoint, weights_of
from utils.engine.contestants import distinct, from_configs, from_weights
from utils.errors import CheckpointError, ConfigError

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one model trained with seeds 0, 1, 1 and, with another optimizer, 2; and one without options."""
    folder = tmp_path_factory.mktemp("weights")
    model = DetectionModel(load_model_config("yolov5n.yaml"), nc=2)
    content = {**describe_model(model, NAMES), "ema": weights_of(model), "image_size": 96, "hyperparameters": {}}
    for name, seed, optimizer in (("a", 0, "SGD"), ("b", 1, "SGD"), ("c", 1, "SGD"), ("d", 2, "Adam")):
        options = {"seed": seed, "optimizer": optimizer, "name": name, "data": "cats.yaml", "device": name}
        save_checkpoint(folder / name / "weights" / "best.pt", {**content, "options": options})
    save_checkpoint(folder / "plain.pt", content)
    return folder


def test_weights_that_differ_in_the_seed_alone_are_one_model(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "abd"] + [str(folder / "plain.pt")]
    found = from_weights(paths, names=NAMES)
    assert [(one.label, len(one.weights)) for one in found] == [("yolov5n", 2), ("d", 1), ("plain", 1)]
    assert [one.data for one in found] == ["cats.yaml", "cats.yaml", ""] and not any(one.cfg for one in found)


def test_the_same_seed_twice_is_two_models(folder):
    paths = [str(folder / name / "weights/best.pt") for name in "bc"]
    assert [one.label for one in from_weights(paths, names=NAMES, taken=["b"])] == ["b-again1", "c"]


def test_mistakes_are_named(folder):
    path = str(folder / "plain.pt")
    with pytest.raises(CheckpointError, match="stands twice"):
        from_weights([path, path], names=NAMES)
    with pytest.raises(ConfigError, match="tells 2 classes, but --data has 3"):
        from_weights([path], names=("a", "b", "c"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        from_weights([str(folder / "none.pt")], names=NAMES)
    with pytest.raises(ConfigError, match=r"yolov9\.yaml does not exist"):
        from_configs(["yolov9.yaml"])


def test_names_are_kept_apart():
    assert [one.label for one in from_configs(["yolov5n.yaml"] * 2, taken=["yolov5n-again1"])] == [
        "yolov5n",
        "yolov5n-again2",
    ]
    assert distinct("a", ["b"]) == "a"

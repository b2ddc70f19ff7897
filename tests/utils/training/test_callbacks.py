"""Listeners: called by the names users know, in order; image weights; the state a checkpoint keeps."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY_DATA
from tests.test_end_to_end import options
from utils.datasets.config import load_data_config
from utils.datasets.image_weights import sampling_weights
from utils.datasets.index import build_index
from utils.datasets.synthetic_shapes import ensure_shapes
from utils.errors import ConfigError
from utils.training import callbacks
from utils.training.run import run_training

PLUGIN = """
from utils.training.callbacks import Callback, register_callback
HEARD = []

@register_callback
class Listener(Callback):
    def on_train_start(self, trainer):
        HEARD.append("start")
    def on_train_epoch_end(self, trainer, losses):
        HEARD.append(sorted(losses))
    def on_fit_epoch_end(self, trainer, row):
        HEARD.append(row["epoch"])
    def on_model_save(self, trainer, path):
        HEARD.append(path.name)
    def on_train_end(self, trainer):
        HEARD.append("end")
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(path)))
    return path


@pytest.mark.slow
def test_listeners_hear_of_everything_in_order(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "_REGISTERED", {})
    plugin = tmp_path / "listener_for_a_test.py"
    plugin.write_text(PLUGIN)
    run_training(options(data, tmp_path, epochs=1, imgsz=64, plugins=(str(plugin),)))
    heard = sys.modules["plugin_listener_for_a_test"].HEARD
    assert heard == ["start", ["box", "cls", "obj"], "best.pt", "last.pt", 0, "end"]


def test_tensorboard_is_written_or_its_absence_said(data: Path, tmp_path: Path) -> None:
    wanted = options(data, tmp_path, epochs=1, imgsz=64, tensorboard=True)
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="pip install tensorboard"):
            run_training(wanted)
        assert not (tmp_path / "exp").exists()
        return
    run = run_training(wanted)
    assert run is not None and list((run.run_dir / "tensorboard").iterdir())


@pytest.mark.slow
def test_images_of_weak_classes_come_up_more_often(data: Path, tmp_path: Path) -> None:
    index = build_index(load_data_config(str(data)), "train")
    even = sampling_weights(index, [])
    weak = sampling_weights(index, [0.99, 0.0, 0.99, 0.99, 0.99, 0.99])
    has = np.array([(index.rows(number)[:, 0] == 1).any() for number in range(len(index))])
    assert has.any() and not has.all() and (even > 0).all() and (weak > 0).all()
    assert weak[has].min() > 10 * weak[~has].max()
    run = run_training(options(data, tmp_path, epochs=2, imgsz=64, image_weights=True))
    assert run is not None

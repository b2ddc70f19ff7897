"""The moving average of the weights: its formula, its buffers, and that it is a model of its own."""

import math

import torch

from models.yolo import DetectionModel
from tests.helpers.training_runs import SMALL_MODEL
from utils.training.ema import DECAY, TAU, ModelEma


def test_the_average_follows_its_formula(tmp_path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL_MODEL)
    model = DetectionModel(str(tmp_path / "small.yaml"))
    ema = ModelEma(model)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for update in range(1, 4):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        for name, value in model.named_buffers():
            if name.endswith("num_batches_tracked"):
                value.add_(1)
        ema.update(model)
        keep = DECAY * (1 - math.exp(-update / TAU))
        for name, value in model.state_dict().items():
            floating = value.is_floating_point()
            expected[name] = keep * expected[name] + (1 - keep) * value.double() if floating else value.double()
    for name, value in ema.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(value, model.state_dict()[name]) for name, value in ema.model.state_dict().items())
    assert not ema.model.training and not any(parameter.requires_grad for parameter in ema.model.parameters())
    assert ema.updates == 3 and model.training

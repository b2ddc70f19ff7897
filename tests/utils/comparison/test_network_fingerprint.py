"""What a config builds: equal for equal networks, and different wherever a run could end otherwise."""

import pytest
import torch
from torch import nn

from models import registry
from models.config import ModelConfig
from models.registry import register
from utils.comparison.network_fingerprint import network_fingerprint
from utils.errors import ConfigError


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def config(*args: object, module: str = "AKConv") -> ModelConfig:
    value = {
        "nc": 2,
        "anchors": [[10, 13, 16, 30]],
        "backbone": [[-1, 1, module, list(args)]],
        "head": [[-1, 1, "Detect", ["nc", "anchors"]]],
    }
    return ModelConfig.from_dict(value, name="small.yaml")


def test_other_words_for_the_same_network_are_equal_and_the_drawing_of_numbers_is_left_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = network_fingerprint(config(8, 3, 2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for args in ((8, 3, 2, None), (8, 3, 2, {"points": "centered"}), (8, 3, 2, {"points": [[0, 0], [0, 1], [1, 0]]})):
        assert network_fingerprint(config(*args)) == one


@pytest.mark.parametrize(
    "args",
    [
        (16, 3, 2),
        (8, 4, 2),
        (8, 3, 1),
        (8, 3, 2, True),
        (8, 3, 2, {"padding": "zeros"}),
        (8, 3, 2, {"points": [[0, 0], [0, 1], [1, 1]]}),
        (8, 3, 2, {"act": False}),
    ],
)
def test_whatever_could_end_otherwise_differs(args: tuple[object, ...]) -> None:
    assert network_fingerprint(config(*args)) != network_fingerprint(config(8, 3, 2))


def test_a_users_module_differs_by_its_attributes_weights_and_what_cannot_be_judged() -> None:
    class Odd:
        pass

    @register("in_out")
    class Mine(nn.Module):
        def __init__(self, c1, c2, scale=1.0, gain=1.0, odd=False, unused=0):
            super().__init__()
            self.scale = {"all": [scale, torch.tensor(scale)]}
            self.conv = nn.Conv2d(c1, c2, 1)
            self.conv.weight.data *= gain
            if odd:
                self.odd = Odd()

    plain = network_fingerprint(config(8, module="Mine"))
    assert network_fingerprint(config(8, {"unused": 5}, module="Mine")) == plain
    for other in ({"scale": 2.0}, {"gain": 0.5}):
        assert network_fingerprint(config(8, other, module="Mine")) != plain
    assert network_fingerprint(config(8, {"odd": True}, module="Mine")) != network_fingerprint(
        config(8, {"odd": True}, module="Mine")
    )


def test_what_cannot_be_built_is_told_by_its_row() -> None:
    with pytest.raises(ConfigError, match=r"small\.yaml: layer 0 AKConv: arguments do not fit: stride must"):
        network_fingerprint(config(8, 3, 0))

"""An AKConv layer whose samples are far from where they start."""

from typing import Any

from torch import nn

from models.modules import AKConv
from models.sampling.offset_convolution import last_convolution


def moving_layer(num_points: int, stride: int, **form: Any) -> AKConv:
    """Return a layer whose offsets reach beyond the map and are not whole numbers."""
    layer = AKConv(4, 6, num_points, stride, **form).eval()
    last = last_convolution(layer.p_conv)
    nn.init.normal_(last.weight, std=0.7)
    nn.init.normal_(last.bias, std=2.0)  # type: ignore[arg-type]
    return layer

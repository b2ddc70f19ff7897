"""How far the offsets of an AKConv layer move its sampling points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from utils.inference.sampling_points import LayerSampling

LARGE_FRACTION = 0.25  # of the map's shorter side: beyond it the mean point has nothing to do with its output pixel
LARGE_MIN = 4.0  # px: on maps of a few pixels, a quarter of the side is still within the layer's receptive field
MAX_OUT_OF_BOUNDS = 0.5  # of the points that start inside: border padding gives them no gradient to return by
OUT_OF_BOUNDS_MARGIN = 1.0  # px past the border pixels' centres; closer points mean nothing on maps of 2 x 2 pixels


@dataclass(frozen=True, kw_only=True)
class LayerOffsets:
    """Offset statistics of one layer over all its output pixels."""

    name: str  # of the layer
    abs_mean: float  # mean absolute row or column offset in pixels of the layer's map
    oob_fraction: float  # fraction of the sampling points outside the map
    initial_oob_fraction: float  # fraction of the initial points outside the map, due to the shape alone
    left_fraction: float  # of the points that start inside, the fraction now beyond `OUT_OF_BOUNDS_MARGIN`
    normalized_abs_mean: float  # `abs_mean` divided by the largest plausible value, see `LARGE_FRACTION`

    @property
    def diverged(self) -> bool:
        """Whether the layer no longer samples the neighbourhood of its output pixels; true for NaN."""
        return not self.normalized_abs_mean <= 1 or not self.left_fraction <= MAX_OUT_OF_BOUNDS


def layer_offsets(layer: LayerSampling) -> LayerOffsets:
    """Measure one layer's sampling of one batch."""
    learned = layer.learned()
    beyond_margin = layer.outside(learned, margin=OUT_OF_BOUNDS_MARGIN)
    initial_outside = layer.outside(layer.initial())
    inside = ~initial_outside.expand_as(beyond_margin)
    abs_mean = float(layer.offset.abs().mean())
    return LayerOffsets(
        name=layer.name,
        abs_mean=abs_mean,
        oob_fraction=float(layer.outside(learned).float().mean()),
        initial_oob_fraction=float(initial_outside.float().mean()),
        left_fraction=float(beyond_margin[inside].float().mean()) if bool(inside.any()) else 0.0,
        normalized_abs_mean=abs_mean / max(LARGE_FRACTION * min(layer.size_hw), LARGE_MIN),
    )


def mean_offsets(measurements: Sequence[LayerOffsets]) -> LayerOffsets:
    """Return the unweighted mean of several measurements of one layer."""
    names = [field.name for field in fields(LayerOffsets) if field.name != "name"]
    means = {name: sum(getattr(one, name) for one in measurements) / len(measurements) for name in names}
    return LayerOffsets(name=measurements[0].name, **means)

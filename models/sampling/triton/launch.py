"""Compilation and launch of the kernels in programs.py: block sizes, autotuning."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.sampling.triton import device, programs

# Triton recompiles a kernel for arguments that are 1 or multiples of 16. That helps reading rows, but for these it
# would only recompile for many map sizes, as in multi-scale training.
UNSPECIALIZED = (
    *("num_pixels", "height", "width", "out_height", "out_width", "num_points", "stride", "splits"),
    *("offset_batch", "offset_point", "offset_row", "offset_column"),
    *("grad_offset_batch", "grad_offset_point", "grad_offset_row", "grad_offset_column"),
)


class Tile(NamedTuple):
    """Block sizes of one kernel; `pixels`, `outputs` and `channels` are powers of two from 16."""

    pixels: int
    outputs: int
    channels: int
    warps: int

    def clamped(self, out_channels: int, channels: int) -> Tile:
        """Return the tile with blocks reduced that would be more than half empty."""
        outputs, channels = (max(16, 1 << (size - 1).bit_length()) for size in (out_channels, channels))
        return self._replace(outputs=min(self.outputs, outputs), channels=min(self.channels, channels))

    def arguments(self) -> dict[str, int]:
        """Return the tile as kernel arguments."""
        return {"block_m": self.pixels, "block_o": self.outputs, "block_c": self.channels}


# The first tile is used without tuning; the others are tried once for each (C, O, N, dtype).
FORWARD_TILES = (
    Tile(64, 64, 32, 4),
    Tile(64, 128, 32, 4),
    Tile(64, 128, 64, 8),
    Tile(128, 64, 32, 8),
    Tile(32, 64, 64, 4),
)
INPUT_GRADIENT_TILES = (Tile(64, 64, 32, 8), Tile(32, 64, 32, 4), Tile(64, 32, 32, 4), Tile(32, 64, 64, 8))
DOUBLE_TILE = Tile(32, 32, 16, 4)  # float64 serves gradient checks: small enough for any GPU
WEIGHT_GRADIENT_TILES = (Tile(32, 64, 64, 4), Tile(64, 64, 32, 4), Tile(64, 128, 64, 8), Tile(64, 64, 64, 4))


class Kernel:
    """A compiled kernel with one tile, or autotuned over several."""

    def __init__(self, function: Callable[..., None], tiles: Sequence[Tile], adds_to: str | None = None) -> None:
        """Compile a function; `adds_to` names an argument that it adds to instead of overwriting."""
        import triton

        self.tiles = tiles
        self.plain = triton.jit(function, do_not_specialize=UNSPECIALIZED)
        self.tuned = None
        if not triton.knobs.runtime.interpret:
            self.tuned = triton.autotune(
                [triton.Config(tile.arguments(), num_warps=tile.warps, num_stages=2) for tile in tiles],
                key=["channels", "out_channels", "num_points"],
                reset_to_zero=[adds_to] if adds_to else None,
                prune_configs_by={"early_config_prune": self._prune},
            )(self.plain)

    def _prune(self, configs: object, named: object, **arguments: int) -> list[object]:
        """Return the distinct configs to try for these sizes."""
        import triton

        tiles = dict.fromkeys(tile.clamped(arguments["out_channels"], arguments["channels"]) for tile in self.tiles)
        return [triton.Config(tile.arguments(), num_warps=tile.warps, num_stages=2) for tile in tiles]

    def launch(self, grid: Callable[[dict[str, int]], int], *tensors: Tensor, tune: bool, **scalars: int | str) -> None:
        """Run on the device of the tensors; `grid` maps block sizes to the number of programs."""
        with torch.cuda.device_of(tensors[0]):
            if tune and self.tuned is not None and not scalars["double"]:
                self.tuned[lambda meta: (grid(meta),)](*tensors, **scalars, enable_fp_fusion=True)
                return
            tile = DOUBLE_TILE if scalars["double"] else self.tiles[0]
            tile = tile.clamped(int(scalars["out_channels"]), int(scalars["channels"]))
            self.plain[lambda meta: (grid(meta),)](
                *tensors,
                **scalars,
                **tile.arguments(),
                num_warps=tile.warps,
                num_stages=2,
                enable_fp_fusion=True,  # the default, but explicit, since Triton 3.9 warns of a change
            )


class Kernels(NamedTuple):
    """The three kernels."""

    forward: Kernel
    input_gradient: Kernel
    weight_gradient: Kernel


@functools.cache
def kernels() -> Kernels:
    """Compile the kernels at the first call.

    Raises:
        RuntimeError: Triton is not installed.
    """
    try:
        import triton
        import triton.language
    except ImportError as error:
        raise RuntimeError("ak_conv2d_triton needs the package triton, which is not installed") from error
    # Triton resolves the names in a function among the globals of its module.
    device.tl = programs.tl = triton.language
    for function in device.FUNCTIONS:
        compiled = triton.jit(function)
        for module in (device, programs):
            setattr(module, function.__name__, compiled)
    return Kernels(
        Kernel(programs.forward_kernel, FORWARD_TILES),
        Kernel(programs.input_gradient_kernel, INPUT_GRADIENT_TILES, adds_to="grad_x"),
        Kernel(programs.weight_gradient_kernel, WEIGHT_GRADIENT_TILES),
    )

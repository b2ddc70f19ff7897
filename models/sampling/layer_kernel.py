"""A whole AKConv layer without gradients by one call of the compiled kernel of layer_kernel.c.

The kernel reads weights in an order of its own, and a bias and SiLU after the product cost no further pass. The packed
weights are kept beside the layer, with the storage that they were read from: an operation that changes a weight raises
its version, and one that replaces it gives it other memory, so that a call that finds either packs again. Fused
optimizers, `weight.data.mul_()` and NumPy write without raising the version, which 32 evenly spaced values of each
parameter show; only a write of other single elements in such a way is not seen.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from models.sampling.sampling_grid import MAX_SIDE, Padding, SamplingGrid
from utils import compiled

LEVELS = ("portable", "avx2", "avx512")  # sets of vector instructions, each including those before it
VARIABLE = "AKCONV_CPU_LEVEL"  # an environment variable: the level to use instead of the best one
PANEL = 16  # outputs of a panel of packed weights
SMALL = 1 << 20  # multiply-adds of a call, below which more threads cost more than they save
TAPS = 9
PROBES = 32  # values of each parameter that are compared at each call; `PROBES` of layer_kernel.c
MAX_ELEMENTS = 2**31 - 1  # of an image's map: the kernel's indices have 32 bits


class LayerTensors(NamedTuple):
    """The parameters of a layer."""

    depthwise: Tensor | None  # (C, 1, 3, 3), or None if one 3x3 convolution predicts the offsets
    offset_weight: Tensor  # (2N or 3N, C, 3, 3), or (2N or 3N, C, 1, 1) after a depthwise convolution
    offset_bias: Tensor | None  # (2N or 3N,)
    points: Tensor  # (N, 2)
    weight: Tensor  # (O, C, N, 1)
    bias: Tensor | None  # (O,)


class _Layer(ctypes.Structure):
    """The struct `Layer` of layer_kernel.c."""

    _fields_ = [
        *((name, ctypes.c_ssize_t) for name in ("channels", "outputs", "points", "stride")),
        *((name, ctypes.c_ssize_t) for name in ("zeros", "modulated", "silu")),
        *((name, ctypes.c_void_p) for name in ("depthwise", "offset_weight", "offset_bias", "initial")),
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
    ]


def available_levels() -> tuple[str, ...]:
    """Return the levels that this processor has, the best last; none if the kernel is not compiled."""
    library = compiled.load("layer")
    return () if library is None else LEVELS[: library.best_level() + 1]


@functools.cache
def _entry_point(level: str | None) -> Callable[..., int] | None:
    """Return the kernel for a level, by default the best, or None if it is not compiled."""
    levels = available_levels()
    if level and levels and level not in levels:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(levels)} on this processor, got {level!r}")
    if not levels:
        return None
    function = getattr(compiled.load("layer"), f"layer_{level or levels[-1]}")
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_ssize_t] * 4, ctypes.c_void_p)
    return cast(Callable[..., int], function)


@functools.cache
def _probe() -> Callable[..., int]:
    """Return the function of the compiled kernel that keeps some values of the parameters, and compares them later."""
    function = getattr(compiled.load("layer"), "probe")  # noqa: B009 - as in `_entry_point`
    function.argtypes = (ctypes.c_ssize_t, *[ctypes.c_void_p] * 3, ctypes.c_int)
    return cast(Callable[..., int], function)


def fits(tensors: LayerTensors, grid: SamplingGrid) -> bool:
    """Return whether the kernel can read these parameters: float32 on the CPU, in the shapes of `LayerTensors`."""
    outputs, channels = tensors.weight.shape[:2]
    offsets = (
        (grid.offset_channels, channels, 3, 3) if tensors.depthwise is None else (grid.offset_channels, channels, 1, 1)
    )
    shapes = (channels, 1, 3, 3), offsets, offsets[:1], (grid.num_points, 2), (outputs, channels, grid.num_points, 1)
    return all(
        t is None or (t.dtype == torch.float32 and t.is_cpu and tuple(t.shape) == shape)
        for t, shape in zip(tensors, (*shapes, (outputs,)), strict=True)
    )


def pack(tensors: LayerTensors) -> tuple[Tensor | None, ...]:
    """Return copies of the parameters in the order and layout of the struct `Layer` of layer_kernel.c."""
    outputs, channels, points, _ = tensors.weight.shape
    matrix = F.pad(tensors.weight.detach().reshape(outputs, channels, points), (0, 0, 0, 0, 0, -outputs % PANEL))
    panels = matrix.view(-1, PANEL, channels, points).permute(0, 3, 2, 1).contiguous()
    bias = matrix.new_zeros(outputs) if tensors.bias is None else tensors.bias.detach()
    return (
        None
        if tensors.depthwise is None
        else tensors.depthwise.detach().permute(2, 3, 1, 0).clone(memory_format=torch.contiguous_format),
        tensors.offset_weight.detach().permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format),
        None if tensors.offset_bias is None else tensors.offset_bias.detach().clone(),
        tensors.points.detach().clone(memory_format=torch.contiguous_format),
        panels,
        F.pad(bias, (0, -outputs % PANEL)),
    )


class PackedLayer:
    """Parameters that `fits` accepts, as the kernel reads them."""

    def __init__(self, tensors: LayerTensors, grid: SamplingGrid, *, silu: bool) -> None:
        outputs, channels, points, _ = tensors.weight.shape
        self._read = pack(tensors)
        constants = channels, outputs, points, grid.stride, grid.padding == "zeros", grid.modulated, silu
        self._layer = _Layer(*constants, *(None if t is None else t.data_ptr() for t in self._read))
        self._address = ctypes.addressof(self._layer)
        function = _entry_point(os.environ.get(VARIABLE))
        if function is None:
            raise RuntimeError("the kernel is not compiled; run python -m utils.compiled")
        self._function = function
        self._channels, self._outputs, self._stride = channels, outputs, grid.stride
        offset_weights = sum(t.numel() for t in (tensors.depthwise, tensors.offset_weight) if t is not None)
        self._work = offset_weights + tensors.weight.numel()  # per output pixel
        self._constants = grid.stride, grid.padding, grid.modulated, silu
        # Storages are kept, so that no other tensor can come to lie at their addresses.
        # PyTorch does not count the versions of inference tensors, so that these are packed at each call.
        self._counted = not any(t is not None and t.is_inference() for t in tensors)
        self._sources = [t if t is None or not self._counted else (t.data_ptr(), t._version) for t in tensors]
        self._storages = [t if t is None else t.untyped_storage() for t in tensors]
        present = [t for t in tensors if t is not None and t.numel()]
        spans = (1 + sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True)) for t in present)
        self._probed = (
            len(present),
            (ctypes.c_void_p * len(present))(*(t.data_ptr() for t in present)),
            (ctypes.c_ssize_t * len(present))(*spans),
            (ctypes.c_float * (PROBES * len(present)))(),
        )
        self._probe = _probe()
        self._probe(*self._probed, 1)

    def is_current(self, tensors: LayerTensors, grid: SamplingGrid, *, silu: bool) -> bool:
        """Return whether parameters, stride, padding and factors are those that were packed, unchanged."""
        if not self._counted or (grid.stride, grid.padding, grid.modulated, silu) != self._constants:
            return False
        try:
            sources = [t if t is None else (t.data_ptr(), t._version) for t in tensors]
        except RuntimeError:  # an inference tensor
            return False
        return sources == self._sources and self._probe(*self._probed, 0) == 1

    def run(self, x: Tensor) -> Tensor | None:
        """Map (B, C, H, W) to (B, O, h, w), channels last; None if the map has other channels or is too large."""
        batch, channels, height, width = x.shape
        if channels != self._channels or max(height, width) > MAX_SIDE or channels * height * width > MAX_ELEMENTS:
            return None
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        out_h, out_w = (height - 1) // self._stride + 1, (width - 1) // self._stride + 1
        out = torch.empty((batch, self._outputs, out_h, out_w), memory_format=torch.channels_last)
        if not out.numel():
            return out
        threads = torch.get_num_threads() if batch * out_h * out_w * self._work > SMALL else 1
        if self._function(self._address, x.data_ptr(), batch, height, width, threads, out.data_ptr()):
            raise MemoryError(f"out of memory for AKConv on a map of {height} x {width} pixels")
        return out


class LayerKernel:
    """The packed weights of one AKConv module, made at its first call without gradients. Copies start without any."""

    def __init__(self) -> None:
        self.is_available = _entry_point(os.environ.get(VARIABLE)) is not None
        self._packed: PackedLayer | None = None

    def __deepcopy__(self, memo: object) -> LayerKernel:
        return LayerKernel()

    def __reduce__(self) -> tuple[type[LayerKernel], tuple[()]]:
        return LayerKernel, ()

    def __call__(self, x: Tensor, p_conv: nn.Module, conv: nn.Module, grid: SamplingGrid) -> Tensor | None:
        """Return the output of the layer, or None if the kernel cannot compute it, as with hooks on its modules.

        Args:
            x: (B, C, H, W).
            p_conv: made by `offset_convolution`.
            conv: a sequence of the convolution over the samples, a norm and an activation.
            grid: the constants of the sampling.
        """
        columns, norm, act = cast(Iterable[nn.Module], conv._modules.values())
        *depthwise, last = cast(Iterable[nn.Module], p_conv._modules.values() if p_conv._modules else (p_conv,))
        if (
            x.dtype != torch.float32
            or x.dim() != 4
            or torch.is_autocast_enabled("cpu")
            or any(m._forward_hooks or m._forward_pre_hooks for m in (columns, norm, act, p_conv, last, *depthwise))
            or not _is_layer(columns, last, depthwise, grid)
        ):
            return None
        ahead, offsets, product = depthwise[0]._parameters if depthwise else {}, last._parameters, columns._parameters
        tensors = LayerTensors(
            *(ahead.get("weight"), cast(Tensor, offsets["weight"]), offsets["bias"], grid.points),
            *(cast(Tensor, product["weight"]), product["bias"]),
        )
        silu = type(norm) is nn.Identity and type(act) is nn.SiLU
        if torch.compiler.is_compiling():
            constants = grid.stride, grid.padding, grid.modulated
            output = layer(x, *tensors, *constants, silu) if fits(tensors, grid) else None
        else:
            output = self._run(x, tensors, grid, silu)
        return output if silu or output is None else cast(Tensor, act(norm(output)))

    def _run(self, x: Tensor, tensors: LayerTensors, grid: SamplingGrid, silu: bool) -> Tensor | None:
        if type(x) is not Tensor:
            return None
        packed = self._packed
        if packed is None or not packed.is_current(tensors, grid, silu=silu):
            if not fits(tensors, grid):
                return None
            packed = self._packed = PackedLayer(tensors, grid, silu=silu)
        return packed.run(x)


def _is_layer(columns: nn.Module, last: nn.Module, depthwise: list[nn.Module], grid: SamplingGrid) -> bool:
    """Return whether these are the unmodified convolutions of an AKConv."""
    first = depthwise[0] if depthwise else last
    return (
        type(columns) is nn.Conv2d
        and type(last) is nn.Conv2d
        and type(first) is nn.Conv2d
        and (first.stride, first.padding, first.dilation) == ((grid.stride, grid.stride), (1, 1), (1, 1))
        and first.padding_mode == "zeros"
    )


_PACKED = WeakIdKeyDictionary()  # PackedLayer by the weight of the column convolution, for compiled graphs


@torch.library.custom_op("akconv::layer", mutates_args=(), device_types="cpu")
def layer(
    x: Tensor,
    depthwise: Tensor | None,
    offset_weight: Tensor,
    offset_bias: Tensor | None,
    points: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: str,
    modulated: bool,
    silu: bool,
) -> Tensor:
    """Compute a layer by the kernel: an operator for `torch.compile` and `torch.export`, which cannot look into it.

    The tensors are those of `LayerTensors`. RuntimeError if the kernel is not compiled or the map does not fit.
    """
    tensors = LayerTensors(depthwise, offset_weight, offset_bias, points, weight, bias)
    grid = SamplingGrid(points, stride, cast(Padding, padding), modulated)
    packed = _PACKED.get(weight)
    if packed is None or not packed.is_current(tensors, grid, silu=silu):
        if not fits(tensors, grid):
            raise RuntimeError("akconv::layer needs parameters in float32 on the CPU, and points for each offset")
        packed = _PACKED[weight] = PackedLayer(tensors, grid, silu=silu)
    output = packed.run(x)
    if output is None:
        raise RuntimeError(f"akconv::layer needs a map of {weight.shape[1]} channels, got {tuple(x.shape)}")
    return output


@layer.register_fake
def _(
    x: Tensor,
    depthwise: Tensor | None,
    offset_weight: Tensor,
    offset_bias: Tensor | None,
    points: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: str,
    modulated: bool,
    silu: bool,
) -> Tensor:
    batch, _, height, width = x.shape
    size = batch, weight.shape[0], (height - 1) // stride + 1, (width - 1) // stride + 1
    return x.new_empty(size).contiguous(memory_format=torch.channels_last)

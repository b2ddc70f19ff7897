"""The options of each command, one dataclass each: flags, help text and types in one place."""

from utils.options.benchmark import BenchmarkOptions
from utils.options.export import ExportOptions
from utils.options.hub import HubOptions
from utils.options.inference import DetectOptions, ValOptions
from utils.options.preparation import PrepareOptions
from utils.options.training import CompareOptions, TrainOptions

__all__ = [
    "BenchmarkOptions",
    "CompareOptions",
    "DetectOptions",
    "ExportOptions",
    "HubOptions",
    "PrepareOptions",
    "TrainOptions",
    "ValOptions",
]

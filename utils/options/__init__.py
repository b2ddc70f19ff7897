"""The options of each command, one dataclass each: flags, help text and types in one place."""

from utils.options.benchmark import BenchmarkOptions
from utils.options.compare import CompareOptions
from utils.options.detect import DetectOptions
from utils.options.export import ExportOptions
from utils.options.train import TrainOptions
from utils.options.val import ValOptions

__all__ = ["BenchmarkOptions", "CompareOptions", "DetectOptions", "ExportOptions", "TrainOptions", "ValOptions"]

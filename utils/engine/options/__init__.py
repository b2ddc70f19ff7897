"""The options of each command, one dataclass each: flags, help text and types in one place."""

from utils.engine.options.benchmark import BenchmarkOptions
from utils.engine.options.compare import CompareOptions
from utils.engine.options.detect import DetectOptions
from utils.engine.options.export import ExportOptions
from utils.engine.options.train import TrainOptions
from utils.engine.options.val import ValOptions

__all__ = ["BenchmarkOptions", "CompareOptions", "DetectOptions", "ExportOptions", "TrainOptions", "ValOptions"]

"""AKConv, rarer standard blocks, and modules that you add.

Every file in this folder is imported, so that model yamls can use the modules it registers: add a file with a
`@register(...)` class and use the class in a yaml. Nothing else needs editing.
"""

import importlib
import pkgutil

from models.modules.akconv import AKConv, LDConv, base_points
from models.modules.c3_akconv import Bottleneck_AKConv, Bottleneck_LDConv, C3_AKConv, C3_LDConv
from models.sampling.operator import ak_conv2d

__all__ = [
    "AKConv",
    "Bottleneck_AKConv",
    "Bottleneck_LDConv",
    "C3_AKConv",
    "C3_LDConv",
    "LDConv",
    "ak_conv2d",
    "base_points",
]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

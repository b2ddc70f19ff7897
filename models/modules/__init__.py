"""Modules beyond the standard blocks: AKConv and its kin, and whatever you add.

Every file in this folder is imported, so that the modules it registers are known to model yamls: drop in a file with a
`@register(...)` class and name the class in a yaml. Nothing else needs editing.
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

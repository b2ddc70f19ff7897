"""Custom modules and callbacks: import of the Python files of --plugins, which register them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import ConfigError
from utils.log import LOGGER


def find_plugin(name: str) -> Path:
    """Return the path of a file of --plugins; ConfigError if it is missing."""
    path = Path(name).resolve()
    if not path.is_file():
        raise ConfigError("--plugins", f"{name} does not exist", fix="check the path")
    return path


def load_plugins(files: Sequence[str]) -> None:
    """Import, and so execute, each of the user's files once; ConfigError if one is missing or its import fails."""
    for name in files:
        path = find_plugin(name)
        module_name = f"plugin_{path.stem}"
        if module_name in sys.modules:
            continue
        specification = importlib.util.spec_from_file_location(module_name, path)
        if specification is None or specification.loader is None:
            raise ConfigError("--plugins", f"{name} is not a Python file", fix="pass a .py file")
        module = importlib.util.module_from_spec(specification)
        sys.modules[module_name] = module
        try:
            specification.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise ConfigError(name, f"import failed: {error}", fix="correct the file") from error
        LOGGER.info(f"Plugin {path.name} loaded")

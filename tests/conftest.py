"""Fixtures of all tests: one thread, a fixed seed, a cache folder, reference arrays and a tiny data set."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_data import TINY_DATA
from utils.datasets.config import load_data_config
from utils.datasets.synthetic_shapes import ensure_shapes


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # The maps are small: more threads, here or in scripts that tests start, would only slow each other down.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def reference():
    return Path(__file__).parent / "reference"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests a cache folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data yaml of a tiny synthetic data set, which tests do not change."""
    path = tmp_path_factory.mktemp("data") / "tiny.yaml"
    path.write_text(TINY_DATA)
    ensure_shapes(load_data_config(str(path)))
    return path

"""Fixtures for all tests: one thread, a fixed seed, and the folder of reference arrays."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    # The maps are small: more threads, here or in the scripts that tests start, only wait for each other.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def reference():
    return Path(__file__).parent / "reference"

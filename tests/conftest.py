"""Fixtures for all tests: one thread, a fixed seed, and the folder of reference arrays."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)  # the maps are small: more threads only wait for each other


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def reference():
    return Path(__file__).parent / "reference"

"""Fixtures for all tests: a fixed seed, and the folder of reference arrays."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def reference():
    return Path(__file__).parent / "reference"

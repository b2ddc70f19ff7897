import pytest

from utils.log import LOGGER


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory, monkeypatch):
    """Keep label caches away from the user's, and let caplog see the program's messages."""
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(LOGGER, "propagate", True)
    monkeypatch.setattr(LOGGER, "disabled", False)
    return home

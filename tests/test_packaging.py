"""pyproject.toml and the requirements files declare the same packages, and the version has one source."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from utils import __version__

ROOT = Path(__file__).resolve().parent.parent
NAME = "akyolo"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The [project] table, with the version that setuptools reads."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is new in Python 3.11")
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {**content["project"], "attribute": content["tool"]["setuptools"]["dynamic"]["version"]["attr"]}


def requirements(name: str) -> set[str]:
    """Return the requirements of a file; `-r FILE` lines as they are, comments left out."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def test_dependencies_are_those_of_requirements_txt(project: dict[str, Any]) -> None:
    assert set(project["dependencies"]) == requirements("requirements.txt")


def test_export_group_is_requirements_export_txt(project: dict[str, Any]) -> None:
    # Installing the group installs the project's own dependencies too, as the -r line does.
    assert {*project["optional-dependencies"]["export"], "-r requirements.txt"} == requirements(
        "requirements-export.txt"
    )


def test_dev_group_is_requirements_dev_txt(project: dict[str, Any]) -> None:
    group = set(project["optional-dependencies"]["dev"])
    assert f"{NAME}[export]" in group
    includes = {"-r requirements.txt", "-r requirements-export.txt"}
    assert (group - {f"{NAME}[export]"}) | includes == requirements("requirements-dev.txt")


def test_the_version_has_one_source(project: dict[str, Any]) -> None:
    assert project["name"] == NAME
    assert "version" not in project and project["dynamic"] == ["version"]
    assert project["attribute"] == "utils.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)

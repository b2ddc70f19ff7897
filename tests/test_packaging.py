"""pyproject.toml and the requirements files declare the same packages; all files agree on the version."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from utils import __version__

ROOT = Path(__file__).resolve().parent.parent
NAME = "akyolo"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The [project] table, and as `attribute` where setuptools reads the version."""
    if sys.version_info < (3, 11):
        pytest.skip("tomllib is new in Python 3.11")
    import tomllib

    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {**content["project"], "attribute": content["tool"]["setuptools"]["dynamic"]["version"]["attr"]}


def requirements(name: str) -> set[str]:
    """Return the lines of a requirements file without comments."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return {line for line in lines if line}


def test_dependencies_match_requirements_txt(project: dict[str, Any]) -> None:
    assert set(project["dependencies"]) == requirements("requirements.txt")


def test_export_extra_matches_requirements_export_txt(project: dict[str, Any]) -> None:
    # Installing the extra also installs the project's dependencies, as the -r line does.
    assert {*project["optional-dependencies"]["export"], "-r requirements.txt"} == requirements(
        "requirements-export.txt"
    )


def test_app_extra_matches_requirements_app_txt(project: dict[str, Any]) -> None:
    assert {*project["optional-dependencies"]["app"], "-r requirements.txt"} == requirements("requirements-app.txt")


def test_dev_extra_matches_requirements_dev_txt(project: dict[str, Any]) -> None:
    group = set(project["optional-dependencies"]["dev"])
    assert f"{NAME}[export]" in group
    includes = {"-r requirements.txt", "-r requirements-export.txt"}
    assert (group - {f"{NAME}[export]"}) | includes == requirements("requirements-dev.txt")


def test_the_version_is_defined_once(project: dict[str, Any]) -> None:
    assert project["name"] == NAME
    assert "version" not in project and project["dynamic"] == ["version"]
    assert project["attribute"] == "utils.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_changelog_and_citation_name_the_version() -> None:
    assert f"\n## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0"
    assert [entry["identifiers"][0]["value"] for entry in citation["references"]] == ["arXiv:2311.11587"]


def test_pre_commit_hooks_use_local_tools() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert config["fail_fast"] and [entry["repo"] for entry in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert [hook["id"] for hook in hooks] == ["large-files", "ruff-format", "ruff-check", "mypy"]
    assert {hook["language"] for hook in hooks} == {"system"}


def test_the_workflow_tests_the_oldest_supported_versions(project: dict[str, Any]) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    oldest = matrix["versions"][0]
    assert project["requires-python"] == f">={oldest['python']}"
    pinned = {pin.replace("==", ">=").removesuffix(".*") for pin in oldest["torch"].split()}
    assert pinned == {entry for entry in project["dependencies"] if entry.startswith("torch")}


def test_the_image_is_made_of_files_that_exist() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    replaced = re.search(r"sed -i 's/\^([\w-]+)>/([\w-]+)>/' requirements\.txt", dockerfile)
    assert replaced is not None and replaced[2] == f"{replaced[1]}-headless"
    assert [line for line in requirements("requirements.txt") if line.startswith(f"{replaced[1]}>")]
    named = {*re.findall(r"requirements[\w-]*\.txt", dockerfile), *re.findall(r'"/app/([\w./-]+)"', dockerfile)}
    assert named >= {"requirements.txt", "detect.py"} and all((ROOT / name).is_file() for name in named)
    ignored = {line.rstrip("/") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()}
    assert not ignored & {"data", "models", "utils", *(path.name for path in ROOT.glob("*.py"))}
    assert ignored >= {".*", "compiled", "datasets", "runs"}


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name)
def test_issue_templates_are_forms(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": False}
        return
    assert {"name", "description", "body"} <= set(form)
    for element in form["body"]:
        assert element["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert "value" in element["attributes"] if element["type"] == "markdown" else "label" in element["attributes"]

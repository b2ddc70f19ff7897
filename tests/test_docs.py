"""The documentation agrees with the program: its commands, flags, files and links exist. test_docs_run.py runs them.

It also agrees with itself: pages in English and Chinese, mkdocs.yml. docs/dev and docs/experiments are English only.
"""

import importlib.util
import re
import shlex
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from models.__main__ import SummaryOptions
from tests.helpers.doc_commands import ALL, CHINESE, ENGLISH, PAGES, ROOT, Command, all_commands, all_flags, pieces
from tests.studies import ablation_coverage, error_coverage, joint_coverage, load
from tests.studies.ci_coverage import SimulationOptions
from utils.benchmarks.nms import NmsBenchmarkOptions
from utils.cli import build_parser, parse_options
from utils.datasets import download
from utils.datasets.convert.__main__ import build_parser as convert_parser
from utils.options import (
    BenchmarkOptions,
    CompareOptions,
    DetectOptions,
    ExportOptions,
    HubOptions,
    PrepareOptions,
    TrainOptions,
    ValOptions,
)
from utils.options.app import AppOptions
from utils.options.explain import ExplainOptions

OPTIONS: dict[str, type] = {
    "prepare.py": PrepareOptions,
    "train.py": TrainOptions,
    "val.py": ValOptions,
    "detect.py": DetectOptions,
    "compare.py": CompareOptions,
    "export.py": ExportOptions,
    "benchmarks.py": BenchmarkOptions,
    "app.py": AppOptions,
    "hubconf.py": HubOptions,
    "models": SummaryOptions,
    "utils.benchmarks.nms": NmsBenchmarkOptions,
    "utils.explain": ExplainOptions,
    "tests.studies.ablation_coverage": ablation_coverage.AblationSimulationOptions,
    "tests.studies.ci_coverage": SimulationOptions,
    "tests.studies.error_coverage": error_coverage.SimulationOptions,
    "tests.studies.joint_coverage": joint_coverage.SimulationOptions,
    "tests.studies.load": load.LoadOptions,
}


@pytest.mark.parametrize("command", all_commands(), ids=shlex.join)
def test_every_command_and_its_flags_exist(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command
    if program == "torchrun":
        parsed = torchrun_parser().parse_args(words)
        program, words = "python", [parsed.training_script, *parsed.training_script_args]
    if program == "trtexec":
        return
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets, variables = re.findall(r"^([\w-]+):", makefile, re.M), re.findall(r"^(\w+) \?=", makefile, re.M)
        assert all(word.split("=")[0] in (variables if "=" in word else targets) for word in words)
        return
    if program == "pip" or words[:2] == ["-m", "pip"]:
        flags = [word for word in words if word.startswith("-") and word != "-m"]
        assert "install" in words and set(flags) <= {"-r", "--requirement", "--index-url"}
        assert all((ROOT / words[words.index(flag) + 1]).is_file() for flag in flags if flag != "--index-url")
        return
    is_module = words[0] == "-m"
    name, *words = words[1:] if is_module else words
    exists = importlib.util.find_spec(name) is not None if is_module else (ROOT / name).is_file()
    assert exists, f"{name} does not exist"
    if name in ("venv", "pytest"):
        return  # test_docs_run.py runs them with these arguments
    if name == "utils.compiled":
        assert not words
    elif name == "utils.datasets.convert":
        convert_parser().parse_args(words)
    elif name == "utils.datasets.download":
        fetched: list[Path] = []
        monkeypatch.setattr(sys, "argv", ["download", *words])
        monkeypatch.setattr(download, "fetch", lambda config: fetched.append(config.file))
        download.main()
        assert fetched
    elif words in (["--help"], ["--version"]):
        assert "--debug" in build_parser(OPTIONS[name], description="").format_help()
    else:
        parse_options(OPTIONS[name], words, description="")


@pytest.mark.parametrize("flag", all_flags())
def test_every_flag_that_a_sentence_mentions_exists(flag: str) -> None:
    flags = {"--help", *(name for action in torchrun_parser()._actions for name in action.option_strings)}
    for options in OPTIONS.values():
        flags |= {name for action in build_parser(options, description="")._actions for name in action.option_strings}
        flags |= {*getattr(options, "IGNORED", {}), *getattr(options, "REFUSED", {})}
    assert flag in flags or flag.replace("_", "-") in flags


def test_the_readme_has_the_commands_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(RUN)", ".venv/bin/python")
    for target in ("demo", "test"):
        line = re.search(rf"^{target}: install\n\t(.*)$", makefile, re.M)
        assert line is not None
        for page in ("README.md", "README.zh-CN.md"):
            assert f"\n{line[1]}\n" in (ROOT / page).read_text(encoding="utf-8"), page


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def heading_ids(page: Path) -> list[tuple[int, str]]:
    """Return the level and id of each heading: the explicit one, or the one that GitHub and mkdocs derive."""
    result: list[tuple[int, str]] = []
    for marks, text in re.findall(r"^(#+) (.*)$", without_code(page), re.M):
        explicit = re.search(r"\{#([\w-]+)\}$", text)
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        derived = re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())
        result.append((len(marks), explicit[1] if explicit else derived))
    return result


def test_every_file_that_a_page_names_or_links_exists() -> None:
    for piece in ALL:
        if piece.language == "span" and re.fullmatch(r"(models|utils|tests|data|docs)/[\w./-]+", piece.text):
            assert (ROOT / piece.text).exists(), f"{piece.page} names {piece.text}"
    for page in (*PAGES, ROOT / "docs/example/README.md", *(ROOT / "docs").glob("experiments/*.md")):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", without_code(page)):
            if target.startswith("https://"):
                continue
            file = page.parent / target if target else page
            assert file.exists(), f"{page.name} links {target}"
            assert not anchor or anchor in [name for _, name in heading_ids(file)], (
                f"{page.name} links {target}#{anchor}"
            )


def test_the_pages_in_english_and_chinese_have_the_same_headings() -> None:
    assert [page.name for page in ENGLISH] == [page.name for page in CHINESE]
    for page in CHINESE:
        assert heading_ids(page) == heading_ids(ROOT / "docs" / page.name), page.name


@pytest.mark.parametrize("page", CHINESE, ids=lambda page: page.name)
def test_the_pages_in_english_and_chinese_have_the_same_code(page: Path) -> None:
    def code(path: Path) -> list[tuple[str, str]]:
        blocks = [piece for piece in pieces(path) if piece.language != "span"]
        return [(piece.language, re.sub(r" *#.*", "", piece.text).strip()) for piece in blocks]

    assert code(page) == code(ROOT / "docs" / page.name)


def test_the_tests_that_security_md_names_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(promises) > 10
    for line in promises:
        named = re.findall(r"`(tests/[^`]+)`", line)
        assert named and all((ROOT / name).is_file() for name in named), line


def test_both_pages_of_the_gates_have_the_same_rows_and_figures() -> None:
    # The words differ, so the commands and numbers of each row are compared.
    def rows(page: Path) -> list[tuple[list[str], list[str]]]:
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
        return [(re.findall(r"`[^`]+`", line), sorted(re.findall(r"\d(?:[\d,.:-]*\d)?", line))) for line in lines]

    english = rows(ROOT / "docs/reliability.md")
    assert len(english) > 14 and english == rows(ROOT / "docs/zh/reliability.md")


def test_the_site_has_every_page_in_both_languages() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (*ENGLISH, *CHINESE, *(ROOT / "docs").glob("experiments/*.md"), *(ROOT / "docs").glob("dev/*.md")):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert len(re.findall(rf"(?:- |: ){re.escape(name)}$", site, re.M)) == 1, name


def test_the_error_messages_of_the_faq_are_those_of_the_programs() -> None:
    lines = (ROOT / "tests/messages.txt").read_text(encoding="utf-8").splitlines()
    templates = [line.split(" :: ")[2] for line in lines if ".what :: " in line]
    known = [".*".join(map(re.escape, template.split("{…}"))) for template in templates]
    messages = [piece.text for piece in pieces(ROOT / "docs/faq.md") if piece.text.startswith("error: ")]
    assert len(messages) == 10
    for message in messages:
        what, _, fix = message.removeprefix("error: ").removesuffix(".").partition(". Fix: ")
        assert fix and any(re.fullmatch(rf".+ {pattern}", what) for pattern in known if pattern != ".*"), message


def test_the_site_loads_nothing_from_elsewhere() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in site and not re.search(r"https?://", site)


def test_the_site_contains_its_style() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    styles = re.findall(r"^extra_css: \[(.*)\]$", site, re.M)[0].split(", ")
    left_out = re.findall(r"^  (/.*)$", site.partition("exclude_docs: |\n")[2].partition("validation:")[0], re.M)
    assert left_out and all((ROOT / "docs" / style).is_file() for style in styles)
    assert not [style for style in styles if any(fnmatch(f"/{style}", f"{pattern}*") for pattern in left_out)]


def test_the_site_joins_lines_of_chinese_and_keeps_lists_and_blocks() -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site/hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="zh/a.md"))
    kept = "。\n\n五：\n```\n六\n```\n| 七 |\n|---|\n"
    source = f"1. 一，\n   **二**。\n2. 三\n   四{kept}[八](../../README.md)，[九](../a.md)\nten\n"
    expected = f"1. 一，**二**。\n2. 三四{kept}八，[九](../a.md)\nten\n"
    assert hooks.on_page_markdown(source, page, None, None) == expected

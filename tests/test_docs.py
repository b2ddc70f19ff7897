"""The documentation agrees with the program: its commands, flags, files and links exist. test_docs_run.py runs them."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from models.__main__ import SummaryOptions
from tests.helpers.doc_commands import ALL, PAGES, ROOT, Command, all_commands, all_flags
from tests.studies import ablation_coverage, error_coverage, joint_coverage
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
        assert "install" in words and set(flags) <= {"-r", "--requirement"}
        assert all((ROOT / words[words.index(flag) + 1]).is_file() for flag in flags)
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
    elif words == ["--help"]:
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


def test_every_file_that_a_page_names_or_links_exists() -> None:
    for piece in ALL:
        if piece.language == "span" and re.fullmatch(r"(models|utils|tests|data|docs)/[\w./-]+", piece.text):
            assert (ROOT / piece.text).exists(), f"{piece.page} names {piece.text}"
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links {target}"

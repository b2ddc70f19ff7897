"""Look inside trained models: `python -m utils.explain --weights a.pt b.pt --data shapes.yaml --erf`."""

from __future__ import annotations

from utils.cli import parse_options, run_script
from utils.options.command_line import check_files
from utils.options.explain import ExplainOptions


def main() -> None:
    """Parse the command line and run it."""
    options, _ = parse_options(ExplainOptions, None, description=__doc__ or "")
    check_files(options)
    from utils.explain.run import run_explain  # torch comes after what can be checked without

    run_explain(options)


if __name__ == "__main__":
    run_script(main)

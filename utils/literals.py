"""Python literals in text, such as `[1, 2]` in a yaml or in the metadata of a file: parsed, never evaluated."""

from __future__ import annotations

import ast
import warnings
from typing import Any

# What parsing raises for text that is not a literal, or that exhausts the parser.
NOT_A_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def parse_expression(text: str) -> ast.expr:
    """Return the syntax tree of an expression; one of `NOT_A_LITERAL` if it is none. Python's warnings are dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about `1is 2` or "\d", of a class that depends on the version
        return ast.parse(text.strip(" \t"), mode="eval").body


def parse_literal(text: str) -> Any:  # noqa: ANN401
    """Return the value of a literal; one of `NOT_A_LITERAL` if the text is anything else."""
    return ast.literal_eval(parse_expression(text))

"""Fuzzing: mutated inputs of every kind, each evaluated in a process with limits and an audit hook.

`python -m tests.fuzz` runs all kinds, see `--help`; `tests/fuzz/test_fuzz.py` runs some of each, and every file of
`corpus/`, which are the inputs that once went wrong.
"""

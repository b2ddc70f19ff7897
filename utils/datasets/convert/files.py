"""What converters read from: a folder, an archive, or several of these, as files by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from utils.errors import DataError


class Files(Protocol):
    """Files by name, of a folder or an archive."""

    @property
    def names(self) -> Sequence[str]:
        """Relative names with `/`, in a fixed order."""

    def read(self, name: str) -> bytes:
        """Return a file's content."""


class Folder:
    """The files below a folder, without hidden ones."""

    def __init__(self, path: Path) -> None:
        """List the files.

        Raises:
            DataError: there is no such folder, or nothing in it.
        """
        self.path = path
        self.names: Sequence[str] = sorted(
            (Path(root) / file).relative_to(path).as_posix()
            for root, _, files in os.walk(path)
            for file in files
            if not file.startswith(".")
        )
        if not self.names:
            raise DataError(path, "is not a folder with files", fix="check the path")

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(self.path / name, f"cannot be read ({error.strerror})", fix="check permissions") from error


class Joined:
    """Several sources as one; of files with equal names the first is used."""

    def __init__(self, sources: Sequence[Files]) -> None:
        """Join the sources."""
        self._source_of: dict[str, Files] = {}
        for source in sources:
            for name in source.names:
                self._source_of.setdefault(name, source)

    @property
    def names(self) -> Sequence[str]:
        """All names, each once."""
        return list(self._source_of)

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return self._source_of[name].read(name)

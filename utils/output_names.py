"""Names of output files, each given out once, so that no output overwrites another."""

from __future__ import annotations

import unicodedata

MAX_NAME_BYTES = 255  # of one file or folder on common file systems


class OutputNames:
    """The names that a run has given to its outputs, by folder; the time is linear in their number.

    Names that differ only in case or in how accents are encoded count as equal, since some file systems take them so.
    """

    def __init__(self) -> None:
        """Start without names."""
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # the last number tried for names that were asked for repeatedly

    def claim(self, stem: str, *, folder: str = "", suffix: str = ".jpg", separator: str = "-") -> str:
        """Return a stem that is new in `folder`: `stem`, or `stem-2`, `stem-3`... if that is taken.

        It is cut where the name would be too long with the longest suffix that is to follow, `suffix`.
        """
        room = MAX_NAME_BYTES - len(suffix)
        first = candidate = cut_name(stem, room)
        asked = _key(folder, first)
        number = self._numbers.get(asked, 1)
        while (key := _key(folder, candidate)) in self._taken:
            number += 1
            ending = f"{separator}{number}"
            candidate = cut_name(first, room - len(ending)) + ending
        self._taken.add(key)
        if number > 1:
            self._numbers[asked] = number
        return candidate


def cut_name(name: str, room: int) -> str:
    """Return the longest beginning of a name that has at most `room` bytes on disk."""
    name = name[:room]
    while len(name.encode("utf-8", "surrogateescape")) > room:
        name = name[:-1]
    return name


def _key(folder: str, name: str) -> str:
    return unicodedata.normalize("NFC", f"{folder}/{name}").casefold()

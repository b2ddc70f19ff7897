"""What `--source` names: paths as they stand, globs, lists, addresses, cameras and the screen."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.datasets.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, has_suffix
from utils.datasets.paths import is_hidden, suffix_counts, unread_files
from utils.datasets.remote import WEB_SCHEMES, public_address
from utils.datasets.streams import STREAM_SCHEMES, is_stream
from utils.errors import DataError
from utils.log import LOGGER

LIST_SUFFIXES = frozenset(("txt", "streams"))
MAX_LIST_DEPTH = 8
MAX_LISTS = 1000
MAX_CAMERA = 999
MAX_SHOWN = 200  # characters of a source in a message
VIDEO_PAGES = ("youtube.com", "youtu.be")  # web pages; the address of their video changes with every visit
_VIDEO_DEVICE = re.compile(r"/dev/video(\d{1,3})")


@dataclass
class SourceResolver:
    """Collects what texts name; lists are read up to a depth and number, since they may name each other."""

    files: list[Path | str] = field(default_factory=list)  # images and videos, in order; str: at a web address
    streams: list[str] = field(default_factory=list)  # webcam indices, stream addresses, `screen`
    lists: int = 0  # read so far

    def add(self, text: str, *, depth: int = 0) -> None:
        """Add the files or the stream that a text names; DataError if there are none, or lists contain each other.

        What exists is a path, whatever else its name may mean.
        """
        path = existing_path(text)
        if path is not None and (camera := _VIDEO_DEVICE.fullmatch(str(path))):
            self.streams.append(camera[1])
        elif path is not None and has_suffix(path, LIST_SUFFIXES) and path.is_file():
            self._add_list(path, depth=depth)
        elif path is not None:
            self.files += _files(path)
        elif "://" in text:
            self._add_address(text, depth=depth)
        elif is_stream(text):
            if text.isdigit() and int(text[:20]) > MAX_CAMERA:
                raise DataError(
                    "--source", f"{shown(text)} is neither a camera nor a file", fix="pass a camera from 0 on"
                )
            self.streams.append(text)
        else:
            self.files += _matching_files(text)

    def _add_address(self, text: str, *, depth: int) -> None:
        """Add what an address names; DataError if it is invalid or of an unknown scheme."""
        address = shown(public_address(text))
        try:
            parts = urlsplit(text)
            host, path = parts.hostname or "", unquote(parts.path)
        except ValueError as error:
            raise DataError("--source", f"{address} is not a valid address", fix="correct the address") from error
        if text.lower().startswith("file://"):
            if existing_path(path) is None:
                raise DataError("--source", f"{address} does not exist", fix="check the address")
            self.add(path, depth=depth)
        elif not text.lower().startswith(STREAM_SCHEMES):
            fix = f"use an address that begins with {', '.join(STREAM_SCHEMES)}"
            raise DataError("--source", f"unsupported source {address}", fix=fix)
        elif host.endswith(VIDEO_PAGES):
            raise DataError("--source", f"{address} is a web page", fix="download the video and pass the file")
        elif text.lower().startswith(WEB_SCHEMES) and has_suffix(path, IMAGE_SUFFIXES | VIDEO_SUFFIXES):
            self.files.append(text)
        else:
            self.streams.append(text)

    def _add_list(self, path: Path, *, depth: int) -> None:
        """Add the entries of a list; those that name no file are skipped and counted when they are read."""
        self.lists += 1
        if depth == MAX_LIST_DEPTH:
            raise DataError(path, f"is nested in more than {MAX_LIST_DEPTH} lists", fix="do not list lists")
        if self.lists > MAX_LISTS:
            raise DataError(path, f"is one of more than {MAX_LISTS:,} lists", fix="do not list lists")
        for entry in _entries(path):
            try:
                self.add(entry, depth=depth + 1)
            except DataError as error:
                if "://" in entry or not error.where.startswith("--source"):
                    raise
                self.files.append(Path(entry))


def existing_path(text: str) -> Path | None:
    """Return the path that a text names, as it stands or from a home folder on; None if there is none."""
    for candidate in (text, os.path.expanduser(text)):  # leaves unknown users as they are
        if candidate and os.path.lexists(candidate):
            return Path(candidate)
    return None


def shown(text: str) -> str:
    """Return a text as a message shows it, however long and whatever it contains."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_SHOWN])
    return printable + "..." * (len(text) > MAX_SHOWN)


def _entries(path: Path) -> Iterator[str]:
    """Yield the entries of a list, one per line: as written if they exist, else relative to the list's folder."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError(path, "is not UTF-8 text", fix="write one source per line, in UTF-8") from error
    for line in lines:
        entry = line.strip()
        candidates = [name for text in (line.removesuffix("\r"), entry) for name in (text, str(path.parent / text))]
        existing = next((name for name in candidates if entry and existing_path(name) is not None), "")
        if existing:
            yield existing
        elif entry and not entry.startswith("#"):
            yield entry if is_stream(entry) or "://" in entry else str(path.parent / entry)


def _files(path: Path) -> list[Path | str]:
    """Return the images and videos of a path, sorted, without hidden ones; DataError if there are none."""
    try:
        if not path.is_dir():
            return _media([path], str(path))
        paths = [p for p in sorted(path.iterdir()) if not is_hidden(p.name) and not p.is_dir()]
    except OSError as error:
        what = f"{shown(str(path))} cannot be read ({error.strerror})"
        raise DataError("--source", what, fix="check the permissions") from error
    if unread := unread_files(map(str, paths), IMAGE_SUFFIXES | VIDEO_SUFFIXES):
        LOGGER.warning(f"--source: left out {suffix_counts(unread)}; these suffixes are not read")
    return _media(paths, str(path))


def _matching_files(text: str) -> list[Path | str]:
    """Return the images and videos of a glob, sorted; DataError if there are none, or it is none."""
    path = Path(text if os.path.lexists(text.partition("/")[0]) else os.path.expanduser(text))
    if any(wildcard in text for wildcard in "*?[") and "\0" not in text:
        # What exists of its folders is no pattern, even if there are brackets in their names.
        folder = next((folder for folder in path.parents if os.path.isdir(folder)), Path())
        pattern = os.path.join(glob.escape(str(folder)), path.relative_to(folder))
        return _media([Path(p) for p in sorted(glob.glob(pattern, recursive=True)) if not os.path.isdir(p)], text)
    near: list[Path] = []
    if os.path.isdir(path.parent):
        with contextlib.suppress(OSError):
            near = sorted(path.parent.glob(f"{glob.escape(path.name[:3])}*"))[:3]
    fix = f"did you mean {', '.join(map(str, near))}?" if near else "pass an image, folder, glob, video or camera"
    raise DataError("--source", f"{shown(text) or 'nothing'} does not exist", fix=fix)


def _media(paths: Sequence[Path], text: str) -> list[Path | str]:
    """Return the images and videos among files; DataError if there are none."""
    media: list[Path | str] = [p for p in paths if has_suffix(p, IMAGE_SUFFIXES | VIDEO_SUFFIXES)]
    if not media:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("--source", f"{shown(text)} has no image or video", fix=f"pass a file that ends in {suffixes}")
    return media

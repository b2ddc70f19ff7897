"""Where the paths of data yamls and image lists lead: one that exists is taken as it stands, before anything else."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import DataError

MAX_FOLDERS = 1_000_000
# Folders of operating systems and storage devices, besides those whose name begins with a dot.
_FOREIGN = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"))
_COPIES = _FOREIGN | {".ipynb_checkpoints", ".thumbnails"}
# Files that often lie beside images, and that nobody takes for one.
_COMPANIONS = frozenset("cache csv db html ini json lnk log md names npy npz pdf py tsv txt xml yaml yml zip".split())
_PARENTS = re.compile(r"^(\.\.?/)*\.\./")
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


@dataclass(frozen=True, kw_only=True)
class ResolvedPath:
    """Where to find images: an existing file or folder, and optionally a glob below the folder."""

    path: Path
    pattern: str = ""


@dataclass(kw_only=True)
class FoundFiles:
    """The files below a folder, or those that match a glob."""

    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)  # hidden files, and hidden folders with all they hold


def is_hidden(name: str) -> bool:
    """Return whether the file or folder of a name is no part of a data set: `.ipynb_checkpoints`, `._a.jpg`."""
    return name.startswith(".") or name in _FOREIGN


def is_hidden_copy(path: str) -> bool:
    """Return whether a list names a file that is hidden or in a folder of copies; a data set may be in `~/.cache`."""
    *folders, name = re.split(r"[\\/]", path)
    return is_hidden(name) or not _COPIES.isdisjoint(folders)


def is_windows_path(text: str) -> bool:
    """Return whether a text is an absolute path of Windows, and this is another system."""
    return os.sep == "/" and bool(_WINDOWS_PATH.match(text))


def readings(text: str, root: Path | str) -> tuple[str, str, str]:
    """Return the three paths that a text may mean relative to a root, the first choice first.

    They are the path as it stands; with `~` as the home folder, and backslashes as `/`; and without leading `../`,
    which Roboflow writes before folders that lie beside the yaml.
    """
    portable = os.path.expanduser(text.replace("\\", "/") if os.sep == "/" else text)
    without_parents = _PARENTS.sub("", portable)
    return os.path.join(root, text), os.path.join(root, portable), os.path.join(root, without_parents)


def resolve(path: str) -> ResolvedPath | None:
    """Return an existing path, or the existing folder before its first part that is a glob; None if there is neither.

    `images [1]/*.jpg` is the glob `*.jpg` in the folder `images [1]`, if there is one.
    """
    whole = Path(path)
    if os.path.exists(whole):
        return ResolvedPath(path=whole)
    folder, parts = Path(whole.anchor), whole.parts[bool(whole.anchor) :]
    index = next(i for i, _ in enumerate(parts) if not os.path.exists(folder.joinpath(*parts[: i + 1])))
    folder = folder.joinpath(*parts[:index])
    is_glob = folder.is_dir() and any(character in parts[index] for character in "*?[")
    return ResolvedPath(path=folder, pattern="/".join(parts[index:])) if is_glob else None


def find_files(place: ResolvedPath) -> FoundFiles:
    """Return the files in a folder and all below it, or the matches of a glob (`**`: any folders); links are followed.

    A glob that matches only folders means all files below them.

    Raises:
        OSError: a folder cannot be read.
        DataError: links between folders lead on without end.
        ValueError: the glob is invalid.
    """
    if not place.pattern:
        return _walk(str(place.path))
    parts = place.pattern.split("/")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must be a whole part of the path")
    before = parts.index("**") if "**" in parts else len(parts)
    matches = sorted(glob.glob(os.path.join(glob.escape(str(place.path)), *parts[:before])))
    if before == len(parts) and any(map(os.path.isfile, matches)):
        return FoundFiles(files=[match for match in matches if not os.path.isdir(match)])
    found = FoundFiles()
    for folder in (match.rstrip("/") for match in matches if os.path.isdir(match)):
        below = _walk(folder)
        found.hidden += below.hidden
        found.files += [f for f in below.files if _matches(f[len(folder) + 1 :].split("/"), parts[before:] or ["**"])]
    return found


def _walk(folder: str) -> FoundFiles:
    """Return the files below a folder; a link to a folder that contains it ends there."""
    found, visited = FoundFiles(), 0
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while pending:
        current, above = pending.pop()
        status = os.stat(current)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            continue
        visited += 1
        if visited > MAX_FOLDERS:
            raise DataError(folder, f"has links that lead through more than {MAX_FOLDERS:,} folders", fix="remove them")
        with os.scandir(current) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    found.hidden.append(entry.path)
                elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # a link may be a loop
                    pending.append((entry.path, above | {identity}))
                else:
                    found.files.append(entry.path)
    return found


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_matches(parts[start:], pattern[1:]) for start in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def unread_files(paths: Iterable[str], suffixes: frozenset[str]) -> list[str]:
    """Return the files without one of the suffixes, except for those that often lie beside images."""
    known = suffixes | _COMPANIONS
    others = [path for path in paths if os.path.splitext(path)[1][1:].lower() not in known]
    return [path for path in others if os.path.basename(path) not in ("LICENSE", "README")]


def suffix_counts(paths: Iterable[str]) -> str:
    """Describe files by their suffixes: `2 .heic files, 1 .gif file`."""
    counts = Counter(os.path.splitext(path)[1].lower() for path in paths)
    kinds = ((f"{suffix} file" if suffix else "file without suffix", n) for suffix, n in counts.most_common())
    return ", ".join(f"{n} {kind if n == 1 else kind.replace('file', 'files')}" for kind, n in kinds)


def nearest_existing(text: str, tried: Iterable[str], folders: Sequence[Path | str]) -> str:
    """Return what a path that does not exist may have meant, or "".

    It is the longest end of the path that exists in one of the folders (`set/images` of `/old/set/images`), or
    else the existing sibling with the closest name.
    """
    parts = [part for part in re.split(r"[\\/]+", text) if part not in ("", ".", "..")]
    for start in range(len(parts)):
        for folder in folders:
            candidate = os.path.join(folder, *parts[start:])
            if os.path.exists(candidate):
                return os.path.normpath(candidate)
    for path in map(Path, tried):
        parent = path.parent
        while not os.path.exists(parent) and parent != parent.parent:
            path, parent = parent, parent.parent
        if parent.is_dir():
            siblings = [child.name for child in parent.iterdir() if child.is_dir() or child.suffix == ".txt"]
            if matches := difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.6):
                return str(parent / matches[0])
    return ""

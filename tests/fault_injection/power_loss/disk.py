"""Which disk states a crash may leave, by what POSIX promises and what ext4 does without a journal of data.

Durable is what was flushed: the data and the size of a file by its own fsync, the names in a folder by an fsync of the
folder, everything by syncfs. All else may be lost or kept, one folder independently of the other, names before the data
of their file; data may be kept in part, torn at 512 or 4,096 bytes, or as zeros of the new size. A rename is atomic.
Within a folder names survive in order, as in a journal; a share of the states, marked `unordered`, drops this too.
"""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fault_injection.power_loss.recording import Operation

Tree = dict[str, bytes | str | None]  # by relative path: a file's content, a symbolic link's target, None for a folder
BLOCKS = (512, 4096)


@dataclass
class Node:
    """A file or a folder, whatever its names."""

    number: int
    kind: str  # file, folder, symlink
    base: bytes = b""  # content before the recording
    target: str = ""
    changes: list[tuple[int, Operation]] = field(default_factory=list)  # of the data, with the operation's index
    syncs: list[tuple[int, int]] = field(default_factory=list)  # index of the fsync, and of the first it may not cover


@dataclass(frozen=True)
class Naming:
    """One atomic change of names: each of (folder, name) gets a node or none."""

    index: int
    names: tuple[tuple[int, str, int | None], ...]


def read_tree(folder: Path) -> Tree:
    """Return everything below a folder; hard links become files of their own."""
    tree: Tree = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                tree[key] = os.readlink(path)
            else:
                tree[key] = None if name in folders else path.read_bytes()
    return tree


def write_tree(folder: Path, tree: Tree) -> None:
    """Write a tree into an empty folder."""
    for name, content in sorted(tree.items(), key=lambda item: item[0]):
        path = folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


def tree_hash(tree: Tree) -> str:
    """Return a hash of all names and contents."""
    digest = hashlib.sha256()
    for name, content in sorted(tree.items()):
        kind, data = type(content).__name__, content.encode() if isinstance(content, str) else content or b""
        digest.update(f"{kind} {len(data)} {name}\0".encode("utf-8", "surrogateescape") + data)
    return digest.hexdigest()


class Disk:
    """A folder's tree before a recording, and what each operation changes."""

    def __init__(self, base: Tree, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self.nodes = [Node(0, "folder")]
        self.namings: list[Naming] = []
        self._names: dict[tuple[int, str], int] = {}  # of the running system
        self._outside: dict[str, int] = {}
        for name, content in sorted(base.items()):
            kind = "folder" if content is None else "symlink" if isinstance(content, str) else "file"
            node = self._new(kind, content)
            self._names[self._place(name)] = node
        self._base = dict(self._names)
        for index, operation in enumerate(operations):
            self._apply(index, operation)

    def _new(self, kind: str, content: bytes | str | None = b"") -> int:
        node = Node(len(self.nodes), kind)
        node.base = content if isinstance(content, bytes) else b""
        node.target = content if isinstance(content, str) else ""
        self.nodes.append(node)
        return node.number

    def _find(self, path: str) -> int:
        node = 0
        for part in Path(path).parts:
            node = self._names[node, part]
        return node

    def _place(self, path: str) -> tuple[int, str]:
        return self._find(str(Path(path).parent)), Path(path).name

    def _apply(self, index: int, operation: Operation) -> None:
        """Let the running system carry out an operation, and note what it changes."""
        kind, path, other = operation.kind, operation.path, operation.other
        names: list[tuple[tuple[int, str], int | None]] = []
        if kind in ("create", "mkdir", "symlink"):
            place = self._place(path)
            if kind != "create" or place not in self._names:
                made = {"create": "file", "mkdir": "folder"}.get(kind, kind)
                names = [(place, self._new(made, other if kind == "symlink" else b""))]
        elif kind == "unlink":
            names = [(self._place(path), None)]
        elif kind == "link":
            if path.startswith("../"):  # of another folder, whose files are on disk
                node = self._outside.setdefault(path, len(self.nodes))
                if node == len(self.nodes):
                    self._new("file", Path(path[3:]).read_bytes())
            else:
                node = self._find(path)
            names = [(self._place(other), node)]
        elif kind in ("rename", "exchange"):
            first, second = self._find(path), self._names.get(self._place(other))
            if first != second:  # two names of one file: rename does nothing
                names = [(self._place(path), second if kind == "exchange" else None), (self._place(other), first)]
        elif kind in ("write", "truncate"):
            self.nodes[self._find(path)].changes.append((index, operation))
        elif kind == "sync":
            self.nodes[self._find(path)].syncs.append((index, operation.begun))
        elif kind == "syncfs":
            for node in self.nodes:
                node.syncs.append((index, operation.begun))
        if names:
            self._names.update({place: node for place, node in names if node is not None})
            for place in [place for place, node in names if node is None]:
                del self._names[place]
            self.namings.append(Naming(index, tuple((*place, node) for place, node in names)))

    def _durable(self, node: int, end: int) -> int:
        """Return the index before which a node's changes are on disk if the crash comes before operation `end`."""
        return max((begun for index, begun in self.nodes[node].syncs if index < end), default=-1)

    def _pending(self, end: int) -> tuple[list[Naming], list[Naming]]:
        """Return the changes of names that are on disk at a crash, and those that may be."""
        before = [naming for naming in self.namings if naming.index < end]
        limit = {folder: self._durable(folder, end) for naming in before for folder, _, _ in naming.names}
        safe = [n for n in before if any(n.index < limit[folder] for folder, _, _ in n.names)]
        kept = {naming.index for naming in safe}
        return safe, [naming for naming in before if naming.index not in kept]

    def tree(self, namings: Sequence[Naming], contents: dict[int, bytes]) -> Tree:
        """Return the tree of some changes of names, with the contents of files that have changed."""
        names: dict[tuple[int, str], int | None] = dict(self._base)
        for naming in sorted(namings, key=lambda naming: naming.index):
            names.update({(folder, name): node for folder, name, node in naming.names})
        inside: dict[int, list[tuple[str, int]]] = {}
        for (folder, name), node in names.items():
            if node is not None:
                inside.setdefault(folder, []).append((name, node))
        tree: Tree = {}
        waiting = [("", 0)]
        while waiting:
            prefix, folder = waiting.pop()
            for name, number in inside.get(folder, ()):
                node, path = self.nodes[number], prefix + name
                if node.kind == "folder":
                    tree[path] = None
                    waiting.append((path + "/", number))
                else:
                    tree[path] = node.target if node.kind == "symlink" else contents.get(number, node.base)
        return tree

    def final_tree(self) -> Tree:
        """Return the tree after all operations, as the running system shows it."""
        return self.tree(self.namings, {node.number: _replay(node.base, node.changes) for node in self.nodes})

    def flushed_tree(self, end: int) -> Tree:
        """Return the tree of what is durable before operation `end`, and nothing else."""
        contents = {node.number: self._content(node, end, None) for node in self.nodes if node.changes}
        return self.tree(self._pending(end)[0], contents)

    def is_settled(self, end: int) -> bool:
        """Whether a crash before operation `end` leaves one state only."""
        changed = (node for node in self.nodes if any(index < end for index, _ in node.changes))
        written = any(max(i for i, _ in n.changes if i < end) >= self._durable(n.number, end) for n in changed)
        return not written and not self._pending(end)[1]

    def states(self, end: int, rng: random.Random, count: int) -> Iterator[Tree]:
        """Draw states that a crash before operation `end` may leave: first only what was flushed, then everything."""
        safe, pending = self._pending(end)
        for number in range(count):
            draw = None if number == 0 else rng
            kept = [] if number == 0 else pending if number == 1 else self._kept(pending, rng)
            keep_all = number == 1
            contents = {
                node.number: _replay(node.base, [c for c in node.changes if c[0] < end])
                if keep_all
                else self._content(node, end, draw)
                for node in self.nodes
                if node.changes
            }
            yield self.tree([*safe, *kept], contents)

    def _kept(self, pending: Sequence[Naming], rng: random.Random) -> list[Naming]:
        """Draw which changes of names survive: in each folder the first ones, or in one of four draws any."""
        if rng.random() < 0.25:
            return [naming for naming in pending if rng.random() < 0.5]
        cut: dict[int, int] = {}
        for naming in pending:
            for folder, _, _ in naming.names:
                if folder not in cut:
                    own = [n.index for n in pending if any(place[0] == folder for place in n.names)]
                    cut[folder] = rng.choice([*own, own[-1] + 1])
        kept: list[Naming] = []
        lost: set[int] = set()  # folders, of which a change that concerns two was lost with the other
        for naming in pending:
            folders = {folder for folder, _, _ in naming.names}
            if lost & folders or any(naming.index >= cut[folder] for folder in folders):
                lost |= folders
            else:
                kept.append(naming)
        return kept

    def _content(self, node: Node, end: int, rng: random.Random | None) -> bytes:
        """Draw a file's content at a crash; without a generator only what was flushed."""
        durable = self._durable(node.number, end)
        changes = [change for change in node.changes if change[0] < end]
        safe = _replay(node.base, [change for change in changes if change[0] < durable])
        pending = [change for change in changes if change[0] >= durable]
        if rng is None or not pending:
            return safe
        full = _replay(safe, pending[: rng.randint(1, len(pending))])
        kind = rng.choice(("lost", "kept", "torn", "zeros", "blocks"))
        block = rng.choice(BLOCKS)
        cut = rng.randrange(len(full) // block + 1) * block
        if kind == "torn":
            return full[:cut] + (safe[cut : len(full)] if len(safe) > cut else b"")
        if kind == "zeros":
            return full[:cut] + bytes(len(full) - cut)
        if kind == "blocks":
            old = safe[: len(full)].ljust(len(full), b"\0")
            pieces = (full if rng.random() < 0.5 else old for _ in range(0, len(full), block))
            return b"".join(piece[i * block : (i + 1) * block] for i, piece in enumerate(pieces))
        return safe if kind == "lost" else full


def _replay(content: bytes, changes: Sequence[tuple[int, Operation]]) -> bytes:
    """Return a file's content after writes and truncations."""
    data = bytearray(content)
    for _, operation in changes:
        if operation.kind == "truncate":
            data = data[: operation.offset].ljust(operation.offset, b"\0")
        else:
            start = len(data) if operation.offset < 0 else operation.offset
            data = data.ljust(start, b"\0")
            data[start : start + len(operation.data)] = operation.data
    return bytes(data)

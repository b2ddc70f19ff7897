"""Graphs converted for ONNX Runtime in the user's cache folder, by the content of the weights and of the conversion."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from utils import __version__
from utils.compiled import AKCONV_OPERATOR, compiled_library, processor_features
from utils.errors import DetectorError
from utils.files import PROJECT_ROOT, has_lasting_cache, try_write, user_cache_dir

MAX_FILES = 32  # the least recently used are removed
CONVERSION = ("models/**/*.py", "utils/inference/onnx_conversion.py")  # what the graph depends on besides the weights


@dataclass(frozen=True, kw_only=True)
class CachedGraph:
    """A converted model, or why it cannot be converted."""

    graph: bytes  # optimized for this processor; empty if there is none
    metadata: dict[str, str]  # as `ModelMetadata.to_text` returns it
    summary: str = ""  # the model's size in one line
    refusal: str = ""  # why ONNX Runtime cannot run this model


def graph_key(weights: bytes, runtime_version: str) -> str:
    """Return the key of a weights file's graph, which other code, runtimes and processors do not share."""
    digest = hashlib.sha256(weights)
    parts = [__version__, runtime_version, processor_features(), str(compiled_library(AKCONV_OPERATOR))]
    for pattern in CONVERSION:
        parts += [path.read_text(encoding="utf-8") for path in sorted(PROJECT_ROOT.glob(pattern))]
    digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def load_graph(key: str) -> CachedGraph | None:
    """Return a cached graph; None if there is none, or the file is damaged."""
    if not has_lasting_cache():
        return None
    path = _path(key)
    try:
        data = path.read_bytes()
        checksum, _, content = data.partition(b"\n")
        if checksum.decode("ascii") != hashlib.sha256(content).hexdigest():
            return None
        header, _, graph = content.partition(b"\n")
        with contextlib.suppress(OSError):
            os.utime(path)  # used now
        return CachedGraph(graph=graph, **json.loads(header))
    except (OSError, ValueError, TypeError):
        return None


def store_graph(key: str, cached: CachedGraph) -> DetectorError | None:
    """Write a graph atomically, and remove the least recently used ones; return the error if that fails."""
    header = {"metadata": cached.metadata, "summary": cached.summary, "refusal": cached.refusal}
    content = json.dumps(header).encode() + b"\n" + cached.graph
    error = try_write(_path(key), hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    with contextlib.suppress(OSError):  # another process may remove them too
        files = sorted(_folder().glob("*.graph"), key=lambda path: path.stat().st_mtime)
        for path in files[:-MAX_FILES]:
            path.unlink()
    return error


def cache_is_writable() -> bool:
    """Whether graphs can be kept, so that a conversion is worth its time."""
    if not has_lasting_cache():
        return False
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _folder() -> Path:
    return user_cache_dir() / "onnxruntime"


def _path(key: str) -> Path:
    return _folder() / f"{key}.graph"

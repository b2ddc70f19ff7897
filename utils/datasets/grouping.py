"""Group images that must not be parted between splits: near-duplicates, frames of one video, parts of one source.

By content: near-duplicates, as `near_duplicates` finds them. By name, whatever the folder:

- Versions that Roboflow made of one image, `NAME.rf.HASH`, and tiles of one image, `NAME__SCALE__X___Y` or `NAME_X_Y`
  where the numbers of all images of that NAME form a grid of at least 16 pixels that begins at 0.
- Names that differ in a last number only are a series. If its name speaks of frames (`video1_frame12`, `a_mp4-3_jpg`)
  and there are at least three such series, each is a video and stays together. In any other series, which may well be
  the whole data set, images are joined to the next in number where the two differ less than half as much as random
  pairs do.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utils.datasets.near_duplicates import ImageSignatures, compute_signatures, find_duplicates, similarities

MIN_SIMILARITY = 0.6  # of neighbouring frames, as a correlation of their coarse structure
RANDOM_PAIRS = 2000  # how similar the images of a data set are as a rule
MIN_VIDEOS = 3
MIN_TILE_STEP = 16  # pixels
_ROBOFLOW = re.compile(r"\.rf\.[0-9a-f]{6,}$", re.I)
_CONVERTED = re.compile(r"_(?:jpe?g|png|bmp|webp|tiff?)$", re.I)  # Roboflow's rest of the old suffix
_GRID_TILE = re.compile(r"^(.+)__\d+(?:\.\d+)?__\d+___\d+$")
_NUMBERS = re.compile(r"^(.+?)[_-](\d+)[_-](\d+)$")
_SERIES = re.compile(r"^(.*?)(\d{1,18})$", re.S)
_FRAMES = re.compile(r"frame|video|clip|(?:^|[^a-z])(?:vid|cam|seq|scene|mp4|avi|mov|mkv|m4v|webm)(?![a-z])", re.I)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Which images stay together."""

    group: np.ndarray  # (n,) int64, ids from 0 in the order of the first image of each
    reasons: dict[str, int]  # why, in words, and how many images that joins to others; without zeros

    @property
    def words(self) -> str:
        """Return the groups of several images in words, or ""."""
        sizes = np.bincount(self.group)
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        groups, images = (sizes > 1).sum(), sizes[sizes > 1].sum()
        return f"{groups} group{'s' if groups > 1 else ''} of {images} images ({reasons})" if reasons else ""


def group_images(paths: Sequence[str]) -> Groups:
    """Return the groups of images; those that cannot be read are joined by their names only."""
    signatures = compute_signatures(paths)
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    duplicates = [(pair.first, pair.second) for pair in find_duplicates(signatures)]
    by_reason = {
        "copies or near-duplicates": duplicates,
        "versions or tiles of one image": _chains(_same_source(stems)),
        "frames of one video": _frames(stems, signatures),
    }
    reasons = {reason: len({index for pair in pairs for index in pair}) for reason, pairs in by_reason.items() if pairs}
    return Groups(
        group=connected(len(paths), [pair for pairs in by_reason.values() for pair in pairs]), reasons=reasons
    )


def connected(count: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Return the (n,) int64 group of each of n items, where pairs join them; ids from 0 by the first item of each."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    roots = [root(item) for item in range(count)]
    return np.unique(np.array(roots, np.int64), return_inverse=True)[1].astype(np.int64)


def _chains(members: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Return pairs that join the members of each group."""
    return [pair for group in members for pair in itertools.pairwise(group)]


def _original_name(stem: str) -> str:
    """Return a name without what Roboflow appends."""
    return _CONVERTED.sub("", _ROBOFLOW.sub("", stem)) if _ROBOFLOW.search(stem) else stem


def _same_source(stems: Sequence[str]) -> list[list[int]]:
    """Return the images that are versions or tiles of one."""
    sources: dict[tuple[str, str], list[int]] = defaultdict(list)
    offsets: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for index, stem in enumerate(stems):
        if _ROBOFLOW.search(stem):
            sources["version", _ROBOFLOW.sub("", stem)].append(index)
        name = _original_name(stem)
        if match := _GRID_TILE.match(name):
            sources["tile", match[1]].append(index)
        elif match := _NUMBERS.match(name):
            offsets[match[1]].append((int(match[2]), int(match[3]), index))
    for name, tiles in offsets.items():
        steps = [math.gcd(*(tile[axis] for tile in tiles)) for axis in (0, 1)]
        distinct = {tile[:2] for tile in tiles}
        if len(distinct) > 1 and (0, 0) in distinct and all(step == 0 or step >= MIN_TILE_STEP for step in steps):
            sources["tile", name] += [index for *_, index in tiles]
    return [members for members in sources.values() if len(members) > 1]


def _frames(stems: Sequence[str], signatures: ImageSignatures) -> list[tuple[int, int]]:
    """Return pairs that join frames of one video."""
    series: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, stem in enumerate(stems):
        if match := _SERIES.match(_original_name(stem)):
            series[match[1]].append((int(match[2]), index))
    ordered = {name: [index for _, index in sorted(members)] for name, members in series.items() if len(members) > 1}
    videos = [name for name in ordered if _FRAMES.search(name)]
    whole = set(videos) if len(videos) >= MIN_VIDEOS else set()
    pairs = _chains(ordered[name] for name in whole)
    neighbours = _chains(members for name, members in ordered.items() if name not in whole)
    readable = np.array([bool(digest) for digest in signatures.digests], bool)
    neighbours = [pair for pair in neighbours if readable[list(pair)].all()]
    if neighbours:
        rng = np.random.default_rng(0)
        first, second = rng.choice(np.flatnonzero(readable), (2, RANDOM_PAIRS))
        usual = similarities(signatures, first[first != second], second[first != second])
        limit = max(MIN_SIMILARITY, (1 + float(np.median(usual))) / 2) if len(usual) else MIN_SIMILARITY
        similar = similarities(signatures, *np.array(neighbours).T) > limit
        pairs += [pair for pair, joined in zip(neighbours, similar, strict=True) if joined]
    return pairs

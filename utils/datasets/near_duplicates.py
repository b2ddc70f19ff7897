"""Find copies of images: scaled, compressed, brightened, mirrored, or cropped by up to 10 %.

Each image is kept as a small grey thumbnail. Candidates are nearest neighbours of coarse descriptors, with which an
image is searched as it is, mirrored, and cropped in several ways, in trees whose leaves alone are searched fully, so
that the time grows with n log n. A candidate counts only if, after the two thumbnails are aligned, they differ nowhere:
one moved chess piece on the same board is another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.datasets.images import map_in_threads
from utils.datasets.thumbnails import ALIGNMENTS, BRIGHT, DARK, SIDE, compare, read_thumbnail, warped

DESCRIPTOR_SIDE = 16
MIN_SIMILARITY = 0.7  # of the descriptors of candidates, as a correlation
NEIGHBOURS = 8  # for each image as it is, mirrored or cropped
MAX_CANDIDATES = 8  # for each image
TREES = 6
LEAF_SIZE = 1024  # images
MAX_DIFFERENCE = 1.6  # of aligned thumbnails at any place, as `compare` gives it

Tree = np.ndarray | tuple[np.ndarray, float, "Tree", "Tree"]  # a leaf's images, or a plane and what lies on its sides


@dataclass(frozen=True, kw_only=True)
class ImageSignatures:
    """What is compared of n images."""

    thumbnails: np.ndarray  # (n, 96, 96) uint8, grey
    digests: tuple[bytes, ...]  # of the files' contents; b"" if the file is damaged or missing


@dataclass(frozen=True, kw_only=True)
class DuplicatePair:
    """Two images of which one is a copy of the other, or nearly so."""

    first: int  # index in the paths whose signatures were computed
    second: int  # the same, > first
    identical: bool  # byte for byte


def compute_signatures(paths: Sequence[str]) -> ImageSignatures:
    """Read images at reduced size. Damaged ones get no signature, so that they are duplicates of nothing."""
    thumbnails, digests = np.zeros((len(paths), SIDE, SIDE), np.uint8), []
    for index, result in enumerate(map_in_threads(read_thumbnail, paths, "Comparing images")):
        digests.append(result[0] if result else b"")
        if result:
            thumbnails[index] = result[1]
    return ImageSignatures(thumbnails=thumbnails, digests=tuple(digests))


def find_duplicates(signatures: ImageSignatures) -> list[DuplicatePair]:
    """Return the pairs of duplicates, sorted.

    Each further copy of a file is paired with the first only, and each image with its nearest few, so that the number
    of pairs grows with the number of images; `group_images` joins what they connect.
    """
    first_of: dict[bytes, int] = {}
    firsts = [first_of.setdefault(digest, i) for i, digest in enumerate(signatures.digests)]
    pairs = [
        DuplicatePair(first=first, second=i, identical=True)
        for i, (first, digest) in enumerate(zip(firsts, signatures.digests, strict=True))
        if digest and first != i
    ]
    distinct = np.array(sorted(i for digest, i in first_of.items() if digest), np.int64)
    thumbnails = signatures.thumbnails[distinct]
    pairs += [
        DuplicatePair(first=first, second=second, identical=False)
        for first, second in distinct[_near_pairs(thumbnails)].tolist()
    ]
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _near_pairs(thumbnails: np.ndarray) -> np.ndarray:
    """Return (m, 2) pairs of nearly equal images of different files, the smaller index first."""
    candidates = _candidates(thumbnails)
    results = map_in_threads(
        lambda c: compare(thumbnails[c[0]], thumbnails[c[1]], ALIGNMENTS[c[2]]), candidates, "Comparing similar images"
    )
    difference, gain = np.array(list(results), np.float64).reshape(-1, 2).T
    ends = np.array([candidate[:2] for candidate in candidates], np.int64).reshape(-1, 2)
    best = np.full(len(thumbnails), np.inf)
    np.minimum.at(best, ends, difference[:, None])
    clipped = np.array([((image < DARK) | (image > BRIGHT)).mean() for image in thumbnails])
    damaged = np.where(clipped[ends[:, 0]] > clipped[ends[:, 1]], *ends.T)
    # A strong change of brightness clips colours: then more may differ, but only to what fits best.
    is_best = difference <= 1.25 * best[damaged]
    same = (difference < MAX_DIFFERENCE) | (is_best & (difference < MAX_DIFFERENCE * gain**3))
    return np.sort(ends[same], axis=1)


def similarities(signatures: ImageSignatures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation, from -1 to 1, of the coarse structure of (m,) pairs of images, which are not aligned."""
    return np.array(
        [
            descriptor(signatures.thumbnails[i]) @ descriptor(signatures.thumbnails[j])
            for i, j in zip(first, second, strict=True)
        ],
        np.float32,
    )


def descriptor(thumbnail: np.ndarray) -> np.ndarray:
    """Return (256,) float32 of length 1: the coarse structure without its average and slow changes of light."""
    side = DESCRIPTOR_SIDE
    grey = cv2.resize(thumbnail, (2 * side, 2 * side), interpolation=cv2.INTER_AREA).astype(np.float32)
    details = cv2.GaussianBlur(grey, (0, 0), 1) - cv2.GaussianBlur(grey, (0, 0), side / 4)
    coarse = cv2.resize(details, (side, side), interpolation=cv2.INTER_AREA)
    values = coarse.ravel() - coarse.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _candidates(thumbnails: np.ndarray) -> list[tuple[int, int, int]]:
    """Return pairs of images that may be duplicates, and the alignment of the first to the second."""
    if len(thumbnails) < 2:
        return []
    rng = np.random.default_rng(0)
    plain, images = np.array([descriptor(thumbnail) for thumbnail in thumbnails]), np.arange(len(thumbnails))
    tangents = _tangents(plain)
    trees = [_build_tree(images, plain, rng) for _ in range(TREES if len(plain) > LEAF_SIZE else 1)]
    kept = []
    for number, alignment in enumerate(ALIGNMENTS):
        queries = np.array([descriptor(warped(thumbnail, alignment)) for thumbnail in thumbnails]) if number else plain
        found = [pair for tree in trees for pair in _search(tree, images, queries, plain)]
        pairs = np.unique(np.concatenate([*found, np.zeros((0, 2), np.int64)]), axis=0)
        misfit = _misfit(queries, plain, tangents, pairs)
        order = np.argsort(misfit, kind="stable")
        order = order[_rank(pairs[order, 0]) < MAX_CANDIDATES]
        kept.append(np.column_stack([misfit[order], pairs[order], np.full(len(order), number)]))
    rows = np.concatenate(kept)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    ends = np.sort(rows[:, 1:3], axis=1)
    rows = rows[np.sort(np.unique(ends, axis=0, return_index=True)[1])]  # of each pair the best alignment
    rows = rows[(_rank(rows[:, 1]) < MAX_CANDIDATES) | (_rank(rows[:, 2]) < MAX_CANDIDATES)]
    return [(int(first), int(second), int(number)) for _, first, second, number in rows]


def _tangents(descriptors: np.ndarray) -> np.ndarray:
    """Return (n, 256, 6) float32: orthonormal directions in which descriptors change if the images move a little.

    These are shifts, scales and shears, as in the tangent distance of Simard, LeCun, Denker (1993).
    """
    side = DESCRIPTOR_SIDE
    tangents = np.empty((len(descriptors), side * side, 6), np.float32)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    for start in range(0, len(descriptors), LEAF_SIZE):
        maps = descriptors[start : start + LEAF_SIZE].reshape(-1, side, side)
        slopes = [slope * place for slope in np.gradient(maps, axis=(1, 2)) for place in (1, x, y)]
        tangents[start : start + LEAF_SIZE] = np.linalg.qr(np.stack(slopes, axis=-1).reshape(-1, side * side, 6))[0]
    return tangents


def _misfit(queries: np.ndarray, descriptors: np.ndarray, tangents: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return (m,) the largest difference of a query from the other image's descriptor that no small move explains."""
    misfit = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), LEAF_SIZE):
        first, second = pairs[start : start + LEAF_SIZE].T
        difference, basis = (queries[first] - descriptors[second])[:, None], tangents[second]
        misfit[start : start + LEAF_SIZE] = np.abs(difference - difference @ basis @ basis.transpose(0, 2, 1)).max(
            (1, 2)
        )
    return misfit


def _rank(values: np.ndarray) -> np.ndarray:
    """Return for each value how many equal ones come before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return ranks


def _build_tree(images: np.ndarray, descriptors: np.ndarray, rng: np.random.Generator) -> Tree:
    """Halve the images by random planes until a leaf is small."""
    if len(images) <= LEAF_SIZE:
        return images
    first, second = descriptors[rng.choice(images, 2, replace=False)]
    direction = first - second
    order = images[np.argsort(descriptors[images] @ direction, kind="stable")]
    half = len(order) // 2
    return (
        direction,
        float(descriptors[order[half]] @ direction),
        _build_tree(order[:half], descriptors, rng),
        _build_tree(order[half:], descriptors, rng),
    )


def _search(tree: Tree, asked: np.ndarray, queries: np.ndarray, descriptors: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (m, 2) pairs: images that are asked for, and near neighbours in the leaf where their queries end."""
    if isinstance(tree, tuple):
        direction, threshold, below, above = tree
        is_above = queries[asked] @ direction >= threshold
        yield from _search(below, asked[~is_above], queries, descriptors)
        yield from _search(above, asked[is_above], queries, descriptors)
        return
    for start in range(0, len(asked), LEAF_SIZE):
        rows = asked[start : start + LEAF_SIZE]
        similarity = queries[rows] @ descriptors[tree].T
        similarity[rows[:, None] == tree[None]] = -1
        for _ in range(NEIGHBOURS):
            best = similarity.argmax(1)
            chosen = similarity[np.arange(len(rows)), best] > MIN_SIMILARITY
            if not chosen.any():
                break
            yield np.stack([rows[chosen], tree[best[chosen]]], axis=1)
            similarity[np.arange(len(rows)), best] = -1

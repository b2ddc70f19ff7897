"""Near-duplicates: changed copies are found, other images of the same scene and damaged files are not."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.studies.near_duplicates import CHANGES
from utils.datasets import near_duplicates
from utils.datasets.image_writing import write_image
from utils.datasets.near_duplicates import compute_signatures, find_duplicates


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """Draw a random image: blurred noise and twenty discs."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(60, 160, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(20):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, centre, int(rng.integers(6, 24)), rng.integers(30, 170, 3).tolist(), -1)
    return image


def chessboard(column: int, row: int) -> np.ndarray:
    """Draw a board of which one square has a piece."""
    squares = (np.indices((8, 8)).sum(0) % 2 * 80 + 90).astype(np.uint8)
    board = cv2.resize(np.repeat(squares[..., None], 3, axis=2), (320, 240), interpolation=cv2.INTER_NEAREST)
    return cv2.ellipse(board, (column * 40 + 20, row * 30 + 15), (7, 11), 0, 0, 360, (30, 30, 30), -1)


def pairs_of(paths: list[Path]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in find_duplicates(compute_signatures([str(path) for path in paths]))}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [write_image(folder / f"{seed}.jpg", scene(seed)) for seed in range(30)]


def test_no_two_of_thirty_scenes_are_duplicates(scenes: list[Path]):
    assert pairs_of(scenes) == set()


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_copy_is_found(kind: str, scenes: list[Path], tmp_path: Path):
    rng = np.random.default_rng(0)
    copies = [
        write_image(tmp_path / f"{seed}.jpg", np.ascontiguousarray(CHANGES[kind](scene(seed), rng)))
        for seed in range(12)
    ]
    found, planted = pairs_of(scenes + copies), {(seed, 30 + seed) for seed in range(12)}
    assert found <= planted and len(found) >= 11


def test_one_piece_that_moved_on_the_same_board_is_another_image(tmp_path: Path):
    places = [(column, row) for column in range(8) for row in range(8)][::5]
    boards = [write_image(tmp_path / f"{i}.jpg", chessboard(*place)) for i, place in enumerate(places)]
    rng = np.random.default_rng(1)
    copies = [
        write_image(tmp_path / f"c{i}.jpg", CHANGES["cropped"](chessboard(*place), rng))
        for i, place in enumerate(places)
    ]
    assert pairs_of(boards + copies) == {(i, len(places) + i) for i in range(len(places))}


def test_copies_of_a_file_are_identical_and_their_number_of_pairs_does_not_grow_with_the_square(tmp_path: Path):
    files = [tmp_path / f"{i}.png" for i in range(40)]
    for file in files:
        file.write_bytes(cv2.imencode(".png", scene(0))[1].tobytes())
    other = write_image(tmp_path / "other.jpg", scene(0)[..., ::-1].copy())
    pairs = find_duplicates(compute_signatures([str(file) for file in [*files, other]]))
    assert [(pair.first, pair.second) for pair in pairs if pair.identical] == [(0, i) for i in range(1, 40)]
    assert [(pair.first, pair.second) for pair in pairs if not pair.identical] == [(0, 40)]


def test_damaged_missing_and_blank_images_are_duplicates_of_nothing(scenes: list[Path], tmp_path: Path):
    damaged = [tmp_path / f"{i}.jpg" for i in range(4)]
    for file, content in zip(damaged[:3], (b"", b"\xff\xd8 no jpeg", scenes[0].read_bytes()[:900]), strict=True):
        file.write_bytes(content)
    blank = [write_image(tmp_path / f"blank{i}.png", np.full((30, 40, 3), 100 + i, np.uint8)) for i in range(2)]
    signatures = compute_signatures([str(path) for path in (*damaged, *damaged, *blank)])
    assert [bool(digest) for digest in signatures.digests] == [False] * 8 + [True] * 2
    assert find_duplicates(signatures) == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_for_a_pair(count: int, scenes: list[Path]):
    assert pairs_of(scenes[:count]) == set()


def test_orientation_suffix_and_grey_do_not_matter(tmp_path: Path):
    image = scene(3)
    upright = write_image(tmp_path / "a.png", image)
    grey = write_image(tmp_path / "b.png", np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2))
    assert pairs_of([upright, grey]) == {(0, 1)}


def test_small_leaves_find_the_same(monkeypatch: pytest.MonkeyPatch, scenes: list[Path], tmp_path: Path):
    """The trees of a large set, with a few images."""
    monkeypatch.setattr(near_duplicates, "LEAF_SIZE", 8)
    copies = [write_image(tmp_path / f"{seed}.jpg", scene(seed)[:, ::-1].copy()) for seed in range(12)]
    assert pairs_of(scenes + copies) == {(seed, 30 + seed) for seed in range(12)}


def test_the_search_does_not_compare_every_image_with_every_other(monkeypatch: pytest.MonkeyPatch):
    """Of unlike images hardly any pair is a candidate, and in the trees each image meets one leaf a tree."""
    monkeypatch.setattr(near_duplicates, "LEAF_SIZE", 16)
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(400, 256)).astype(np.float32)
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    tree = near_duplicates._build_tree(np.arange(400), plain, rng)
    sizes = []

    def leaves(node):
        if isinstance(node, tuple):
            return leaves(node[2]) + leaves(node[3])
        sizes.append(len(node))
        return node.tolist()

    assert sorted(leaves(tree)) == list(range(400)) and max(sizes) <= 16
    assert sum(len(pairs) for pairs in near_duplicates._search(tree, np.arange(400), plain, plain)) == 0

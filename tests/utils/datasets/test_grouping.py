"""Groups by content and by name, and names that only look like those of a video."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.datasets.grouping import Groups, connected, group_images
from utils.datasets.image_writing import write_image


def scene(seed: int, shift: int = 0) -> np.ndarray:
    """Draw random discs, and one that moves far with `shift`."""
    rng = np.random.default_rng(seed)
    image = np.full((120, 160, 3), 110, np.uint8)
    for _ in range(15):
        centre = int(rng.integers(160)), int(rng.integers(120))
        cv2.circle(image, centre, int(rng.integers(5, 16)), rng.integers(30, 220, 3).tolist(), -1)
    return cv2.circle(image, (20 + 25 * shift, 60), 7, (150, 150, 60), -1)


def grouped(folder: Path, images: dict[str, np.ndarray]) -> set[frozenset[str]]:
    """Return the groups of several images, by name."""
    for name, image in images.items():
        write_image(folder / name, image)
    groups = group_images([str(folder / name) for name in images])
    assert bool(groups.reasons) == bool(groups.words) == (groups.group.max() + 1 < len(images))
    members: dict[int, set[str]] = {}
    for name, group in zip(images, groups.group.tolist(), strict=True):
        members.setdefault(group, set()).add(name)
    return {frozenset(names) for names in members.values() if len(names) > 1}


def test_pairs_are_joined_across_any_order():
    assert connected(7, [(5, 6), (1, 3), (3, 5)]).tolist() == [0, 1, 2, 1, 3, 1, 1]
    assert connected(0, []).dtype == np.int64


def test_numbered_images_of_a_data_set_are_not_a_video(tmp_path: Path):
    assert grouped(tmp_path, {f"img_{i:04}.jpg": scene(i) for i in range(12)}) == set()


def test_numbered_images_of_one_fixed_camera_are_not_one_group(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = {f"img_{i:04}.jpg": scene(0, shift=int(rng.integers(5))) for i in range(40)}
    assert max(map(len, grouped(tmp_path, images)), default=0) < 30


def test_frames_of_three_videos_stay_together_by_name(tmp_path: Path):
    images = {f"video{video}_frame{i}.jpg": scene(10 * video + i) for video in range(3) for i in range(4)}
    expected = {frozenset(f"video{video}_frame{i}.jpg" for i in range(4)) for video in range(3)}
    assert grouped(tmp_path, images) == expected


def test_neighbours_in_one_series_are_joined_where_they_are_similar(tmp_path: Path):
    images = {f"clip_{100 * shot + i:06}.jpg": scene(shot, shift=i) for shot in range(6) for i in range(3)}
    expected = {frozenset(f"clip_{100 * shot + i:06}.jpg" for i in range(3)) for shot in range(6)}
    assert grouped(tmp_path, images) == expected


@pytest.mark.parametrize(
    "names",
    [
        ("a_jpg.rf.0123456789abcdef.jpg", "a_jpg.rf.fedcba9876543210.jpg"),
        ("P0001__1__0___0.png", "P0001__1__512___0.png", "P0001__0.5__0___512.png"),
        ("map_0_0.png", "map_0_512.png", "map_512_0.png"),
        ("map-0-0.png", "map-200-0.png"),
    ],
)
def test_versions_and_tiles_of_one_source(names: tuple[str, ...], tmp_path: Path):
    images = {name: scene(i) for i, name in enumerate(names)}
    others = {"b_jpg.rf.0123456789abcdef.jpg": scene(50), "P0002__1__0___0.png": scene(51), "site_12_7.png": scene(52)}
    assert grouped(tmp_path, images | others) == {frozenset(names)}


@pytest.mark.parametrize("names", [("cat_1_1.png", "cat_1_2.png"), ("day_0_0.png", "day_0_1.png", "day_1_0.png")])
def test_numbers_that_are_no_grid_of_tiles(names: tuple[str, ...], tmp_path: Path):
    assert grouped(tmp_path, {name: scene(i) for i, name in enumerate(names)}) == set()


def test_near_duplicates_are_joined_whatever_their_names(tmp_path: Path):
    images = {"x.png": scene(0), "y.png": scene(1), "z.png": np.ascontiguousarray(scene(0)[:, ::-1])}
    assert grouped(tmp_path, images) == {frozenset(("x.png", "z.png"))}


def test_unreadable_images_are_joined_by_name_only(tmp_path: Path):
    names = ("a.rf.0123456789ab.jpg", "a.rf.ba9876543210.jpg", "n_1.jpg", "n_2.jpg")
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert group_images([str(tmp_path / name) for name in names]).group.tolist() == [0, 0, 1, 2]


def test_no_images():
    groups = group_images([])
    assert len(groups.group) == 0 and groups.words == "" and not groups.reasons


@pytest.mark.parametrize(
    ("group", "words"), [([0, 0, 1], "1 group of 2 images"), ([0, 0, 1, 1, 1], "2 groups of 5 images")]
)
def test_groups_in_words(group: list[int], words: str) -> None:
    assert Groups(group=np.array(group), reasons={"tiles": 2}).words == f"{words} (2 tiles)"
    assert Groups(group=np.array([0, 1]), reasons={}).words == ""

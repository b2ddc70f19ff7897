import pytest

from tests.helpers.data_oracles import write_data_set, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.index import list_images
from utils.errors import ConfigError, DataError


def config_of(root, text):
    return load_data_config(write_yaml(root, text))


def listed(root, text, split="train"):
    """Names of the images of a split, relative to the folder."""
    return [path.removeprefix(f"{root}/") for path in list_images(config_of(root, text), split)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, dog]", ("cat", "dog")),
        ("names: {1: dog, 0: cat}", ("cat", "dog")),
        ("names:\n  0: cat\n  1: dog\nnc: 2", ("cat", "dog")),
        ("names: [yes, no]", ("yes", "no")),
        ("names: [on, off, y, n]", ("on", "off", "y", "n")),
        ("names: [小麦, 'a b']", ("小麦", "a b")),
        ("nc: 3", ("class0", "class1", "class2")),
        ("names: {" + ", ".join(f"{i}: c{i}" for i in range(12)) + "}", tuple(f"c{i}" for i in range(12))),
    ],
)
def test_names_are_read_as_text_in_order(tmp_path, text, names):
    config = config_of(tmp_path, text)
    assert config.names == names and config.num_classes == len(names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: {0: a, 2: c}", "numbered 0 to 1"),
        ("names: {1: a, 2: b}", "numbered 0 to 1"),
        ("names: {a: 0, b: 1}", "numbered 0 to 1"),
        ("names: {'0': a}", "numbered 0 to 0"),
        ("names: [a, b]\nnc: 3", "nc is 3, but names has 2"),
        ("names: {0: a}\nnc: two", "nc must be from 1 to 100000 (got 'two')"),
        ("names: []", "names must list"),
        ("names: cat", "names must list"),
        ("names: {}", "names must list"),
        ("train: x", "names must list"),
        ("nc: 0", "nc must be from 1"),
        ("names: [a]\ntrain: 3", "'train' must be a path"),
        ("names: [a]\nval: [x, 3]", "'val' must be a path"),
        ("names: [a]\npath: [x]", "path must be a folder"),
        ("names: [a]\nnames: [b]", "stands twice"),
        ("- a", "must hold"),
    ],
)
def test_wrong_yaml_is_one_line_with_the_file(tmp_path, text, words):
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    assert words in str(caught.value) and "data.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_yaml_is_refused():
    with pytest.raises(ConfigError, match="no-such-data"):
        load_data_config("no-such-data.yaml")


def test_path_is_taken_relative_to_the_yaml(tmp_path, monkeypatch):
    write_data_set(tmp_path / "set", count=2)
    monkeypatch.chdir("/")
    text = "path: ../set\ntrain: images/train\nnames: [a, b]"
    assert len(list_images(config_of(tmp_path / "yamls", text), "train")) == 2


def test_path_is_also_tried_beside_the_yamls_folder_and_absolute(tmp_path, monkeypatch):
    write_data_set(tmp_path / "set", count=2)
    monkeypatch.chdir("/")
    for place in ("set", tmp_path / "set"):
        text = f"path: {place}\ntrain: images/train\nnames: [a, b]"
        assert len(list_images(config_of(tmp_path / "yamls", text), "train")) == 2


def test_missing_split_path_tells_what_was_tried_and_the_nearest(tmp_path):
    write_data_set(tmp_path, count=1)
    with pytest.raises(DataError) as caught:
        config_of(tmp_path, "train: images/train\nval: images/vall\nnames: [a, b]").locate("val")
    assert f"tried {tmp_path}/images/vall" in str(caught.value) and "'val'" in str(caught.value)
    assert f"did you mean {tmp_path}/images/val?" in caught.value.fix


def test_missing_parent_folder_is_matched_too(tmp_path):
    write_data_set(tmp_path, count=1)
    with pytest.raises(DataError) as caught:
        config_of(tmp_path, "train: imagse/train\nnames: [a, b]").locate("train")
    assert f"did you mean {tmp_path}/images?" in caught.value.fix


@pytest.mark.parametrize("text", ["names: [a]", "names: [a]\ntrain:", "names: [a]\ntrain: ''", "names: [a]\ntrain: []"])
def test_absent_split_names_its_key(tmp_path, text):
    with pytest.raises(DataError, match="has no 'train' split"):
        config_of(tmp_path, text).locate("train")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("images/train", ["images/train/p0.png", "images/train/p1.png"]),
        ("images", [f"images/{s}/p{i}.png" for s in ("train", "val") for i in (0, 1)]),
        ("images/*/p1.png", ["images/train/p1.png", "images/val/p1.png"]),
        ("images/**/p0.*", ["images/train/p0.png", "images/val/p0.png"]),
        ("images/val/p[01].png", ["images/val/p0.png", "images/val/p1.png"]),
        ("[images/train, 'images/val/p?.png']", [f"images/{s}/p{i}.png" for s in ("train", "val") for i in (0, 1)]),
        ("[images/val, images/val]", ["images/val/p0.png", "images/val/p1.png"]),
        ("images/val/p1.png", ["images/val/p1.png"]),
        ("list.txt", ["images/train/p1.png", "images/val/p0.png"]),
        ("[list.txt, images/train]", ["images/train/p0.png", "images/train/p1.png", "images/val/p0.png"]),
    ],
)
def test_split_may_be_folder_glob_list_file_or_several(tmp_path, entry, expected):
    write_data_set(tmp_path, count=2)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf./images/train/p1.png\r\n\r\n  images/val/p0.png  \r\n")
    assert listed(tmp_path, f"train: {entry}\nnames: [a, b]") == expected


def test_list_file_lines_may_be_absolute_or_relative_to_list_or_root(tmp_path):
    write_data_set(tmp_path, count=3)
    lists = tmp_path / "lists"
    lists.mkdir()
    lines = [f"{tmp_path}/images/train/p0.png", "../images/train/p1.png", "images/train/p2.png"]
    (lists / "train.txt").write_text("\n".join(lines))
    assert listed(tmp_path, "train: lists/train.txt\nnames: [a, b]") == [f"images/train/p{i}.png" for i in range(3)]


def test_other_files_and_folders_named_like_images_are_left_out(tmp_path):
    write_data_set(tmp_path, count=1)
    folder = tmp_path / "images" / "train"
    (folder / "notes.txt").write_text("x")
    (folder / "b.jpg").mkdir()
    (folder / "UPPER.JPG").write_bytes(b"x")
    assert listed(tmp_path, "train: images/train\nnames: [a]") == ["images/train/UPPER.JPG", "images/train/p0.png"]


def test_folder_without_images_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"'train' has no images in .*images"):
        listed(tmp_path, "train: images\nnames: [a]")


def test_data_set_may_lie_in_a_folder_with_brackets(tmp_path):
    root = tmp_path / "my[1] set"
    write_data_set(root, count=2)
    assert len(listed(root, "train: images/train\nnames: [a, b]")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "path: ~nosuchuser/x\ntrain: images/train",  # RuntimeError
        "train: data.yaml/images",  # NotADirectoryError
        f"train: {'x' * 300}",  # OSError, name too long
        "train: images/tr**/*.png",  # ValueError
        "train: latin1.txt",  # UnicodeDecodeError
    ],
    ids=["unknown user", "below a file", "long name", "stars inside a part", "list not UTF-8"],
)
def test_unusable_split_path_is_a_typed_error(tmp_path, text):
    write_data_set(tmp_path, count=1)
    (tmp_path / "latin1.txt").write_bytes("images/train/é.png\n".encode("latin-1"))
    with pytest.raises((ConfigError, DataError)):
        listed(tmp_path, f"{text}\nnames: [a, b]")

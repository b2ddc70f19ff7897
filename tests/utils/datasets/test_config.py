import pytest

from tests.helpers.data_oracles import write_data_set, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.scan import list_images
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
        ("names: {'1': dog, '0': cat}\nnc: '2'", ("cat", "dog")),
        ("names: [1, 2.5]", ("1", "2.5")),
        ("nc: 3", ("class0", "class1", "class2")),
        ("names: {" + ", ".join(f"{i}: c{i}" for i in range(12)) + "}", tuple(f"c{i}" for i in range(12))),
    ],
)
def test_names_are_read_as_text_in_order(tmp_path, text, names):
    config = config_of(tmp_path, text)
    assert config.names == names and config.num_classes == len(names)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("names: {0: a, 2: c}", ("names", "0", "1")),
        ("names: {1: a, 2: b}", ("names", "0", "1")),
        ("names: {a: 0, b: 1}", ("names", "0", "1")),
        ("names: {'0': a, '2': b}", ("names", "0", "1")),
        ("names: classes.txt", ("names", "classes.txt")),
        ("names: 'cat, dog'", ("names", "cat, dog")),
        ("names: [cat, ~]", ("1", "None")),
        ("names: [cat, '']", ("1", "''")),
        ("names: [[cat], dog]", ("0", "cat")),
        ("names: [cat]\ntrain: 2024", ("train", "2024")),
        ("names: [a, b]\nnc: 3", ("nc", "3", "names", "2")),
        ("names: {0: a}\nnc: two", ("nc", "1", "100000", "two")),
        ("names: []", ("names", "[]")),
        ("names: cat", ("names", "cat")),
        ("names: {}", ("names", "[]")),
        ("train: x", ("names",)),
        ("nc: 0", ("nc", "1", "0")),
        ("names: [a]\ntrain: 3", ("train", "3")),
        ("names: [a]\nval: [x, 3]", ("val", "3")),
        ("names: [a]\npath: [x]", ("path", "['x']")),
        ("names: [a]\nnames: [b]", ("names",)),
        ("- a", ()),
    ],
)
def test_wrong_yaml_is_one_line_with_file_key_and_value(tmp_path, text, values):
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, text)
    assert caught.value.where.split(":")[0] == str(tmp_path / "data.yaml") and caught.value.fix
    assert all(value in caught.value.what for value in values) and "\n" not in str(caught.value)


def test_a_name_of_two_classes_is_a_warning_and_they_stay_two(tmp_path, caplog):
    config = config_of(tmp_path, "names: [red car, bus, red car]")
    assert config.names == ("red car", "bus", "red car")
    (record,) = caplog.records
    texts = (str(config.file), "0", "2", "'red car'")
    assert record.levelname == "WARNING" and all(text in record.getMessage() for text in texts)


def test_missing_yaml_is_refused():
    with pytest.raises(ConfigError) as caught:
        load_data_config("no-such-data.yaml")
    assert "no-such-data.yaml" in str(caught.value)


def test_path_is_relative_to_the_yaml(tmp_path, monkeypatch):
    write_data_set(tmp_path / "set", count=2)
    monkeypatch.chdir("/")
    text = "path: ../set\ntrain: images/train\nnames: [a, b]"
    assert len(list_images(config_of(tmp_path / "yamls", text), "train")) == 2


def test_path_may_also_be_absolute_or_beside_the_folder_of_the_yaml(tmp_path, monkeypatch):
    write_data_set(tmp_path / "set", count=2)
    monkeypatch.chdir("/")
    for place in ("set", tmp_path / "set"):
        text = f"path: {place}\ntrain: images/train\nnames: [a, b]"
        assert len(list_images(config_of(tmp_path / "yamls", text), "train")) == 2


def test_missing_split_path_names_the_paths_tried_and_the_nearest(tmp_path):
    write_data_set(tmp_path, count=1)
    with pytest.raises(DataError) as caught:
        config_of(tmp_path, "train: images/train\nval: images/vall\nnames: [a, b]").locate("val")
    assert caught.value.where == str(tmp_path / "data.yaml") and "'val'" in caught.value.what
    assert f"{tmp_path}/images/vall," in caught.value.what and f" {tmp_path}/images/val?" in caught.value.fix


def test_missing_parent_folder_is_matched_too(tmp_path):
    write_data_set(tmp_path, count=1)
    with pytest.raises(DataError) as caught:
        config_of(tmp_path, "train: imagse/train\nnames: [a, b]").locate("train")
    assert f" {tmp_path}/images?" in caught.value.fix


@pytest.mark.parametrize("text", ["names: [a]", "names: [a]\ntrain:", "names: [a]\ntrain: ''", "names: [a]\ntrain: []"])
def test_absent_split_names_its_key(tmp_path, text):
    with pytest.raises(DataError) as caught:
        config_of(tmp_path, text).locate("train")
    assert caught.value.where == str(tmp_path / "data.yaml") and "'train'" in caught.value.what


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

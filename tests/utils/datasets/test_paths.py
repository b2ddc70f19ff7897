"""Paths as they stand: of data yamls, of the entries of splits, of links, and of the lines of lists."""

import os
import shutil

import pytest

from tests.helpers.data_oracles import write_data_set, write_yaml
from utils.datasets.config import load_data_config
from utils.datasets.index import build_index
from utils.datasets.paths import MAX_FOLDERS, ResolvedPath, find_files
from utils.datasets.scan import list_images
from utils.errors import ConfigError, DataError

NAMES = "\nnames: [a, b]\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """A working directory without any data set."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    return folder


def write_roboflow_set(root, entries="../{}/images"):
    """A data set as Roboflow exports it, 2 training and 2 validation images, whose yaml is returned."""
    write_data_set(root / "made", count=2)
    for split, folder in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (root / folder).mkdir(exist_ok=True)
            shutil.move(root / "made" / kind / split, root / folder / kind)
    shutil.rmtree(root / "made")
    splits = {"train": "train", "val": "valid", "test": "test"}
    lines = [f"{split}: {entries.format(folder)}" for split, folder in splits.items()]
    return write_yaml(root, "\n".join(lines) + NAMES)


def listed(yaml, split="train"):
    config = load_data_config(str(yaml))
    return [os.path.realpath(path) for path in list_images(config, split)]


@pytest.mark.parametrize(
    "entries", ["../{}/images", "./../{}/images", "../../{}/images", "..\\{}\\images", "{}/images/", "{}\\images"]
)
@pytest.mark.parametrize("place", ["inside", "parent", "elsewhere"])
def test_roboflow_paths_are_found_from_any_working_directory(tmp_path, monkeypatch, entries, place):
    yaml = write_roboflow_set(tmp_path / "Set-1", entries)
    if place != "elsewhere":
        monkeypatch.chdir(tmp_path / "Set-1" if place == "inside" else tmp_path)
        yaml = os.path.relpath(yaml)
    for split, folder in (("train", "train"), ("val", "valid")):
        assert listed(yaml, split) == [str(tmp_path / f"Set-1/{folder}/images/p{i}.png") for i in (0, 1)]


def test_roboflow_yaml_may_lie_beside_or_below_the_folders(tmp_path):
    root = tmp_path / "set"
    yaml = write_roboflow_set(root)
    (root / "data").mkdir()
    shutil.move(yaml, root / "data/data.yaml")
    assert listed(root / "data/data.yaml") == [str(root / f"train/images/p{i}.png") for i in (0, 1)]


def test_roboflow_paths_do_not_lead_into_another_set_above(tmp_path):
    write_roboflow_set(tmp_path)
    shutil.rmtree(tmp_path / "valid")
    yaml = write_roboflow_set(tmp_path / "own")
    for split, folder in (("train", "train"), ("val", "valid")):
        assert listed(yaml, split) == [str(tmp_path / f"own/{folder}/images/p{i}.png") for i in (0, 1)]


def test_a_path_that_exists_is_taken_before_the_one_without_its_parents(tmp_path):
    yaml = write_roboflow_set(tmp_path / "set/yamls")
    shutil.copytree(tmp_path / "set/yamls/train", tmp_path / "set/train")
    shutil.copytree(tmp_path / "set/yamls/valid", tmp_path / "set/valid")
    assert listed(yaml) == [str(tmp_path / f"set/train/images/p{i}.png") for i in (0, 1)]


@pytest.mark.parametrize(
    "name", ["set [v2]", "a*b", "what?", "100%", "# 1", "a b", "~", "~nobody", "[ab]", "a'b", "!x", "{x}", "&x"]
)
@pytest.mark.parametrize("key", ["absolute", "path", "relative"])
def test_a_folder_that_exists_is_no_glob_home_or_comment(tmp_path, name, key):
    folder = tmp_path / name
    write_data_set(folder, count=2)
    quoted = "'" + name.replace("'", "''") + "'"
    text = {
        "absolute": f"train: {quoted[:1]}{tmp_path}/{quoted[1:-1]}/images/train'",
        "path": f"path: {quoted}\ntrain: images/train",
        "relative": f"train: {quoted[:-1]}/images/train'",
    }[key]
    assert listed(write_yaml(tmp_path, text + NAMES)) == [str(folder / f"images/train/p{i}.png") for i in (0, 1)]


def test_globs_work_below_a_folder_with_brackets(tmp_path):
    write_data_set(tmp_path / "set [v2]", count=2)
    folder = tmp_path / "set [v2]/images/train"
    for entry, expected in (("images/*/p1.png", 2), ("images/tr*/p[0].png", 1), ("**/p1.png", 2), ("images/t*", 2)):
        yaml = write_yaml(tmp_path, f"path: set [v2]\ntrain: '{entry}'{NAMES}")
        assert len(listed(yaml)) == expected and str(folder) in listed(yaml)[0]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_data_set(tmp_path / "set", count=2)
    for text in ("train: ~/set/images/train", "path: ~/set\ntrain: images/train"):
        assert len(listed(write_yaml(tmp_path / "yamls", text + NAMES))) == 2


def test_windows_paths_are_named_as_such_with_what_exists_here(tmp_path):
    write_data_set(tmp_path, count=1)
    yaml = write_yaml(tmp_path, "train: 'D:\\old\\set\\images\\train'" + NAMES)
    with pytest.raises(DataError) as caught:
        listed(yaml)
    assert "D:\\old" in caught.value.what and f"{tmp_path}/images/train?" in caught.value.fix


# Links


def test_links_to_folders_are_followed(tmp_path):
    write_data_set(tmp_path / "set", count=2)
    write_data_set(tmp_path / "other", count=3)
    for kind in ("images", "labels"):
        (tmp_path / f"set/{kind}/train/more").symlink_to(tmp_path / f"other/{kind}/train")
    config = load_data_config(str(tmp_path / "set/data.yaml"))
    index = build_index(config, "train", use_cache=False)
    assert len(index) == 5 and len(index.labels) == 5 and not index.notes
    whole = build_index(load_data_config(str(tmp_path / "other/data.yaml")), "train", use_cache=False)
    (tmp_path / "links").mkdir()
    for kind in ("images", "labels"):
        (tmp_path / "links" / kind).mkdir()
        (tmp_path / f"links/{kind}/train").symlink_to(tmp_path / f"other/{kind}/train")
    yaml = write_yaml(tmp_path / "links", "train: images/**/*.png" + NAMES)
    assert build_index(load_data_config(yaml), "train", use_cache=False).fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("entry", ["images", "images/**/*.png", "images/*"])
def test_loops_of_links_end(tmp_path, entry):
    write_data_set(tmp_path, count=1)
    for name, target in (("up", ".."), ("self", "."), ("val/train", "../train"), ("train/val", "../val"), ("a", "b")):
        (tmp_path / "images" / name).symlink_to(target)
    (tmp_path / "images/b").symlink_to("a")
    yaml = write_yaml(tmp_path, f"train: {entry}{NAMES}")
    assert {os.path.basename(path) for path in listed(yaml)} == {"p0.png"}


def test_links_between_many_folders_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.datasets.paths.MAX_FOLDERS", 500)
    for i in range(8):
        (tmp_path / str(i)).mkdir()
        for j in range(8):
            (tmp_path / f"{i}/to{j}").symlink_to(tmp_path / str(j))
    with pytest.raises(DataError):
        find_files(ResolvedPath(path=tmp_path))
    assert MAX_FOLDERS >= 100_000


def test_a_linked_yaml_is_relative_to_where_the_link_lies_or_else_to_its_target(tmp_path):
    write_data_set(tmp_path / "target", count=1)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here/data.yaml"
    link.symlink_to(tmp_path / "target/data.yaml")
    assert listed(link) == [str(tmp_path / "target/images/train/p0.png")]
    write_data_set(tmp_path / "copy", count=2)
    shutil.move(tmp_path / "copy/images", tmp_path / "here/images")
    assert listed(link) == [str(tmp_path / f"here/images/train/p{i}.png") for i in (0, 1)]


# A folder or archive in place of the yaml


def test_the_folder_of_a_data_yaml_may_be_named(tmp_path, monkeypatch):
    write_data_set(tmp_path / "set", count=1)
    (tmp_path / "set/other.yaml").write_text("x: 1")
    monkeypatch.chdir(tmp_path)
    for name in ("set", "set/", "./set", str(tmp_path / "set")):
        assert load_data_config(name).file.name == "data.yaml"
    (tmp_path / "set/data.yaml").rename(tmp_path / "set/mine.yml")
    (tmp_path / "set/other.yaml").unlink()
    assert load_data_config("set").file.name == "mine.yml"


@pytest.mark.parametrize("yamls", [(), ("a.yaml", "b.yaml")])
def test_a_folder_without_one_data_yaml_says_so(tmp_path, yamls):
    for name in yamls:
        (tmp_path / name).write_text("x: 1")
    with pytest.raises(ConfigError) as caught:
        load_data_config(str(tmp_path))
    assert caught.value.where == "--data" and str(tmp_path) in caught.value.what and "prepare.py" in caught.value.fix


@pytest.mark.parametrize("name", ["set.zip", "set.TAR.GZ", "set.7z"])
def test_an_archive_says_so(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\3\4\xff\xfe")
    with pytest.raises(ConfigError) as caught:
        load_data_config(str(tmp_path / name))
    assert caught.value.where == "--data" and "archive" in caught.value.what


def test_a_bare_name_means_the_shipped_yaml_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco128").mkdir()
    assert load_data_config("coco128").file.name == "coco128.yaml"


# Lists


def write_list(root, lines, name="train.txt", encoding="utf-8"):
    write_data_set(root, count=3)
    (root / name).write_bytes("\r\n".join(lines).encode(encoding))
    return write_yaml(root, f"train: {name}{NAMES}")


@pytest.mark.parametrize("prefix", ["", "./", "images/../", "../set/", "../", ".\\", "ROOT/", "~/"], ids=str)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_may_be_written_in_many_ways(tmp_path, monkeypatch, prefix, encoding):
    root = tmp_path / "set"
    monkeypatch.setenv("HOME", str(root))
    lines = [f"{prefix}images/train/p{i}.png".replace("ROOT", str(root)) for i in range(3)]
    if "\\" in prefix:
        lines = [line.replace("/", "\\") for line in lines]
    yaml = write_list(root, ["# made by a tool", *lines, ""], encoding=encoding)
    assert listed(yaml) == [str(root / f"images/train/p{i}.png") for i in range(3)]


def test_lines_may_be_relative_to_the_working_directory(tmp_path, monkeypatch):
    yaml = write_list(tmp_path / "set", [f"set/images/train/p{i}.png" for i in range(3)])
    (tmp_path / "deep/er").mkdir(parents=True)
    shutil.move(tmp_path / "set/train.txt", tmp_path / "deep/er/train.txt")
    yaml = write_yaml(tmp_path / "deep/er", f"train: train.txt{NAMES}")
    monkeypatch.chdir(tmp_path)
    assert len(listed(yaml)) == 3


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (["data/images/train/p0.png", "data/images/train/p1.png"], "images/train/p0.png"),
        (["C:\\data\\set\\images\\train\\p0.png"], "images/train/p0.png"),
        (["/content/set/images/train/p0.png"], "images/train/p0.png"),
        (["p0", "p1"], ""),
        (["nowhere/x.png"], ""),
    ],
)
def test_a_list_of_images_that_do_not_exist_says_so(tmp_path, lines, hint):
    yaml = write_list(tmp_path, lines)
    with pytest.raises(DataError) as caught:
        build_index(load_data_config(yaml), "train")
    assert caught.value.where == str(tmp_path / "train.txt")
    assert f"none of the {len(lines)} " in caught.value.what and lines[0] in caught.value.what
    assert (f"{tmp_path}/{hint}?" in caught.value.fix) == bool(hint)


def test_repeated_lines_are_counted_and_missing_ones_are_skipped_and_named(tmp_path, caplog):
    names = ["p0.png", "p0.png", "p1.png", "./p1.png", "gone.png"]
    yaml = write_list(tmp_path, [f"images/train/{name}" for name in names])
    index = build_index(load_data_config(yaml), "train", use_cache=False)
    assert len(index) == 2 and [os.path.basename(path) for path, _ in index.skipped] == ["gone.png"]
    repeated, skipped = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert " 2 images" in repeated and "p0.png" in repeated and "gone.png" in skipped


def test_names_that_are_not_utf8_are_found_by_their_bytes(tmp_path):
    yaml = write_list(tmp_path, [])
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        file = tmp_path / kind / "train" / f"p0{suffix}"
        os.rename(file, os.path.join(os.fsencode(file.parent), b"\xe9" + suffix.encode()))
    (tmp_path / "train.txt").write_bytes(b"images/train/\xe9.png\n")
    index = build_index(load_data_config(yaml), "train")
    assert len(index) == len(index.labels) == 1 and os.fsencode(str(index.paths[0])).endswith(b"\xe9.png")


def test_a_file_that_is_no_image_or_list_says_so(tmp_path):
    write_data_set(tmp_path, count=1)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(DataError) as caught:
        listed(write_yaml(tmp_path, "train: train.json" + NAMES))
    assert "train.json" in caught.value.what and "prepare.py" in caught.value.fix


def test_a_list_with_null_bytes_is_not_text(tmp_path):
    yaml = write_list(tmp_path, ["images/train/p0.png", "images/train/a\0b.png"])
    with pytest.raises(DataError) as caught:
        listed(yaml)
    assert caught.value.where == str(tmp_path / "train.txt")


def test_a_list_that_is_too_large_is_not_read(tmp_path):
    yaml = write_list(tmp_path, [])
    os.truncate(tmp_path / "train.txt", 2**32)
    with pytest.raises(DataError) as caught:
        listed(yaml)
    assert str(2**32) in caught.value.what


# Nothing vanishes silently


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    write_data_set(tmp_path / ".cache/set", count=2)
    folder = tmp_path / ".cache/set/images/train"
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir/p0.png", ".thumbnails/large"):
        (folder / name).mkdir(parents=True)
        shutil.copy(folder / "p0.png", folder / name / "p0-checkpoint.png")
    shutil.copy(folder / "p0.png", folder / "._p0.png")
    (folder / ".DS_Store").write_bytes(b"x")
    config = load_data_config(str(tmp_path / ".cache/set/data.yaml"))
    index = build_index(config, "train", use_cache=False, strict=True)
    assert len(index) == 2 and not index.notes
    (message,) = [record.getMessage() for record in caplog.records if "hidden" in record.getMessage()]
    assert " 5 " in message
    lines = sorted(str(path) for path in folder.rglob("*.png"))
    (tmp_path / ".cache/set/train.txt").write_text("\n".join(lines))
    yaml = write_yaml(tmp_path / ".cache/set", "train: train.txt" + NAMES)
    assert [os.path.basename(path) for path in listed(yaml)] == ["p0.png", "p1.png"]


def test_files_of_other_suffixes_are_counted_and_named(tmp_path, caplog):
    write_data_set(tmp_path, count=2)
    folder = tmp_path / "images/train"
    (folder / "p0.png").rename(folder / "p0.JFIF")
    for name in ("a.HEIC", "b.heic", "c.gif", "d", "e.txt", "f.xml", "classes.names", "Thumbs.db", "LICENSE"):
        (folder / name).write_bytes(b"x")
    index = build_index(load_data_config(str(tmp_path / "data.yaml")), "train", use_cache=False)
    assert len(index) == len(index.labels) == 2
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "2 .heic files, 1 .gif file, 1 file without suffix;" in warning


def test_a_folder_of_only_other_suffixes_names_them(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.heic").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        listed(write_yaml(tmp_path, "train: images" + NAMES))
    assert "1 .heic file" in caught.value.what


def test_images_with_one_label_file_are_counted(tmp_path, caplog):
    write_data_set(tmp_path, count=2)
    shutil.copy(tmp_path / "images/train/p0.png", tmp_path / "images/train/p0.jpg")
    index = build_index(load_data_config(str(tmp_path / "data.yaml")), "train", use_cache=False)
    assert len(index) == len(index.labels) == 3
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert " 1 images" in warning and "p0.png" in warning and "p0.jpg" in warning


@pytest.mark.parametrize("images", ["images", "Images"])
def test_a_folder_named_nearly_like_that_of_the_labels_is_named(tmp_path, images):
    write_data_set(tmp_path, count=1)
    (tmp_path / "labels").rename(tmp_path / "Labels")
    (tmp_path / "images").rename(tmp_path / images)
    with pytest.raises(DataError) as caught:
        build_index(load_data_config(write_yaml(tmp_path, f"train: {images}/train{NAMES}")), "train")
    assert str(tmp_path / "Labels") in caught.value.fix

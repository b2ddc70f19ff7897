"""Downloading data sets: only over https, only complete ones of the announced size, and never a command of a yaml."""

import hashlib
import io
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_oracles import tree_hash, write_data_set, write_yaml
from tests.helpers.hostile_archives import tarred, zipped
from tests.helpers.https_server import CERTIFICATE, serving
from utils.datasets import catalog
from utils.datasets.archives import open_archive
from utils.datasets.catalog import KNOWN, DatasetPart, RemoteArchive, without_top_folder
from utils.datasets.config import KNOWN_SETS, load_data_config
from utils.datasets.download import fetch, part_entries
from utils.datasets.index import build_index
from utils.errors import ConfigError, DataError, DetectorError, RunError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A small data set as a zip, packed with its folder."""
    root = tmp_path_factory.mktemp("packed") / "tiny"
    write_data_set(root, count=2)
    (root / "data.yaml").unlink()
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return zipped(*((p.relative_to(root.parent).as_posix(), p.read_bytes()) for p in files))


def config_of(folder, download, path="sets/tiny"):
    text = f"path: {path}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\ndownload: {download}\n"
    return load_data_config(write_yaml(folder, text))


def test_a_data_set_is_downloaded_completely_and_its_hash_logged(archive, tmp_path, caplog):
    with serving({"/tiny.zip": archive}) as (address, asked), caplog.at_level("INFO"):
        config = config_of(tmp_path, f"{address}/tiny.zip")
        fetch(config)
        assert len(build_index(config, "train", use_cache=False)) == 2
        assert hashlib.sha256(archive).hexdigest() in caplog.text
        assert sorted(p.name for p in tmp_path.iterdir()) == ["data.yaml", "sets"]
        assert [p.name for p in (tmp_path / "sets").iterdir()] == ["tiny"], "no temporary file is left"
        before = tree_hash(tmp_path)
        fetch(config)
    assert asked == ["/tiny.zip"] and tree_hash(tmp_path) == before, "an existing data set is not downloaded again"


def test_a_pinned_hash_is_verified(archive, tmp_path, caplog):
    right, wrong = hashlib.sha256(archive).hexdigest(), hashlib.sha256(b"other").hexdigest()
    with serving({"/tiny.zip": archive}) as (address, _):
        with pytest.raises(DataError) as caught:
            fetch(config_of(tmp_path, f"{address}/tiny.zip#sha256={wrong}"))
        assert caught.value.where == f"{address}/tiny.zip" and right in caught.value.what and wrong in caught.value.what
        assert not list((tmp_path / "sets").iterdir())
        caplog.clear()
        fetch(config_of(tmp_path, f"{address}/tiny.zip#sha256={right.upper()}"))
        assert right not in caplog.text, "a verified hash is not logged"
        with pytest.raises(ConfigError, match="md5=1234"):
            fetch(config_of(tmp_path, f"{address}/tiny.zip#md5=1234", path="sets/b"))


def test_redirects_within_https_are_followed_and_endless_ones_are_not(archive, tmp_path):
    with serving({"/a.zip": "/b.zip", "/b.zip": archive, "/c.zip": "/c.zip"}) as (address, asked):
        fetch(config_of(tmp_path, f"{address}/a.zip"))
        assert asked == ["/a.zip", "/b.zip"]
        with pytest.raises(RunError) as caught:
            fetch(config_of(tmp_path, f"{address}/c.zip", path="sets/c"))
        assert caught.value.where == f"{address}/c.zip"
        assert len(asked) < 15


def test_a_long_chain_of_redirects_is_refused(archive, tmp_path):
    pages = {f"/{number}.zip": f"/{number + 1}.zip" for number in range(30)}
    with serving({**pages, "/30.zip": archive}) as (address, asked):
        with pytest.raises(RunError) as caught:
            fetch(config_of(tmp_path, f"{address}/0.zip"))
        assert caught.value.where == f"{address}/0.zip" and len(asked) <= 10
    assert not list((tmp_path / "sets").iterdir())


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "data", "gopher"])
def test_other_schemes_are_refused_before_a_connection(scheme, tmp_path):
    with serving({}, tls=False) as (address, asked), pytest.raises(DataError):
        list(
            part_entries(
                DatasetPart((RemoteArchive(address.replace("http", scheme, 1)),), without_top_folder), tmp_path
            )
        )
    assert not asked


def announced(length, body, handler):
    """Answer with a body of another length than announced."""
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


BAD_SERVERS = {
    "truncated": (lambda zip_: partial(announced, len(zip_), zip_[:-500]), (DataError, RunError)),
    "truncated, no length": (lambda zip_: partial(announced, None, zip_[:-500]), DataError),
    "to http": (lambda zip_: "http://localhost:{plain}/tiny.zip", DataError),
    "to a file": (lambda zip_: "file:///etc/passwd", DataError),
    "to ftp": (lambda zip_: "ftp://localhost/tiny.zip", DataError),
    "to data": (lambda zip_: "data:application/zip;base64,UEsFBg==", DataError),
    "ten times as large": (lambda zip_: zip_ * 10, DataError),
    "ten times as large, no length": (lambda zip_: partial(announced, None, zip_ * 10), DataError),
    "announced too large": (lambda zip_: partial(announced, 10**12, zip_), DataError),
    "a web page": (lambda zip_: b"<html>Sign in</html>", DataError),
    "nothing": (lambda zip_: b"", DataError),
    "an empty archive": (lambda zip_: zipped(), DataError),
    "programs only": (lambda zip_: zipped(("a/setup.py", b"x"), ("a/Makefile", b"x")), DataError),
    "not found": (lambda zip_: None, RunError),
    "no answer": (lambda zip_: lambda handler: None, RunError),
}


@pytest.mark.parametrize("kind", BAD_SERVERS)
def test_bad_servers_are_refused_and_leave_nothing(kind, archive, tmp_path):
    answer, error_type = BAD_SERVERS[kind]
    with serving({"/tiny.zip": archive}, tls=False) as (plain, asked_over_http):
        page = answer(archive)
        page = page.format(plain=plain.rpartition(":")[2]) if isinstance(page, str) else page
        with serving({"/tiny.zip": page}) as (address, _):
            config = config_of(tmp_path, f"{address}/tiny.zip")
            with pytest.raises(error_type) as caught:
                fetch(config, max_bytes=2 * len(archive))
    assert str(caught.value).isprintable() and address in str(caught.value)
    assert not asked_over_http and not list((tmp_path / "sets").iterdir())


def test_a_tar_file_cut_between_members_is_refused(tmp_path):
    names = [f"images/{split}/{index}.txt" for split in ("train", "val") for index in (0, 1)]
    whole = tarred(*((name, b"x") for name in names))
    part = whole[:2048]  # two members: a tar file may end there
    assert sorted(open_archive(io.BytesIO(part), where="part")) == names[:2]
    with serving({"/a.tar": partial(announced, len(whole), part)}) as (address, _), pytest.raises(DetectorError):
        fetch(config_of(tmp_path, f"{address}/a.tar"))
    assert not list((tmp_path / "sets").iterdir())


def test_of_files_with_equal_names_that_of_the_first_archive_is_used(tmp_path):
    pages = {"/1.zip": zipped(("b/1.txt", b"first")), "/2.zip": zipped(("b/1.txt", b"second"), ("c.txt", b"2"))}
    with serving(pages) as (address, _):
        archives = tuple(RemoteArchive(f"{address}{page}") for page in pages)
        entries = dict(part_entries(DatasetPart(archives, convert=without_top_folder), tmp_path))
    assert entries == {"b/1.txt": b"first", "c.txt": b"2"} and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "target", ["", "https://", "https:///a.zip", "https://[", "https://a]b/", "//\u2100/", "https://a:b/"]
)
def test_a_redirect_to_no_address_is_one_line(tmp_path, target):
    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    with serving({"/tiny.zip": redirect}) as (address, _), pytest.raises(DetectorError) as caught:
        fetch(config_of(tmp_path, f"{address}/tiny.zip"))
    assert caught.value.where == f"{address}/tiny.zip" and "\n" not in str(caught.value)


def test_a_host_name_that_cannot_be_encoded_is_one_line(tmp_path):
    with pytest.raises(RunError):
        fetch(config_of(tmp_path, f"https://{'a' * 64}.test/tiny.zip"))


def test_an_unknown_certificate_is_refused(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with serving({"/tiny.zip": archive}) as (address, asked):
        with pytest.raises(RunError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(config_of(tmp_path, f"{address}/tiny.zip"))
    assert not asked


def test_a_closed_port_and_an_unknown_host_are_one_line(tmp_path):
    for host in ("localhost:1", "no-such-host.invalid"):
        with pytest.raises(RunError) as caught:
            fetch(config_of(tmp_path, f"https://{host}/a.zip"))
        assert caught.value.where == f"https://{host}/a.zip" and "\n" not in str(caught.value)


def test_an_existing_folder_of_the_user_is_never_changed(archive, tmp_path):
    folder = tmp_path / "sets/tiny"
    folder.mkdir(parents=True)
    with serving({"/tiny.zip": archive}) as (address, asked):
        config = config_of(tmp_path, f"{address}/tiny.zip")
        (folder / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError) as caught:
            fetch(config)
        assert caught.value.where == str(config.file) and str(folder) in caught.value.what
        assert not asked and (folder / "thesis.txt").read_text() == "mine"
        (folder / "thesis.txt").unlink()
        fetch(config)
    assert (folder / "images/train/p0.png").exists(), "an empty folder may be filled"


def test_an_archive_without_the_splits_is_refused(tmp_path):
    with serving({"/a.zip": zipped(("a/notes.txt", b"x"))}) as (address, _):
        config = config_of(tmp_path, f"{address}/a.zip")
        with pytest.raises(DataError) as caught:
            fetch(config)
        assert caught.value.where == str(config.file) and "train" in caught.value.what


def test_a_yaml_without_download_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'download'"):
        fetch(load_data_config(write_yaml(tmp_path, "train: images\nnames: [a]")))


def test_the_error_of_a_missing_data_set_names_the_download_command(tmp_path):
    config = config_of(tmp_path, "https://localhost/tiny.zip")
    with pytest.raises(DataError) as caught:
        config.locate("train")
    assert f"python -m utils.datasets.download {tmp_path}/data.yaml" in caught.value.fix
    assert f"{tmp_path}/sets/tiny/images/train" in str(caught.value)
    (tmp_path / "sets/tiny/images/tran").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        config.locate("train")
    assert f"{tmp_path}/sets/tiny/images/tran" in caught.value.fix


PAYLOADS = [
    "import os; os.system('touch {mark}')",
    "|\n  import os\n  os.system('touch {mark}')\n",
    "__import__('os').system('touch {mark}')",
    "bash -c 'touch {mark}'",
    "bash touch {mark}",
    "curl -L http://localhost/a.zip -o a.zip",
    "wget https://localhost/a.zip",
    "python -c \"open('{mark}', 'w')\"",
    "touch {mark}",
    "$(touch {mark}).zip",
    "https://localhost/$(touch {mark}).zip",
    "https://localhost/`touch {mark}`.zip",
    "'https://localhost/a.zip; touch {mark}'",
    "'https://localhost/a.zip\ttouch {mark}'",
    "http://localhost/a.zip",
    "ftp://localhost/a.zip",
    "file:///etc/passwd.zip",
    "data:application/zip;base64,UEsFBg==.zip",
    "HTTP://localhost/a.zip",
    "https://localhost/a.sh",
    "https://localhost/a.py",
    "https://localhost/",
    "https:///a.zip",
    "https://user:password@localhost/a.zip",
    "//localhost/a.zip",
    "s3://bucket/a.zip",
    "https://localhost\\@evil/a.zip",
    "https://[::1/a.zip",
    "coco2017",
    "../../etc/passwd",
    "[https://localhost/a.zip]",
    "{url: https://localhost/a.zip}",
    "true",
    "3",
    "!!python/object/apply:os.system ['touch {mark}']",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_is_executed_and_the_key_is_named(payload, tmp_path):
    mark = tmp_path / "executed"
    path = write_yaml(tmp_path, f"train: images\nnames: [a]\ndownload: {payload.replace('{mark}', str(mark))}\n")
    with pytest.raises(ConfigError) as caught:
        fetch(load_data_config(path))
    assert caught.value.where.startswith(str(path)) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert "'download'" in caught.value.what or caught.value.where.startswith(f"{path}:3:"), (
        "the key or its line is named"
    )
    assert not mark.exists()


def test_a_script_is_ignored_and_said_once_where_the_data_is_there(tmp_path, caplog):
    script = "from utils.general import download\n  download(['https://localhost/a.zip'], dir='x')"
    text = f"train: images/train\nval: images/val\nnames: {{0: a, 1: b}}\ndownload: |\n  {script}\n"
    write_data_set(tmp_path, count=1)
    path = write_yaml(tmp_path, text)
    for _ in range(2):
        config = load_data_config(path)
        fetch(config)
        assert config.download == "" and config.locate("train") and config.locate("val")
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


@pytest.mark.slow
def test_no_payload_executes_anything_in_a_separate_process(tmp_path):
    """All payloads with an audit hook for started programs, compiled code and connections."""
    for index, payload in enumerate(PAYLOADS):
        mark = str(tmp_path / "executed")
        write_yaml(tmp_path / str(index), f"train: x\nnames: [a]\ndownload: {payload.replace('{mark}', mark)}\n")
    program = (
        "import sys, pathlib\n"
        "from utils.datasets.download import fetch\n"
        "from utils.datasets.config import load_data_config\n"
        "from utils.errors import ConfigError\n"
        "tripped = []\n"
        "watched = ('os.system', 'os.exec', 'os.posix_spawn', 'subprocess', 'socket', 'urllib', 'exec', 'compile')\n"
        "sys.addaudithook(lambda name, _: tripped.append(name) if name.startswith(watched) else None)\n"
        "files = sorted(pathlib.Path(sys.argv[1]).rglob('*.yaml'))\n"
        "refused = 0\n"
        "for index, path in enumerate(files + files):\n"
        "    if index == len(files):\n"
        "        tripped.clear()  # modules imported late run their own text\n"
        "    try:\n"
        "        fetch(load_data_config(str(path)))\n"
        "    except ConfigError:\n"
        "        refused += 1\n"
        "print(refused, tripped)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == f"{2 * len(PAYLOADS)} []", result.stdout + result.stderr
    assert len(PAYLOADS) >= 30 and not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value", ["", "''", "coco128", "VOC", "https://host/a.tar.gz", "https://h.org:8443/d/A.ZIP?x=1"]
)
def test_known_data_sets_and_archives_are_accepted(value, tmp_path):
    assert config_of(tmp_path, value).download == value.strip("'")


def test_every_known_data_set_has_https_addresses_and_a_yaml():
    assert set(KNOWN) == set(KNOWN_SETS)
    known = [archive for parts in KNOWN.values() for part in parts for archive in part.archives]
    assert all(archive.url.startswith("https://") and archive.max_bytes <= 50_000_000_000 for archive in known)
    for name in ("coco", "coco128", "VOC", "VisDrone"):
        assert load_data_config(f"{name}.yaml").download == name


def image_bytes(width=64, height=48):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def known_as_published():
    """What the archives of each known set hold, with one image for each split."""
    voc = "VOCdevkit/VOC{year}/{kind}/{name}"
    xml = (
        b"<annotation><size><width>64</width><height>48</height></size><object><name>dog</name><difficult>0</difficult>"
        b"<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
    )

    def voc_year(year, *splits):
        files = {}
        for index, split in enumerate(splits):
            stem = f"{year}_{split}{index}"
            files[voc.format(year=year, kind="JPEGImages", name=f"{stem}.jpg")] = image_bytes()
            files[voc.format(year=year, kind="Annotations", name=f"{stem}.xml")] = xml
            files[voc.format(year=year, kind="ImageSets/Main", name=f"{split}.txt")] = f"{stem}\n".encode()
        return files

    def coco_json(split):
        image = {"id": 7, "file_name": f"{split}.jpg", "width": 64, "height": 48}
        annotation = {"image_id": 7, "category_id": 1, "bbox": [4, 4, 20, 20], "iscrowd": 0}
        content = {"categories": [{"id": 1, "name": "person"}], "images": [image], "annotations": [annotation]}
        return json.dumps(content).encode()

    coco = {
        "annotations_trainval2017.zip": {
            f"annotations/instances_{s}.json": coco_json(s) for s in ("train2017", "val2017")
        }
        | {"annotations/captions_val2017.json": b'{"images": [], "annotations": []}'},
        "train2017.zip": {"train2017/train2017.jpg": image_bytes()},
        "val2017.zip": {"val2017/val2017.jpg": image_bytes()},
    }
    drone = {
        f"VisDrone2019-DET-{s}.zip": {
            f"VisDrone2019-DET-{s}/images/a.jpg": image_bytes(),
            f"VisDrone2019-DET-{s}/annotations/a.txt": b"4,4,20,20,1,4,0,0\n",
        }
        for s in ("train", "val", "test-dev")
    }
    small = {"coco128/images/train2017/a.jpg": image_bytes(), "coco128/labels/train2017/a.txt": b"0 .5 .5 .2 .2\n"}
    return {
        "coco": coco,
        "coco-polygons": coco,
        "coco128": {"coco128.zip": small},
        "VisDrone": drone,
        "VOC": {
            "VOCtrainval_06-Nov-2007.zip": voc_year(2007, "train", "val"),
            "VOCtest_06-Nov-2007.zip": voc_year(2007, "test"),
            "VOCtrainval_11-May-2012.zip": voc_year(2012, "train", "val"),
        },
    }


@pytest.mark.parametrize("name", KNOWN_SETS)
def test_a_known_data_set_is_converted_to_what_its_yaml_describes(name, tmp_path, monkeypatch):
    published = known_as_published()[name]
    pages = {f"/{file}": zipped(*content.items()) for file, content in published.items()}
    with serving(pages) as (address, asked):
        local = tuple(
            DatasetPart(
                archives=tuple(RemoteArchive(f"{address}/{a.url.rpartition('/')[2]}") for a in part.archives),
                convert=part.convert,
            )
            for part in KNOWN[name]
        )
        monkeypatch.setitem(catalog.KNOWN, name, local)
        shipped = (ROOT / "data" / f"{name.removesuffix('-polygons')}.yaml").read_text()
        shipped = shipped.replace("../datasets/", "sets/").replace("download: coco\n", f"download: {name}\n")
        config = load_data_config(write_yaml(tmp_path, shipped))
        fetch(config)
    assert sorted(asked) == sorted(pages)
    for split, entries in config.splits.items():
        if entries:
            index = build_index(config, split, use_cache=False)
            assert len(index.labels) == len(index) == len(entries) and not index.skipped, "one object in each folder"


@pytest.mark.slow
def test_the_command_downloads_and_its_errors_are_one_line(archive, tmp_path):
    def run(*args):
        return subprocess.run(
            [sys.executable, "-m", "utils.datasets.download", *args],
            cwd=ROOT,
            env={**os.environ, "SSL_CERT_FILE": str(CERTIFICATE)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    with serving({"/tiny.zip": archive}) as (address, _):
        config = config_of(tmp_path, f"{address}/tiny.zip")
        done = run(str(config.file))
    assert done.returncode == 0 and (tmp_path / "sets/tiny/images/val/p1.png").exists(), done.stderr
    assert hashlib.sha256(archive).hexdigest() in done.stdout
    wrong = run("coco129.yaml")
    assert wrong.returncode == 2 and "did you mean coco128.yaml" in wrong.stderr and "Traceback" not in wrong.stderr
    for args in ((), ("coco128.yaml", "VOC.yaml"), ("coco128.yaml", "--force"), ("--dbg", "coco128.yaml")):
        wrong = run(*args)
        assert wrong.returncode == 2 and wrong.stderr.startswith("error: download: ") and wrong.stderr.count("\n") == 1
        assert "Fix: see `python -m utils.datasets.download --help`" in wrong.stderr

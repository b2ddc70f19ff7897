"""Videos: what is damaged in them is passed over and counted, whatever they are called."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.datasets.sources import open_source
from utils.datasets.streams import ReconnectPolicy
from utils.datasets.videos import read_video
from utils.errors import DataError

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def content(tmp_path: Path) -> bytearray:
    """An AVI of 8 JPEG images, the n-th of grey level 20 n + 10."""
    path = tmp_path / "made.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for index in range(8):
        writer.write(np.full((HEIGHT, WIDTH, 3), 20 * index + 10, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    path.unlink()
    return data


def images(data: bytes) -> list[slice]:
    """Return where the images lie in an AVI."""
    found, position = [], data.index(b"movi") + 4
    for _ in range(8):
        assert data[position : position + 4] == b"00dc"
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        found.append(slice(position + 8, position + 8 + size))
        position += 8 + size + size % 2
    return found


def damage(data: bytearray, *indices: int) -> None:
    """Overwrite images."""
    for index in indices:
        part = images(data)[index]
        data[part] = bytes(part.stop - part.start)


def read(path: Path, *, vid_stride: int = 1) -> dict[int, int]:
    """Return the grey level of each frame by its index."""
    frames = read_video(path, path, number=0, vid_stride=vid_stride, policy=ReconnectPolicy())
    return {frame.index: round((frame.image.mean() - 10) / 20) for frame in frames}


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_an_undamaged_video_causes_no_warning(content, tmp_path, caplog) -> None:
    (tmp_path / "v.avi").write_bytes(content)
    assert read(tmp_path / "v.avi") == {n: n for n in range(8)} and not warnings(caplog)


@pytest.mark.parametrize("damaged", [(3,), (0,), (2, 3, 5), (7,), (0, 1, 2, 3, 4, 5, 6)])
def test_the_frames_after_a_damaged_one_are_read_and_keep_their_index(
    content, damaged, tmp_path, caplog, capfd
) -> None:
    damage(content, *damaged)
    (tmp_path / "v.avi").write_bytes(content)
    assert read(tmp_path / "v.avi") == {n: n for n in range(8) if n not in damaged}
    (message,) = warnings(caplog)
    assert f"{len(damaged)} of 8" in message and str(tmp_path / "v.avi") in message
    assert capfd.readouterr() == ("", ""), "no words of FFmpeg"


def test_with_a_stride_the_frames_after_a_damaged_one_are_still_those_of_the_stride(content, tmp_path) -> None:
    damage(content, 3)
    (tmp_path / "v.avi").write_bytes(content)
    assert read(tmp_path / "v.avi", vid_stride=2) == {0: 0, 2: 2, 4: 4, 6: 6}
    assert read(tmp_path / "v.avi", vid_stride=3) == {0: 0, 6: 6}


def test_a_video_cut_off_is_read_up_to_there_with_a_warning(content, tmp_path, caplog) -> None:
    (tmp_path / "v.avi").write_bytes(content[: images(content)[4].start - 8])
    assert read(tmp_path / "v.avi") == {n: n for n in range(4)}
    (message,) = warnings(caplog)
    assert "4 of 8" in message


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "mp4v"), ("v.ts", "MPG2"), ("v.wmv", "WMV2"), ("v.mpg", "MPG1")])
def test_formats_without_a_number_of_frames(name, codec, tmp_path, caplog) -> None:
    fps = 25 if name == "v.mpg" else 7.3  # WMV states twice this rate
    size, images = (WIDTH, HEIGHT), np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), np.uint8)
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*codec), fps, size)
    for image in images:
        writer.write(cv2.resize(image, size))
    writer.release()
    assert len(read(tmp_path / name)) == 40 and not warnings(caplog)
    if name == "v.mkv":
        (tmp_path / "cut.mkv").write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
        count = len(read(tmp_path / "cut.mkv"))
        assert 5 < count < 35 and f"{40 - count} of 40" in warnings(caplog)[0]


def test_the_rotation_of_a_video_is_applied(tmp_path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for _ in range(3):
        writer.write(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    writer.release()
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    matrix = data.index(b"tkhd") + 44
    rows = (0, 0x10000, 0, -0x10000, 0, 0, HEIGHT << 16, 0, 0x40000000)
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in rows)
    (tmp_path / "v.mp4").write_bytes(data)
    policy = ReconnectPolicy()
    shapes = {f.image.shape for f in read_video(tmp_path / "v.mp4", Path("v"), number=0, vid_stride=1, policy=policy)}
    assert shapes == {(WIDTH, HEIGHT, 3)}


def test_the_suffix_of_a_video_may_be_that_of_another(content, tmp_path, caplog) -> None:
    (tmp_path / "v.mp4").write_bytes(content)
    assert len(read(tmp_path / "v.mp4")) == 8 and not warnings(caplog)


def test_files_that_are_no_videos_are_refused(content, tmp_path, capfd) -> None:
    every = content.copy()
    damage(every, *range(8))
    for name, data in {"empty": b"", "text": b"no video at all" * 99, "head": content[:100], "broken": every}.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        with pytest.raises(DataError) as error:
            read(path)
        assert error.value.where == str(path)
    for path in (tmp_path / "missing.mp4", tmp_path):
        with pytest.raises(DataError):
            read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "v.mp4")
    with pytest.raises(DataError):
        read(tmp_path / "v.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")
def test_a_video_of_any_name_is_read(content, tmp_path) -> None:
    names = [os.fsdecode(b"\xca\xd3\xc6\xb5.avi"), "视频.avi", "a%03d.avi", "a:b#c?.avi", "a b\n.avi", "[1]*.avi"]
    for folder in ("http:", os.fsdecode(b"\xff")):
        (tmp_path / folder).mkdir()
        names.append(f"{folder}/v.avi")
    for name in names:
        (tmp_path / name).write_bytes(content)
        assert len(read(tmp_path / name)) == 8, name
    source = open_source(str(tmp_path))
    assert sum(len(batch) for batch in source.batches(4, lambda frame: frame)) == 6 * 8 and not source.skipped

"""What C libraries print is discarded while they are muted; nothing else is."""

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from utils.datasets.images import decode_image
from utils.errors import DataError
from utils.library_messages import muted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the C library's stream is exchanged for glibc only")


def c_print(text: str) -> None:
    """Print as libjpeg does."""
    library = ctypes.CDLL(None)
    library.fputs(text.encode(), ctypes.c_void_p.in_dll(library, "stderr"))
    library.fflush(None)


def test_only_messages_within_are_discarded(capfd) -> None:
    level = cv2.utils.logging.getLogLevel()
    c_print("before\n")
    with muted(), muted():
        c_print("within\n")
        print("of Python", file=sys.stderr)
        os.write(2, b"of a crash\n")
    c_print("after\n")
    assert capfd.readouterr().err.split("\n") == ["before", "of Python", "of a crash", "after", ""]
    assert cv2.utils.logging.getLogLevel() == level


def test_threads_that_overlap_restore_the_stream(capfd) -> None:
    def work() -> None:
        for _ in range(50):
            with muted():
                c_print("within\n")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    c_print("after\n")
    assert capfd.readouterr().err == "after\n"


def damaged(suffix: str, damage: Callable[[bytearray], None]) -> bytes:
    rng = np.random.default_rng(0)
    data = bytearray(cv2.imencode(suffix, rng.integers(0, 256, (40, 60, 3), np.uint8))[1].tobytes())
    damage(data)
    return bytes(data)


def lose_middle(data: bytearray) -> None:
    del data[len(data) // 2 : len(data) // 2 + 40]


def change_middle(data: bytearray) -> None:
    data[len(data) // 2] ^= 0xFF


@pytest.mark.parametrize("damage", [lose_middle, change_middle])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp", ".bmp"])
def test_damaged_images_print_nothing(suffix: str, damage: Callable[[bytearray], None], capfd) -> None:
    logging.getLogger("akyolo").setLevel(logging.INFO)
    try:
        decode_image(damaged(suffix, damage), name="x")
    except DataError:
        pass
    assert capfd.readouterr() == ("", "")

"""Finds the image file that an annotation names, by name and, where names are ambiguous, by folders."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from utils.errors import DataError

IMAGE_FOLDERS = frozenset(("jpegimages", "images", "image", "imgs", "img"))


def common_folders(a: str, b: str) -> int:
    """Return the number of leading folders that two names have in common."""
    pairs = zip(a.split("/")[:-1], b.split("/")[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


class ImagesByStem:
    """Image files by name without folders and suffix, ignoring case, for annotations with one file per image."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(PurePosixPath(name).stem.lower(), []).append(name)

    def find(self, annotation: str, file_name: str = "") -> str:
        """Return the image that an annotation belongs to, or "".

        The image has the annotation's stem, or else that of the file name which it states. Among several, one of
        that file name is preferred, then the one with the most folders in common with the annotation, then one in a
        folder such as `images`, then one beside the annotation.

        Raises:
            DataError: several images match equally well.
        """
        stated = PurePosixPath(file_name.replace("\\", "/")).name
        stems = (PurePosixPath(annotation).stem.lower(), PurePosixPath(stated).stem.lower())
        candidates = next(filter(None, map(self._by_stem.get, stems)), [])
        if len(candidates) < 2:
            return candidates[0] if candidates else ""

        def quality(name: str) -> tuple[int, int, bool, bool]:
            folder, own = PurePosixPath(name).parent, PurePosixPath(name).name
            is_stated = (own == stated) + (own.lower() == stated.lower())
            in_images = not IMAGE_FOLDERS.isdisjoint(folder.as_posix().lower().split("/"))
            return is_stated, common_folders(name, annotation), in_images, folder == PurePosixPath(annotation).parent

        best, second = sorted(candidates, key=quality, reverse=True)[:2]
        if quality(best) == quality(second):
            raise DataError(annotation, f"matches the images {best!r} and {second!r}", fix="rename one of them")
        return best


class ImageFiles:
    """Image files by the ends of their paths."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = sorted(names)
        self._depth = max((name.count("/") + 1 for name in self._names), default=0)
        self._by_end: dict[int, dict[str, list[str]]] = {}  # by the number of parts of the end, as far as asked for

    def _ending_in(self, parts: Sequence[str]) -> list[str]:
        """Return the files whose paths end in these parts."""
        count = len(parts)
        if count not in self._by_end:
            self._by_end[count] = {}
            for name in self._names:
                if name.count("/") + 1 >= count:
                    self._by_end[count].setdefault("/".join(name.split("/")[-count:]), []).append(name)
        return self._by_end[count].get("/".join(parts), [])

    def match(self, images: Iterable[str], *, annotations: str, split: str) -> dict[str, str]:
        """Return the files by image name, without images that have no file, or whose file matches another better.

        The file whose path has the most trailing parts in common with the image's name is chosen; among several, the
        one at that name relative to the annotations' folder, then the one that has the most folders in common with the
        annotations, then one in the folder of the split.

        Args:
            images: their names in the annotations, with or without folders.
            annotations: the file that names the images.
            split: name of its split.

        Raises:
            DataError: several files match an image equally well, or several images a file.
        """
        matches: dict[str, list[tuple[bool, int, str]]] = {}
        for image in dict.fromkeys(images):
            parts = image.split("/")
            counts = range(min(len(parts), self._depth), 0, -1)
            if shared := next((count for count in counts if self._ending_in(parts[-count:])), 0):
                candidates = self._ending_in(parts[-shared:])
                file = self._choose(candidates, image, annotations=annotations, split=split)
                matches.setdefault(file, []).append((shared == len(parts), shared, image))
        file_of = {}
        for file, images_of_file in matches.items():
            (*quality, image), *others = sorted(images_of_file, reverse=True)
            if others and [*others[0][:2]] == quality:
                what = f"{image!r} and {others[0][2]!r} both match {file!r}"
                raise DataError(annotations, what, fix="correct `file_name`, or add folders of these names")
            file_of[image] = file
        return file_of

    def _choose(self, candidates: Sequence[str], image: str, *, annotations: str, split: str) -> str:
        """Return the file of an image among files of equal names; DataError if it is ambiguous."""
        here = PurePosixPath(annotations).parent
        if len(candidates) == 1:
            return candidates[0]
        if (there := (here / image).as_posix()) in candidates:
            return there
        nearest = max(common_folders(name, annotations) for name in candidates)
        candidates = [name for name in candidates if common_folders(name, annotations) == nearest]
        candidates = [name for name in candidates if split in name.split("/")[:-1]] or candidates
        if len(candidates) > 1:
            what = f"{image!r} matches {candidates[0]!r} and {candidates[1]!r}"
            raise DataError(annotations, what, fix="add the folder to `file_name`, or convert fewer folders")
        return candidates[0]

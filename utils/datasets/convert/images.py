"""Which file is the image that an annotation names: by name, and by folders where a name alone may mislead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from utils.errors import DataError


class ImageFiles:
    """Files that annotations may mean, found by the ends of their paths."""

    def __init__(self, names: Iterable[str], *, depth: int) -> None:
        """Note the files.

        Args:
            names: all files, with `/`.
            depth: how many parts the longest name of an image has; longer ends are not looked for.
        """
        self._names = frozenset(names)
        self._by_end: dict[str, list[str]] = {}
        for name in sorted(self._names):
            parts = name.split("/")
            for count in range(1, min(depth, len(parts)) + 1):
                self._by_end.setdefault("/".join(parts[-count:]), []).append(name)

    def match(self, images: Iterable[str], *, annotations: str, split: str) -> dict[str, str]:
        """Tell where images lie.

        That file counts which shares the most folders with an image's name; of several the one that lies where the
        name leads from the annotations' folder, then one below that folder, then one in the folder of the split.

        Args:
            images: their names, perhaps with folders, as the annotations have them.
            annotations: the file that names the images.
            split: what its split is called.

        Returns:
            The files by the images' names. An image is left out if no file has its name, or if the one that has fits
            another image better.

        Raises:
            DataError: several files fit an image equally well, or several images a file.
        """
        fits: dict[str, list[tuple[bool, int, str]]] = {}
        for image in dict.fromkeys(images):
            parts = image.split("/")
            shared = next((n for n in range(len(parts), 0, -1) if "/".join(parts[-n:]) in self._by_end), 0)
            if shared:
                candidates = self._by_end["/".join(parts[-shared:])]
                file = self._choose(candidates, image, annotations=annotations, split=split)
                fits.setdefault(file, []).append((shared == len(parts), shared, image))
        found = {}
        for file, claims in fits.items():
            (*fit, image), *others = sorted(claims, reverse=True)
            if others and [*others[0][:2]] == fit:
                what = f"{image!r} and {others[0][2]!r} may both be {file!r}"
                raise DataError(annotations, what, fix="correct `file_name`, or give the files folders of these names")
            found[image] = file
        return found

    def _choose(self, candidates: Sequence[str], image: str, *, annotations: str, split: str) -> str:
        """Return the one of equally named files that is meant.

        Raises:
            DataError: it could be any.
        """
        here = PurePosixPath(annotations).parent
        if len(candidates) == 1:
            return candidates[0]
        if (there := (here / image).as_posix()) in self._names:
            return there
        for preferred in (
            [name for name in candidates if PurePosixPath(name).is_relative_to(here)],
            [name for name in candidates if split in name.split("/")[:-1]],
        ):
            candidates = preferred or candidates
        if len(candidates) > 1:
            what = f"{image!r} may be {candidates[0]!r} or {candidates[1]!r}"
            raise DataError(annotations, what, fix="write the folder into `file_name`, or convert fewer folders")
        return candidates[0]

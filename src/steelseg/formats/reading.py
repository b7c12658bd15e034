"""Shared code of the readers of polygon formats: images, labels, records."""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.listing import list_below, name_key
from steelseg.formats.files import size_of
from steelseg.formats.outlines import LeftOut
from steelseg.formats.record import Options, Record

IGNORED = "__ignore__"  # LabelMe's own word for it, also used in our exports to other formats
IMAGES = "images"  # the folder that most tools use; not part of a name
NO_IMAGE = "annotations of a missing image"
NO_PIXEL = "shape without a pixel in the image"

Shape = TypeVar("Shape")


class Drawn(NamedTuple):
    """A shape in pixels: its labels, and its region, (H, W) uint8 of 0 and 1.

    Where shapes overlap, it hides those of other classes on lower levels.
    """

    labels: Sequence[str]
    region_hw: Uint8
    level: int = 0


class Labels:
    """Which labels are classes, and which are ignored."""

    def __init__(self, known: Iterable[str], options: Options) -> None:
        self.ignore = options.ignore | {IGNORED}
        found = dict.fromkeys(label for label in known if label not in self.ignore)
        self.classes = list(options.classes or found)

    def find(self, label: str) -> str:
        """Return the class of a label, or `IGNORED`.

        Raises:
            BadInput: it is neither.
        """
        if label in self.ignore:
            return IGNORED
        if label not in self.classes:
            raise BadInput(f"the label {quote(label)} is not in {quote(', '.join(self.classes))}")
        return label


class Annotated(NamedTuple):
    """The shapes of an image by their names in messages; None if it is unlabelled.

    `size_hw` is the size stated by annotations, if any.
    """

    shapes: dict[str, Any] | None
    size_hw: tuple[int, int] | None = None


class Images:
    """The image files below a folder, with their annotations, and what of these is left out."""

    def __init__(self, folder: Path, *, required: bool = True) -> None:
        self.folder = folder
        self.annotated: dict[str, Annotated] = {}  # by the path below the folder
        self.left_out: dict[str, str] = {}
        self.names = list_below(folder).names
        if required and not self.names:
            raise BadInput(f"{folder}: expected images in this folder; --images names another")
        self._by_key = {name_key(name): name for name in self.names}
        self._by_base: dict[str, list[str]] = {}
        self._folders = {posixpath.dirname(key) for key in self._by_key}
        for name in self.names:
            self._by_base.setdefault(posixpath.basename(name_key(name)), []).append(name)
        self._prefix = f"{IMAGES}/" if all(n.startswith(f"{IMAGES}/") for n in self.names) else ""

    def __contains__(self, name: str) -> bool:
        return name_key(name) in self._by_key

    def name(self, path: str) -> str:
        """Return an image's name in the data set: its path without a folder `images`."""
        return path.removeprefix(self._prefix)

    def find(self, reference: str, document: Path) -> str | None:
        """Find the image that a document refers to.

        It is looked up next to the document, in the folder, and in a folder `images` of these;
        else it is the only file whose path has this ending, for absolute paths a part of it.
        It is missing if the folder that it should be in has other images: the same name in
        another folder is probably another part.

        Returns:
            Its path below the folder, or None if it is missing.

        Raises:
            BadInput: the path leads out of the folder, or is ambiguous.
        """
        path = PureWindowsPath(reference)  # which reads `/` too
        wanted = name_key("/".join(path.parts[1:] if path.anchor else path.parts))
        if path.anchor:
            return self._ending(wanted, shorter=True)
        beside = name_key(Path(os.path.relpath(document.parent, self.folder)).as_posix())
        is_inside = not _leads_out(beside)
        place = posixpath.normpath(f"{beside}/{wanted}")
        if _leads_out(place) and is_inside:
            raise BadInput(f"the path {quote(reference)} leads out of {self.folder}")
        climbs = ".." in path.parts
        if _leads_out(place) and climbs:  # the folder has been moved, or was given
            return self._ending(wanted, shorter=True)
        start = beside if is_inside else "."
        starts = () if climbs else (start, f"{start}/{IMAGES}", ".", IMAGES)
        places = [posixpath.normpath(f"{start}/{wanted}") for start in starts] or [place]
        name = next((self._by_key[place] for place in places if place in self._by_key), None)
        is_missing = posixpath.dirname(places[0]) in self._folders
        return name if name or is_missing else self._ending(wanted, shorter=False)

    def find_ending(self, reference: str) -> str | None:
        """Find the one image whose path shares the longest ending with a reference; see `find`."""
        return self._ending(name_key(reference), shorter=True)

    def _ending(self, wanted: str, *, shorter: bool) -> str | None:
        candidates = self._by_base.get(posixpath.basename(wanted), [])
        steps = [step for step in wanted.split("/") if step not in {"", ".", ".."}]
        for first in range(len(steps) if shorter else min(1, len(steps))):
            end = "/" + "/".join(steps[first:])
            found = [name for name in candidates if f"/{name_key(name)}".endswith(end)]
            if len(found) > 1:
                raise BadInput(f"{quote(wanted)} may be {found[0]} or {found[1]}")
            if found:
                return found[0]
            folder = "/" + "/".join(steps[first:-1])
            if any(folder != "/" and f"/{other}".endswith(folder) for other in self._folders):
                return None  # it should be there
        return None

    def add(
        self,
        name: str | None,
        reference: str,
        shapes: dict[str, Any] | None,
        size_hw: tuple[int, int] | None = None,
    ) -> None:
        """Add the annotations of an image; those of a missing one are left out.

        Raises:
            BadInput: the image has annotations already.
        """
        if name is None:
            self.left_out[reference] = NO_IMAGE
        elif name in self.annotated:
            raise BadInput(
                f"{quote(name)} appears twice, here or in another document; leave one out"
            )
        else:
            self.annotated[name] = Annotated(shapes, size_hw)

    def records(
        self, draw: Callable[[Any, tuple[int, int]], Drawn], labels: Labels
    ) -> Iterator[Record]:
        """Draw the shapes of each image; images without annotations are unlabelled.

        Images whose shapes are all left out are unlabelled too, since they are not clean.

        Args:
            draw: converts a shape to pixels of an image of that size.
            labels: the classes.

        Raises:
            BadInput: images or shapes cannot be read; raised after the last, with all faults.
        """
        with Faults(str(self.folder)) as faults:
            for path in sorted(self.names, key=self.name):
                n_faults = faults.count
                record = self._read(path, draw, labels, faults)
                if record is not None and faults.count == n_faults:
                    yield record

    def _read(
        self,
        path: str,
        draw: Callable[[Any, tuple[int, int]], Drawn],
        labels: Labels,
        faults: Faults,
    ) -> Record | None:
        image = self.annotated.get(path) or Annotated(None)
        try:
            size_hw = size_of(self.folder / path)
            _check_size(self.folder / path, image.size_hw, size_hw)
        except BadInput as error:
            faults.add(str(error))
            return None
        drawn: list[tuple[Drawn, list[str]]] = []
        for key, shape in (image.shapes or {}).items():
            try:
                region = draw(shape, size_hw)
                classes = [labels.find(label) for label in region.labels]
                if not region.region_hw.any():
                    raise LeftOut(NO_PIXEL)
                drawn.append((region, classes))
            except LeftOut as reason:
                self.left_out[f"{path}: {key}"] = str(reason)
            except BadInput as error:
                faults.add(f"{quote(path)}: {key}: {error}")
        flat = _flatten(drawn)
        ignored = flat.pop(IGNORED, None)
        return Record(
            self.folder / path,
            self.name(path),
            size_hw,
            {c: flat[c] for c in labels.classes if c in flat and flat[c].any()},
            ignored if ignored is not None and ignored.any() else None,
            # a box marks a defect: without its pixels, the image is not clean
            labelled=image.shapes is not None and (not image.shapes or bool(drawn)),
        )


def _leads_out(path: str) -> bool:
    return path.split("/")[0] == ".."


def _check_size(path: Path, stated_hw: tuple[int, int] | None, size_hw: tuple[int, int]) -> None:
    if stated_hw is None or stated_hw == size_hw:
        return
    turned = (
        "; they were drawn on the image before it was turned upright: remove its EXIF orientation"
    )
    raise BadInput(
        f"{path}: the annotations state {stated_hw[0]}x{stated_hw[1]}, but the image is "
        f"{size_hw[0]}x{size_hw[1]}{turned if stated_hw == size_hw[::-1] else ''}"
    )


def _flatten(drawn: Sequence[tuple[Drawn, list[str]]]) -> dict[str, Uint8]:
    """Merge the shapes of each class; higher levels hide lower ones."""
    masks: dict[str, Uint8] = {}
    for level in sorted({shape.level for shape, _ in drawn}):
        here = [(shape.region_hw, classes) for shape, classes in drawn if shape.level == level]
        hidden = np.bitwise_or.reduce([region for region, _ in here]).astype(bool)
        masks = {c: np.where(hidden, np.uint8(0), mask) for c, mask in masks.items()}
        for region_hw, classes in here:
            for c in classes:
                masks[c] = masks[c] | region_hw if c in masks else region_hw
    return masks

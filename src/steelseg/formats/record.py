"""The records that all formats read and write, one per image.

A format is a module of this package, listed in `formats.known`, with

    recognises(source: Path) -> bool
        whether a folder (or file) looks like this format; about as fast as a listing
    read(source: Path, options: Options) -> Source
        its contents; faults of the whole source are raised at once, those of single files are
        collected (`Faults`) and raised after the last record, so that all are named together
    write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None
        if there is an export; labels survive a round trip

`read` depends on nothing but `Options`. It changes nothing in the source.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from steelseg.core.arrays import Uint8

NOTHING: Mapping[str, str] = MappingProxyType({})


class Options(NamedTuple):
    """What the user states about a source that the source does not.

    `classes` are the names of all classes, in the order of their ids 1, 2, ...; empty: those that
    the source names. Any other label is an error, unless it is ignored. `legend` maps colours
    ('#rrggbb', in lower case) and values ('7') of label images to class names. Labels, colours and
    values in `ignore` are ignored regions. `images` is the folder of the images, if they are not in
    the source: annotations often come without them. `threshold` is the highest grey of black and
    white masks that counts as black; None if all are 0 or 255.
    """

    classes: tuple[str, ...] = ()
    legend: Mapping[str, str] = NOTHING
    ignore: frozenset[str] = frozenset()
    images: Path | None = None
    threshold: int | None = None


class Record(NamedTuple):
    """One image: its path, its name in the data set, and its labels.

    `name` is the path below `train_images`, with `/`; it keeps the folders of the source.
    `size_hw` and the masks, (H, W) uint8 of 0 and 1, are of the upright image, as viewers show it.
    `masks` has, by class name, only classes that are shown; `ignored` is the region to ignore.
    `labelled` is False for an image that nobody has reviewed, which is not the same as clean.
    `group` names what a split must not divide: a coil, a part, a tile.
    """

    path: Path
    name: str
    size_hw: tuple[int, int]
    masks: Mapping[str, Uint8]
    ignored: Uint8 | None = None
    labelled: bool = True
    group: str | None = None


class Source(NamedTuple):
    """The contents of a source.

    `classes` are in the order of their ids, which are 1, 2, ... unless `ids` is given. `records`
    can be iterated once, one image at a time, in the order of names. Everything left out (a file,
    an annotation) is added to `left_out` with its reason while the records are read; reasons are
    few and short, since they are counted. `colors` is '#rrggbb' by class name, if the format has
    colours. `test_images` is the source's folder of images without labels, and
    `sample_submission` lists the rows to predict for them.
    """

    classes: list[str]
    records: Iterator[Record]
    left_out: dict[str, str]
    colors: Mapping[str, str] = NOTHING
    ids: tuple[int, ...] = ()
    test_images: Path | None = None
    sample_submission: Path | None = None

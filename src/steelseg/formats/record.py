"""What a format reads and writes: one record per image, whatever the format.

A format is a module of this package, listed in `formats.known`, with

    recognises(source: Path) -> bool
        whether a folder (or file) looks like this format, for the price of a listing
    read(source: Path, options: Options) -> Source
        what it holds; a fault of the whole source is raised at once, those of single files are
        collected (`Faults`) and raised when the records end, so that all are named together
    write(folder: Path, records: Iterable[Record], classes: Sequence[ClassInfo]) -> None
        where there is an export; labels that are written and read again are the same

`read` takes nothing from the caller but what is in `Options`. It changes nothing in the source.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from steelseg.core.arrays import Uint8

NOTHING: Mapping[str, str] = MappingProxyType({})


class Options(NamedTuple):
    """What a person says about a source that the source does not say.

    `classes` are the names of all classes, in the order of their ids 1, 2, ...; empty: those that
    the source names. A label that is none of them is a fault, unless it is ignored. `legend` says
    what colours ('#rrggbb', in lower case) and values ('7') of label images mean: a class's name.
    Labels, colours and values in `ignore` are regions that count for nothing. `images` is where the
    images are, if not in the source itself: annotations often travel without them. `threshold` is
    the highest grey of black and white masks that is black; None where all are 0 or 255.
    """

    classes: tuple[str, ...] = ()
    legend: Mapping[str, str] = NOTHING
    ignore: frozenset[str] = frozenset()
    images: Path | None = None
    threshold: int | None = None


class Record(NamedTuple):
    """One image: where it is, what it is called in the data set, and what is labelled on it.

    `name` is the path below `train_images`, with `/`; it keeps the folders of the source.
    `size_hw` and the masks, (H, W) uint8 of 0 and 1, are of the upright image, as viewers show it.
    `masks` holds, by class name, only classes that are shown; `ignored` is where nobody knows.
    `labelled` is False where nobody has looked at the image, which is not the same as clean.
    `group` names what must not be divided by a split: a coil, a part, a tile.
    """

    path: Path
    name: str
    size_hw: tuple[int, int]
    masks: Mapping[str, Uint8]
    ignored: Uint8 | None = None
    labelled: bool = True
    group: str | None = None


class Source(NamedTuple):
    """What a source holds.

    `classes` are in the order of their ids, which are 1, 2, ... unless `ids` says otherwise.
    `records` is read once, one image at a time, in the order of names. Whatever is not taken over
    (a file, an annotation) is put into `left_out` with its reason while the records are read;
    reasons are few and short, since they are counted. `colors` is '#rrggbb' by class name, where
    the format has colours. `test_images` is the source's folder of images without labels, and
    `sample_submission` says which of their rows are to be answered.
    """

    classes: list[str]
    records: Iterator[Record]
    left_out: dict[str, str]
    colors: Mapping[str, str] = NOTHING
    ids: tuple[int, ...] = ()
    test_images: Path | None = None
    sample_submission: Path | None = None

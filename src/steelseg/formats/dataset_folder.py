"""Writes a data set folder from records, atomically."""

import csv
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from steelseg.core.errors import BadInput, Faults, SteelsegError, quote
from steelseg.core.files import write_text
from steelseg.data import rle
from steelseg.data.listing import check_image_name, name_key
from steelseg.data.optional_files import CLASSES, classes_text, read_classes
from steelseg.formats import files
from steelseg.formats.record import Record, Source
from steelseg.formats.tally import Tally

TRAIN, TEST, SAMPLE = "train_images", "test_images", "sample_submission.csv"
HEADERS = {
    "train.csv": ["ImageId", "ClassId", "EncodedPixels"],
    "ignored.csv": ["ImageId", "EncodedPixels"],
    "images.csv": ["ImageId", "group", "label"],
}
PARTS = frozenset({TRAIN, TEST, SAMPLE, CLASSES, *HEADERS})


class Writer:
    """Writes records into a data set folder, one at a time, and counts them."""

    def __init__(self, folder: Path, source: Source, *, copy: bool, faults: Faults) -> None:
        self._folder = folder
        self._copy = copy
        self._faults = faults
        self._names: dict[tuple[str, str], Path] = {}
        self._info: list[tuple[str, str | None, bool]] = []
        self.test_paths: list[Path] = []
        self.tally = Tally(source)

    def write(self, records: Iterable[Record], tests: Sequence[Path]) -> None:
        """Write all records; those in a folder of `tests` become test images without labels."""
        with ExitStack() as stack:
            rows = stack.enter_context(_csv(self._folder / "train.csv"))
            ignored = stack.enter_context(_csv(self._folder / "ignored.csv"))
            for record in records:
                if any(abspath(record.path).is_relative_to(folder) for folder in tests):
                    self.add_test(record.name, record.path)
                elif self._take(TRAIN, record.name, record.path):
                    self._label(record, rows, ignored)

    def add_test(self, name: str, path: Path) -> None:
        """Add an image without labels."""
        self.tally.test += self._take(TEST, name, path)
        self.test_paths.append(abspath(path))

    def _label(self, record: Record, rows: Any, ignored: Any) -> None:
        unknown = None if record.ignored is None else record.ignored > 0
        masks = {c: m if unknown is None else m & ~unknown for c, m in record.masks.items()}
        masks = {c: m for c, m in masks.items() if m.any()}
        for name, class_id in self.tally.ids.items():
            if name in masks:
                rows.writerow([record.name, class_id, rle.encode(masks[name])])
        if unknown is not None and unknown.any():
            ignored.writerow([record.name, rle.encode(unknown.astype(np.uint8))])
        self._info.append((record.name, record.group, record.labelled))
        self.tally.add(record, masks)

    def _take(self, part: str, name: str, path: Path) -> bool:
        """Link or copy an image; return whether its name is free and legal."""
        try:
            check_image_name(name)
        except BadInput as error:
            self._faults.add(f"{path}: {error}")
            return False
        other = self._names.setdefault((part, name_key(name)), path)
        if other != path:
            self._faults.add(f"{path} and {other}: both would be {quote(name)} in {part}")
            return False
        files.place(path, self._folder / part / name, copy=self._copy)
        return True

    def finish(self) -> None:
        """Write the optional files, as far as they are needed."""
        if not self.tally.ignored:
            (self._folder / "ignored.csv").unlink()
        if any(group or not labelled for _, group, labelled in self._info):
            with _csv(self._folder / "images.csv") as images:
                for name, group, labelled in self._info:
                    images.writerow([name, group, "labelled" if labelled else "unlabelled"])
        colors = self.tally.source.colors
        classes = [(i, name, colors.get(name, "")) for name, i in self.tally.ids.items()]
        write_text(self._folder / CLASSES, classes_text(classes))
        read_classes(self._folder / CLASSES)  # checks the class names, which may be anything


def abspath(path: Path) -> Path:
    """Return an absolute path without `..`, leaving links unresolved."""
    return Path(os.path.abspath(path))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `folder` when the block succeeds.

    Raises:
        SteelsegError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise SteelsegError(f"{folder}: cannot be written: {error.strerror}") from error
    new, old = temporary / "new", temporary / "old"
    try:
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(folder: Path, *, force: bool) -> None:
    """Refuse to replace an existing folder, unless `force` is set and it is a data set.

    Raises:
        BadInput: `folder` exists and may not be replaced, or contains other files.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder, but this is a file")
    there = sorted(path.name for path in folder.iterdir())
    if there and not force:
        raise BadInput(f"{folder}: already exists; --force replaces it")
    if other := [name for name in there if name not in PARTS]:
        raise BadInput(
            f"{folder}: contains {quote(other[0])}, which is not part of a data set; move it away"
        )


@contextmanager
def _csv(path: Path) -> Iterator[Any]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADERS[path.name])
        yield writer

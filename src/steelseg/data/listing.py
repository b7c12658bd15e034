"""What a folder of images or masks holds: files to read, and why each of the others is not read.

Nothing is passed over in silence: a listing counts every file, so that its line adds up.
"""

import posixpath
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from pathlib import Path
from typing import NamedTuple

from steelseg.core.errors import BadInput, Faults, quote
from steelseg.data.images import SUFFIXES

HIDDEN, BELOW, SUFFIX = "hidden", "in_folders_below", "of_other_suffixes"
REASONS = (HIDDEN, BELOW, SUFFIX)
_SHOWN_SUFFIXES = 5


class Listing(NamedTuple):
    """The files of a folder that are read, sorted, and why each of the others is passed over.

    Files are named by their path in the folder.
    """

    names: list[str]
    passed_over: dict[str, str]

    def counts(self) -> dict[str, int]:
        """How many files there are, and for each reason how many of them are passed over."""
        reasons = Counter(self.passed_over.values())
        files = len(self.names) + len(self.passed_over)
        return {"files": files, **{reason: reasons[reason] for reason in REASONS}}

    def describe(self, read: str = "read") -> str:
        """Add the files up in one line, such as `9 files: 7 read, 2 passed over: 2 hidden`.

        Args:
            read: what became of those that are listed.
        """
        counts = self.counts()
        found = (name for name, reason in self.passed_over.items() if reason == SUFFIX)
        suffixes = sorted({posixpath.splitext(name)[1].lower() or "none" for name in found})
        shown = [s if s.isprintable() else quote(s) for s in suffixes[:_SHOWN_SUFFIXES]]
        shown += ["..."] * (len(suffixes) > _SHOWN_SUFFIXES)
        details = {SUFFIX: f" ({', '.join(shown)})"}
        over = ", ".join(
            f"{counts[reason]} {reason.replace('_', ' ')}{details.get(reason, '')}"
            for reason in REASONS
            if counts[reason]
        )
        line = f"{counts['files']} files: {len(self.names)} {read}, "
        return f"{line}{len(self.passed_over)} passed over" + (f": {over}" if over else "")

    def elsewhere(self) -> dict[str, str]:
        """Why files are passed over, by the key of their name without folders."""
        return {
            name_key(posixpath.basename(path)): reason.replace("_", " ")
            for path, reason in self.passed_over.items()
        }


def list_files(folder: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """List the images of a folder; links are followed, since a person put them there.

    Args:
        folder: those in folders below it are counted and not read.
        suffixes: of the files that are read, in lower case.

    Raises:
        BadInput: the folder is missing, holds no image, or holds two whose names differ only in
            how Unicode writes an accent.
    """
    try:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of images")
        paths = [path for entry in folder.iterdir() for path in _walk(entry, suffixes)]
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror}") from error
    listing = sort_out((path.relative_to(folder).as_posix() for path in paths), suffixes)
    if not listing.names:
        found = f"found none among {listing.describe()}" if listing.passed_over else "found none"
        raise BadInput(f"{folder}: expected images ({', '.join(sorted(suffixes))}), but {found}")
    _refuse_twins(folder, listing.names)
    return listing


def sort_out(
    paths: Iterable[str], suffixes: Set[str] = SUFFIXES, *, below: bool = False
) -> Listing:
    """Sort out which files are read: those of a suffix that are not hidden.

    Args:
        paths: relative to the folder, with `/`.
        suffixes: of the files that are read, in lower case.
        below: whether files in folders below are read too.
    """
    names, passed_over = [], {}
    for path in paths:
        if any(step.startswith(".") for step in path.split("/")):
            passed_over[path] = HIDDEN
        elif "/" in path and not below:
            passed_over[path] = BELOW
        elif posixpath.splitext(path)[1].lower() not in suffixes:
            passed_over[path] = SUFFIX
        else:
            names.append(path)
    return Listing(sorted(names), passed_over)


def name_key(name: str) -> str:
    """Return what names are compared by: a Mac's file system writes `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", name)


def check_image_name(name: str) -> None:
    """Check that a name is that of a file in the image folder itself, and can stand in a csv.

    Raises:
        BadInput: it leads elsewhere, is blank at an end, or holds what cannot be printed.
    """
    leads_elsewhere = {"/", "\\"} & set(name) or name in {"", ".", ".."}
    if leads_elsewhere or not name.isprintable() or name != name.strip():
        raise BadInput(f"expected the name of a file in the image folder, but got {quote(name)}")


def _walk(entry: Path, suffixes: Set[str]) -> Iterator[Path]:
    """Yield a file itself, and of a folder the files below it.

    A folder that is named like an image is yielded itself, to be refused by name.
    """
    if entry.is_dir() and entry.suffix.lower() not in suffixes:
        yield from (path for path in entry.rglob("*") if not path.is_dir())
    else:
        yield entry


def _refuse_twins(folder: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    with Faults(str(folder)) as faults:
        for name in names:
            other = first.setdefault(name_key(name), name)
            if other != name:
                pair = f"{name!a} and {other!a}"
                faults.add(f"{pair}: the same name in two Unicode forms; delete or rename one")

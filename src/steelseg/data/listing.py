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

HIDDEN, SUFFIX = "hidden", "of_other_suffixes"
REASONS = (HIDDEN, SUFFIX)
_SHOWN_SUFFIXES = 5


class Listing(NamedTuple):
    """The files of a folder that are read, sorted, and why each of the others is passed over.

    Files are named by their path in the folder, with `/`.
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

        Those that are read in folders below are counted too, since they may be there by mistake.

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
        below = sum("/" in name for name in self.names)
        inside = f" ({below} in folders below)" if below else ""
        line = f"{counts['files']} files: {len(self.names)} {read}{inside}, "
        return f"{line}{len(self.passed_over)} passed over" + (f": {over}" if over else "")

    def elsewhere(self) -> dict[str, str]:
        """What there is instead of a file that is not read, by the key of a name of it."""
        below = (name for name in self.names if "/" in name)
        found = {posixpath.basename(n): f"{quote(n)}, which is named so" for n in below}
        for path, reason in self.passed_over.items():
            text = f"a file that is passed over ({reason.replace('_', ' ')})"
            found |= dict.fromkeys((posixpath.basename(path), path), text)
        return {name_key(name): text for name, text in found.items()}


def list_files(
    folder: Path, suffixes: Set[str] = SUFFIXES, *, may_be_empty: bool = False
) -> Listing:
    """List the images of a folder and of the folders below it.

    Links are followed, since a person put them there, but not to a folder that they stand in.

    Args:
        folder: where to look.
        suffixes: of the files that are read, in lower case.
        may_be_empty: whether the folder may be missing or empty.

    Raises:
        BadInput: the folder is missing, holds no image but other files, or holds two images whose
            names differ only in how Unicode writes an accent.
    """
    if may_be_empty and not folder.exists():
        return Listing([], {})
    listing = list_below(folder, suffixes)
    if not listing.names and not (may_be_empty and SUFFIX not in listing.passed_over.values()):
        found = f"found none among {listing.describe()}" if listing.passed_over else "found none"
        raise BadInput(f"{folder}: expected images ({', '.join(sorted(suffixes))}), but {found}")
    _refuse_twins(folder, listing.names)
    return listing


def list_below(folder: Path, suffixes: Set[str] = SUFFIXES) -> Listing:
    """List the files of a folder and of the folders below it, whatever they are; see `list_files`.

    Raises:
        BadInput: the folder is missing, or cannot be read.
    """
    try:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such folder of images")
        paths = list(_walk(folder, suffixes, {folder.resolve()}))
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read: {error.strerror}") from error
    return sort_out((path.relative_to(folder).as_posix() for path in paths), suffixes)


def sort_out(paths: Iterable[str], suffixes: Set[str] = SUFFIXES) -> Listing:
    """Sort out which files are read: those of a suffix that are not hidden.

    Args:
        paths: relative to the folder, with `/`.
        suffixes: of the files that are read, in lower case.
    """
    names, passed_over = [], {}
    for path in paths:
        if any(step.startswith(".") for step in path.split("/")):
            passed_over[path] = HIDDEN
        elif posixpath.splitext(path)[1].lower() not in suffixes:
            passed_over[path] = SUFFIX
        else:
            names.append(path)
    return Listing(sorted(names), passed_over)


def name_key(name: str) -> str:
    """Return what names are compared by: a Mac's file system writes `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", name)


def check_image_name(name: str) -> None:
    """Check that a name is that of a file in the image folder or below, and can stand in a csv.

    Raises:
        BadInput: it leads elsewhere, is blank at an end, or holds what cannot be printed.
    """
    leads_elsewhere = "\\" in name or {"", ".", ".."} & set(name.split("/"))
    if leads_elsewhere or not name.isprintable() or name != name.strip():
        raise BadInput(f"expected the name of a file in the image folder, but got {quote(name)}")


def _walk(folder: Path, suffixes: Set[str], above: Set[Path]) -> Iterator[Path]:
    """Yield the files below a folder that stands in those `above`, itself among them.

    A folder that is named like an image is yielded itself, to be refused by name.
    """
    for entry in folder.iterdir():
        if not entry.is_dir() or entry.suffix.lower() in suffixes:
            yield entry
        elif (place := entry.resolve()) not in above:
            yield from _walk(entry, suffixes, above | {place})


def _refuse_twins(folder: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    with Faults(str(folder)) as faults:
        for name in names:
            other = first.setdefault(name_key(name), name)
            if other != name:
                pair = f"{name!a} and {other!a}"
                faults.add(f"{pair}: the same name in two Unicode forms; delete or rename one")

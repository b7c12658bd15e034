"""Lists a folder of images or masks: the files to read, and why others are not read.

Nothing is passed over silently: a listing counts every file, so its numbers add up.
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
    """The files of a folder that are read, sorted, and why others are passed over.

    Names are paths relative to the folder, with `/`.
    """

    names: list[str]
    passed_over: dict[str, str]

    def counts(self) -> dict[str, int]:
        """The number of files, and of those passed over for each reason."""
        reasons = Counter(self.passed_over.values())
        files = len(self.names) + len(self.passed_over)
        return {"files": files, **{reason: reasons[reason] for reason in REASONS}}

    def describe(self, read: str = "read") -> str:
        """Summarise the files in one line, such as `9 files: 7 read, 2 passed over: 2 hidden`.

        Files read from subfolders are counted too, since they may be there by mistake.

        Args:
            read: the word for the listed files.
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
        """What there is instead of a missing file, by the key of the name looked for."""
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

    Links are followed, since somebody made them, but not to a folder that contains them.

    Args:
        folder: where to look.
        suffixes: of the files that are read, in lower case.
        may_be_empty: whether the folder may be missing or empty.

    Raises:
        BadInput: the folder is missing, has other files but no image, or has two images whose
            names differ only in their Unicode normalisation.
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
    """List the files of a folder and its subfolders, without the checks of `list_files`.

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
    """Sort files into those that are read (of a known suffix, not hidden) and others.

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
    """Normalise a name for comparisons: macOS file systems write `é` as `e` and an accent."""
    return unicodedata.normalize("NFC", name)


def check_image_name(name: str) -> None:
    """Check that a name is a path inside the image folder that a csv can contain.

    Raises:
        BadInput: it leads elsewhere, begins or ends with a blank, or is not printable.
    """
    leads_elsewhere = "\\" in name or {"", ".", ".."} & set(name.split("/"))
    if leads_elsewhere or not name.isprintable() or name != name.strip():
        raise BadInput(f"expected the name of a file in the image folder, but got {quote(name)}")


def _walk(folder: Path, suffixes: Set[str], above: Set[Path]) -> Iterator[Path]:
    """Yield the files below a folder; `above` are its parents and itself.

    A folder that is named like an image is yielded, to be refused by name.
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

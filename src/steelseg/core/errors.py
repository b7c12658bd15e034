"""The errors that a person is meant to read: one clear message, no traceback."""

import reprlib
from types import TracebackType
from typing import Self

SHOWN_FAULTS = 20

_REPR = reprlib.Repr()  # of whatever size and depth, where `repr` would write out all of it
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlevel = 3


class SteelsegError(Exception):
    """Something that the user can mend; the message says what, where and what was expected."""


class BadInput(SteelsegError):
    """A file, a row, an image or a parameter is not what the data contract asks for."""


def in_words(error: OSError) -> str:
    """Say which file or folder the system refused, and why, for a person without a traceback."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def quote(value: object) -> str:
    """Write a value for a message, on one line and cut short where it is long."""
    return _REPR.repr(value)


class Faults:
    """Collects the faults of one file, so that they are reported together and not one per run.

    Used as a context manager: leaving the block raises `BadInput` if any fault was added, with
    the first 20 of them and the count.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0
        self.shown: list[str] = []

    def add(self, message: str) -> None:
        """Note one fault; `message` names the row or the image and what was expected."""
        self.count += 1
        if len(self.shown) < SHOWN_FAULTS:
            self.shown.append(message)

    def raise_if_any(self) -> None:
        """Raise `BadInput` with every fault noted so far.

        Raises:
            BadInput: at least one fault was added.
        """
        if not self.count:
            return
        if self.count == 1:
            raise BadInput(f"{self.where}: {self.shown[0]}")
        lines = [f"{self.where}: {self.count} faults", *(f"  {m}" for m in self.shown)]
        if self.count > len(self.shown):
            lines.append(f"  ... and {self.count - len(self.shown)} more")
        raise BadInput("\n".join(lines))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if error is None:
            self.raise_if_any()

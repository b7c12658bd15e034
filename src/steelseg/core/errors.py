"""Errors meant for users: one clear message, no traceback."""

import reprlib
from types import TracebackType
from typing import Self

SHOWN_FAULTS = 20

_REPR = reprlib.Repr()  # limits size and depth, which `repr` does not
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 80
_REPR.maxlevel = 3


class SteelsegError(Exception):
    """Something the user can fix; the message states what, where and what was expected."""


class BadInput(SteelsegError):
    """A file, a row, an image or a parameter that violates the data contract."""


def in_words(error: OSError) -> str:
    """Return which file or folder the system refused, and why, as a message for users."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def quote(value: object) -> str:
    """Return a value as text for a message: on one line, shortened if long."""
    return _REPR.repr(value)


class Faults:
    """Collects the faults of one file, so that they are reported together, not one per run.

    Used as a context manager: leaving the block raises `BadInput` if any fault was added, with
    the first 20 faults and their count.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0
        self.shown: list[str] = []

    def add(self, message: str) -> None:
        """Add one fault; `message` names the row or image and what was expected."""
        self.count += 1
        if len(self.shown) < SHOWN_FAULTS:
            self.shown.append(message)

    def raise_if_any(self) -> None:
        """Raise `BadInput` with the faults added so far.

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

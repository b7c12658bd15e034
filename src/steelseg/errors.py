"""The errors that a person is meant to read: one clear message, no traceback."""

from types import TracebackType
from typing import Self

SHOWN_FAULTS = 20


class SteelsegError(Exception):
    """Something that the user can mend; the message says what, where and what was expected."""


class BadInput(SteelsegError):
    """A file, a row, an image or a parameter is not what the data contract asks for."""


class Faults:
    """Collects the faults of one file, so that they are reported together and not one per run.

    Used as a context manager: leaving the block raises `BadInput` if any fault was added, with
    the first 20 of them and the count.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Note one fault; `message` names the row or the image and what was expected."""
        self.messages.append(message)

    def raise_if_any(self) -> None:
        """Raise `BadInput` with every fault noted so far.

        Raises:
            BadInput: at least one fault was added.
        """
        if not self.messages:
            return
        if len(self.messages) == 1:
            raise BadInput(f"{self.where}: {self.messages[0]}")
        shown = self.messages[:SHOWN_FAULTS]
        hidden = len(self.messages) - len(shown)
        lines = [f"{self.where}: {len(self.messages)} faults", *(f"  {m}" for m in shown)]
        if hidden:
            lines.append(f"  ... and {hidden} more")
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

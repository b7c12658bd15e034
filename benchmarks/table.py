"""The rows of the benchmark, printed as a table and written as JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One value, and mostly another way's to compare it with."""

    what: str
    ours: float
    """median of the rounds, in `unit`"""
    other: str = ""
    """what it is compared with"""
    theirs: float | None = None
    """its median, in `unit`"""
    target: float | None = None
    """the smallest ratio to reach; None without a target"""
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        """Theirs divided by ours, and of a rate the reverse: above 1 is better than the other."""
        if self.theirs is None:
            return None
        return self.ours / self.theirs if self.unit.endswith("/s") else self.theirs / self.ours

    @property
    def verdict(self) -> str:
        """Whether the ratio reaches the target."""
        if self.target is None or self.ratio is None:
            return ""
        return "yes" if self.ratio >= self.target else "NO"


HEADER = ("what", "ours", "compared with", "theirs", "ratio", "target", "reached")


def cells(row: Row) -> tuple[str, ...]:
    """Write a row as the cells of the table."""
    target = "" if row.target is None else f"{row.target:g}"
    ours, theirs = (_amount(value, row.unit) for value in (row.ours, row.theirs))
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return row.what, ours, row.other, theirs, ratio, target, row.verdict


def as_markdown(rows: Iterable[Row]) -> str:
    """Write rows as a Markdown table, aligned to be read as text too."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    padded = ([c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def write_json(path: Path, rows: Iterable[Row], machine: str) -> None:
    """Write rows with their ratios, and what machine they were measured on."""
    entries = [row._asdict() | {"ratio": row.ratio} for row in rows]
    path.write_text(json.dumps({"machine": machine, "rows": entries}, indent=1) + "\n")


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit != "s":
        return f"{value:.3g} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.3g} us"

"""Counts the contents of an import and what was left out, as one table."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from steelseg.core.arrays import Uint8
from steelseg.core.errors import quote
from steelseg.core.sizes import Size, describe_sizes
from steelseg.formats.record import Record, Source


class Tally:
    """Counts of the records of a source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        ids = source.ids or range(1, len(source.classes) + 1)
        self.ids = dict(zip(source.classes, ids, strict=True))
        self.images = self.test = self.clean = self.unlabelled = 0
        self.ignored = self.overlaps = self.overruled = 0
        self.shown: Counter[str] = Counter()
        self.pixels: Counter[str] = Counter()
        self.sizes: set[Size] = set()
        self.groups: set[str] = set()

    def add(self, record: Record, masks: Mapping[str, Uint8]) -> None:
        """Count a record and its masks, which exclude ignored pixels."""
        self.images += 1
        self.sizes.add(record.size_hw)
        self.groups |= {record.group} if record.group else set()
        self.unlabelled += not record.labelled
        self.clean += record.labelled and not masks
        self.shown.update(masks.keys())
        for name, mask in masks.items():
            self.pixels[name] += int(np.count_nonzero(mask))
        if record.ignored is not None and record.ignored.any():
            self.ignored += 1
            self.overruled += any((m & record.ignored).any() for m in record.masks.values())
        self.overlaps += overlap(masks)

    def lines(self) -> Iterator[str]:
        """Yield the table, then what was left out, by reason."""
        groups = f", {len(self.groups)} groups" if self.groups else ""
        yield f"{self.images} images ({describe_sizes(sorted(self.sizes))}{groups})"
        rows = [
            (f"class {i}" + (f": {name}" if name != f"class {i}" else ""), self.shown[name], name)
            for name, i in self.ids.items()
        ]
        rows += [("clean", self.clean, ""), ("unlabelled", self.unlabelled, "")]
        rows += [(text, n, "") for text, n in self._remarks() if n]
        width = max(len(text) for text, _, _ in rows)
        for text, images, name in rows:
            pixels = f"  {self.pixels[name]:>12,} pixels" if name else ""
            yield f"  {text:<{width}}  {images:>7}{pixels}"
        if self.test:
            yield f"{self.test} test images"
        if self.source.left_out:
            yield f"{len(self.source.left_out)} left out"
        yield from (f"  {count:>7}  {reason}" for count, reason in self.reasons())

    def _remarks(self) -> Iterator[tuple[str, int]]:
        yield "with ignored regions", self.ignored
        yield "where an ignored region covers a class", self.overruled
        yield "with several classes at one pixel", self.overlaps

    def reasons(self) -> Iterator[tuple[int, str]]:
        """Yield how often something was left out and why, with an example; most frequent first."""
        first: dict[str, str] = {}
        for what, reason in sorted(self.source.left_out.items()):
            first.setdefault(reason, what)
        for reason, count in Counter(self.source.left_out.values()).most_common():
            yield count, f"{reason} (such as {quote(first[reason])})"


def overlap(masks: Mapping[str, Uint8]) -> bool:
    """Whether two classes are shown at one pixel."""
    total = None
    for mask in masks.values():
        total = (mask > 0).astype(np.uint8) if total is None else total + (mask > 0)
    return total is not None and bool((total > 1).any())

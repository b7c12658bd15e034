"""Groups of images that are never separated by a split: one coil, one part, one tile.

Groups come from images.csv or from a pattern over names. Without either, names that look grouped
give a hint.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from steelseg.core.arrays import Int64
from steelseg.core.errors import BadInput
from steelseg.data.listing import name_key

STEP, NUMBER = "step", "number"
_FEWEST_GROUPS = 3  # to suggest a rule; two could be two cameras
_RISES = 0.5  # least share of the images of a series whose step continues the last one's
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "images"})
_RULES = "^(.+)/", r"^(.+)[_-]\d+\.", r"^(.+)[ (]+\d+\)?\.", r"^((?:.*/)?[^/\d]*\d+)[ _(-]"
# where folders are another tool's splits, which divide parts, their names say nothing
_RULES_IN_SPLITS = r"([^/]+)[_-]\d+\.", r"([^/]+)[ (]+\d+\)?\.", r"([^/\d]*\d+)[ _(-]"


def merge(groups: Int64, keys: Sequence[str]) -> Int64:
    """Merge the groups whose images share a key; an empty key merges nothing.

    Args:
        groups: (n,) of each image, numbered from 0.
        keys: of each image.

    Returns:
        (n,), numbered from 0 in the order of the first groups that they merge.
    """
    n_groups = int(groups.max(initial=-1)) + 1
    numbers: dict[str, int] = {}
    edges = [
        (group, n_groups + numbers.setdefault(key, len(numbers)))
        for group, key in zip(groups.tolist(), keys, strict=True)
        if key
    ]
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    n_nodes = n_groups + len(numbers)
    graph = coo_array((np.ones(len(edges), dtype=bool), (rows, columns)), shape=(n_nodes, n_nodes))
    united: Int64 = connected_components(graph, directed=False)[1].astype(np.int64)
    return united[groups]


def is_in(group_by: str, names: Sequence[str]) -> bool:
    """Whether a pattern matches any name."""
    return any(re.search(group_by, name_key(name)) for name in names)


def keys_of(
    names: Sequence[str], group_by: str, option: str = "`stratified_split.group_by`"
) -> list[str]:
    """Return the group key of each name: the match of a pattern, or empty.

    The key is the pattern's first group, else the whole match. A pattern with the groups `step`
    and `number` finds series: ordered by number, a series begins wherever the step does not rise.
    `option` is the name of the pattern, for messages.

    Raises:
        BadInput: no name matches, or a step or number is not made of digits.
    """
    pattern = re.compile(group_by)
    found = [pattern.search(name_key(name)) for name in names]
    if not any(found):
        raise BadInput(
            f"{option}: the pattern '{group_by}' matches no image name, such as {names[0]!r}"
        )
    if {STEP, NUMBER} <= pattern.groupindex.keys():
        return _series(found, group_by, option)
    return [(match[1] if pattern.groups else match[0]) or "" if match else "" for match in found]


def suggest_rule(names: Sequence[str], combinations: Sequence[str]) -> str:
    """Return a pattern that groups names which look like several images of each part.

    Args:
        names: of the images.
        combinations: the classes that each shows; folders of one class each are not parts.

    Returns:
        The pattern, or an empty string if the names have no such structure.
    """
    if series := _find_series(names):
        return series
    folders = {step for name in names for step in name.split("/")[:-1]}
    for rule in _RULES_IN_SPLITS if folders and folders <= _SPLITS else _RULES:
        keys = [match[1] if (match := re.search(rule, name)) else "" for name in names]
        shown: dict[str, set[str]] = {}
        for key, combination in zip(keys, combinations, strict=True):
            shown.setdefault(key, set()).add(combination)
        members = len(keys) - keys.count("")
        n_groups = len(shown.keys() - {""})
        by_class = all(len(s) == 1 for s in shown.values()) and n_groups <= len(set(combinations))
        if _FEWEST_GROUPS <= n_groups <= members / 2 and members > len(names) / 2 and not by_class:
            return rule
    return ""


def _series(found: Sequence[re.Match[str] | None], group_by: str, option: str) -> list[str]:
    keys = [""] * len(found)
    try:
        steps = sorted(
            (int(match[NUMBER]), int(match[STEP]), at) for at, match in enumerate(found) if match
        )
    except (TypeError, ValueError):
        raise BadInput(
            f"{option}: expected digits as `{STEP}` and `{NUMBER}` wherever '{group_by}' matches"
        ) from None
    key, last = 0, -1
    for number, step, at in steps:
        if step <= last or not key:
            key = number + 1  # never 0
        keys[at], last = f"series {key}", step
    return keys


def _find_series(names: Sequence[str]) -> str:
    """Return the pattern of names with a rising step and a number each, or an empty string."""
    parts = [re.fullmatch(r"(\D*)(\d+)(\D+)(\d+)(\.\w+)", posixpath.basename(n)) for n in names]
    if len({(part[1], part[3]) if part else None for part in parts}) != 1 or not parts[0]:
        return ""
    steps = sorted((int(part[4]), int(part[2])) for part in parts if part)
    if len({number for number, _ in steps}) < len(steps):
        return ""
    rises = sum(after - before == 1 for (_, before), (_, after) in pairwise(steps))
    if rises < _RISES * len(steps) or len({step for _, step in steps}) > len(steps) / 2:
        return ""
    before, between = re.escape(parts[0][1]), re.escape(parts[0][3])
    return rf"{before}(?P<{STEP}>\d+){between}(?P<{NUMBER}>\d+)"


def hint(names: Sequence[str], combinations: Sequence[str]) -> Iterator[str]:
    """Warn if the names of images without given groups look grouped."""
    if rule := suggest_rule(names, combinations):
        yield (
            f"warning: names such as {names[0]!r} look like several images of one part; a part on "
            "both sides of a split inflates every score. If so, name the parts in images.csv, or "
            f"set -S \"stratified_split.group_by='{rule}'\""
        )

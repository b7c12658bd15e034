"""Groups of images that never stand on two sides of a split: one coil, one part, one tile.

Which group an image belongs to is said by images.csv, by a pattern over names, or not at all; then
names may look as if somebody should say it.
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
_FEWEST_GROUPS = 3  # that names suggest; two are two cameras
_RISES = 0.5  # share of the images in whose name a step follows on the last, in a series
_RULES = "^(.+)/", r"^(.+)[_-]\d+\."


def merge(groups: Int64, keys: Sequence[str]) -> Int64:
    """Unite the groups whose images share a key; an empty key unites nothing.

    Args:
        groups: (n,) of each image, numbered from 0.
        keys: of each image.

    Returns:
        (n,), numbered from 0 in the order of the first groups that they unite.
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


def keys_of(names: Sequence[str], group_by: str) -> list[str]:
    """Return the key of each name's group: what a pattern finds in it, empty for nothing.

    That is its first group, or all that it matches. A pattern with the groups `step` and `number`
    tells series: in the order of the numbers, one begins wherever the step does not rise.

    Raises:
        BadInput: no name fits, or a step or number is none.
    """
    pattern = re.compile(group_by)
    found = [pattern.search(name_key(name)) for name in names]
    if not any(found):
        raise BadInput(
            f"`stratified_split.group_by`: the pattern {group_by!r} fits no image's name, such as "
            f"{names[0]!r}"
        )
    if {STEP, NUMBER} <= pattern.groupindex.keys():
        return _series(found, group_by)
    return [(match[1] if pattern.groups else match[0]) or "" if match else "" for match in found]


def suggest_rule(names: Sequence[str], combinations: Sequence[str]) -> str:
    """Return the pattern that groups names which look like several images of one part each.

    Args:
        names: of the images.
        combinations: the classes that each shows; folders that hold one class each are no parts.

    Returns:
        The pattern, or nothing where names look like nothing in particular.
    """
    if series := _find_series(names):
        return series
    for rule in _RULES:
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


def _series(found: Sequence[re.Match[str] | None], group_by: str) -> list[str]:
    keys = [""] * len(found)
    try:
        steps = sorted(
            (int(match[NUMBER]), int(match[STEP]), at) for at, match in enumerate(found) if match
        )
    except (TypeError, ValueError):
        raise BadInput(
            f"`stratified_split.group_by`: expected digits as `{STEP}` and `{NUMBER}` wherever "
            f"{group_by!r} fits"
        ) from None
    key, last = 0, -1
    for number, step, at in steps:
        if step <= last or not key:
            key = number + 1  # a number, and never 0
        keys[at], last = f"series {key}", step
    return keys


def _find_series(names: Sequence[str]) -> str:
    """Return the pattern of names that hold a rising step and a number each, or nothing."""
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
    """Warn where names look grouped, of images of which nobody has said their groups."""
    if rule := suggest_rule(names, combinations):
        yield (
            f"warning: the names look like several images of one part each, such as {names[0]!r}; "
            "a part on two sides of a split flatters every score. If they are, name the parts in "
            f"images.csv, or set -S \"stratified_split.group_by='{rule}'\""
        )

"""The rows of all peers: results.json, and the table in docs/results.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steelseg.core.files import write_json

RESULTS = Path(__file__).parent / "results.json"
HEADER = (
    *("data set", "CPU minutes", "peer", "pair-Dice", "95% interval", "where there is a defect"),
    *("with our rules", "ms an image", "seed", "version"),
)


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Read all rows; there may be none yet."""
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return rows


def add(row: Mapping[str, Any], path: Path = RESULTS) -> list[dict[str, Any]]:
    """Add a row, in the order of the table, and return all."""
    rows = [*read(path), dict(row)]
    rows.sort(key=lambda r: (r["dataset"], r["budget"], -r["pair_dice"], r["seed"]))
    write_json(path, rows)
    return rows


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as a Markdown table."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    by_our_rules = row.get("pair_dice_by_our_rules")
    overrides = "".join(f" `{one}`" for one in row["overrides"])
    return (
        row["dataset"],
        f"{row['cpu_minutes']:.1f} of {row['budget']:g}",
        row["peer"] + overrides,
        f"{row['pair_dice']:.4f}",
        f"{row['pair_dice_low']:.4f} to {row['pair_dice_high']:.4f}",
        f"{row['positive_dice']:.4f}" if "positive_dice" in row else "",
        f"{by_our_rules:.4f}" if by_our_rules is not None else "",
        f"{row['ms_per_image']:.0f}",
        str(row["seed"]),
        row["version"],
    )

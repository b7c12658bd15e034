"""Makers of small annotated sources, and what they are read as."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from strategies import noise, to_bytes

from steelseg.core.classes import ClassInfo
from steelseg.data import rle
from steelseg.formats.record import Options, Record, Source

Mask = npt.NDArray[np.uint8]
CLASSES = [ClassInfo(1, "scratch", "#e69f00"), ClassInfo(2, "it's a pit: 3", "#56b4e9")]
GIVEN = Path(__file__).parent / "annotations"


def given_cases(name: str) -> Any:
    """Return what a tool itself wrote, and the pixels that it makes of it."""
    return json.loads((GIVEN / f"{name}.json").read_text())


def put_image(folder: Path, name: str, size_hw: tuple[int, int] = (6, 8), seed: int = 0) -> Path:
    """Write an image of noise."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(noise(seed, size_hw), "PNG"))
    return path


def put_json(folder: Path, name: str, value: object) -> Path:
    """Write a JSON document."""
    return put_text(folder, name, json.dumps(value))


def put_text(folder: Path, name: str, text: str) -> Path:
    """Write a text file."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(module: Any, folder: Path, **options: Any) -> tuple[Source, dict[str, Record]]:
    """Read a source to its end; the records by name."""
    source = module.read(folder, Options(**options))
    return source, {record.name: record for record in source.records}


def drawn(*rows: str) -> Mask:
    """Draw a mask, `#` for its pixels."""
    return np.array([[c == "#" for c in row] for row in rows], dtype=np.uint8)


def as_rle(masks: Mapping[str, Mask]) -> dict[str, str]:
    """Write masks by name, to be compared."""
    assert all(mask.dtype == np.uint8 and mask.max() <= 1 for mask in masks.values())
    return {name: rle.encode(mask) for name, mask in masks.items()}

"""JSON files with a checksum of their content, so that damage is found on reading."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steelseg.errors import BadInput
from steelseg.files import read_json, write_json

_SEAL = "sha256"


def write_sealed(path: Path, entries: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all, with the checksum of its entries among them."""
    write_json(path, {**entries, _SEAL: _digest(entries)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the checksum.

    Raises:
        BadInput: the file is missing, or its content is not what was written.
    """
    document = read_json(path)
    entries = {k: v for k, v in document.items() if k != _SEAL} if type(document) is dict else {}
    if not entries or document.get(_SEAL) != _digest(entries):
        raise BadInput(f"{path}: is damaged (its checksum differs); delete it and run `dvc repro`")
    return entries


def _digest(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()

"""JSON and Parquet files with a checksum of their content, so that reading detects damage."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from steelseg.core.errors import BadInput
from steelseg.core.files import atomic_path, read_json, write_json

_SEAL = "sha256"
_ROWS = 256


def write_sealed_json(path: Path, entries: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, with a checksum of its entries as a further entry."""
    write_json(path, {**entries, _SEAL: _digest(entries)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Read what `write_sealed_json` wrote, without the checksum.

    Raises:
        BadInput: the file is missing or damaged.
    """
    document = read_json(path)
    entries = {k: v for k, v in document.items() if k != _SEAL} if type(document) is dict else {}
    if not entries or document.get(_SEAL) != _digest(entries):
        raise BadInput(f"{path}: is damaged (its checksum differs); delete it and run `dvc repro`")
    return entries


def _digest(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def write_sealed_table(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet atomically, with a checksum of its content."""
    sealed = {**(table.schema.metadata or {}), _SEAL.encode(): content_digest(table)}
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(sealed), temporary)


def read_sealed_table(path: Path) -> pa.Table:
    """Read what `write_sealed_table` wrote.

    Raises:
        BadInput: the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:  # `read_table` turns folders named `a=b` into columns
            table = file.read()
        table.validate(full=True)
        metadata = dict(table.schema.metadata)
        seal = metadata.pop(_SEAL.encode())
        table = table.replace_schema_metadata(metadata or None)
        if seal != content_digest(table):
            raise BadInput(
                f"{path}: is damaged (its checksum differs); delete it and run `dvc repro`"
            )
        return table
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(
            f"{path}: is damaged, or not from this pipeline ({reason}); "
            "delete it and run `dvc repro`"
        ) from error


def content_digest(table: pa.Table) -> bytes:
    """Return the SHA-256 of columns and values, as hexadecimal digits.

    A file format's own checksums do not cover how the bytes are read.
    """
    metadata = sorted((table.schema.metadata or {}).items())
    columns = [(field.name, str(field.type)) for field in table.schema]
    digest = hashlib.sha256(repr((metadata, columns)).encode())
    for column in table.columns:
        for start in range(0, len(column), _ROWS):  # in pieces, to limit memory
            for value in column.slice(start, _ROWS).to_pylist():
                digest.update(f"{value!r},".encode())
    return digest.hexdigest().encode()

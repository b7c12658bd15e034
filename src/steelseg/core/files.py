"""Atomic file writes: to a temporary file, synced, then renamed into place."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelseg.core.errors import BadInput, SteelsegError

SEAL = ".sha256"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` when the block succeeds.

    Raises:
        SteelsegError: the disk is full or the folder is not writable; `path` is unchanged.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o644)
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise SteelsegError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes; NaN is an error."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BadInput: the file is missing, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (ValueError, RecursionError, OSError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from error


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the metrics of a stage.

    Raises:
        BadInput: the file is missing or contains none.
    """
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not metrics:
        raise BadInput(f"{path}: expected metrics by name; run `dvc repro -f {path.stem}`")
    return metrics


def repository_root() -> Path:
    """Return the repository's root; in a temporary experiment folder, that of the original."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal digits.

    Raises:
        BadInput: the file is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from error


def seal(path: Path, digest: str | None = None) -> None:
    """Write a file's checksum next to it, for `is_sealed`; computed if not given."""
    write_text(path.with_suffix(SEAL), digest or sha256(path))


def is_sealed(path: Path) -> bool:
    """Whether a file exists and is unchanged since it was sealed."""
    digest = path.with_suffix(SEAL)
    return digest.is_file() and path.is_file() and digest.read_text() == sha256(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Folders that survive an interrupted stage, so that the same command resumes it.

DVC deletes a stage's outputs before it runs the stage, and a persisted output could mix results of
different params. So unfinished work is kept in `.checkpoints/<stage>-<key>/` of the repository. The
key is a hash of everything the result depends on: params, inputs, and the code that dvc.yaml lists
for the stage. Different params, data or code have a different key and never use it.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steelseg.core.files import repository_root, sha256
from steelseg.core.params import read_yaml

ROOT = ".checkpoints"
CODE = ("src", "stages")  # deps under these folders are code, not data


@contextmanager
def work_folder(stage: str, identity: dict[str, Any], *, owner: bool = True) -> Iterator[Path]:
    """Yield the folder for a stage's unfinished work; it is deleted when the block succeeds.

    Args:
        stage: the stage's name in dvc.yaml.
        identity: params and hashes of inputs, JSON-serialisable; the code's hash is added here.
        owner: False in the other processes of a distributed training, which share the folder.

    If another run is using the folder, a fresh one is used instead.
    """
    text = json.dumps({**identity, "code": code_digests(stage)}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    root = repository_root() / ROOT
    if not owner:
        yield root / f"{stage}-{key}"
        return
    folder, lock = _claim(root, f"{stage}-{key}")
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def code_digests(stage: str, pipeline: Path = Path("dvc.yaml")) -> dict[str, str]:
    """Return the SHA-256 of each code file among a stage's deps in dvc.yaml, by path."""
    deps = read_yaml(pipeline)["stages"][stage]["deps"]
    return {str(path): sha256(path) for path in code_files(deps)}


def code_files(deps: Iterable[str]) -> list[Path]:
    """Return the code files among a stage's deps, sorted; packages are expanded."""
    code = [Path(dep) for dep in deps if Path(dep).parts[0] in CODE]
    inside = [path for folder in code for path in folder.rglob("*") if path.is_file()]
    files = [path for path in code if path.is_file()] + inside
    return sorted(path for path in files if "__pycache__" not in path.parts)


def _claim(root: Path, name: str) -> tuple[Path, int]:
    attempt = 0
    while True:
        folder = root / (name if attempt == 0 else f"{name}-{attempt}")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            attempt += 1
        else:
            if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                return folder, descriptor
            # its last owner has just finished and deleted it
        os.close(descriptor)

"""What a run was made of and on, as tags: data, fold, baseline, machine, and what a stage read."""

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from steelseg.core.checkpoints import CODE, code_files
from steelseg.core.device import has_gpu
from steelseg.core.params import PARAMS, read_yaml

LOCK, PIPELINE = Path("dvc.lock"), Path("dvc.yaml")


def experiment_tags() -> dict[str, str]:
    """Return the tags of an experiment: its name and baseline in DVC, and those of a run."""
    return {
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        **run_tags(),
    }


def run_tags() -> dict[str, str]:
    """Return the tags of any run: its data and its machine."""
    params = read_yaml(PARAMS)
    return {
        "dataset": str(params.get("dataset", "")),
        "fold": str(params.get("fold", "")),
        "host": socket.gethostname(),
        "device": device(),
    }


def stage_tags(stage: str) -> dict[str, str]:
    """Return the MD5 of each input of a stage as `dep.<path>`, and of all its code as `dep.code`.

    Files are hashed as they are; folders have the hash that dvc.lock knows, or none. Outside of a
    repository with that stage there are no tags.
    """
    deps = _deps(stage)
    if not deps:
        return {}
    code = hashlib.md5(usedforsecurity=False)
    for path in code_files(deps):
        code.update(_md5(path).encode())
    known = _locked()
    inputs = [dep for dep in deps if Path(dep).parts[0] not in CODE]
    md5s = {dep: _md5(Path(dep)) if Path(dep).is_file() else known.get(dep) for dep in inputs}
    tags = {f"dep.{dep}": md5 for dep, md5 in md5s.items() if md5}
    return {**tags, "dep.code": code.hexdigest()}


def device() -> str:
    """Name what this machine computes on: its GPUs, or its CPUs."""
    if has_gpu():
        import torch

        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"cpu ({psutil.cpu_count()} cores)"


def _deps(stage: str) -> list[str]:
    if not PIPELINE.is_file():
        return []
    params = read_yaml(PARAMS)
    stages = read_yaml(PIPELINE)["stages"]
    deps = stages.get(stage, {}).get("deps", [])
    return [re.sub(r"\$\{(\w+)\}", lambda m: str(params.get(m[1])), str(dep)) for dep in deps]


def _locked() -> dict[str, str]:
    """Return the MD5 of every input and output in dvc.lock, the latest stage's for each path."""
    return dict(_locked_entries(read_yaml(LOCK))) if LOCK.is_file() else {}


def _locked_entries(lock: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for stage in lock.get("stages", {}).values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
            if "md5" in entry:
                yield entry["path"], entry["md5"]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

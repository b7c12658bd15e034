"""Provenance of a run: params, data, code, baseline, machine, and the inputs of a stage."""

import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from steelseg.core.checkpoints import CODE, code_files
from steelseg.core.device import has_gpu
from steelseg.core.params import PARAMS, read_yaml
from steelseg.core.sealed import read_sealed_json

LOCK, PIPELINE, CARD = Path("dvc.lock"), Path("dvc.yaml"), Path("models/model.json")
TRAINING = "", "train"  # sections of params.yaml whose resolved values are in the card
AUTO = "auto"
CONTEXTS = {"train": "training", "tune_threshold": "validation"}  # what a stage uses the data for


def card() -> dict[str, Any]:
    """Return `models/model.json`, which records the training; empty if there is none."""
    return read_sealed_json(CARD) if CARD.is_file() else {}


def experiment_params(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return params.yaml as `section.name`, with each `auto` replaced by the value used.

    An experiment's run shows them, even if the trained model came from DVC's cache.
    """
    return dict(_flatten(read_yaml(PARAMS))) | _chosen(trained)


def experiment_tags(trained: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an experiment: how it was run, its DVC baseline, and those of any run."""
    name = os.environ.get("DVC_EXP_NAME", "")
    note = {"mlflow.note.content": f"`dvc exp apply {name}` restores it."} if name else {}
    return {
        "dvc.experiment": name,
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        AUTO: ", ".join(_chosen(trained)),
        **note,
        **_run_tags("dvc exp run" if name else "dvc repro"),
    }


def stage_tags(stage: str) -> dict[str, str]:
    """Return the tags of a stage's run, with the MD5s of its inputs and code.

    These are `dep.<path>` for each input, and `dep.code` for all of the code. Files are hashed;
    folders have their hash in dvc.lock, or none. Outside a repository with that stage there are
    none.
    """
    tags = _run_tags(f"stages/{stage}.py")
    deps = _deps(stage)
    if not deps:
        return tags
    known = _locked()
    inputs = [dep for dep in deps if Path(dep).parts[0] not in CODE]
    md5s = {dep: _md5(Path(dep)) if Path(dep).is_file() else known.get(dep) for dep in inputs}
    tags |= {f"dep.{dep}": md5 for dep, md5 in md5s.items() if md5}
    return {**tags, "dep.code": code_digest(stage)}


def code_digest(stage: str) -> str:
    """Return a hash of all code that dvc.yaml lists for a stage."""
    code = hashlib.md5(usedforsecurity=False)
    for path in code_files(_deps(stage)):
        code.update(_md5(path).encode())
    return code.hexdigest()


def dataset(trained: Mapping[str, Any]) -> Any:
    """Return MLflow's entity of the data: name, source and digest; None if not known."""
    from mlflow.entities import Dataset

    identity = trained.get("cache")
    if identity is None:
        return None
    params = read_yaml(PARAMS)
    name = str(params["dataset"])
    source = json.dumps({"uri": f"{params['data_root']}/{name}"})
    return Dataset(name, identity[:12], source_type="local", source=source)


def inputs(data: Any, stage: str) -> list[Any]:
    """Return a dataset as an MLflow input of a stage's run, with what it is used for."""
    from mlflow.entities import DatasetInput, InputTag

    context = CONTEXTS.get(stage)
    return [DatasetInput(data, [InputTag("mlflow.data.context", context)] if context else [])]


def device() -> str:
    """Return the name of the device that computes: the GPUs, or the CPU."""
    if has_gpu():
        import torch

        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"cpu ({psutil.cpu_count()} cores)"


def _run_tags(source: str) -> dict[str, str]:
    """Return the tags of any run: its source, data and machine."""
    params = read_yaml(PARAMS)
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or _head()
    return {
        "mlflow.source.name": source,
        "mlflow.source.type": "LOCAL",
        **({"mlflow.source.git.commit": commit} if commit else {}),
        "dataset": str(params.get("dataset", "")),
        "fold": str(params.get("fold", "")),
        "host": socket.gethostname(),
        "device": device(),
    }


def _head() -> str | None:
    from mlflow.utils.git_utils import get_git_commit

    return get_git_commit(".")


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _chosen(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that the training chose for parameters set to `auto`."""
    used = trained.get("training", {}) | {"encoder_weights": trained.get("pretrained", AUTO)}
    given = _flatten(read_yaml(PARAMS))
    split = [(name, *name.rpartition(".")[::2]) for name, value in given if value == AUTO]
    found = {name: used.get(leaf, AUTO) for name, section, leaf in split if section in TRAINING}
    return {name: value for name, value in found.items() if value != AUTO}


def _deps(stage: str) -> list[str]:
    if not PIPELINE.is_file():
        return []
    params = read_yaml(PARAMS)
    stages = read_yaml(PIPELINE)["stages"]
    deps = stages.get(stage, {}).get("deps", [])
    return [re.sub(r"\$\{(\w+)\}", lambda m: str(params.get(m[1])), str(dep)) for dep in deps]


def _locked() -> dict[str, str]:
    """Return the MD5 of every input and output in dvc.lock, by path; the last stage wins."""
    return dict(_locked_entries(read_yaml(LOCK))) if LOCK.is_file() else {}


def _locked_entries(lock: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for stage in lock.get("stages", {}).values():
        for entry in [*stage.get("deps", []), *stage.get("outs", [])]:
            if "md5" in entry:
                yield entry["path"], entry["md5"]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

"""Runs experiments through DVC's queue, each named by a hash of what its result depends on."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from steelseg.core.checkpoints import code_files
from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import sha256
from steelseg.core.params import PARAMS, read_yaml

PIPELINE = Path("dvc.yaml")


class Experiment(NamedTuple):
    """One run of the pipeline: its name in DVC and MLflow, and its overrides of params.yaml."""

    name: str
    overrides: tuple[str, ...]


def named(label: str, overrides: Sequence[str]) -> Experiment:
    """Return an experiment named by a label and a hash of the code and the overridden params.

    So the same command finds its earlier results, but none of other code or params. Must be called
    in the repository's root.

    Raises:
        BadInput: an override sets a key of a parameter that is not a section.
    """
    text = json.dumps([code_digest(), _overridden(read_yaml(PARAMS), overrides)], default=str)
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    slug = "-".join("".join(c if c.isalnum() else " " for c in label.lower()).split())
    return Experiment(f"{slug}-{key}", tuple(overrides))


def code_digest() -> str:
    """Return a hash of the pipeline's definition and all code its stages depend on."""
    stages = read_yaml(PIPELINE)["stages"].values()
    code = code_files({dep for stage in stages for dep in stage.get("deps", [])})
    text = " ".join(sha256(file) for file in [PIPELINE, *code])
    return hashlib.sha256(text.encode()).hexdigest()


def run_queued(experiments: Sequence[Experiment], target: str, jobs: int) -> None:
    """Run experiments up to the stage `target`, `jobs` at a time, in temporary folders.

    The caller checks which of them failed.

    Raises:
        SteelsegError: an experiment cannot be queued.
    """
    for experiment in experiments:
        _forget(experiment)
        queued = _dvc("run", "--queue", "--name", experiment.name, *_settings(experiment), target)
        if queued.returncode:
            raise SteelsegError(f"{experiment.name} cannot be queued: {queued.stderr.strip()}")
    if experiments:
        _dvc("run", "--run-all", "--jobs", str(jobs), show=True)


def run_here(experiment: Experiment) -> None:
    """Run the whole pipeline as an experiment in this folder, with its params and results.

    Raises:
        SteelsegError: a stage failed.
    """
    _forget(experiment)
    if _dvc("run", "--name", experiment.name, *_settings(experiment), show=True).returncode:
        raise SteelsegError(f"{experiment.name} failed; run the command again to continue")


def refuse_failed(failed: Sequence[Experiment], n_planned: int) -> None:
    """Raise an error if experiments failed, with the first one's name and where its output is.

    Raises:
        SteelsegError: at least one experiment failed.
    """
    if failed:
        name = failed[0].name
        raise SteelsegError(
            f"{len(failed)} of {n_planned} experiments failed, the first is {name}. See `dvc queue "
            f"status` and `dvc queue logs {name}`; run the command again to continue"
        )


def _forget(experiment: Experiment) -> None:
    """Free the name of an experiment to rerun; its stages stay in DVC's cache."""
    _dvc("remove", experiment.name)


def _dvc(*words: str, show: bool = False) -> subprocess.CompletedProcess[str]:
    command = ["dvc", "exp", *words]
    return subprocess.run(command, capture_output=not show, text=True, check=False)  # noqa: S603


def _overridden(params: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return params with overrides set as text, so that applying them keeps the hash."""
    for override in overrides:
        name, _, text = override.partition("=")
        *sections, leaf = name.lstrip("+").split(".")  # `+` adds a key that is not in the file
        values = params
        for section in sections:
            values = values.setdefault(section, {})
            if not isinstance(values, dict):
                raise BadInput(f"{override}: `{section}` is {values} in {PARAMS} and has no keys")
        values[leaf] = text
    return params


def _settings(experiment: Experiment) -> list[str]:
    return [word for override in experiment.overrides for word in ("-S", override)]

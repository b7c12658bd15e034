"""An ablation: switches of a recipe, tried one at a time under several seeds.

The plan is a YAML file. Each experiment is named by a hash of all that its result depends on, so
that the same command again runs only what is missing.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from steelseg.errors import BadInput
from steelseg.files import sha256
from steelseg.params import PARAMS, Config, read_yaml

BASELINE = "baseline"
CODE = (Path("dvc.yaml"), Path("stages"), Path("src"))


class Plan(Config):
    """What an ablation tries."""

    title: str
    """of the table"""
    base: list[str]
    """overrides of params.yaml that all experiments share, as `dvc exp run -S` takes them"""
    seeds: Annotated[list[int], Field(min_length=1)]
    """values of the parameter `seed`; each switch is compared with the baseline of the same seed"""
    switches: dict[str, Annotated[list[str], Field(min_length=1)]]
    """for each switch, what to call it and its overrides"""
    metric: str = "pair_dice"
    """the metric that is compared; greater is better"""


class Experiment(NamedTuple):
    """One training: a switch (or the baseline) under one seed."""

    name: str
    switch: str
    seed: int
    overrides: list[str]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        BadInput: it is no plan, or a switch bears the name of the baseline.
    """
    try:
        plan = Plan.model_validate(read_yaml(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{path}: `{where}`: {fault['msg'].lower()}") from error
    if BASELINE in plan.switches:
        raise BadInput(f"{path}: `switches`: {BASELINE!r} is what they are all compared with")
    return plan


def experiments(plan: Plan) -> Iterator[Experiment]:
    """Yield the experiments, seed by seed, so that an early table is as fair as a late one.

    Must be called in the repository's root: params.yaml and the code are part of the names.
    """
    recipe = [plan.base, sha256(PARAMS), code_digest()]
    for seed in plan.seeds:
        for switch, own in [(BASELINE, []), *plan.switches.items()]:
            overrides = [*plan.base, *own, f"seed={seed}"]
            text = json.dumps([recipe, overrides])
            key = hashlib.sha256(text.encode()).hexdigest()[:8]
            yield Experiment(f"ablation-{_slug(switch)}-{seed}-{key}", switch, seed, overrides)


def code_digest() -> str:
    """Hash the pipeline's definition and all Python code that its stages may run."""
    files = [f for path in CODE for f in ([path] if path.is_file() else path.rglob("*.py"))]
    text = " ".join(sha256(file) for file in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

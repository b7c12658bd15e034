"""Plans of ablations: switches of a recipe, tried one at a time with several seeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, ValidationError

from steelseg.core.errors import BadInput
from steelseg.core.params import Config, read_yaml
from steelseg.experiments.queue import Experiment, named

BASELINE = "baseline"


class Plan(Config):
    """What an ablation tries, as read from a YAML file."""

    title: str
    """of the table"""
    base: list[str]
    """overrides of params.yaml for all experiments, as for `dvc exp run -S`"""
    seeds: Annotated[list[int], Field(min_length=1)]
    """values of the parameter `seed`; each switch is compared with the baseline of the same seed"""
    switches: dict[str, Annotated[list[str], Field(min_length=1)]]
    """the overrides of each switch, by its name"""
    metric: str = "pair_dice"
    """the metric to compare; greater is better"""


class Trial(NamedTuple):
    """One experiment of a plan: a switch (or the baseline) with one seed."""

    switch: str
    seed: int
    experiment: Experiment


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        BadInput: the file is not a plan, or a switch is named like the baseline.
    """
    try:
        plan = Plan.model_validate(read_yaml(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{path}: `{where}`: {fault['msg'].lower()}") from error
    if BASELINE in plan.switches:
        raise BadInput(
            f"{path}: `switches`: {BASELINE!r} is reserved for the run without any of them"
        )
    return plan


def trials(plan: Plan) -> Iterator[Trial]:
    """Yield the experiments, seed by seed, so that an early table is as fair as a late one."""
    for seed in plan.seeds:
        for switch, own in [(BASELINE, []), *plan.switches.items()]:
            overrides = [*plan.base, *own, f"seed={seed}"]
            yield Trial(switch, seed, named(f"ablation-{switch}-{seed}", overrides))

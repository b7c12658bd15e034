"""Runs the experiments of an ablation through DVC's queue, and tables what MLflow knows of them."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from steelseg.ablation_plan import BASELINE, Experiment, Plan, experiments, read_plan
from steelseg.errors import BadInput, SteelsegError
from steelseg.files import write_text
from steelseg.tracking import EXPERIMENT, store_uri


class Result(NamedTuple):
    """What came of one experiment: the metric, and how long it took."""

    value: float
    minutes: float


def run(plan_path: Path, jobs: int) -> str:
    """Run what is missing of a plan, `jobs` experiments at a time, and return the table.

    Raises:
        SteelsegError: an experiment could not be queued, or failed.
    """
    plan = read_plan(plan_path)
    planned = list(experiments(plan))
    done = results(planned, plan.metric)
    missing = [e for e in planned if e.name not in done]
    print(f"{len(done)} of {len(planned)} experiments are done")  # noqa: T201
    for experiment in missing:
        _queue(experiment)
    if missing:
        subprocess.run(["dvc", "exp", "run", "--run-all", "-j", str(jobs)], check=False)  # noqa: S603, S607
        done = results(planned, plan.metric)
        failed = [e.name for e in planned if e.name not in done]
        if failed:
            raise SteelsegError(
                f"{len(failed)} of {len(planned)} experiments failed, the first {failed[0]}: see "
                f"`dvc queue status` and `dvc queue logs {failed[0]}`; the same command goes on"
            )
    return table(plan, planned, done)


def results(planned: Sequence[Experiment], metric: str) -> dict[str, Result]:
    """Look the finished experiments up in MLflow: results by name of experiment."""
    import mlflow

    client = mlflow.MlflowClient(store_uri())
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return {}
    runs = {
        e.name: client.search_runs([found.experiment_id], _finished(e), max_results=1)
        for e in planned
    }
    return {
        name: Result(parents[0].data.metrics[metric], _minutes(parents[0]))
        for name, parents in runs.items()
        if parents and metric in parents[0].data.metrics
    }


def table(plan: Plan, planned: Sequence[Experiment], done: Mapping[str, Result]) -> str:
    """Write the results as a Markdown table: mean and spread over the seeds of each switch.

    The difference to the baseline is taken seed by seed, so that what a seed does to both cancels.
    """
    by_switch = {
        switch: {e.seed: done[e.name] for e in planned if e.switch == switch and e.name in done}
        for switch in [BASELINE, *plan.switches]
    }
    baseline = by_switch[BASELINE]
    head = [
        f"### {plan.title}",
        "",
        f"`{plan.metric}`, mean ± standard deviation over the seeds "
        f"{', '.join(map(str, plan.seeds))}; all with `{' '.join(plan.base) or 'no overrides'}`.",
        "",
        "| switch | overrides | score | against the baseline, seed by seed | minutes |",
        "|---|---|---|---|---|",
    ]
    rows = (
        _row(switch, plan.switches.get(switch, []), of_seeds, baseline)
        for switch, of_seeds in by_switch.items()
    )
    return "\n".join([*head, *rows, ""])


def _queue(experiment: Experiment) -> None:
    settings = [word for override in experiment.overrides for word in ("-S", override)]
    command = ["dvc", "exp", "run", "--queue", "--force", "--name", experiment.name, *settings]
    queued = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if queued.returncode:
        raise SteelsegError(f"{experiment.name} cannot be queued: {queued.stderr.strip()}")


def _finished(experiment: Experiment) -> str:
    return f"tags.`dvc.experiment` = '{experiment.name}' and attributes.status = 'FINISHED'"


def _minutes(run: Any) -> float:
    return float(run.info.end_time - run.info.start_time) / 60_000


def _row(
    switch: str,
    overrides: Sequence[str],
    of_seeds: Mapping[int, Result],
    baseline: Mapping[int, Result],
) -> str:
    values = [result.value for result in of_seeds.values()]
    gains = [
        result.value - baseline[seed].value
        for seed, result in of_seeds.items()
        if seed in baseline and switch != BASELINE
    ]
    minutes = [result.minutes for result in of_seeds.values()]
    cells = [
        switch,
        " ".join(f"`{o}`" for o in overrides),
        _spread(values, ".4f"),
        _spread(gains, "+.4f"),
        f"{mean(minutes):.1f}" if minutes else "",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{deviation}"


def insert(page: Path, name: str, text: str) -> None:
    """Put text into a Markdown page, between the comments `<!-- name -->` and `<!-- /name -->`.

    Raises:
        BadInput: the page has no such comments.
    """
    before, start, rest = page.read_text().partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise BadInput(f"{page}: expected the comments <!-- {name} --> and <!-- /{name} -->")
    write_text(page, f"{before}{start}\n{text}{end}{after}")

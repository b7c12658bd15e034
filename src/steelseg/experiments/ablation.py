"""The command `ablation`: which switches of a recipe help more than another seed does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from steelseg.core.errors import BadInput
from steelseg.core.files import write_text
from steelseg.experiments.ablation_plan import BASELINE, Plan, Trial, read_plan, trials
from steelseg.experiments.queue import refuse_failed, run_queued
from steelseg.tracking.runs import STAGE_TAG
from steelseg.tracking.store import EXPERIMENT, open_store

TARGET = "tune_threshold"  # the last stage that the comparison needs
PAGE = Path("docs/results.md")


class Result(NamedTuple):
    """The result of one experiment: the metric, and the minutes of training, if it trained."""

    value: float
    minutes: float | None


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `ablation` to a parser and return the function that runs it."""
    parser.description = (
        "Try the switches of a plan one at a time, each with every seed, and compare them with "
        "the baseline in a table. Running the command again runs only what is missing."
    )
    parser.add_argument("plan", type=Path, help="a YAML file, such as docs/ablation.yaml")
    parser.add_argument("--jobs", type=int, default=1, help="parallel experiments (default: 1)")
    help_ = f"page for the table, between <!-- name --> and <!-- /name -->, such as {PAGE}"
    parser.add_argument("--page", type=Path, help=help_)
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    plan = read_plan(arguments.plan)
    planned = list(trials(plan))
    done = results(planned, plan.metric)
    missing = [trial.experiment for trial in planned if trial.experiment.name not in done]
    yield f"{len(done)} of {len(planned)} experiments are done"
    if missing:
        run_queued(missing, TARGET, arguments.jobs)
        done = results(planned, plan.metric)
    text = table(plan, planned, done)
    if arguments.page:
        insert(arguments.page, arguments.plan.stem, text)
    yield text
    refuse_failed([t.experiment for t in planned if t.experiment.name not in done], len(planned))


def results(planned: Sequence[Trial], metric: str) -> dict[str, Result]:
    """Return the results of the finished experiments in MLflow, by experiment name."""
    with open_store() as client:
        found = client.get_experiment_by_name(EXPERIMENT)
        names = [trial.experiment.name for trial in planned] if found else []
        looked_up = {name: _result(client, found.experiment_id, name, metric) for name in names}
    return {name: result for name, result in looked_up.items() if result}


def _result(client: Any, experiment: str, name: str, metric: str) -> Result | None:
    def newest(filter_: str) -> Any:
        return next(iter(client.search_runs([experiment], filter_, max_results=1)), None)

    def stage_run(stage: str) -> Any:
        of_parent = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
        finished = f"{of_parent} and attributes.status = 'FINISHED'"
        return newest(f"{finished} and tags.`{STAGE_TAG}` = '{stage}'")

    parent = newest(f"tags.`dvc.experiment` = '{name}'")
    measured = parent and stage_run(TARGET)
    if not measured or metric not in measured.data.metrics:
        return None
    return Result(measured.data.metrics[metric], _minutes(stage_run("train")))


def table(plan: Plan, planned: Sequence[Trial], done: Mapping[str, Result]) -> str:
    """Return the results as a Markdown table: mean and spread over the seeds, per switch.

    Differences from the baseline are taken seed by seed, so that the effect of the seed cancels.
    """
    by_switch = {
        switch: {
            trial.seed: done[trial.experiment.name]
            for trial in planned
            if trial.switch == switch and trial.experiment.name in done
        }
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


def _minutes(run: Any) -> float | None:
    return float(run.info.end_time - run.info.start_time) / 60_000 if run else None


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
    minutes = [result.minutes for result in of_seeds.values() if result.minutes is not None]
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

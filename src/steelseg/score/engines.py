"""Engines, which distribute shares of the images to `Scorer`s: local processes or Ray."""

import logging
import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from pathlib import Path
from typing import Any

from steelseg.core.errors import SteelsegError
from steelseg.predict.model import Model
from steelseg.score.worker import Scorer, ScoringJob, Tally

Share = list[str]
_scorer: Scorer  # in a worker process of the local engine


def run_local(job: ScoringJob, shares: Sequence[Share], workers: int) -> Iterator[Tally]:
    """Score on this machine: in this process, or in several that share its cores.

    Raises:
        SteelsegError: a worker was killed; running again scores what is missing.
    """
    if workers == 1:
        scorer = Scorer(job)
        yield from map(scorer.score, shares)
        return
    alone = job._replace(threads=job.threads or max(1, (os.cpu_count() or 1) // workers))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, context, _begin, (alone,)) as pool:
            yield from pool.map(_score, shares)
    except BrokenProcessPool as error:
        raise SteelsegError(
            "a worker was killed (out of memory?); run the command again to continue"
        ) from error


def run_ray(
    job: ScoringJob, shares: Sequence[Share], workers: int, address: str | None
) -> Iterator[Tally]:
    """Score on a Ray cluster, or on a temporary one that is started here.

    Ray Data streams the shares to `workers` actors that hold the model, and resends a share if its
    actor dies.

    Raises:
        SteelsegError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        ray: Any = import_module("ray")
        import_module("ray.data")
    except ImportError as error:
        raise SteelsegError(
            "the engine `ray` needs `make setup-extras`, or `pip install 'ray[data]'`"
        ) from error
    _connect(ray, address, workers)
    n_cpus = int(ray.cluster_resources().get("CPU", 1))
    n_gpus = int(ray.cluster_resources().get("GPU", 0)) if job.inference.runtime != "onnx" else 0
    threads = job.threads or max(1, n_cpus // workers)
    model = {name: path.read_bytes() for name, path in Model(job.model).files.items()}
    tallies = ray.data.from_items([{"images": share} for share in shares]).map_batches(
        _Actor,
        fn_constructor_args=(job._replace(threads=threads), ray.put(model)),
        batch_size=1,
        num_cpus=None if n_gpus else threads,
        num_gpus=gpu_share(workers, n_gpus) if n_gpus else None,
        concurrency=workers,
    )
    try:
        for row in tallies.iter_rows():
            yield Tally(int(row["scored"]), int(row["failed"]))
    finally:
        ray.shutdown()


def gpu_share(workers: int, n_gpus: int) -> float:
    """Return the share of a GPU per worker; several share one if there are more workers than GPUs.

    Ray places no worker on two GPUs, and would wait for workers that it cannot place.
    """
    return 1 / -(-workers // n_gpus)


class _Actor:
    """A Ray worker: unpacks the model on its machine and scores one share at a time."""

    def __init__(self, job: ScoringJob, model: Any) -> None:
        import ray

        folder = Path(tempfile.mkdtemp(prefix="steelseg-model-"))
        for name, data in ray.get(model).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        self.scorer = Scorer(job._replace(model=folder))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        tallies = [self.scorer.score(list(share)) for share in batch["images"]]
        return {"scored": [t.scored for t in tallies], "failed": [t.failed for t in tallies]}


def _connect(ray: Any, address: str | None, workers: int) -> None:
    """Connect to a cluster, or start one that only this machine can reach."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            code = {"py_modules": [str(Path(__file__).parents[1])]}
            ray.init(address=address, runtime_env=code, **quiet)
        else:
            n_cpus = max(workers, os.cpu_count() or 1)
            here = "127.0.0.1"
            ray.init(num_cpus=n_cpus, include_dashboard=False, _node_ip_address=here, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SteelsegError(f"the Ray cluster cannot be used: {reason}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _begin(job: ScoringJob) -> None:
    global _scorer
    _scorer = Scorer(job)


def _score(share: Share) -> Tally:
    return _scorer.score(share)

"""The command `score`: a registered model over any number of images, here or on a Ray cluster."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from steelseg.core.errors import SteelsegError
from steelseg.core.files import sha256
from steelseg.core.sealed import read_sealed_json
from steelseg.score.engines import run_local, run_ray
from steelseg.score.store import ScoreStore, find_images, place
from steelseg.score.worker import ScoringJob, Tally
from steelseg.tracking.mlflow_run import store_uri


class NamedModel(NamedTuple):
    """A model's folder, and the name of its version in the rows."""

    folder: Path
    version: str


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `score` to a parser and return what runs it."""
    parser.description = (
        "Score images with a model: a row for each image and class (RLE, area, confidence) in "
        "Parquet, and a row in _errors for each image that cannot be read. The same command again "
        "scores only what is missing."
    )
    add = parser.add_argument
    add("--model", required=True, help="models:/steelseg@champion, models:/steelseg/3, or a folder")
    add(
        "--images",
        required=True,
        help="a folder, a glob, a .parquet with a column `image`; or s3://",
    )
    add("--out", required=True, help="a folder, here or s3://")
    add(
        "--engine", choices=["local", "ray"], default="local", help="who schedules (default: local)"
    )
    add("--ray-address", help="of a running cluster (default: one is started here)")
    add("--workers", type=_positive, default=1, help="that hold the model (default: 1)")
    add("--threads", type=_positive, help="of each worker (default: the cores, shared out)")
    add("--runtime", choices=["auto", "torch", "onnx"], default="auto", help="as in params.yaml")
    add("--batch-size", type=_positive, default=1, help="images a step of the network (default: 1)")
    add("--share", type=_positive, default=256, help="images a file of rows (default: 256)")
    add("--retry-errors", action="store_true", help="try images again that stand in _errors")
    return _run


def find_model(uri: str) -> NamedModel:
    """Find a model in MLflow's registry or in a folder; the version of a folder is its weights'.

    Raises:
        SteelsegError: there is no such model.
    """
    if "://" not in uri and not uri.startswith(("models:", "runs:")):
        folder = Path(uri)
        return NamedModel(folder, read_sealed_json(folder / "model.json")["weights_sha256"][:12])
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    mlflow.set_tracking_uri(store_uri())
    try:
        version = ""
        if uri.startswith("models:"):  # the version first: an alias may move meanwhile
            resolve: Any = get_model_name_and_version  # which ships no types
            name, version = resolve(mlflow.MlflowClient(), uri)
            uri = f"models:/{name}/{version}"
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        # the outermost: those of the members of an ensemble stand further in
        card = next(iter(sorted(root.rglob("model.json"), key=lambda path: len(path.parts))))
        version = version or read_sealed_json(card)["weights_sha256"][:12]
    except (MlflowException, StopIteration) as error:
        reason = " ".join(str(error).split())[:300] or "it is no model of steelseg"
        raise SteelsegError(f"{uri}: cannot be loaded from {store_uri()}: {reason}") from error
    return NamedModel(card.parent, version)


def _run(arguments: Namespace) -> Iterator[str]:
    model = find_model(arguments.model)
    source = find_images(arguments.images)
    out = place(arguments.out)
    store = ScoreStore(out, model.version)
    store.claim({name: sha256(model.folder / name) for name in ("model.json", "postprocess.json")})
    if arguments.retry_errors:
        store.forget_errors()
    done = store.done()
    missing = [image for image in source.images if image not in done]
    yield f"model version {model.version}: {len(missing)} of {len(source.images)} images to score"
    job = ScoringJob(
        source.folder,
        out,
        model.version,
        model.folder,
        arguments.runtime,
        arguments.batch_size,
        arguments.threads,
    )
    size = arguments.share
    shares = [missing[i : i + size] for i in range(0, len(missing), size)]
    tallies: Iterable[Tally]
    if not shares:
        tallies = []
    elif arguments.engine == "ray":
        tallies = run_ray(job, shares, arguments.workers, arguments.ray_address)
    else:
        tallies = run_local(job, shares, arguments.workers)
    with tqdm(desc="scoring", total=len(missing), unit="image", disable=None) as bar:
        for tally in tallies:
            bar.update(tally.scored + tally.failed)
    yield check(store, source.images, len(read_sealed_json(model.folder / "model.json")["classes"]))


def check(store: ScoreStore, images: Sequence[str], n_classes: int) -> str:
    """Count what came out, and say so.

    Raises:
        SteelsegError: an image has neither rows nor an error, or the rows are not as many as there
            are images and classes.
    """
    scored, failed = store.scored(), store.failed()
    gaps = [image for image in images if image not in scored and image not in failed]
    if gaps:
        raise SteelsegError(f"{len(gaps)} images have no rows and no error, such as {gaps[0]}")
    n_rows = store.count_rows()
    if n_rows != len(scored) * n_classes:
        raise SteelsegError(
            f"{store.rows.path}: expected {n_classes} rows for each of {len(scored)} images, "
            f"but got {n_rows} in all"
        )
    return f"{len(scored)} images scored, {n_rows} rows, {len(failed)} errors: {store.rows.path}"


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number of at least 1"  # which argparse puts into its message

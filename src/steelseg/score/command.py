"""The command `score`: a registered model over any number of images, here or on a Ray cluster."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence

from tqdm import tqdm

from steelseg.core.errors import SteelsegError
from steelseg.core.files import sha256
from steelseg.model.card import CARD, RULES
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Model
from steelseg.score.engines import run_local, run_ray
from steelseg.score.source import find_images
from steelseg.score.store import ScoreStore, place
from steelseg.score.worker import ScoringJob, Tally


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
        help="a folder, a file, a glob, a .parquet with a column `image`; or s3://",
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


def _run(arguments: Namespace) -> Iterator[str]:
    inference = InferenceConfig(
        runtime=arguments.runtime, inference_batch_size=arguments.batch_size
    )
    model = Model.open(arguments.model, inference=inference)
    source = find_images(arguments.images)
    yield f"{arguments.images}: {source.found}"
    out = place(arguments.out)
    store = ScoreStore(out, model.version)
    store.claim({name: sha256(model.folder / name) for name in (CARD, RULES)})
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
        inference,
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
    yield check(store, source.images, len(model.classes))


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

"""The command `score`: scores any number of images, locally or on a Ray cluster."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from tqdm import tqdm

from steelseg.core.errors import SteelsegError
from steelseg.core.files import sha256
from steelseg.data.groups import keys_of
from steelseg.model.card import CARD, RULES
from steelseg.predict.inference import InferenceConfig
from steelseg.predict.model import Model
from steelseg.score.engines import run_local, run_ray
from steelseg.score.source import find_images
from steelseg.score.store import ScoreStore, place
from steelseg.score.worker import ScoringJob, Tally


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `score` to a parser and return the function that runs it."""
    parser.description = (
        "Score images with a model: writes one row per image and class (RLE, area, confidence, "
        "alarm) as Parquet, and one row in _errors per unreadable image. Running the command again "
        "scores only what is missing."
    )
    add = parser.add_argument
    add("--model", required=True, help="models:/steelseg@champion, models:/steelseg/3, or a folder")
    add(
        "--images",
        required=True,
        help="a folder, a file, a glob, or a .parquet with a column `image`; local or s3://",
    )
    add("--out", required=True, help="output folder, local or s3://")
    add(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="this machine or Ray (default: local)",
    )
    add("--ray-address", help="address of a running cluster (default: start one here)")
    add("--workers", type=_positive, default=1, help="processes that load the model (default: 1)")
    add("--threads", type=_positive, help="threads per worker (default: cores / workers)")
    add(
        "--runtime",
        choices=["auto", "torch", "onnx"],
        default="auto",
        help="what runs the network (default: torch on a GPU, else onnx)",
    )
    add("--batch-size", type=_positive, default=1, help="images per network call (default: 1)")
    add("--share", type=_positive, default=256, help="images per output file (default: 256)")
    add("--group-by", type=_pattern, help="pattern of the group in a path, such as '^(.+)/'")
    add("--retry-errors", action="store_true", help="retry the images in _errors")
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    inference = InferenceConfig(
        runtime=arguments.runtime, inference_batch_size=arguments.batch_size
    )
    model = Model.open(arguments.model, inference=inference)
    source = find_images(arguments.images)
    yield f"{arguments.images}: {source.found}"
    group_by = arguments.group_by
    keys = keys_of(source.images, group_by, "--group-by") if group_by else []
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
    if group_by:
        groups = {i: key for i, key in zip(source.images, keys, strict=True) if key}
        yield from judge(store, groups, model)


def check(store: ScoreStore, images: Sequence[str], n_classes: int) -> str:
    """Check that the output is complete, and return a summary of it.

    Raises:
        SteelsegError: an image has neither rows nor an error, or the number of rows is not that of
            images times classes.
    """
    scored, failed = store.scored(), store.failed()
    gaps = [image for image in images if image not in scored and image not in failed]
    if gaps:
        raise SteelsegError(f"{len(gaps)} images have neither rows nor an error, such as {gaps[0]}")
    n_rows = store.count_rows()
    if n_rows != len(scored) * n_classes:
        raise SteelsegError(
            f"{store.rows.path}: expected {n_classes} rows for each of {len(scored)} images, "
            f"but got {n_rows} in all"
        )
    return f"{len(scored)} images scored, {n_rows} rows, {len(failed)} errors: {store.rows.path}"


def judge(store: ScoreStore, groups: Mapping[str, str], model: Model) -> Iterator[str]:
    """Judge groups of images, named by image, and yield a summary of it."""
    in_order = store.judge_groups(groups, model.classes).groupby("group")["in_order"].first()
    verdicts = model.rules.verdicts
    unknown = in_order.isna().sum()
    yield (
        f"{len(in_order)} groups, {(in_order == False).sum()} not in order"  # noqa: E712
        f"{f', {unknown} unknown' if unknown else ''}: {store.groups.path}"
    )
    yield verdicts.clean_groups() if verdicts else "the model has no verdicts"


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError from error
    return text


_pattern.__name__ = "regular expression"  # argparse shows it in its message


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "number of at least 1"  # argparse shows it in its message

"""Models that answer together: the one of the pipeline, and members collected beside it.

A member is a copy of another model's folder, `models/members/<name>`, and its name is the beginning
of its weights' checksum. So the parameter `ensemble` alone says exactly which models answer.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from steelseg.errors import BadInput
from steelseg.files import repository_root, sha256
from steelseg.images import GreyImage
from steelseg.inference import InferenceConfig, Runtime, open_models, probability_maps
from steelseg.sealed_json import read_sealed
from steelseg.views import Probabilities, ViewsConfig

MEMBERS, NAME_DIGITS = "members", 12
CARD, WEIGHTS = "model.json", "model.safetensors"
FILES = (WEIGHTS, CARD, "model.onnx", "model.sha256")

T = TypeVar("T")


def add_member(source: Path, models: Path = Path("models")) -> str:
    """Copy a model's folder to the members of `models`, whole or not at all; return its name.

    Raises:
        BadInput: the folder holds no sound model.
    """
    name = _checked_name(source)
    target = models / MEMBERS / name
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target.parent) as temporary:
            copy = Path(temporary) / name
            copy.mkdir()
            for file in FILES:
                shutil.copyfile(source / file, copy / file)
            copy.rename(target)
    return name


def member_folders(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the models that answer: `folder` itself, then the members in the order of their names.

    Members are looked up in `folder`, and for experiments in temporary folders also in the models
    of the repository.

    Raises:
        BadInput: a member is missing, is not what its name says, or knows other classes.
    """
    return [folder, *(_find(folder, name) for name in names)]


def open_ensemble(
    folder: Path,
    views: ViewsConfig,
    runtime: str,
    threads: int | None = None,
    *,
    many: bool = False,
) -> Runtime:
    """Load a model and the members of its ensemble as one (see `steelseg.inference.open_runtime`).

    Raises:
        BadInput: a model is missing or damaged.
    """
    folders = member_folders(folder, views.ensemble)
    return open_models(folders, runtime, threads, many=many, views=views)


def by_fold(
    folders: Sequence[Path], fold: int, cache: str, folds_sha256: str
) -> dict[int, list[Path]]:
    """Sort models by the fold that they were validated on, none of whose images they have seen.

    Args:
        folders: the model of the pipeline first.
        fold: what that one was validated on.
        cache: the identity of the cache, on which all must have been trained.
        folds_sha256: the checksum of the table of folds, which all must have been trained by.

    Raises:
        BadInput: a member was trained on other data or folds.
    """
    sorted_: dict[int, list[Path]] = {fold: [folders[0]]}
    for folder in folders[1:]:
        card = read_sealed(folder / CARD)
        if card.get("cache") != cache or card.get("folds") != folds_sha256:
            raise BadInput(
                f"`ensemble`: {folder.name} was trained on other images, masks or folds, so that "
                "no score of it here would be honest"
            )
        sorted_.setdefault(card["fold"], []).append(folder)
    return dict(sorted(sorted_.items()))


def out_of_fold_maps(
    models: Mapping[int, Sequence[Path]],
    rows: Mapping[int, Sequence[T]],
    read: Callable[[T], GreyImage],
    inference: InferenceConfig,
    views: ViewsConfig,
) -> Iterator[tuple[T, Probabilities]]:
    """Yield rows with their probability maps (C, H, W), by models that have not seen them.

    Args:
        models: by the fold that they were validated on.
        rows: of each of these folds.
        read: turns a row into an image.
        inference: how the networks are run.
        views: the flips, turns and tiles.
    """
    for fold, folders in models.items():
        if rows.get(fold):
            runtime = open_models(folders, inference.runtime, many=True, views=views)
            yield from probability_maps(rows[fold], read, runtime, inference.inference_batch_size)


def _find(folder: Path, name: str) -> Path:
    places = [folder / MEMBERS / name, repository_root() / "models" / MEMBERS / name]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise BadInput(
            f"`ensemble`: {name}: no such folder in {folder / MEMBERS}; "
            "`python -m steelseg member` collects one"
        )
    if _checked_name(found) != name:
        raise BadInput(f"`ensemble`: {found}: holds another model than its name says")
    own, others = (read_sealed(place / CARD)["classes"] for place in (folder, found))
    if own != others:
        raise BadInput(f"`ensemble`: {name}: expected a model of classes {own}, but got {others}")
    return found


def _checked_name(folder: Path) -> str:
    digest = str(read_sealed(folder / CARD)["weights_sha256"])
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != digest:
        raise BadInput(f"{weights}: is missing or damaged")
    return digest[:NAME_DIGITS]

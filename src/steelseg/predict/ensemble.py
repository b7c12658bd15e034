"""Ensembles: the pipeline's model, and members collected next to it.

A member is a copy of another model's folder, `models/members/<name>`, named by the first digits of
its weights' checksum. So the parameter `ensemble` alone identifies the models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from steelseg.core.arrays import Pixels
from steelseg.core.errors import BadInput
from steelseg.core.files import repository_root
from steelseg.model.card import FILES, RULES, check_weights, read_card
from steelseg.predict.inference import InferenceConfig, open_models, probability_maps
from steelseg.predict.tiles import Maps
from steelseg.predict.views import ViewsConfig

MEMBERS = "members"

T = TypeVar("T")
R = TypeVar("R")


def member_folders(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the models of an ensemble: `folder` itself, then the members in the order of `names`.

    Members are looked up in `folder`, and for experiments in temporary folders also in the models
    of the repository.

    Raises:
        BadInput: the model is damaged, or a member is missing, does not match its name, is the
            model itself, or is for other classes or pixels.
    """
    if (own := checked_name(folder)) in names:
        raise BadInput(f"`ensemble`: {own} is {folder} itself, which is always included")
    return [folder, *(_find_sound(folder, name) for name in names)]


def files_of(folders: Sequence[Path]) -> dict[str, Path]:
    """List the files of an ensemble, by their paths in one common folder.

    Args:
        folders: from `member_folders`.
    """
    own, *members = folders
    listed = {name: own / name for name in (*FILES, RULES)}
    for member in members:
        listed |= {f"{MEMBERS}/{member.name}/{name}": member / name for name in FILES}
    return listed


def by_fold(
    folders: Sequence[Path], fold: int, cache: str, folds_sha256: str
) -> dict[int, list[Path]]:
    """Group models by the fold that they were validated on, whose images they have not seen.

    Args:
        folders: the model of the pipeline first.
        fold: the fold that it was validated on.
        cache: the identity of the cache that all must have been trained on.
        folds_sha256: the checksum of the table of folds that all must have been trained with.

    Raises:
        BadInput: a member was trained on other data or folds.
    """
    sorted_: dict[int, list[Path]] = {fold: [folders[0]]}
    for folder in folders[1:]:
        card = read_card(folder)
        if card.cache != cache or card.folds != folds_sha256 or card.fold is None:
            raise BadInput(
                f"`ensemble`: {folder.name} was trained on other images, masks or folds, so any "
                "score of it here would be biased"
            )
        sorted_.setdefault(card.fold, []).append(folder)
    return dict(sorted(sorted_.items()))


def out_of_fold_maps(
    models: Mapping[int, Sequence[Path]],
    rows: Mapping[int, Sequence[T]],
    read: Callable[[T], Pixels],
    inference: InferenceConfig,
    views: ViewsConfig,
    finish: Callable[[T, Maps], R],
) -> Iterator[tuple[T, R]]:
    """Yield rows with the result of `finish` on their maps, by models that have not seen them.

    Args:
        models: by the fold that they were validated on.
        rows: of each of these folds.
        read: loads the image of a row.
        inference: how the networks are run.
        views: the flips, turns and tiles.
        finish: called with a row and its probability maps, see `inference.answers`.
    """
    for fold, folders in models.items():
        if rows.get(fold):
            runtime = open_models(folders, inference, views, many=True)
            yield from probability_maps(rows[fold], read, runtime, finish)


def find(folder: Path, name: str) -> Path:
    """Find the folder of a member, without checking its contents.

    Raises:
        BadInput: it does not exist.
    """
    places = [folder / MEMBERS / name, repository_root() / "models" / MEMBERS / name]
    for place in places:
        if place.is_dir():
            return place
    raise BadInput(
        f"`ensemble`: there is no {places[0].resolve()}; `python -m steelseg member` collects one"
    )


def _find_sound(folder: Path, name: str) -> Path:
    found = find(folder, name)
    if checked_name(found) != name:
        raise BadInput(f"`ensemble`: {found}: contains another model than its name states")
    own, other = read_card(folder), read_card(found)
    if own.classes != other.classes:
        raise BadInput(
            f"`ensemble`: {name}: expected a model of classes {own.classes}, "
            f"but got {other.classes}"
        )
    if own.pixels != other.pixels:
        raise BadInput(
            f"`ensemble`: {name}: expected a model of images of {own.pixels.describe()}, "
            f"but got {other.pixels.describe()}"
        )
    return found


def checked_name(folder: Path) -> str:
    """Return the name that a model has as a member.

    Raises:
        BadInput: the folder holds no sound model.
    """
    card = read_card(folder)
    check_weights(folder, card)
    return card.name

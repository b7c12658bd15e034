"""Models that answer together: the one of the pipeline, and members collected beside it.

A member is a copy of another model's folder, `models/members/<name>`, and its name is the beginning
of its weights' checksum. So the parameter `ensemble` alone says exactly which models answer.
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
    """Find the models that answer: `folder` itself, then the members in the order of their names.

    Members are looked up in `folder`, and for experiments in temporary folders also in the models
    of the repository.

    Raises:
        BadInput: the model is damaged, or a member is missing, is not what its name says, is the
            model itself, or is for other classes or pixels.
    """
    if (own := checked_name(folder)) in names:
        raise BadInput(f"`ensemble`: {own} is {folder} itself, which answers without that")
    return [folder, *(_find_sound(folder, name) for name in names)]


def files_of(folders: Sequence[Path]) -> dict[str, Path]:
    """List the files of models that answer together, by their paths in one folder for them all.

    Args:
        folders: as `member_folders` finds them.
    """
    own, *members = folders
    listed = {name: own / name for name in (*FILES, RULES)}
    for member in members:
        listed |= {f"{MEMBERS}/{member.name}/{name}": member / name for name in FILES}
    return listed


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
        card = read_card(folder)
        if card.cache != cache or card.folds != folds_sha256 or card.fold is None:
            raise BadInput(
                f"`ensemble`: {folder.name} was trained on other images, masks or folds, so that "
                "no score of it here would be honest"
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
    """Yield rows with what `finish` makes of their maps, by models that have not seen them.

    Args:
        models: by the fold that they were validated on.
        rows: of each of these folds.
        read: turns a row into an image.
        inference: how the networks are run.
        views: the flips, turns and tiles.
        finish: is given a row and its probability maps, see `inference.answers`.
    """
    for fold, folders in models.items():
        if rows.get(fold):
            runtime = open_models(folders, inference, views, many=True)
            yield from probability_maps(rows[fold], read, runtime, finish)


def find(folder: Path, name: str) -> Path:
    """Find the folder of a member, without a look into it.

    Raises:
        BadInput: there is none.
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
        raise BadInput(f"`ensemble`: {found}: holds another model than its name says")
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

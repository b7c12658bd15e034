"""Models that answer together: the one of the pipeline, and members collected beside it.

A member is a copy of another model's folder, `models/members/<name>`, and its name is the beginning
of its weights' checksum. So the parameter `ensemble` alone says exactly which models answer.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from steelseg.core.errors import BadInput
from steelseg.core.files import is_sealed, repository_root, sha256
from steelseg.core.sealed import read_sealed_json
from steelseg.data.images import GreyImage
from steelseg.predict.inference import InferenceConfig, Runtime, open_models, probability_maps
from steelseg.predict.views import Probabilities, ViewsConfig

MEMBERS, NAME_DIGITS = "members", 12
CARD, WEIGHTS, EXPORT = "model.json", "model.safetensors", "model.onnx"
FILES, RULES = (WEIGHTS, CARD, EXPORT, "model.sha256"), "postprocess.json"

T = TypeVar("T")


def add_member(source: Path, models: Path = Path("models")) -> str:
    """Copy a model's folder to the members of `models`, whole or not at all; return its name.

    A member that is there already is left as it is, unless it has come to harm.

    Raises:
        BadInput: the folder holds no sound model.
    """
    name = _checked_name(source)
    if not is_sealed(source / EXPORT):
        raise BadInput(f"{source / EXPORT}: is missing or damaged; run `dvc repro export_onnx`")
    target = models / MEMBERS / name
    if not _is_sound(target, name):
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
            copy = Path(temporary) / name
            copy.mkdir()
            for file in FILES:
                shutil.copyfile(source / file, copy / file)
            if target.is_dir():
                target.rename(Path(temporary) / "harmed")
            copy.rename(target)
    return name


def member_folders(folder: Path, names: Sequence[str]) -> list[Path]:
    """Find the models that answer: `folder` itself, then the members in the order of their names.

    Members are looked up in `folder`, and for experiments in temporary folders also in the models
    of the repository.

    Raises:
        BadInput: a member is missing, is not what its name says, is the model itself, or is for
            other classes or images of another size.
    """
    for name in names:
        if str(read_sealed_json(folder / CARD)["weights_sha256"]).startswith(name):
            raise BadInput(f"`ensemble`: {name} is {folder} itself, which answers without that")
    return [folder, *(_find(folder, name) for name in names)]


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


def open_ensemble(
    folder: Path,
    views: ViewsConfig,
    runtime: str,
    threads: int | None = None,
    *,
    many: bool = False,
) -> Runtime:
    """Load a model and the members of its ensemble as one (see `open_runtime`).

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
        card = read_sealed_json(folder / CARD)
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
    own, other = (read_sealed_json(place / CARD) for place in (folder, found))
    for fact, what in (("classes", "classes"), ("size_hw", "images of")):
        if own.get(fact) != other.get(fact):
            raise BadInput(
                f"`ensemble`: {name}: expected a model of {what} {own.get(fact)}, "
                f"but got {other.get(fact)}"
            )
    return found


def _is_sound(member: Path, name: str) -> bool:
    try:
        return _checked_name(member) == name and is_sealed(member / EXPORT)
    except BadInput:
        return False


def _checked_name(folder: Path) -> str:
    digest = str(read_sealed_json(folder / CARD)["weights_sha256"])
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != digest:
        raise BadInput(f"{weights}: is missing or damaged")
    return digest[:NAME_DIGITS]

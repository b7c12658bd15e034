"""The command `member`: adds a model to those available for ensembles."""

import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from steelseg.core.errors import BadInput
from steelseg.core.files import is_sealed
from steelseg.model.card import EXPORT, FILES
from steelseg.predict.ensemble import MEMBERS, checked_name
from steelseg.registry.find import find_model


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `member` to a parser and return the function that runs it."""
    parser.description = "Copy a model to models/members, for an ensemble, and print its name."
    parser.add_argument("model", help="models:/steelseg/3, runs:/<id>/model, or a folder")
    return _run


def add_member(source: Path, models: Path = Path("models")) -> str:
    """Copy a model's folder to the members of `models` atomically; return its name.

    An existing member is left unchanged, unless it is damaged.

    Raises:
        BadInput: the folder has no intact model.
    """
    name = checked_name(source)
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


def _is_sound(member: Path, name: str) -> bool:
    try:
        return checked_name(member) == name and is_sealed(member / EXPORT)
    except BadInput:
        return False


def _run(arguments: Namespace) -> Iterator[str]:
    name = add_member(find_model(arguments.model).folder)
    yield f"member {name}; to predict with it and models/, pass -S 'ensemble=[{name}]'"

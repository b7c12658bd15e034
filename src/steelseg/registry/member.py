"""The command `member`: collects a model for an ensemble."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator

from steelseg.predict.ensemble import add_member
from steelseg.score.command import find_model


def command(parser: ArgumentParser) -> Callable[[Namespace], Iterator[str]]:
    """Add the arguments of `member` to a parser and return what runs it."""
    parser.description = "Copy a model to models/members, for an ensemble, and say its name."
    parser.add_argument("model", help="models:/steelseg/3, runs:/<id>/model, or a folder")
    return _run


def _run(arguments: Namespace) -> Iterator[str]:
    name = add_member(find_model(arguments.model).folder)
    yield f"member {name}; it answers together with models/ by -S 'ensemble=[{name}]'"

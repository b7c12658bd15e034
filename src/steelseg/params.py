"""Reads params.yaml into typed, frozen config objects and names every parameter that is wrong.

A config is a pydantic model that stands beside the code it configures. Its fields are looked up
first in the stage's section of params.yaml, then among the flat keys at the top level.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from steelseg.errors import BadInput, Faults

PARAMS = Path("params.yaml")


class Config(BaseModel):
    """Base of all configs: frozen, without coercion (`"3"` is no number), without extras."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


C = TypeVar("C", bound=BaseModel)


def load(config: type[C], section: str | None = None, path: Path = PARAMS) -> C:
    """Read the fields of `config` from `section` and from the top level of a params file.

    Raises:
        BadInput: parameters are unknown, missing, or of the wrong type or range; all are named.
    """
    document = read_yaml(path)
    flat = {name: document[name] for name in config.model_fields if name in document}
    own = document.get(section, {}) if section else {}
    if not isinstance(own, Mapping):
        raise BadInput(f"{path}: `{section}`: expected a section of parameters, but got {own!r}")
    try:
        return config.model_validate({**flat, **own})
    except ValidationError as error:
        faults = Faults(str(path))
        for details in error.errors():
            faults.add(_explain(details, config, document, section))
        faults.raise_if_any()
        raise


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping by YAML 1.2 rules, in which `1e-05` is a number.

    Raises:
        BadInput: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        document = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file in {Path.cwd()}") from None
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping of parameters, but got {document!r}")
    return document


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def _explain(
    details: ErrorDetails, config: type[BaseModel], document: Mapping[str, Any], section: str | None
) -> str:
    *parents, leaf = map(str, details["loc"])
    in_section = section is not None and (leaf if not parents else parents[0]) not in document
    name = ".".join([*([section] if in_section and section else []), *parents, leaf])
    if details["type"] == "extra_forbidden":
        return f"unknown parameter `{name}`{nearest(leaf, config.model_fields)}"
    if details["type"] == "missing":
        return f"parameter `{leaf}` is missing{nearest(leaf, document)}"
    message = details["msg"][0].lower() + details["msg"][1:]
    message = message.removeprefix("input should be ").removeprefix("value error, ")
    return f"`{name}`: expected {message}, but got {details['input']!r}"

"""Reads params.yaml into typed, frozen config objects and names every parameter that is wrong.

A config is a pydantic model that stands beside the code it configures. Its fields are looked up
first in the stage's section of params.yaml, then among the flat keys at the top level.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from steelseg.core.errors import BadInput, Faults, quote

PARAMS = Path("params.yaml")
_MAX_VALUES = 10_000
_MAX_DEPTH = 20
_MAX_BITS = 63


class Config(BaseModel):
    """Base of all configs: frozen, no coercion (`"3"` is no number), no extras, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


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
        raise BadInput(f"{path}: `{section}`: expected a section of parameters, not {quote(own)}")
    try:
        return config.model_validate({**flat, **own})
    except ValidationError as error:
        prefix = {str(name): f"{section}.{name}" for name in own}
        with Faults(str(path)) as faults:
            for message in _explain(error.errors(), {**flat, **own}, prefix, config, document):
                faults.add(message)
        raise


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping by YAML 1.2 rules, in which `1e-05` is a number.

    Raises:
        BadInput: the file is missing, is not YAML, holds no mapping, or holds values without end.
    """
    try:
        document = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file in {Path.cwd()}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise BadInput(f"{path}: {line}cannot be read as YAML: {error.problem}") from error
    except Exception as error:  # scalars such as `2020-13-45` raise what their constructors do
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping of parameters, but got {quote(document)}")
    _refuse_excess(document, path)
    return document


def _refuse_excess(document: dict[Any, Any], path: Path) -> None:
    """Refuse what aliases (`*name`) can make: values that hold themselves, or that multiply."""
    queue: list[tuple[Any, int]] = [(document, 0)]
    n_values = 0
    while queue:
        value, depth = queue.pop()
        n_values += 1
        if n_values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise BadInput(
                f"{path}: expected at most {_MAX_VALUES} values, nested {_MAX_DEPTH} deep"
            )
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise BadInput(f"{path}: expected numbers below 2**{_MAX_BITS}, but got {quote(value)}")
        if isinstance(value, dict | list | set):
            children = value.values() if isinstance(value, dict) else value
            queue += [(child, depth + 1) for child in children]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, sorted(map(str, known)), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def _explain(
    errors: list[ErrorDetails],
    values: Mapping[str, Any],
    prefix: Mapping[str, str],
    config: type[BaseModel],
    document: Mapping[str, Any],
) -> Iterator[str]:
    """Yield a message for each parameter that is wrong, however many types a union offers."""
    expected: dict[tuple[str, str], list[str]] = {}
    for details in errors:
        leaf = str(details["loc"][-1])
        if details["type"] == "missing":
            yield f"parameter `{leaf}` is missing{nearest(leaf, [*document, *values])}"
            continue
        first, *rest = _keys(details["loc"], values)
        name = ".".join([prefix.get(first, first), *rest])
        if details["type"] == "extra_forbidden":
            yield f"unknown parameter `{name}`{nearest(leaf, config.model_fields)}"
        else:
            alternatives = expected.setdefault((name, quote(details["input"])), [])
            alternatives.append(_expectation(details["msg"]))
    for (name, got), alternatives in expected.items():
        # of `str | dict[str, float]`, a dict with a wrong value is only wrong in that
        if not any(other.startswith(f"{name}.") for other, _ in expected):
            yield f"`{name}`: expected {' or '.join(alternatives)}, but got {got}"


def _keys(location: tuple[int | str, ...], values: Any) -> list[str]:
    """Keep the keys and indices of a location, into which pydantic mixes the names of types."""
    keys = []
    for key in location:
        try:
            values = values[key]
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(str(key))
    return keys or [str(location[0])]


def _expectation(message: str) -> str:
    message = message[0].lower() + message[1:]
    for start in ("input should be ", "value error, ", "list should have "):
        message = message.removeprefix(start)
    return message

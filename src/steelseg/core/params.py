"""Reads params.yaml into typed, frozen config objects and reports every wrong parameter.

A config is a pydantic model, defined next to the code it configures. Its fields are looked up first
in the stage's section of params.yaml, then among the keys at the top level.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from steelseg.core.errors import BadInput, Faults, quote

PARAMS = Path("params.yaml")


class Config(BaseModel):
    """Base of all configs: frozen, no coercion (`"3"` is no number), no extras or infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


C = TypeVar("C", bound=BaseModel)


def load(config: type[C], section: str | None = None, path: Path = PARAMS) -> C:
    """Read the fields of `config` from `section` and from the top level of a params file.

    A value for a `str` field is taken as it was typed, even if YAML parses it as something else,
    so that a data set can be named 2024.

    Raises:
        BadInput: parameters are unknown, missing, of the wrong type or out of range; lists all.
    """
    document = read_yaml(path)
    flat = {name: document[name] for name in config.model_fields if name in document}
    own = document.get(section, {}) if section else {}
    if not isinstance(own, Mapping):
        raise BadInput(f"{path}: `{section}`: expected a section of parameters, not {quote(own)}")
    values = {**flat, **own}
    values |= _typed_texts(config, values, section, path)
    try:
        return config.model_validate(values)
    except ValidationError as error:
        prefix = {str(name): f"{section}.{name}" for name in own}
        with Faults(str(path)) as faults:
            for message in _explain(error.errors(), values, prefix, config, document):
                faults.add(message)
        raise


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping by YAML 1.2 rules, in which `1e-05` is a number.

    Raises:
        BadInput: the file is missing, is not YAML, or is not a mapping.
    """
    try:
        document = deepcopy(_parse(path.read_bytes()))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file in {Path.cwd()}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise BadInput(f"{path}: {line}cannot be read as YAML: {error.problem}") from error
    except Exception as error:  # scalars such as `2020-13-45` raise errors of their constructors
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: cannot be read as YAML: {reason}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping of parameters, but got {quote(document)}")
    return document


@lru_cache(maxsize=8)  # a process reads params.yaml once for each config: 10 ms of pure Python each
def _parse(content: bytes) -> Any:
    return YAML(typ="safe", pure=True).load(content)


def read_texts(path: Path) -> dict[str, Any]:
    """Read a YAML mapping with every value as the text that was typed: `007`, not 7."""
    texts: dict[str, Any] = YAML(typ="base", pure=True).load(path)
    return texts


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean ...?` for the known name nearest to `name`, or an empty string."""
    close = difflib.get_close_matches(name, sorted(map(str, known)), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def _typed_texts(
    config: type[BaseModel], values: Mapping[str, Any], section: str | None, path: Path
) -> dict[str, str]:
    """Return the typed text of non-string values given for string fields of `config`."""
    fields = config.model_fields
    taken = [name for name in values if name in fields and _is_taken(values[name], fields[name])]
    if not taken:
        return {}
    document = read_texts(path)
    texts = {**document, **(document.get(section or "") or {})}
    return {name: texts[name] for name in taken if texts[name]}


def _is_taken(value: Any, field: FieldInfo) -> bool:
    """Whether YAML parsed as something else what is meant as text."""
    if isinstance(value, str | Mapping | list):
        return False
    return field.annotation is str or (field.annotation == str | None and value is not None)


def _explain(
    errors: list[ErrorDetails],
    values: Mapping[str, Any],
    prefix: Mapping[str, str],
    config: type[BaseModel],
    document: Mapping[str, Any],
) -> Iterator[str]:
    """Yield one message per wrong parameter; the alternatives of a union are merged."""
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
        # for `str | dict[str, float]`, report a wrong value in a dict, not the dict
        if not any(other.startswith(f"{name}.") for other, _ in expected):
            yield f"`{name}`: expected {' or '.join(alternatives)}, but got {got}"


def _keys(location: tuple[int | str, ...], values: Any) -> list[str]:
    """Return the keys and indices of a location, without the type names that pydantic adds."""
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

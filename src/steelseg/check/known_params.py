"""Compares params.yaml with dvc.yaml and dvc.lock: unknown and changed parameters."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steelseg.core.errors import Faults
from steelseg.core.params import nearest, read_texts, read_yaml

_TEMPLATE = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)")


def refuse_unknown(params: Path, pipeline: Path) -> None:
    """Check that some stage reads every top-level entry of a params file.

    Each stage checks its own section. A mistyped name at the top level would be read by no stage
    and have no effect.

    Raises:
        BadInput: no stage reads an entry; lists all such entries.
    """
    known = declared(read_yaml(pipeline))
    with Faults(str(params)) as faults:
        for name in read_yaml(params):
            if name not in known:
                faults.add(f"unknown parameter `{name}`{nearest(str(name), known)}")


def refuse_retyped(params: Path, pipeline: Path) -> None:
    """Check that DVC templates parameters as typed: it turns `007` into 7, and `null` into None.

    Raises:
        BadInput: it does not; lists all such parameters, with what to write instead.
    """
    values, texts = read_yaml(params), read_texts(params)
    with Faults(str(params)) as faults:
        for name in sorted(set(_TEMPLATE.findall(str(read_yaml(pipeline))))):
            value, text = _look_up(values, name), _look_up(texts, name)
            if isinstance(value, str | Mapping | list) or not text:
                continue  # strings stay as they are; the stages refuse the others
            written = str(value).lower() if isinstance(value, bool) else str(value)
            if written != text:
                faults.add(
                    f"`{name}`: DVC would read {text} as {written}; put it in quotes: '{text}'"
                )


def declared(pipeline: Mapping[str, Any]) -> set[str]:
    """Return the top-level names of all parameters that a dvc.yaml uses."""
    names = _TEMPLATE.findall(str(pipeline))
    for stage in pipeline["stages"].values():
        names += map(str, stage.get("params", []))
    return {name.split(".")[0] for name in names}


def changed(
    pipeline: Mapping[str, Any], params: Mapping[str, Any], lock: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the stages whose parameters differ from those of their last run in dvc.lock."""
    for name, stage in pipeline["stages"].items():
        asked = {key: params.get(key) for key in stage.get("params", [])}
        if asked != accepted(lock, name):
            yield name


def accepted(lock: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return the parameters of a stage's last run in dvc.lock; empty if it never ran."""
    known: dict[str, dict[str, Any]] = lock.get("stages", {}).get(stage, {}).get("params", {})
    return known.get("params.yaml", {})


def _look_up(document: Mapping[str, Any], name: str) -> Any:
    value: Any = document
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value

"""What params.yaml says, held against what dvc.yaml asks for: unknown names, and changed ones."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steelseg.core.errors import Faults
from steelseg.core.params import nearest, read_texts, read_yaml

_TEMPLATE = re.compile(r"\$\{\s*([A-Za-z_][\w.]*)")


def refuse_unknown(params: Path, pipeline: Path) -> None:
    """Check that some stage reads every top-level entry of a params file.

    Within the section of a stage it is the stage itself that checks; but what stands at the top
    level and is mistyped would be read by none, and change nothing.

    Raises:
        BadInput: an entry is read by no stage; all such entries are named.
    """
    known = declared(read_yaml(pipeline))
    with Faults(str(params)) as faults:
        for name in read_yaml(params):
            if name not in known:
                faults.add(f"unknown parameter `{name}`{nearest(str(name), known)}")


def refuse_retyped(params: Path, pipeline: Path) -> None:
    """Check that DVC puts into paths what was typed: of `007` it makes 7, and of `null` None.

    Raises:
        BadInput: it does not; all such parameters are named, with what to write instead.
    """
    values, texts = read_yaml(params), read_texts(params)
    with Faults(str(params)) as faults:
        for name in sorted(set(_TEMPLATE.findall(str(read_yaml(pipeline))))):
            value, text = _look_up(values, name), _look_up(texts, name)
            if isinstance(value, str | Mapping | list) or not text:
                continue  # a text stays what it is; the others are refused by their stages
            written = str(value).lower() if isinstance(value, bool) else str(value)
            if written != text:
                faults.add(
                    f"`{name}`: DVC would read {text} as {written}; put it in quotes: '{text}'"
                )


def declared(pipeline: Mapping[str, Any]) -> set[str]:
    """Return the top-level names of all parameters that a dvc.yaml reads."""
    names = _TEMPLATE.findall(str(pipeline))
    for stage in pipeline["stages"].values():
        names += map(str, stage.get("params", []))
    return {name.split(".")[0] for name in names}


def changed(
    pipeline: Mapping[str, Any], params: Mapping[str, Any], lock: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the stages whose parameters are others than dvc.lock has of their last run."""
    for name, stage in pipeline["stages"].items():
        asked = {key: params.get(key) for key in stage.get("params", [])}
        if asked != accepted(lock, name):
            yield name


def accepted(lock: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Return the parameters that a stage last ran with, by dvc.lock; none if it never did."""
    known: dict[str, dict[str, Any]] = lock.get("stages", {}).get(stage, {}).get("params", {})
    return known.get("params.yaml", {})


def _look_up(document: Mapping[str, Any], name: str) -> Any:
    value: Any = document
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value

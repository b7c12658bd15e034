"""Which parameters the pipeline reads, as dvc.yaml declares it, and which ones nobody reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steelseg.core.errors import Faults
from steelseg.core.params import nearest, read_yaml

_TEMPLATE = re.compile(r"\$\{\s*([A-Za-z_]\w*)")


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


def declared(pipeline: Mapping[str, Any]) -> set[str]:
    """Return the top-level names of all parameters that a dvc.yaml reads."""
    names = set(_TEMPLATE.findall(str(pipeline)))
    for stage in pipeline["stages"].values():
        names |= {str(name).split(".")[0] for name in stage.get("params", [])}
    return names

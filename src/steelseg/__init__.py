"""Defect segmentation on steel surfaces.

The public names are loaded when they are asked for, so that importing the package is quick.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steelseg.predict.model import Finding, Model

__all__ = ["Finding", "Model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from steelseg.predict import model

    return getattr(model, name)

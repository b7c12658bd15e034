"""The parameters of the stage `report`, in a separate module that imports fast."""

from typing import Annotated

from pydantic import Field

from steelseg.core.params import Config


class ReportConfig(Config):
    """Parameters of the stage `report`."""

    dataset: str
    examples_per_class: Annotated[int, Field(ge=0)]
    """annotated images per class, from its largest area to its smallest"""
    crops: Annotated[int, Field(ge=0)]
    """the first augmented crops of the first epoch"""
    gallery_images: Annotated[int, Field(ge=0)]
    """validation images of each kind: best, worst, surprising"""

"""The model that users take away: MLflow runs this file to build it ("models from code").

Input: a DataFrame with a column `image`, the bytes of an image file each (base64 where a request is
text). Output: a row for every image and class, in that order, with `image` (the row's number in the
input), `class_id`, `rle` (empty for no defect), `area` in pixels and `confidence`. An image that
cannot be read is refused with its number and the reason; a server answers so with status 400.

Nothing of the machine is opened for a request: a path or an address is no image here. In Python,
`steelseg.Model` reads paths.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from steelseg.core.arrays import Uint8
from steelseg.core.errors import BadInput, quote
from steelseg.data.images import decode_grey
from steelseg.predict.model import Model

COLUMNS = ["image", "class_id", "rle", "area", "confidence"]


class ServedModel(PythonModel):
    """Decoding, network and post-processing in one, exactly as the stage `predict` has them."""

    def load_context(self, context: Any) -> None:
        """Open the model of the artifact folder `model`."""
        self.model = Model(Path(context.artifacts["model"]))
        self.model.runtime(many=False)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return the masks of all images.

        Raises:
            MlflowException: an image cannot be read; with the error code of a bad request.
        """
        return pd.DataFrame(self._rows(list(model_input["image"])), columns=COLUMNS)

    def _rows(self, images: list[Any]) -> Iterator[tuple[Any, ...]]:
        numbered = enumerate(images)
        outcomes = self.model.outcomes(numbered, lambda item: decode(item[1]), many=False)
        for (number, _), findings in outcomes:
            if isinstance(findings, BadInput):
                raise MlflowException.invalid_parameter_value(f"image {number}: {findings}")
            for found in findings:
                yield number, found.class_id, found.rle, found.area, found.confidence


def decode(image: Any) -> Uint8:
    """Decode an image file's bytes, or their base64 (standard or url-safe), to (H, W) uint8.

    Raises:
        BadInput: it is something else.
    """
    if isinstance(image, str):
        try:
            standard = image.translate(str.maketrans("-_", "+/"))
            image = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise BadInput(
                f"expected the base64 of an image file's bytes, but got {quote(image)}"
            ) from None
    if not isinstance(image, bytes):
        raise BadInput(f"expected an image file's bytes, but got {quote(image)}")
    return decode_grey(image)


set_model(ServedModel())

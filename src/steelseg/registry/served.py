"""The model that users take away: MLflow runs this file to build it ("models from code").

Input: a DataFrame with a column `image`, the bytes of an image file or the path of one. Output: a
row for every image and class, in that order, with `image` (the row's number in the input),
`class_id`, `rle` (empty for no defect), `area` in pixels and `confidence`. An image that cannot be
read is refused with its number and the reason; a server answers so with status 400.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_json
from steelseg.data.images import GreyImage, decode_grey, read_grey
from steelseg.predict.ensemble import member_folders, open_ensemble
from steelseg.predict.inference import probability_maps
from steelseg.predict.postprocess import postprocess
from steelseg.predict.rules import read_rules

COLUMNS = ["image", "class_id", "rle", "area", "confidence"]


class ServedModel(PythonModel):
    """Decoding, network and post-processing in one, exactly as the stage `predict` has them."""

    def load_context(self, context: Any) -> None:
        """Load the network and the tuned rules from the artifact folder `model`."""
        folder = Path(context.artifacts["model"])
        weights = read_sealed_json(folder / "model.json")["weights_sha256"]
        self.rules, _, views = read_rules(folder / "postprocess.json", weights)
        exports = [model / "model.onnx" for model in member_folders(folder, views.ensemble)]
        has_onnx = all(export.stat().st_size > 0 for export in exports)
        self.runtime = open_ensemble(folder, views, "onnx" if has_onnx else "torch")

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return the masks of all images.

        Raises:
            MlflowException: an image cannot be read; with the error code of a bad request.
        """
        return pd.DataFrame(self._rows(list(model_input["image"])), columns=COLUMNS)

    def _rows(self, images: list[bytes | str]) -> Iterator[tuple[Any, ...]]:
        numbered = list(enumerate(images))
        for (number, _), maps in probability_maps(numbered, _read, self.runtime, 1):
            for (class_id, rule), probability_hw in zip(self.rules.items(), maps, strict=True):
                yield (number, class_id, *postprocess(probability_hw, rule))


def _read(item: tuple[int, bytes | str]) -> GreyImage:
    number, image = item
    try:
        return read_grey(Path(image)).image_hw if isinstance(image, str) else decode_grey(image)
    except BadInput as error:
        raise MlflowException.invalid_parameter_value(f"image {number}: {error}") from error


set_model(ServedModel())

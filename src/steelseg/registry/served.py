"""The model as MLflow serves it; MLflow runs this file to build it ("models from code").

Input: a DataFrame with a column `image`: the bytes of an image file, or their base64. Output: one
row per image and class, in that order, with `image` (the row number in the input), `class_id`,
`class_name`, `rle` (empty for no defect), `area` in pixels, and `confidence`, `alarm` and
`area_mm2` as in `steelseg.Finding`. An image that cannot be read is an error with its number and
the reason; a server answers with status 400.

No path or URL in a request is opened. In Python, `steelseg.Model` reads paths.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from steelseg.core.errors import BadInput
from steelseg.predict.model import Model
from steelseg.registry.request import decode, images_of

COLUMNS = [
    *("image", "class_id", "class_name", "rle", "area"),
    *("confidence", "alarm", "area_mm2"),
]
SERVER = "mlflow.pyfunc.scoring_server"
LARGER = 4  # times the pixels of the training images: the limit for images
ALWAYS = 2**21  # pixels that are always allowed, such as 1080x1920; our network uses 0.8 GB
TURN = 8  # images after which another request gets its turn
PATIENCE = 0.9  # share of the server's time limit, after which to give up


class ServedModel(PythonModel):
    """Decoding, network and post-processing in one, exactly as in the stage `predict`."""

    def load_context(self, context: Any) -> None:
        """Open the model of the artifact folder `model`; in a server, take over its requests.

        MLflow's own `invocations` is unsafe with untrusted input, see `request.py`.
        """
        self.model = Model(Path(context.artifacts["model"]))
        self.model.runtime(many=False)
        self.max_pixels = max(ALWAYS, LARGER * math.prod(self.model.card.size_hw))
        self.turn = Lock()  # limits memory to one image, however many requests there are
        if f"{SERVER}.app" in sys.modules:
            sys.modules[SERVER].invocations = self.answer  # type: ignore[attr-defined]

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """Return one row per image and class.

        Raises:
            MlflowException: an image cannot be read; has the error code of a bad request.
        """
        try:
            return pd.DataFrame(self._rows(list(model_input["image"])), columns=COLUMNS)
        except BadInput as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error

    def answer(self, data: bytes, content_type: str | None, *_: Any) -> Any:
        """Return the response to a request: rows, or status 400 or 500 with one sentence."""
        limit: Any = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT  # of an untyped class
        until = time.monotonic() + PATIENCE * limit.get()
        answer: dict[str, Any]
        try:
            rows = self._rows(images_of(data, content_type), until)
            answer = {"predictions": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}
            status = 200
        except BadInput as error:
            answer = {"error_code": "INVALID_PARAMETER_VALUE", "message": str(error)}
            status = 400
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            message = "the model failed; see the server's log"
            answer = {"error_code": "INTERNAL_ERROR", "message": message}
            status = 500
        response: Any = sys.modules[SERVER].InvocationsResponse
        return response(json.dumps(answer), status, "application/json")

    def _rows(self, images: Sequence[Any], until: float = math.inf) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(images), TURN):
            numbered = enumerate(images[start : start + TURN], start)
            with self.turn:
                outcomes = self.model.outcomes(numbered, self._decode, many=False)
                for (number, _), findings in outcomes:
                    if isinstance(findings, BadInput):
                        raise BadInput(f"image {number}: {findings}")
                    done = number + 1
                    if done < len(images) and time.monotonic() > until:
                        raise BadInput(
                            f"expected fewer images at once: {done} of {len(images)} were done in "
                            "the server's time limit; send fewer, or serve with a longer --timeout"
                        )
                    for one in findings:
                        what = one.class_id, one.class_name, one.rle, one.area
                        yield number, *what, one.confidence, one.alarm, one.area_mm2

    def _decode(self, numbered: tuple[int, Any]) -> Any:
        return decode(numbered[1], self.model.card.pixels, self.max_pixels)


set_model(ServedModel())

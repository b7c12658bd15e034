"""The file postprocess.json: the tuned rule of every class, for a model and its views.

It also holds the verdicts: how sure the model must be of a defect to call an image an alarm (see
`steelseg.quality.verdicts`), and what the model answered for a small image when it was tuned. A
processor, a runtime or a precision that answers differently makes other masks of the same rules, so
whoever opens the model asks it again.
"""

import base64
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pydantic import ValidationError

from steelseg.core.arrays import Float64, Pixels
from steelseg.core.errors import BadInput
from steelseg.core.pixels import batch_of, size_of
from steelseg.core.sealed import read_sealed_json, write_sealed_json
from steelseg.core.sizes import pad
from steelseg.model.card import CARD, RULES, Card
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.views import Network, ViewsConfig
from steelseg.quality.verdicts import Verdicts

PROBE_SIDE = 128  # pixels; enough context for a pixel, and fast to run
_CELLS = 8  # per side, whose mean probabilities are kept
_TOLERANCE = 0.02  # of such a mean; float32 runtimes differ by 1e-5, half precision by 1e-3


class Probe(NamedTuple):
    """An image, (h, w) or (N, h, w), and the answer to it: (C, 8, 8) mean probabilities."""

    image: Pixels
    answers: Float64


class Rules(NamedTuple):
    """The rule of each class, in channel order, and the probabilities they are for.

    They are for the model whose weights have this checksum, in these views.
    """

    by_class: dict[int, ClassRule]
    weights_sha256: str
    views: ViewsConfig = ViewsConfig()
    probe: Probe | None = None
    verdicts: Verdicts | None = None
    mm_per_pixel: float | None = None


def write_rules(folder: Path, rules: Rules) -> None:
    """Write rules into a model's folder as JSON with a checksum, whole or not at all."""
    by_class = {str(class_id): rule.model_dump() for class_id, rule in rules.by_class.items()}
    entries = {
        "classes": by_class,
        "weights_sha256": rules.weights_sha256,
        "views": rules.views.model_dump(),
        "probe": _encode(rules.probe) if rules.probe else None,
        "verdicts": rules.verdicts.model_dump(mode="json") if rules.verdicts else None,
        "mm_per_pixel": rules.mm_per_pixel,
    }
    write_sealed_json(folder / RULES, entries)


def read_rules(folder: Path, card: Card) -> Rules:
    """Read the rules of a model's folder, which must have been tuned on the model of the card.

    Raises:
        BadInput: the file is missing, was not written by `write_rules`, or is of another model.
    """
    path = folder / RULES
    document = read_sealed_json(path)
    try:
        by_class = {int(k): ClassRule(**v) for k, v in document["classes"].items()}
        views = ViewsConfig(**document.get("views", {}))
        probe = _decode(document["probe"]) if document.get("probe") else None
        text = json.dumps(document["verdicts"]) if document.get("verdicts") else None
        verdicts = Verdicts.model_validate_json(text) if text else None
        in_order = dict(sorted(by_class.items()))
        sha256, scale = document["weights_sha256"], document.get("mm_per_pixel")
        rules = Rules(in_order, sha256, views, probe, verdicts, scale)
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: was not written by tune_threshold: {reason}") from error
    if rules.weights_sha256 != card.weights_sha256:
        raise BadInput(f"{path}: was tuned on other weights than those of {folder / CARD}")
    if list(rules.by_class) != card.classes or (verdicts and verdicts.classes != card.classes):
        raise BadInput(
            f"{path}: expected rules for the classes {card.classes} of {folder / CARD}, "
            f"but got {list(rules.by_class)}"
        )
    return rules


def take_probe(image: Pixels, network: Network) -> Probe:
    """Record a network's answer to an image with sides of at least 8 pixels."""
    return Probe(image, _ask(network, image))


def compare(probe: Probe, network: Network, folder: Path) -> float:
    """Return how much a network's answer differs from a probe; log a warning if too much."""
    difference = float(np.abs(_ask(network, probe.image) - probe.answers).max())
    if not difference <= _TOLERANCE:
        logging.getLogger(__name__).warning(
            "%s: here the model answers differently from when its rules were tuned (by up to %.2f "
            "of a probability): another kind of processor, runtime or precision. Its masks will "
            "differ; run `dvc repro -f tune_threshold` on this machine, or use the same runtime",
            folder,
            difference,
        )
    return difference


def _ask(network: Network, image: Pixels) -> Float64:
    height, width = size_of(image)
    maps_chw = network(batch_of([pad(image)]))[0, :, :height, :width]
    cells = [cv2.resize(m, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA) for m in maps_chw]
    return np.stack(cells).astype(np.float64).round(4)  # (C, 8, 8)


def _encode(probe: Probe) -> dict[str, object]:
    # channels stacked vertically, since a PNG has at most 4
    png = cv2.imencode(".png", probe.image.reshape(-1, probe.image.shape[-1]))[1].tobytes()
    return {
        "image": base64.b64encode(png).decode(),
        "channels": 1 if probe.image.ndim == 2 else len(probe.image),
        "answers": probe.answers.tolist(),
    }


def _decode(entry: dict[str, Any]) -> Probe:
    png = np.frombuffer(base64.b64decode(str(entry["image"])), np.uint8)
    below: Any = cv2.imdecode(png, cv2.IMREAD_UNCHANGED)
    channels = entry["channels"]
    image = np.stack(np.split(below, channels)) if channels > 1 else below
    return Probe(image, np.array(entry["answers"], dtype=np.float64))

"""The file models/postprocess.json: the tuned rule of every class, and for which model."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from steelseg.errors import BadInput
from steelseg.files import read_sealed_json, write_sealed_json
from steelseg.postprocess import ClassRule


class Rules(NamedTuple):
    """A rule for each class, in channel order, and the checksum of the model's weights."""

    by_class: dict[int, ClassRule]
    weights_sha256: str


def write(path: Path, rules: Rules) -> None:
    """Write rules as JSON, whole or not at all."""
    by_class = {str(class_id): rule.model_dump() for class_id, rule in rules.by_class.items()}
    write_sealed_json(path, {"classes": by_class, "weights_sha256": rules.weights_sha256})


def read(path: Path, weights_sha256: str) -> Rules:
    """Read rules, which must have been tuned on the weights with the given checksum.

    Raises:
        BadInput: the file is missing, is not what `write` wrote, or is of another model.
    """
    document = read_sealed_json(path)
    try:
        by_class = {int(k): ClassRule(**v) for k, v in document["classes"].items()}
        rules = Rules(dict(sorted(by_class.items())), document["weights_sha256"])
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: was not written by tune_threshold: {reason}") from error
    if rules.weights_sha256 != weights_sha256:
        raise BadInput(f"{path}: was tuned on other weights than models/model.safetensors")
    return rules

"""The file models/postprocess.json: the tuned rule of every class, for which model and views."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from steelseg.core.errors import BadInput
from steelseg.core.sealed import read_sealed_json, write_sealed_json
from steelseg.predict.postprocess import ClassRule
from steelseg.predict.views import ViewsConfig


class Rules(NamedTuple):
    """A rule for each class, in channel order, and which probabilities the rules are for.

    Those of the model whose weights have this checksum, seen in these views.
    """

    by_class: dict[int, ClassRule]
    weights_sha256: str
    views: ViewsConfig = ViewsConfig()


def write_rules(path: Path, rules: Rules) -> None:
    """Write rules as JSON with a checksum, whole or not at all."""
    by_class = {str(class_id): rule.model_dump() for class_id, rule in rules.by_class.items()}
    views = rules.views.model_dump()
    entries = {"classes": by_class, "weights_sha256": rules.weights_sha256, "views": views}
    write_sealed_json(path, entries)


def read_rules(path: Path, weights_sha256: str) -> Rules:
    """Read rules, which must have been tuned on the weights with the given checksum.

    Raises:
        BadInput: the file is missing, is not what `write_rules` wrote, or is of another model.
    """
    document = read_sealed_json(path)
    try:
        by_class = {int(k): ClassRule(**v) for k, v in document["classes"].items()}
        views = ViewsConfig(**document.get("views", {}))
        rules = Rules(dict(sorted(by_class.items())), document["weights_sha256"], views)
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: was not written by tune_threshold: {reason}") from error
    if rules.weights_sha256 != weights_sha256:
        raise BadInput(f"{path}: was tuned on other weights than models/model.safetensors")
    return rules

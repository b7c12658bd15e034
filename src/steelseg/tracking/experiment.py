"""The MLflow experiment that holds all runs, with its description and saved view."""

import base64
import json
import zlib
from typing import Any

from steelseg.core.files import repository_root
from steelseg.tracking.store import EXPERIMENT, VIEW, is_local

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"  # as opposed to LLMs
# of the saved view
SECTION = "scores"
METRICS = ["pair_dice", "all_empty_pair_dice"]
PARAMS = ["lr", "epochs", "batch_size", "encoder", "fold"]
NOTE = """\
**Compare experiments by `pair_dice`**: choose `scores` under Views. \
Pair-Dice is the mean Dice over all pairs of a validation image and a class, where a pair counts \
as 1 if both its truth and its prediction are empty. It is cross-fitted: rules are tuned on some \
images and scored on others. Compare only runs of the same dataset and fold.

| column | meaning |
|---|---|
| `pair_dice` | the score to rely on |
| `all_empty_pair_dice` | the score of predicting nothing; what counts is the gain over it |
| `optimistic_pair_dice` | tuned and scored on the same images, so too high |
| `positive_dice_class_1`, ... | mean Dice over the images that show the class |
| `lr`, `epochs`, `batch_size`, ... | the values used in training, with `auto` resolved |
| `train_loss`, `val_pair_dice`, ... | per epoch, at threshold 0.5 |

Each experiment is one run. Its child runs are its stages, with the inputs of each.
"""


def open_experiment(client: Any) -> str:
    """Return the id of our experiment; it is created, or given the tags it lacks."""
    found = client.get_experiment_by_name(EXPERIMENT)
    known = found.tags if found else {}
    location = (repository_root() / "mlartifacts").as_uri() if is_local() else None
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, location)
    for name, value in {**_tags(), **known, KIND_TAG: KIND}.items():
        if known.get(name) != value:  # keeps what users have edited
            client.set_experiment_tag(experiment, name, value)
    return str(experiment)


def _tags() -> dict[str, str]:
    return {
        "mlflow.note.content": NOTE,
        f"mlflow.sharedViewState.{VIEW}": _saved_view(),
    }


def _saved_view() -> str:
    """Return the value of the tag of a saved view, as MLflow 3.17 writes it.

    A later MLflow that does not understand it shows its default view.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(_state()).encode())).decode()
    entry = {"name": VIEW, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return json.dumps(entry)


def _state() -> dict[str, Any]:
    columns = [f"metrics.`{name}`" for name in METRICS]
    columns += [f"params.`{name}`" for name in PARAMS]
    columns += ["attributes.`Dataset`", "attributes.`Source`"]
    charts = [
        _chart("SCATTER", xaxis=_axis("PARAM", "lr"), yaxis=_axis("METRIC", "pair_dice")),
        _chart("BAR", metricKey="pair_dice", displayName="pair_dice"),
        _chart("PARALLEL", selectedParams=PARAMS[:3], selectedMetrics=["pair_dice"]),
        _chart("LINE", selectedMetricKeys=["train_loss", "val_loss"]),
        _chart("LINE", selectedMetricKeys=["val_pair_dice", "val_tuned_pair_dice"]),
    ]
    return {
        "searchFilter": "tags.`steelseg.key` != ''",  # leaves out the stages' runs
        "orderByKey": "metrics.`pair_dice`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {},
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": SECTION, "name": "Scores", "display": True}],
    }


def _chart(kind: str, **own: Any) -> dict[str, Any]:
    shared = {"type": kind, "metricSectionId": SECTION, "runsCountToCompare": 100}
    return {"uuid": json.dumps(own), "deleted": False, "isGenerated": False, **shared, **own}


def _axis(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "key": name}

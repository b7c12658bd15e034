"""Lookup of models: in a folder, or in MLflow's runs and registry."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from steelseg.core.errors import SteelsegError
from steelseg.model.card import CARD
from steelseg.tracking.store import open_store


class FoundModel(NamedTuple):
    """A model's folder and its registered version, None if it is not registered."""

    folder: Path
    version: str | None


def find_model(where: str | Path) -> FoundModel:
    """Find a model in a folder, or fetch it from MLflow.

    Raises:
        SteelsegError: MLflow has no such model, or cannot be reached.
    """
    uri = str(where)
    if "://" not in uri and not uri.startswith(("models:", "runs:")):
        return FoundModel(Path(where), None)
    with open_store() as client:
        return _fetch(client, uri)


def _fetch(client: Any, uri: str) -> FoundModel:
    import mlflow
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per file
    try:
        version = None
        if uri.startswith("models:"):  # resolve the version first, since an alias may move
            resolve: Any = get_model_name_and_version  # which ships no types
            name, version = resolve(client, uri)
            uri = f"models:/{name}/{version}"
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        # the outermost card; those of an ensemble's members are deeper
        card = next(iter(sorted(root.rglob(CARD), key=lambda path: len(path.parts))))
    except (mlflow.MlflowException, StopIteration) as error:
        reason = " ".join(str(error).split())[:300] or "it is not a steelseg model"
        raise SteelsegError(f"{uri}: cannot be loaded from MLflow: {reason}") from error
    return FoundModel(card.parent, str(version) if version is not None else None)

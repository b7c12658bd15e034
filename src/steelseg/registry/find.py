"""Lookup of models: in a folder, or in MLflow's runs and registry.

An address of MLflow is `models:/steelseg@champion`, `models:/steelseg/3`, `models:/m-<id>` or
`runs:/<id>/model`.
"""

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
    if not is_address(uri):
        return FoundModel(Path(where), None)
    with open_store() as client:
        return _fetch(client, uri)


def is_address(where: str) -> bool:
    """Whether this is an address of MLflow, not a folder or a name."""
    return "://" in where or where.startswith(("models:", "runs:"))


def find_run(client: Any, uri: str) -> Any:
    """Return the MLflow run that logged a model, by the model's address.

    Raises:
        SteelsegError: MLflow has no such model or run.
    """
    import mlflow

    try:
        if uri.startswith("runs:"):
            return client.get_run(uri.removeprefix("runs:").strip("/").partition("/")[0])
        name, version = _resolve(client, uri)
        if version is None:
            return client.get_run(client.get_logged_model(name).source_run_id)
        return client.get_run(client.get_model_version(name, version).run_id)
    except mlflow.MlflowException as error:
        raise _not_found(uri, error) from error


def _fetch(client: Any, uri: str) -> FoundModel:
    import mlflow

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one bar per file
    try:
        version = None
        if uri.startswith("models:"):  # resolve the version first, since an alias may move
            name, version = _resolve(client, uri)
            uri = f"models:/{name}/{version}" if version else uri
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        # the outermost card; those of an ensemble's members are deeper
        card = next(iter(sorted(root.rglob(CARD), key=lambda path: len(path.parts))))
    except (mlflow.MlflowException, StopIteration) as error:
        raise _not_found(uri, error) from error
    return FoundModel(card.parent, version)


def _resolve(client: Any, uri: str) -> tuple[str, str | None]:
    """Return name and version of a registered model; of one that is only logged, its id."""
    from mlflow.store.artifact.utils.models import get_model_name_and_version

    resolve: Any = get_model_name_and_version  # which ships no types
    name, *version = resolve(client, uri)
    return name, str(version[0]) if version else None


def _not_found(uri: str, error: Exception) -> SteelsegError:
    reason = " ".join(str(error).split())[:300] or "it is not a steelseg model"
    return SteelsegError(f"{uri}: cannot be loaded from MLflow: {reason}")

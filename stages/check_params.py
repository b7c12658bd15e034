"""Reject parameters that no stage reads, and invalid values."""

from pathlib import Path

from steelseg.check.known_params import refuse_retyped, refuse_unknown
from steelseg.check.values import refuse_bad_values
from steelseg.core.params import PARAMS
from steelseg.tracking.stage import run

PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")


def main() -> None:
    """Check params.yaml; writes nothing."""
    refuse_unknown(PARAMS, PIPELINE)
    refuse_retyped(PARAMS, PIPELINE)
    refuse_bad_values(PARAMS, PIPELINE, LOCK)


if __name__ == "__main__":
    run(main)

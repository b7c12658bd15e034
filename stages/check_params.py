"""Refuse parameters that no stage reads, which would change nothing."""

from pathlib import Path

from steelseg.check.known_params import refuse_unknown
from steelseg.core.params import PARAMS
from steelseg.tracking.stage import run


def main() -> None:
    """Write nothing."""
    refuse_unknown(PARAMS, Path("dvc.yaml"))


if __name__ == "__main__":
    run(main)

"""Refuse parameters that no stage reads, which would change nothing."""

from pathlib import Path

from steelseg.known_params import refuse_unknown
from steelseg.params import PARAMS
from steelseg.stage import run


def main() -> None:
    """Write nothing."""
    refuse_unknown(PARAMS, Path("dvc.yaml"))


if __name__ == "__main__":
    run(main)

"""Draw the embedded sample: a synthetic look-alike of the Severstal data set."""

from pathlib import Path

from tqdm import tqdm

from steelseg.params import load
from steelseg.stage import run
from steelseg.synthetic import SampleConfig, generate

OUT = Path("data/raw/sample")


def main() -> None:
    """Write data/raw/sample."""
    config = load(SampleConfig, "sample_data")
    generate(
        OUT,
        config,
        config.seed,
        progress=lambda images, total: tqdm(images, "drawing", total, unit="image", disable=None),
    )


if __name__ == "__main__":
    run(main)

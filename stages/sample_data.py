"""Draw the embedded sample: a synthetic look-alike of the Severstal data set."""

from pathlib import Path

from tqdm import tqdm

from steelseg.core.params import load
from steelseg.sample.dataset import SampleConfig, generate
from steelseg.tracking.stage import run

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

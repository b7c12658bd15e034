"""Decode images and masks once, into a few large files that training reads."""

import shutil
from pathlib import Path

from tqdm import tqdm

from steelseg.core.checkpoints import work_folder
from steelseg.core.files import sha256
from steelseg.core.params import load
from steelseg.data import cache_writer, image_table
from steelseg.data.cache_writer import CacheConfig
from steelseg.tracking.stage import run

ANNOTATIONS = Path("data/annotations.parquet")
OUT = Path("data/cache")


def main() -> None:
    """Write data/cache, resuming after the last finished shard of an interrupted run."""
    config = load(CacheConfig, "cache_masks")
    images = Path(config.data_root) / config.dataset / "train_images"
    table = image_table.read(ANNOTATIONS)
    identity = {"config": config.model_dump(), "annotations": sha256(ANNOTATIONS)}
    with (
        work_folder("cache_masks", identity) as folder,
        tqdm(desc="caching", total=len(table), unit="image", disable=None) as bar,
    ):
        for n_images in cache_writer.write(folder / "cache", images, table, config.shard_images):
            bar.update(n_images)
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.move(folder / "cache", OUT)


if __name__ == "__main__":
    run(main)

"""Shuffled batches of images and masks: seconds per image."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks import notebook_way
from benchmarks.inputs import DataSet, Scale, data_set
from benchmarks.table import Row
from benchmarks.turns import in_turns
from steelseg.core.pixels import GREY
from steelseg.data import label_csv, rle
from steelseg.data.decoding import read
from steelseg.train.batch import Batch, PackedBatch, collate, collate_packed
from steelseg.train.crops import TrainingCrops, WholeImages

BATCH_SIZE = 4


class OnTheFly(Dataset[Batch]):
    """What the cache saves: JPEG and RLE decoded at every access, by our own code."""

    def __init__(self, data: DataSet) -> None:
        """Read the images and the csv of a data set."""
        self.data = data
        labels = label_csv.read(data.folder / "train.csv").rows
        self.rles = {(row.image, row.class_id): row.rle for row in labels}

    def __len__(self) -> int:
        return len(self.data.cache)

    def __getitem__(self, row: int) -> Batch:
        cache = self.data.cache
        name = cache.names[row]
        image_hw = read(self.data.folder / "train_images" / name, GREY).image
        rles = (self.rles.get((name, c), "") for c in cache.classes)
        masks_chw = np.stack([rle.decode(text, cache.sizes_hw[0]) for text in rles])
        image, masks = torch.from_numpy(image_hw)[None], torch.from_numpy(masks_chw)
        return Batch(image, masks, torch.tensor(row))


def rows(scale: Scale) -> Iterator[Row]:
    """One process and two workers, without any flip; what is loaded is the same, as checked.

    Ours are the whole images of validation, which come by the batch, and beside them the data set
    of training (uncropped), which draws each sample by itself.
    """
    with data_set(scale) as data:
        datasets = ours(data), notebooks(data), OnTheFly(data)
        check_equal(*datasets)
        crops = TrainingCrops(data.cache, np.arange(len(data.cache)), None, 0.0, [], seed=0)
        n_images = len(data.cache)
        for n_workers, target in ((0, 25.0), (2, None)):
            names = "ours", "notebook", "on the fly"
            loaders = [loader(dataset, n_workers) for dataset in datasets]
            ways = {n: partial(load_all, x) for n, x in zip(names, loaders, strict=True)}
            ways["crops"] = partial(load_all, loader(crops, n_workers))
            batch = next(iter(loader(datasets[0], 0)))
            ways["copy"] = partial(copy_all, batch, n_images // len(batch.rows))
            total = in_turns(ways, scale.rounds)
            times = {name: seconds / n_images for name, seconds in total.items()}
            what = f"loading, {f'{n_workers} workers' if n_workers else 'one process'}"
            yield Row(what, times["ours"], "the notebook", times["notebook"], target)
            name = f"{what}, whole images as training crops"
            yield Row(name, times["crops"], "the notebook", times["notebook"], target)
            yield Row(what, times["ours"], "our own decoding, no cache", times["on the fly"])
            yield Row(what, times["ours"], "a copy of the same bytes", times["copy"])


def ours(data: DataSet) -> WholeImages:
    """Return the images as validation reads them."""
    return WholeImages(data.cache, np.arange(len(data.cache)))


def notebooks(data: DataSet) -> notebook_way.Images:
    """Return the same images as the notebook reads them."""
    cache = data.cache
    table = notebook_way.pivot(data.folder / "train.csv", cache.names, cache.classes)
    return notebook_way.Images(data.folder / "train_images", table, cache.sizes_hw[0])


def loader(dataset: Any, n_workers: int) -> DataLoader[Any]:
    """Shuffle a data set into batches; workers stay from epoch to epoch."""
    sent = collate_packed if n_workers else collate  # as in training
    collates = {notebook_way.Images: None, OnTheFly: stack}
    return DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        shuffle=True,
        num_workers=n_workers,
        persistent_workers=n_workers > 0,
        collate_fn=collates.get(type(dataset), sent),
    )


def stack(samples: list[Batch]) -> Batch:
    """Collate single images."""
    images, masks, rows = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), torch.stack(rows))


def load_all(batches: DataLoader[Any]) -> None:
    """Load an epoch, dropping each batch for the next; packed masks are unpacked."""
    for batch in batches:
        if isinstance(batch, PackedBatch):
            batch.unpack()


def copy_all(batch: Batch, n_batches: int) -> None:
    """Copy as many bytes as an epoch has."""
    for _ in range(n_batches):
        batch.images.clone(), batch.masks.clone()


def check_equal(ours: WholeImages, theirs: notebook_way.Images, on_the_fly: OnTheFly) -> None:
    """Compare what all three show: masks exactly, images to the rounding of two JPEG decoders."""
    mean, std = notebook_way.IMAGENET_MEAN[0], notebook_way.IMAGENET_STD[0]
    for row in range(len(theirs)):
        (image,), (masks,), _ = ours.__getitems__([row])
        their_image, their_masks = theirs[row]
        again = on_the_fly[row]
        assert torch.equal(image, again.images)
        assert torch.equal(masks, again.masks)
        assert torch.equal(masks.float(), their_masks)
        grey: Tensor = (their_image[0] * std + mean) * 255
        assert (grey - image[0]).abs().max() < 1.5

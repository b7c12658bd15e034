"""Samples depend on the seed, the epoch and the sample number, and on nothing else."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from steelseg.core.errors import BadInput
from steelseg.core.sizes import pad
from steelseg.data.cache import Cache
from steelseg.train.augmentation import augment
from steelseg.train.batch import Batch, collate, collate_packed, packed_bytes, unpack_bits
from steelseg.train.config import read_preset
from steelseg.train.crops import TrainingCrops, WholeImages
from steelseg.train.sampling import EpochSampler
from steelseg.train.windows import (
    black_share,
    defect_window,
    lit_window,
    random_window,
    unpack_window,
)

FLIPS = [{"HorizontalFlip": {"p": 0.5}}, {"VerticalFlip": {"p": 0.5}}]
ROWS = np.arange(12)


def batches(cache: Cache, workers: int, epoch: int = 3) -> list[torch.Tensor]:
    crops = TrainingCrops(cache, ROWS, (32, 32), 0.5, FLIPS, seed=1)
    sampler = EpochSampler(12, repeats=2, seed=1, rank=0, world_size=1)
    sampler.set_epoch(epoch)
    loader = DataLoader(
        crops,
        batch_size=5,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_packed if workers else collate,
    )
    found = [batch.unpack() if workers else batch for batch in loader]
    return [tensor for batch in found for tensor in batch]


def sample(images: TrainingCrops | WholeImages, number: int) -> Batch:
    """One sample by itself: (1, H, W), (C, H, W), and its row."""
    return Batch(*(tensor[0] for tensor in images.__getitems__([number])))


def stack(samples: Iterable[Batch]) -> Batch:
    return Batch(*map(torch.stack, zip(*samples, strict=True)))


def test_batches_do_not_depend_on_the_number_of_workers(tiny_cache: Cache) -> None:
    """None and two loader processes give the same bytes in the same order."""
    for one, two in zip(batches(tiny_cache, 0), batches(tiny_cache, 2), strict=True):
        assert torch.equal(one, two)


def test_epochs_differ(tiny_cache: Cache) -> None:
    """Each epoch has an order and crops of its own."""
    first, second = batches(tiny_cache, 0, epoch=0), batches(tiny_cache, 0, epoch=1)
    assert not torch.equal(first[0], second[0])


def sample_the_long_way(crops: TrainingCrops, number: int) -> Batch:
    """All masks unpacked, cut and augmented, whether they show anything or not."""
    row = int(crops.rows[number % len(crops.rows)])
    rng = np.random.default_rng((crops.seed, number))
    image, masks = crops.cache.image(row), crops.cache.masks(row)
    shown = np.flatnonzero(masks.any(axis=(1, 2)))
    if len(shown) and rng.random() < crops.on_defect:
        window = defect_window(rng, masks[rng.choice(shown)], crops.crop_hw)
    else:
        window = random_window(rng, image.shape, crops.crop_hw)
    seed = int(rng.integers(2**31))
    image, masks = augment(crops.augmentation, image[window], masks[:, *window], seed)
    tensors = torch.from_numpy(pad(image).copy())[None], torch.from_numpy(masks.copy())
    return Batch(*tensors, torch.tensor(row))


@pytest.mark.parametrize("crop_hw", [None, (32, 32), (64, 32)])
@pytest.mark.parametrize("preset", [None, "flips", "strong"])
def test_empty_masks_are_passed_over_without_a_trace(
    tiny_cache: Cache, crop_hw: tuple[int, int] | None, preset: str | None
) -> None:
    """A batch at once, its samples alone, and the long way over all masks give the same bytes."""
    transforms = {None: [], "flips": FLIPS, "strong": read_preset("strong")}[preset]
    crops = TrainingCrops(tiny_cache, ROWS, crop_hw, 0.5, transforms, seed=2)
    numbers = [*range(20), 1007, 3]
    at_once = crops.__getitems__(numbers)
    alone = stack(sample(crops, number) for number in numbers)
    long_way = stack(sample_the_long_way(crops, number) for number in numbers)
    for ours, others, theirs in zip(at_once, alone, long_way, strict=True):
        assert ours.dtype == others.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
        assert torch.equal(others, theirs)
    n_shown = at_once.masks.amax(dim=(-2, -1)).sum(dim=1)
    assert {0, 1} <= set(n_shown.tolist())  # both ways were taken


def test_images_and_masks_stay_together(tiny_cache: Cache) -> None:
    """Where class 1 is painted white, its mask is set, through every crop and flip."""
    crops = TrainingCrops(tiny_cache, ROWS, (32, 32), 1.0, FLIPS, seed=5)
    bright = [
        (s.images[0] == 250) == s.masks[0].bool() for s in (sample(crops, n) for n in range(60))
    ]
    covered = [bool(torch.all(b)) for b in bright]
    # class 2 is painted later and may hide a part of class 1
    assert np.mean(covered) > 0.8


@given(st.integers(1, 40), st.integers(1, 9), st.data())
def test_a_window_is_unpacked_as_the_whole_is(width: int, height: int, data: st.DataObject) -> None:
    """Wherever it begins and ends within a byte; one that leaves the image ends at its edge."""
    masks = np.random.default_rng(width).integers(0, 2, (2, height, width), dtype=np.uint8)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = (
        slice(top, top + data.draw(st.integers(1, 12))),
        slice(left, left + data.draw(st.integers(1, 50))),
    )
    unpacked = unpack_window(np.packbits(masks, axis=-1), width, window)
    np.testing.assert_array_equal(unpacked, masks[:, *window])


def test_whole_images_are_padded_and_masks_are_not(tiny_cache: Cache) -> None:
    """48x80 becomes 64x96 by repeating the edge; nothing is stretched."""
    image, masks, row = sample(WholeImages(tiny_cache, ROWS), 4)
    assert image.shape == (1, 64, 96)
    assert masks.shape == (2, 48, 80)
    assert int(row) == 4
    np.testing.assert_array_equal(image[0, :48, :80], tiny_cache.image(4))
    assert torch.equal(image[0, 48:], image[0, 47].expand(16, -1))


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 5))
def test_processes_share_an_epoch(images: int, repeats: int, size: int, epoch: int) -> None:
    """Shares are equally long, disjoint, and leave out less than one sample a process."""
    shares = []
    for rank in range(size):
        sampler = EpochSampler(images, repeats, seed=0, rank=rank, world_size=size)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler)
    together = [number for share in shares for number in share]
    start = epoch * images * repeats
    assert len(set(together)) == len(together) > images * repeats - size
    assert set(together) <= set(range(start, start + images * repeats))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**31))
def test_windows_stay_inside(height: int, width: int, crop: int, seed: int) -> None:
    """A crop has its size, or the image's where that is smaller; over a defect it shows some."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[rng.integers(height), rng.integers(width)] = 1
    shape = (min(crop, height), min(crop, width))
    assert mask[random_window(rng, mask.shape, (crop, crop))].shape == shape
    on_defect = mask[defect_window(rng, mask, (crop, crop))]
    assert on_defect.shape == shape
    assert on_defect.any()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"HorizontalFlop": {}}, "did you mean `HorizontalFlip`"),
        ({"HorizontalFlip": {"q": 1}}, "'q'"),
        ({"HorizontalFlip": {"p": "often"}}, "HorizontalFlip"),
        ({"HorizontalFlip": {}, "VerticalFlip": {}}, "one transform"),
        ({"Compose": {}}, "unknown transform"),
    ],
)
def test_bad_augmentations_are_refused(tiny_cache: Cache, entry: dict, message: str) -> None:
    """A mistyped transform or argument is named, not passed over."""
    with pytest.raises(BadInput, match=message):
        TrainingCrops(tiny_cache, ROWS, None, 0, [entry], seed=0)


def test_a_batch_at_once_is_its_images_stacked(tiny_cache: Cache) -> None:
    """The loader's short way to a batch of whole images gives what the long way gives."""
    images = WholeImages(tiny_cache, ROWS)
    at_once = images.__getitems__([7, 0, 3])
    alone = stack(sample(images, number) for number in (7, 0, 3))
    for one, other in zip(at_once, alone, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_masks_are_unpacked_alike_on_any_device(width: int, seed: int) -> None:
    """As numpy packs and unpacks them; what a GPU does is tried on the CPU."""
    masks = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 2, (2, 3, 4, width), dtype=np.uint8)
    )
    packed = Batch(torch.zeros(0), masks, torch.zeros(0)).pack()
    assert packed.masks.shape == (2, 3, 4, -(-width // 8))
    images, rows = torch.zeros(2, 1, 32, -(-width // 32) * 32), torch.zeros(2, dtype=torch.int64)
    sent = [images.to(torch.uint8), packed.masks, rows]
    assert 2 * packed_bytes((4, width), 3) == sum(tensor.nbytes for tensor in sent)
    for unpacked in (packed.unpack().masks, unpack_bits(packed.masks, width)):
        assert unpacked.dtype == torch.uint8
        assert torch.equal(unpacked, masks)


def test_dark_crops_are_avoided() -> None:
    """Of an image that is black but for its right end, crops lie there; else anywhere."""
    image = np.full((32, 320), 3, dtype=np.uint8)
    image[:, 224:] = 120
    shares = {
        limit: [
            black_share(image[lit_window(np.random.default_rng(i), image, (32, 32), limit)])
            for i in range(50)
        ]
        for limit in (1.0, 0.5)
    }
    assert np.mean(shares[1.0]) > 0.5
    assert np.mean(np.array(shares[0.5]) <= 0.5) > 0.9  # ten draws can all miss, so not always
    assert all(dark <= any_ for dark, any_ in zip(shares[0.5], shares[1.0], strict=True))


def test_black_images_end_the_search() -> None:
    """All black: some window comes all the same."""
    black = np.zeros((32, 64), dtype=np.uint8)
    assert black_share(black[lit_window(np.random.default_rng(0), black, (32, 32), 0.1)]) == 1.0


def test_crops_of_two_images_are_mixed(tiny_cache: Cache) -> None:
    """With copy-paste, defects stand on images that show none; with cutmix, other pixels do."""
    clean = np.array([r for r in range(12) if not tiny_cache.masks(r).any()])
    rows = np.append(clean, 0)  # row 0 shows both classes
    plain = TrainingCrops(tiny_cache, rows, None, 0, [], seed=3)
    pasted = TrainingCrops(tiny_cache, rows, None, 0, [], seed=3, copy_paste=1)
    cut = TrainingCrops(tiny_cache, rows, None, 0, [], seed=3, cutmix=1)
    donor = tiny_cache.image(0)
    n_pasted = 0
    for number in range(4 * len(rows)):
        before, after = sample(plain, number), sample(pasted, number)
        new = (after.masks > before.masks).any(dim=0).numpy()
        n_pasted += int(new.any() and number % len(rows) < len(clean))
        changed = (before.images != after.images)[0, :48, :80].numpy()
        assert (after.images[0, :48, :80].numpy()[changed] == donor[changed]).all()
        assert not (changed & ~after.masks.any(dim=0).numpy().astype(bool)).any()
    assert n_pasted > 0
    different = sum(
        not torch.equal(sample(plain, n).images, sample(cut, n).images) for n in range(len(rows))
    )
    assert different > len(rows) / 2


def test_drawn_samples_have_numbers_of_their_own() -> None:
    """However often an image is drawn, within an epoch and across epochs; each shows its image."""
    sampler = EpochSampler(5, 4, 0, 0, 1, lambda rng, n: np.zeros(n, dtype=np.int64) + 3)
    seen: list[int] = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        numbers = list(sampler)
        assert {number % 5 for number in numbers} == {3}
        seen += numbers
    assert len(set(seen)) == len(seen) == 60

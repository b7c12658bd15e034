"""What is ignored counts in no loss, teaches nothing and is in no metric of the training."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import FOLDS, config, network

from steelseg.data.cache import Cache
from steelseg.model.card import Gate
from steelseg.train.auto import TrainParams, fingerprint
from steelseg.train.batch import Batch, packed_bytes
from steelseg.train.crops import TrainingCrops, WholeImages
from steelseg.train.fold_data import FoldData
from steelseg.train.ignored import without_ignored
from steelseg.train.losses import LOSSES, build_loss
from steelseg.train.mixing import Blend, copy_paste, cutmix
from steelseg.train.task import SegmentationTask
from steelseg.train.totals import false_pixels, pixel_counts

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = np.arange(12)
TURNS = [{"D4": {"p": 1.0}}]


def drawn(seed: int, ignored_share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 2, 6, 8), and masks (2, 3, 6, 8) of two classes and of what is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 2, 6, 8, generator=generator) * 4
    classes = torch.rand(2, 2, 6, 8, generator=generator) < 0.3
    ignored = torch.rand(1, 1, 6, 8, generator=generator) < ignored_share
    return logits, torch.cat([classes, ignored.expand(2, -1, -1, -1)], dim=1).to(torch.uint8)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"class_weights": [2.0, 0.5]}])
@pytest.mark.parametrize("loss", LOSSES)
@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2, 0.9, 1.0]))
def test_losses_are_those_of_the_other_pixels(
    loss: str, options: dict[str, Any], seed: int, share: float
) -> None:
    """Against images without the ignored pixels, and none of those has a gradient.

    Means are over all pixels, those that are ignored among them.
    """
    if options and loss != "bce":
        return
    loss_of = build_loss(loss, **options)
    logits, masks = drawn(seed, share)
    logits.requires_grad_()
    found = loss_of(*without_ignored(logits, masks))
    kept = masks[0, 2] == 0
    if kept.any():
        expected = loss_of(logits[..., kept][:, :, None], masks[:, :2, kept][:, :, None])
        is_mean = loss in {"bce", "focal"}
        expected = expected * (kept.float().mean() if is_mean else 1)
    else:
        expected = torch.zeros(())
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[..., ~kept].any()
    if kept.any() and loss in {"bce", "focal"}:
        assert gradient[..., kept].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_in_any_precision_a_smoothed_loss_passes_over_what_is_ignored(dtype: torch.dtype) -> None:
    """The constant that stands for such a logit is the same number in all of them."""
    logits, masks = drawn(1, 1.0)
    loss = build_loss("bce", label_smoothing=0.2)
    assert loss(*without_ignored(logits.to(dtype), masks)).item() == 0
    each = loss.of_each_at_once(*without_ignored(logits.to(dtype), masks))
    assert each.tolist() == [0, 0]


def test_pixels_that_are_ignored_are_neither_found_nor_missed() -> None:
    """By hand: of two true pixels one is ignored, and so is one of two found."""
    logits = torch.tensor([5.0, 5, -5, -5]).reshape(1, 1, 2, 2)
    masks = torch.tensor([[[[1, 0], [1, 0]], [[0, 1], [1, 0]]]], dtype=torch.uint8)
    assert pixel_counts(*without_ignored(logits, masks)).tolist() == [[[[1, 1, 1]]]]
    assert pixel_counts(*without_ignored(logits, masks[:, :1])).tolist() == [[[[1, 2, 2]]]]


def scrambled(batch: Batch, seed: int) -> Batch:
    """The same batch with another truth where pixels are ignored."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(2, batch.masks.shape, generator=generator, dtype=torch.uint8)
    where = batch.masks[:, 2:].bool().expand_as(batch.masks).clone()
    where[:, 2] = False
    return batch._replace(masks=torch.where(where, noise, batch.masks))


@pytest.mark.parametrize(("head", "mixup"), [("none", 0), ("soft", 0), ("hard", 1), ("none", 1)])
def test_a_step_does_not_see_the_truth_of_what_is_ignored(
    ignored_cache: Cache, monkeypatch: pytest.MonkeyPatch, head: Gate, mixup: float
) -> None:
    """Neither loss nor gradient nor counts, of training and of validation, with mixup too."""
    blend = Blend(0.7, torch.tensor([1, 2, 0]))
    monkeypatch.setattr("steelseg.train.task.draw_blend", lambda *_: blend)
    recipe = config(mixup=mixup, loss={"bce": 0.5, "dice": 0.3, "focal": 0.2}, label_smoothing=0.1)
    segmenter = network(ignored_cache, recipe, head).eval()  # no batch-norm statistics are learnt
    batch = WholeImages(ignored_cache, ROWS).__getitems__([0, 3, 4])
    results = []
    for shown in (batch, scrambled(batch, 1)):
        task = SegmentationTask(segmenter, recipe, ignored_cache)
        trainer = SimpleNamespace(current_epoch=0, global_rank=0)
        monkeypatch.setattr(task, "_trainer", trainer)
        segmenter.zero_grad()
        task.on_train_epoch_start()
        loss = task.training_step(shown, 0)
        loss.backward()
        gradients = [p.grad.clone() for p in segmenter.parameters() if p.grad is not None]
        task.on_validation_epoch_start()
        with torch.inference_mode():
            task.validation_step(shown, 0)
        parts = [task._training.gather(), task._validation.gather()]
        results.append((loss.item(), gradients, parts))
    (loss, gradients, parts), (other_loss, other_gradients, other_parts) = results
    assert not torch.equal(batch.masks, scrambled(batch, 1).masks)
    assert loss == other_loss
    assert any(gradient.any() for gradient in gradients)
    assert all(map(torch.equal, gradients, other_gradients))
    for part, other in zip(parts, other_parts, strict=True):
        np.testing.assert_array_equal(part.counts, other.counts)
        assert torch.equal(part.losses, other.losses)
        assert false_pixels(part, 12).tolist() == false_pixels(other, 12).tolist()


def test_a_blend_ignores_what_either_image_ignores(ignored_cache: Cache) -> None:
    """A gradient comes from neither image's masks there, since the pixels show both."""
    recipe = config(mixup=1, loss="bce")
    task = SegmentationTask(network(ignored_cache, recipe), recipe, ignored_cache)
    batch = WholeImages(ignored_cache, ROWS).__getitems__([0, 3])
    logits = torch.zeros(2, 2, 48, 80, requires_grad=True)
    task.forward = lambda _: (logits, None)  # type: ignore[method-assign]
    task._blend = lambda *_: Blend(0.7, torch.tensor([1, 0]))  # type: ignore[method-assign]
    task._trainer = SimpleNamespace()  # type: ignore[assignment]
    task.training_step(batch, 0).backward()
    assert logits.grad is not None
    either = batch.masks[:, 2].amax(dim=0).bool()
    assert not logits.grad[..., either].any()
    assert logits.grad[..., ~either].all()


def test_regions_are_turned_with_their_image(ignored_cache: Cache) -> None:
    """Painted white in the image, they are white, and nothing else is, after crops and turns."""
    crops = TrainingCrops(ignored_cache, ROWS, (32, 32), 0.5, TURNS, seed=3)

    def painted(row: int) -> np.ndarray:
        ignored_hw = ignored_cache.ignored(row)
        return np.zeros((48, 80), np.uint8) if ignored_hw is None else ignored_hw * 255

    crops.cache = SimpleNamespace(**vars(ignored_cache), image=painted)  # type: ignore[assignment]
    for name in ("packed_masks", "n_masks"):
        setattr(crops.cache, name, getattr(ignored_cache, name))
    batch = crops.__getitems__(list(range(48)))
    assert torch.equal(batch.masks[:, 2] * 255, batch.images[:, 0])
    assert not (batch.masks[:, :2] & batch.masks[:, 2:]).any()
    shares = batch.masks[:, 2].float().mean(dim=(-2, -1))
    assert (shares[11::12] == 0).all()
    assert ((shares > 0) & (shares < 1)).sum() > 10


def test_defects_are_looked_for_outside(ignored_cache: Cache) -> None:
    """A crop is laid over a defect that counts, and a region is none."""
    crops = TrainingCrops(ignored_cache, ROWS, (16, 16), 1.0, [], seed=3)
    batch = crops.__getitems__(list(range(120)))
    shown = np.array([ignored_cache.masks(row).any() for row in ROWS])
    assert batch.masks[:, :2].amax(dim=(1, 2, 3)).bool()[shown[batch.rows.numpy()]].all()


def test_mixed_crops_keep_what_is_ignored_with_its_pixels() -> None:
    """A rectangle brings its own; a pasted defect counts, and a region is not pasted as one."""
    rng = np.random.default_rng(0)
    clear = np.full((8, 8), 10, np.uint8), np.zeros((3, 8, 8), np.uint8)
    void = np.full((8, 8), 200, np.uint8), np.zeros((3, 8, 8), np.uint8)
    void[1][2] = 1
    image, masks = cutmix(rng, clear, void)
    np.testing.assert_array_equal(masks[2], image == 200)
    assert 0 < masks[2].sum() < 64
    assert copy_paste(rng, clear, void, n_classes=2) is clear
    defect = np.full((8, 8), 90, np.uint8), np.zeros((3, 8, 8), np.uint8)
    defect[1][1, :4] = 1
    defect[1][2, 4:] = 1
    image, masks = copy_paste(rng, void, defect, n_classes=2)
    np.testing.assert_array_equal(masks[1], image == 90)
    np.testing.assert_array_equal(masks[2], image == 200)


@pytest.mark.parametrize("mixing", ["cutmix", "copy_paste"])
def test_crops_that_are_mixed_have_all_masks(ignored_cache: Cache, mixing: str) -> None:
    """No class is left where the crop is ignored."""
    options: dict[str, Any] = {mixing: 1.0}
    crops = TrainingCrops(ignored_cache, ROWS, (32, 32), 0.5, TURNS, seed=3, **options)
    batch = crops.__getitems__(list(range(24)))
    assert batch.masks.shape == (24, 3, 32, 32)
    assert batch.masks.amax(dim=(0, 2, 3)).tolist() == [1, 1, 1]
    assert not (batch.masks[:, :2] & batch.masks[:, 2:]).any()


def test_regions_take_the_way_of_the_masks_through_the_loader(ignored_cache: Cache) -> None:
    """Packed and unpacked, and counted for the shared memory."""
    batch = WholeImages(ignored_cache, ROWS).__getitems__([0, 11])
    assert torch.equal(batch.pack().unpack().masks, batch.masks)
    assert not batch.masks[1, 2].any()
    packed = batch.pack()
    n_bytes = packed.images.nbytes + packed.masks.nbytes + packed.rows.nbytes
    assert 2 * packed_bytes((48, 80), ignored_cache.n_masks) == n_bytes
    settings_ = config(batch_size=2, crop=None, validation_batch_size=1)
    assert FoldData(ignored_cache, FOLDS, settings_).largest_batch() == n_bytes


def test_statistics_are_of_what_counts(ignored_cache: Cache, tiny_cache: Cache) -> None:
    """The share of a class's pixels is of those that are not ignored; a region is no class."""
    params = TrainParams(**config().model_dump() | {"class_weights": "auto"})
    found = fingerprint(params, ignored_cache, ROWS).pixel_shares
    masks = np.stack([ignored_cache.masks(row) for row in ROWS])
    n_ignored = 11 * 25 * 30
    expected = masks.sum(axis=(0, 2, 3)) / (12 * 48 * 80 - n_ignored)
    np.testing.assert_allclose(found, expected)
    shown = FoldData(ignored_cache, FOLDS, config())._shown
    np.testing.assert_array_equal(shown, masks[FOLDS != 0].any(axis=(2, 3)))

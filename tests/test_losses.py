"""The training losses: sums, options, what they punish, and in which precision."""

from typing import Any

import pytest
import torch

from steelseg.core.errors import BadInput
from steelseg.train.losses import LOSSES, build_loss


def batch(n_images: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and masks that are empty for the last class of the first image."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(n_images, 2, 16, 24, generator=generator) * 4 - 2
    masks = (torch.rand(n_images, 2, 16, 24, generator=generator) < 0.1).to(torch.uint8)
    masks[0, 1] = 0
    return logits, masks


@pytest.mark.parametrize("loss", LOSSES)
def test_half_logits_give_a_loss_of_32_bits(loss: str) -> None:
    """Under autocast or not; smp's Dice of half logits is NaN on a large mask."""
    logits, masks = (tensor.tile(1, 1, 16, 66) for tensor in batch(1))
    half = logits.half().requires_grad_()
    expected = build_loss(loss)(logits.half().float(), masks)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = build_loss(loss)(half, masks)
    plain = build_loss(loss)(half, masks)
    assert plain.dtype == under_autocast.dtype == torch.float32
    assert plain.item() == under_autocast.item() == expected.item()
    plain.backward()
    assert half.grad is not None
    assert half.grad.isfinite().all()


@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"lovasz"}))
def test_losses_of_all_images_at_once_are_those_of_each(loss: str) -> None:
    """On a GPU in one pass, on a CPU one by one."""
    logits, masks = batch()
    loss_of = build_loss(loss)
    each = torch.stack([loss_of(logits[i : i + 1], masks[i : i + 1]) for i in range(3)])
    assert torch.equal(loss_of.of_each(logits, masks), each)
    torch.testing.assert_close(loss_of.of_each_at_once(logits, masks), each)


def test_losses_add_up() -> None:
    """A weighted sum is the sum of its parts; a plain name is weight 1."""
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 8, 8), (torch.rand(2, 3, 8, 8) > 0.7).float()
    bce, dice = build_loss("bce")(logits, masks), build_loss("dice")(logits, masks)
    both = build_loss({"bce": 0.6, "dice": 0.4})(logits, masks)
    assert float(both) == pytest.approx(0.6 * float(bce) + 0.4 * float(dice))


@pytest.mark.parametrize("loss", ["bec", {}, {"bce": 1.0, "dise": 1.0}])
def test_unknown_losses_are_refused(loss: Any) -> None:
    """By name."""
    with pytest.raises(BadInput, match="`loss`"):
        build_loss(loss)


def test_class_weights_scale_the_gradients_of_their_class() -> None:
    """A class of weight 0 teaches nothing, one of weight 2 twice as much."""
    masks = torch.ones(1, 3, 4, 4)

    def gradients(class_weights: list[float] | None) -> torch.Tensor:
        logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
        build_loss("bce", class_weights)(logits, masks).backward()
        assert logits.grad is not None
        return logits.grad.sum(dim=(0, 2, 3))

    torch.testing.assert_close(
        gradients([2.0, 1.0, 0.0]), gradients(None) * torch.tensor([2.0, 1.0, 0.0])
    )


def test_label_smoothing_has_its_optimum_short_of_certainty() -> None:
    """With 0.1 the loss is least at a probability of 0.9, and being surer costs."""
    masks = torch.ones(1, 1, 4, 4)
    probabilities = torch.tensor([0.8, 0.9, 0.99])
    losses = [
        float(build_loss("bce", label_smoothing=0.1)(torch.full_like(masks, float(x)), masks))
        for x in probabilities.logit()
    ]
    assert min(losses) == losses[1]


def test_options_of_a_loss_that_is_not_there_are_refused() -> None:
    """They would change nothing, in silence."""
    with pytest.raises(BadInput, match="`loss` lacks"):
        build_loss({"dice": 1.0}, label_smoothing=0.1)


@pytest.mark.parametrize("loss", ["bce", "focal", "lovasz"])
def test_losses_that_punish_false_alarms_on_clean_images(loss: str) -> None:
    """The docstring's promise: without any positive, more alarm is more loss."""
    masks = torch.zeros(1, 2, 8, 8)
    quiet, loud = torch.full((1, 2, 8, 8), -4.0), torch.full((1, 2, 8, 8), 4.0)
    assert float(build_loss(loss)(loud, masks)) > float(build_loss(loss)(quiet, masks))


@pytest.mark.parametrize("loss", ["dice", "tversky"])
def test_losses_that_pass_over_clean_classes(loss: str) -> None:
    """smp's Dice and Tversky are 0 for a class that no image of the batch shows."""
    assert float(build_loss(loss)(torch.full((1, 2, 8, 8), 4.0), torch.zeros(1, 2, 8, 8))) == 0

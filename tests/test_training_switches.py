"""The switches of training each do what they say: label head, learning rates, averages."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from saved_models import save_model
from segmentation_models_pytorch.base import ClassificationHead
from tiny_training import FOLDS, NETWORK, config, network, run

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data.cache import Cache
from steelseg.export import onnx
from steelseg.model import network as models
from steelseg.model.card import Gate
from steelseg.model.network import Segmenter, gate
from steelseg.train.augmentation import augment, build_augmentation
from steelseg.train.batch import Batch
from steelseg.train.config import FinishConfig
from steelseg.train.crops import WholeImages
from steelseg.train.mixing import Blend, draw_blend
from steelseg.train.sampling import draw
from steelseg.train.task import SegmentationTask
from steelseg.train.totals import Gathered, false_pixels, validation_scores, without_timings

pytestmark = pytest.mark.usefixtures("one_thread")


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def is_same(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("kind", "pixel", "label", "expected"),
    [
        ("soft", 0.9, 0.5, 0.45),
        ("soft", 0.2, 0.2, 0.04),
        ("hard", 0.9, 0.5, 0.5),  # no surer than the label
        ("hard", 0.3, 0.5, 0.3),  # a sure label changes nothing
    ],
)
def test_a_label_gates_the_pixels(kind: Gate, pixel: float, label: float, expected: float) -> None:
    """Soft is the product of the probabilities, hard the lower one."""
    logits = torch.logit(torch.tensor([pixel, label]))
    gated = gate(logits[0].reshape(1, 1, 1, 1), logits[1].reshape(1, 1), kind)
    assert torch.sigmoid(gated).item() == pytest.approx(expected, abs=1e-6)


def test_half_logits_are_gated_in_32_bits() -> None:
    """Two sure ones add up to -80,000, and half precision ends at -65,504."""
    pixels, labels = torch.full((1, 1, 1, 1), -40000.0).half(), torch.full((1, 1), -40000.0).half()
    assert gate(pixels, labels, "soft").item() == -80000


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_sure_labels_gate_without_overflow(kind: Gate) -> None:
    """Logits of 200 and -200, far beyond what float32 can exponentiate, give 1 and 0."""
    pixels = torch.full((2, 1, 1, 1), 200.0)
    labels = torch.tensor([[200.0], [-200.0]])
    assert torch.sigmoid(gate(pixels, labels, kind)).flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("weight", "learns"), [(1.0, True), (0.0, False)])
def test_the_label_head_learns_by_its_weight(
    tiny_cache: Cache, tmp_path: Path, weight: float, learns: bool
) -> None:
    """With a weight of 0 in the loss the head stays as it was; else it changes."""
    settings = config(epochs=1, label_loss_weight=weight)
    segmenter = network(tiny_cache, settings, "hard")
    before = copied(segmenter.network.classification_head)  # type: ignore[arg-type]
    run(tiny_cache, tmp_path, settings, segmenter=segmenter)
    after = copied(segmenter.network.classification_head)  # type: ignore[arg-type]
    assert is_same(before, after) is not learns


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 96), dtype=np.uint8)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_gated_network_is_saved_with_its_gate(tmp_path: Path, kind: Gate) -> None:
    """Loaded again, it answers the same, and a label that says no empties the map."""
    recipe = NETWORK.model_copy(update={"label_head": kind})
    segmenter = models.build(recipe, 2, [0.4], [0.2]).eval()
    head: Any = segmenter.network.classification_head
    torch.nn.init.constant_(head[3].bias, -20.0)
    save_model(tmp_path, segmenter, recipe)
    loaded, _ = models.load(tmp_path)
    images = torch.from_numpy(IMAGES)
    with torch.inference_mode():
        expected = torch.sigmoid(segmenter(images))
        ungated = torch.sigmoid(segmenter.heads(images)[0])
        torch.testing.assert_close(
            torch.sigmoid(loaded.eval()(images)), expected, atol=1e-6, rtol=0
        )
    assert expected.max() < 1e-6 < ungated.max()


class TwoHeads(torch.nn.Module):
    """Answers as a network with a label head does: logits of pixels and of labels."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = torch.nn.Conv2d(1, 2, 3, padding=1)
        self.labels = ClassificationHead(2, 2)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images (B, 1, H, W) to logits (B, 2, H, W) and (B, 2)."""
        logits = self.pixels(images)
        return logits, self.labels(logits)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_an_export_has_the_gate(tmp_path: Path, kind: Gate) -> None:
    """ONNX answers as the network, of which one class is there and the other is not."""
    torch.manual_seed(1)
    network = TwoHeads()
    segmenter = Segmenter(network, GREY, [0.4], [0.2], kind).eval()
    with torch.inference_mode():
        network.labels[3].bias[:] = torch.tensor([1.0, -20.0])
        expected = torch.sigmoid(segmenter(torch.from_numpy(IMAGES))).numpy()
        ungated = torch.sigmoid(segmenter.heads(torch.from_numpy(IMAGES))[0]).numpy()
    onnx.export(segmenter, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"images": IMAGES})[0], expected, atol=1e-6)
    assert expected[:, 1].max() < 1e-6 < ungated[:, 1].max()
    assert np.abs(expected - ungated)[:, 0].max() > 0.01


def test_a_frozen_encoder_stays_as_it_is(tiny_cache: Cache, tmp_path: Path) -> None:
    """Weights and batch-norm statistics alike, while the decoder learns; then it is let go."""
    settings = config(epochs=2, freeze_encoder_epochs=2)
    segmenter = network(tiny_cache, settings)
    encoder, decoder = segmenter.network.encoder, segmenter.network.decoder
    assert isinstance(encoder, torch.nn.Module)
    assert isinstance(decoder, torch.nn.Module)
    before = copied(encoder), copied(decoder)
    run(tiny_cache, tmp_path / "frozen", settings, segmenter=segmenter)
    assert is_same(before[0], encoder.state_dict())
    assert not is_same(before[1], decoder.state_dict())
    thawed = config(epochs=2, freeze_encoder_epochs=1)
    run(tiny_cache, tmp_path / "thawed", thawed, segmenter=segmenter)
    assert not is_same(before[0], encoder.state_dict())


def test_the_encoder_has_a_learning_rate_of_its_own(tiny_cache: Cache, tmp_path: Path) -> None:
    """A factor of nearly 0 leaves its weights where they are, in a schedule by steps too."""
    settings = config(epochs=1, encoder_lr_factor=1e-12, scheduler="one_cycle")
    segmenter = network(tiny_cache, settings)
    before = {name: p.detach().clone() for name, p in segmenter.network.named_parameters()}
    keeper = run(tiny_cache, tmp_path, settings, segmenter=segmenter)
    after = copied(segmenter.network)
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert max(v for name, v in moved.items() if name.startswith("encoder")) < 1e-9
    assert min(v for name, v in moved.items() if name.startswith("decoder.blocks.4.conv2")) > 1e-6
    assert keeper.history[0]["lr"] > 1e-9  # the one that is reported is that of the rest


def test_the_moving_average_is_what_is_kept(
    tiny_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the formula on the weights of every step, whose decay grows up to the limit."""
    decay, steps = 0.5, []
    update = SegmentationTask.on_train_batch_end

    def noting(self: SegmentationTask, *args: Any) -> None:
        steps.append(copied(self.segmenter.network))
        update(self, *args)

    monkeypatch.setattr(SegmentationTask, "on_train_batch_end", noting)
    keeper = run(tiny_cache, tmp_path, config(epochs=3, ema_decay=decay, select_by="loss"))
    steps = steps[: 2 * (keeper.best_epoch + 1)]  # two steps an epoch
    name = "segmentation_head.0.weight"
    expected = steps[0][name].double()
    for step, weights in enumerate(steps[1:], 1):
        factor = min(decay, 1 - (1 + step) ** (-2 / 3))
        expected = factor * expected + (1 - factor) * weights[name].double()
    torch.testing.assert_close(keeper.best_weights[name].double(), expected, atol=1e-6, rtol=0)
    assert not torch.equal(keeper.best_weights[name], steps[-1][name])


def test_accumulated_batches_are_one_step_of_the_average(
    tiny_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches a step: one update an epoch."""
    seen: list[int] = []

    def noting(self: Any, model: Any, step: int) -> None:
        seen.append(step)

    monkeypatch.setattr("timm.utils.model_ema.ModelEmaV3.update", noting)
    run(tiny_cache, tmp_path, config(epochs=2, accumulate=2, ema_decay=0.9))
    assert seen == [1, 2]


def test_the_mean_of_the_best_epochs_is_kept_and_scored(tiny_cache: Cache, tmp_path: Path) -> None:
    """The two best of four by loss; the scores are those of their mean, computed here again."""
    settings = config(epochs=4, average_best=2, select_by="loss")
    segmenter = network(tiny_cache, settings)
    keeper = run(tiny_cache, tmp_path, settings, segmenter=segmenter)
    losses = [row["val_loss"] for row in keeper.history]
    assert list(keeper.best) == np.argsort(losses, kind="stable")[:2].tolist()
    name = "segmentation_head.0.weight"
    first, second = (weights[name] for weights in keeper.best.values())
    torch.testing.assert_close(keeper.best_weights[name], (first + second) / 2)
    task = SegmentationTask(segmenter, settings, tiny_cache)
    segmenter.network.load_state_dict(keeper.best_weights)
    segmenter.eval()
    rows = np.flatnonzero(settings.fold == FOLDS)
    images: Batch = WholeImages(tiny_cache, rows).__getitems__(list(range(len(rows))))
    with torch.inference_mode():
        task.on_validation_epoch_start()
        task.validation_step(images, 0)
    assert keeper.kept_scores["loss"] == pytest.approx(task.validation_scores()["loss"], abs=1e-5)
    assert keeper.kept_scores["loss"] not in losses


def test_mixup_blends_images_and_losses(tiny_cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of two takes 30 percent of each other, and of the loss on each other's masks."""
    blend = Blend(0.7, torch.tensor([1, 0]))
    monkeypatch.setattr("steelseg.train.task.draw_blend", lambda *_: blend)
    seen: list[torch.Tensor] = []
    logits = torch.tensor([2.0, -1.0]).reshape(2, 1, 1, 1).expand(2, 2, 48, 80)

    def answer(images: torch.Tensor) -> tuple[torch.Tensor, None]:
        seen.append(images)
        return logits.clone().requires_grad_(), None

    settings = config(mixup=0.5, loss="bce")
    task = SegmentationTask(network(tiny_cache, settings), settings, tiny_cache)
    monkeypatch.setattr(task.segmenter, "heads", answer)
    task.trainer = SimpleNamespace(current_epoch=0, global_rank=0)  # type: ignore[assignment]
    batch = WholeImages(tiny_cache, np.array([0, 1])).__getitems__([0, 1])
    loss = task.training_step(batch, 0)
    images, masks = batch.images.float(), batch.masks.float()
    torch.testing.assert_close(seen[0], 0.7 * images + 0.3 * images[[1, 0]])
    own, others = (
        torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
        for truth in (masks, masks[[1, 0]])
    )
    torch.testing.assert_close(loss, 0.7 * own + 0.3 * others)
    assert abs(own - others) > 0.01


def test_mixup_is_drawn_by_its_probability() -> None:
    """Half of the batches, none or all, and the greater share is always the image's own."""
    drawn = {
        probability: [draw_blend(np.random.default_rng(i), probability, 4) for i in range(200)]
        for probability in (0.0, 0.5, 1.0)
    }
    assert {p: sum(b is not None for b in of) for p, of in drawn.items() if p != 0.5} == {
        0.0: 0,
        1.0: 200,
    }
    assert 70 < sum(blend is not None for blend in drawn[0.5]) < 130
    shares = [blend.share for blend in drawn[1.0] if blend]
    assert 0.5 <= min(shares) < 0.6
    assert max(shares) > 0.99


def test_false_alarms_of_an_epoch_are_drawn_again_in_the_next(
    tiny_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pixels found on clean crops, by image, reach the next epoch's draw; after a break too."""
    seen: list[np.ndarray] = []

    def noting(*arguments: Any) -> np.ndarray:
        seen.append(arguments[-1].copy())
        return draw(*arguments)

    monkeypatch.setattr("steelseg.train.sampling.draw", noting)
    settings = config(epochs=3, hard_negatives=0.5, lr=1e-4)
    whole = run(tiny_cache, tmp_path / "whole", settings)
    undisturbed, seen = seen, []
    assert not undisturbed[0].any()
    assert undisturbed[1].any()
    with pytest.raises(InterruptedError):
        run(tiny_cache, tmp_path / "parts", settings, stop_after=2)
    resumed = run(tiny_cache, tmp_path / "parts", settings)
    assert resumed.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(seen[-1], undisturbed[2])
    rows, counts = np.array([4, 0, 4]), np.zeros((3, 2, 1, 3), dtype=np.int64)
    counts[:, :, 0] = [[(0, 5, 0), (0, 0, 0)], [(1, 9, 2), (0, 2, 0)], [(0, 1, 0), (0, 1, 0)]]
    found = false_pixels(Gathered(torch.zeros(3), counts, rows, 1.0), 6)
    assert found.tolist() == [
        2,
        0,
        0,
        0,
        7,
        0,
    ]  # those of a class that is shown are none


def test_the_last_epochs_train_on_other_crops(
    tiny_cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Crops of 32, then whole images in other batches; the schedule ends at the last step."""
    sizes: list[tuple[int, ...]] = []
    step = SegmentationTask.training_step

    def noting(self: SegmentationTask, batch: Batch, batch_index: int) -> torch.Tensor:
        sizes.append(tuple(batch.masks.shape))
        return step(self, batch, batch_index)

    monkeypatch.setattr(SegmentationTask, "training_step", noting)
    finish = FinishConfig(epochs=2, crop=None, batch_size=4, crops_per_image=1)
    settings = config(epochs=4, finish=finish, scheduler="one_cycle", crops_per_image=2)
    whole = run(tiny_cache, tmp_path / "whole", settings)
    # eight training images, twice and then once
    assert sizes == [(4, 2, 32, 32)] * 8 + [(4, 2, 48, 80)] * 4
    optimizer = torch.optim.SGD([torch.zeros(1)])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=12)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    # what the last of twelve steps but one left: the schedule runs out just with the training
    assert whole.history[-1]["lr"] == pytest.approx(schedule.get_last_lr()[0])
    for stop in (2, 3):  # before the first epoch of the other kind, and after it
        folder = tmp_path / f"stopped-{stop}"
        with pytest.raises(InterruptedError):
            run(tiny_cache, folder, settings, stop_after=stop)
        resumed = run(tiny_cache, folder, settings)
        assert without_timings(validation_scores(resumed.history[-1])) == without_timings(
            validation_scores(whole.history[-1])
        )


def test_presets_are_lists_of_transforms() -> None:
    """Each can be built and applied; an unknown one is refused with those that there are."""
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    masks = np.zeros((2, 32, 32), dtype=np.uint8)
    for name in ("light", "square", "strong"):
        pipeline = build_augmentation(config(augment=name).transforms)
        images = [augment(pipeline, image, masks, seed)[0] for seed in range(12)]
        assert all(found.shape == (32, 32) for found in images)
        assert len({found.tobytes() for found in images}) >= 6
    with pytest.raises(BadInput, match="expected light, square, strong, but got 'stron'; did you"):
        _ = config(augment="stron").transforms

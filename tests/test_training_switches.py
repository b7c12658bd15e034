"""The switches of training each do what they say: label head, learning rates, averages."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_training import FOLDS, NETWORK, config, network, run

from steelseg import models, onnx_export
from steelseg.cache import Cache
from steelseg.dataset import Batch, WholeImages
from steelseg.models import gate
from steelseg.segmentation_task import SegmentationTask

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
def test_a_label_gates_the_pixels(
    kind: models.Gate, pixel: float, label: float, expected: float
) -> None:
    """Soft is the product of the probabilities, hard the lower one."""
    logits = torch.logit(torch.tensor([pixel, label]))
    gated = gate(logits[0].reshape(1, 1, 1, 1), logits[1].reshape(1, 1), kind)
    assert torch.sigmoid(gated).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_sure_labels_gate_without_overflow(kind: models.Gate) -> None:
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


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_gated_network_is_saved_and_exported_with_its_gate(
    tmp_path: Path, kind: models.Gate
) -> None:
    """Loaded again, and as ONNX, it answers the same, and a label that says no empties the map."""
    recipe = NETWORK.model_copy(update={"label_head": kind})
    torch.manual_seed(1)
    segmenter = models.build(recipe, 2, 0.4, 0.2).eval()
    head: Any = segmenter.network.classification_head
    torch.nn.init.constant_(head[3].bias, -20.0)
    weights = tmp_path / "model.safetensors"
    models.save_weights(weights, segmenter)
    models.save_card(tmp_path / "model.json", weights, segmenter, recipe, {"classes": [1, 2]})
    loaded, _ = models.load(tmp_path)
    onnx_export.export(loaded, tmp_path / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 96), dtype=np.uint8)
    with torch.inference_mode():
        expected = torch.sigmoid(segmenter(torch.from_numpy(images))).numpy()
        ungated = torch.sigmoid(segmenter.heads(torch.from_numpy(images))[0])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-6)
    assert expected.max() < 1e-6 < ungated.max()


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

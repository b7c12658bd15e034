"""What a GPU would be given to do, on tensors that only claim to be on one: not run on a GPU."""

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from saved_models import change_card
from tiny_training import ROOT, config
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeProcessGroup, FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.params import load
from steelseg.data.cache import Cache
from steelseg.model import network as models
from steelseg.model.card import ModelConfig
from steelseg.predict import inference
from steelseg.predict.inference import make_ready, maps_on_device
from steelseg.train import loop
from steelseg.train.batch import Batch, PackedBatch
from steelseg.train.keeper import EpochKeeper
from steelseg.train.losses import LOSSES
from steelseg.train.task import THRESHOLDS, SegmentationTask

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Under it, tensors on `cuda` can be computed with; they have shapes, but no values."""
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda *_: None)
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture
def nccl() -> Iterator[None]:
    """A group of two processes that, as nccl's, has no backend for tensors on the CPU."""

    def create(_: Any, rank: int, size: int, __: Any) -> Any:
        return FakeProcessGroup._create_internal(rank, size, None)

    dist.Backend.register_backend("like_nccl", create, devices=["cuda"])
    dist.init_process_group("like_nccl", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("nccl")
@pytest.mark.filterwarnings("ignore:torch.distributed.nn.functional")
def test_processes_compare_their_checkpoints_on_the_gpu(
    tmp_path: Path, fake_cuda: FakeTensorMode
) -> None:
    """When a training is set up, the module is on the CPU still, and nccl gathers nothing there."""
    strategy = DDPStrategy(parallel_devices=[CUDA, CUDA])
    trainer: Any = SimpleNamespace(
        ckpt_path=tmp_path / "epoch-0002.safetensors",
        strategy=SimpleNamespace(root_device=strategy.root_device),
    )
    keeper = EpochKeeper(tmp_path, config(), lambda *_: None)
    for others, fault in ((2, None), (1, "the processes found different checkpoints")):

        def gather(number: torch.Tensor, others: int = others) -> np.ndarray:
            assert strategy.all_gather(number).shape == (2,)
            return np.array([2, others])

        trainer.strategy.all_gather = gather
        with fake_cuda, pytest.raises(SteelsegError, match=fault) if fault else nullcontext():
            keeper.setup(trainer, L.LightningModule(), "fit")


@pytest.mark.parametrize(
    ("changes", "arch", "fault"),
    [
        ({"loss": {"bce": 0.5, "lovasz": 0.5}}, "Unet", "the loss `lovasz`"),
        ({}, "PSPNet", "this `arch`"),
        ({}, "UPerNet", "this `arch`"),
        ({}, "MAnet", None),  # pools to a single pixel, which is a plain mean
    ],
)
def test_what_a_gpu_cannot_repeat_is_refused_early(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], arch: str, fault: str | None
) -> None:
    """Torch would raise in the first step; without `deterministic`, or a GPU, all is well."""
    monkeypatch.setattr(loop, "has_gpu", lambda: True)
    recipe = ModelConfig(arch=arch, encoder="resnet18", encoder_weights=None, arch_options={})
    segmenter = models.build(recipe, 2, [0.4], [0.2])
    loop.refuse_what_cannot_repeat(config(**changes), segmenter)
    settings = config(deterministic=True, **changes)
    with pytest.raises(BadInput, match=fault) if fault else nullcontext():
        loop.refuse_what_cannot_repeat(settings, segmenter)
    monkeypatch.setattr(loop, "has_gpu", lambda: False)
    loop.refuse_what_cannot_repeat(settings, segmenter)


WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique")  # on a value or a count


class Synchronisations(TorchDispatchMode):
    """Notes what makes a program wait for its GPU: numbers and tensors that are fetched from it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        fetched = "_to_copy" in name and str((kwargs or {}).get("device")) == "cpu"
        if fetched or any(word in name for word in WAITING):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def on_cuda(whole: torch.nn.Module) -> None:
    """Put a module's parameters and buffers onto the fake GPU, with the strides that they have."""
    for module in whole.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    there: Any = torch.empty_like(tensor, device=CUDA)
                    if isinstance(tensor, torch.nn.Parameter):
                        there = torch.nn.Parameter(there, requires_grad=tensor.requires_grad)
                    tensors[name] = there


def batch_on_cuda(n_images: int, n_masks: int, height: int, width: int) -> Batch:
    """As a loader sends it, and as the data module unpacks it."""
    padded = [side + -side % 32 for side in (height, width)]
    images = torch.empty(n_images, 1, *padded, dtype=torch.uint8, device=CUDA)
    packed = torch.empty(n_images, n_masks, height, -(-width // 8), dtype=torch.uint8, device=CUDA)
    rows = torch.empty(n_images, dtype=torch.int64, device=CUDA)
    return PackedBatch(images, packed, rows, width).unpack()


def built(network: dict[str, Any]) -> models.Segmenter:
    """The network of params.yaml, with changes."""
    recipe = load(ModelConfig, path=ROOT / "params.yaml").model_copy(
        update={"encoder_weights": None, "arch_options": {}, **network}
    )
    torch.manual_seed(0)
    return models.build(recipe, 2, [0.4], [0.2])


def types_of_convolutions(segmenter: models.Segmenter) -> list[torch.dtype]:
    """Note what type each convolution answers in, when it is run."""
    seen: list[torch.dtype] = []
    for module in segmenter.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, answer: seen.append(answer.dtype))
    return seen


NETWORKS = (
    {},
    {"arch": "FPN", "encoder": "resnet18"},
    {"arch": "DeepLabV3Plus", "encoder": "resnet34"},
    {"arch": "UnetPlusPlus", "encoder": "mobilenet_v2"},
    {"arch": "Segformer", "encoder": "mit_b0"},
)
SMALL = {"encoder": "tu-resnet10t"}


@pytest.mark.parametrize(
    ("changes", "network", "shape"),  # of the masks, the third being what is ignored
    [
        ({}, {}, (2, 256, 256)),
        ({"mixup": 1.0, "ema_decay": 0.9}, {}, (3, 200, 200)),  # padded, and cut back
        (
            {"loss": {"bce": 1.0}, "class_weights": [1.0, 2.0], "label_smoothing": 0.1},
            SMALL,
            (3, 64, 64),
        ),
        *(({"loss": loss}, SMALL, (3, 64, 64)) for loss in LOSSES),
        ({}, {"label_head": "hard"}, (3, 64, 64)),
        ({}, {"label_head": "soft"}, (2, 64, 64)),
        *(({}, network, (2, 64, 64)) for network in NETWORKS[1:]),
    ],
    ids=str,
)
def test_steps_stay_on_the_gpu_and_losses_in_32_bits(
    fake_cuda: FakeTensorMode,
    tiny_cache: Cache,
    changes: dict[str, Any],
    network: dict[str, Any],
    shape: tuple[int, int, int],
) -> None:
    """Nothing is computed on two devices, and nothing fetched but what the epoch's end asks for."""
    settings = config(precision="16-mixed", **changes)
    segmenter = built(network).to(memory_format=torch.channels_last)
    task = SegmentationTask(segmenter, settings, tiny_cache)
    seen: list[torch.dtype] = []
    for part in task.loss.parts.values():
        part.register_forward_pre_hook(lambda _, given: seen.extend(t.dtype for t in given))
    convolved = types_of_convolutions(segmenter)
    with fake_cuda, torch.autocast("cuda", torch.float16):
        on_cuda(task)
        task._device = CUDA
        task._trainer = SimpleNamespace(current_epoch=0, global_rank=0, global_step=1)  # type: ignore
        batch = batch_on_cuda(4, *shape)
        task.on_train_epoch_start()
        with Synchronisations() as of_training:
            loss = task.train().training_step(batch, 0)
            task.on_train_batch_end()
        task.eval().on_validation_epoch_start()
        with torch.inference_mode(), Synchronisations() as of_validation:
            task.validation_step(batch, 0)
    assert (loss.shape, loss.dtype, loss.device) == ((), torch.float32, CUDA)
    assert (set(convolved), set(seen)) == ({torch.float16}, {torch.float32})
    assert of_training.found == of_validation.found == []
    for totals, n_thresholds in ((task._training, 1), (task._validation, len(THRESHOLDS))):
        losses, counts, rows = (parts[0] for parts in totals._parts)
        assert (losses.shape, losses.dtype, rows.shape) == ((4,), torch.float32, (4,))
        assert (counts.shape, counts.dtype) == ((4, 2, n_thresholds, 3), torch.int64)
        assert {tensor.device for tensor in (losses, counts, rows)} == {CUDA}


@pytest.mark.parametrize(
    ("network", "dtype"),
    [
        *((network, torch.float16) for network in (*NETWORKS, {"label_head": "soft"})),
        ({}, torch.bfloat16),
        ({}, None),
    ],
    ids=str,
)
def test_answers_of_the_torch_runtime_stay_on_the_gpu(
    fake_cuda: FakeTensorMode, network: dict[str, Any], dtype: torch.dtype | None
) -> None:
    """It computes in the type that is asked for, as do its weights, and answers in 16 bits."""
    segmenter = built(network).eval()
    convolved = types_of_convolutions(segmenter)
    make_ready(segmenter, CUDA, dtype)
    weights = {m.weight.dtype for m in segmenter.modules() if isinstance(m, torch.nn.Conv2d)}
    with fake_cuda, torch.inference_mode(), Synchronisations() as waiting:
        on_cuda(segmenter)
        images = torch.empty(2, 1, 64, 96, dtype=torch.uint8, device=CUDA)
        maps = maps_on_device(segmenter, images, dtype)
    assert weights == set(convolved) == {dtype or torch.float32}
    assert (maps.shape, maps.dtype, maps.device) == ((2, 2, 64, 96), torch.float16, CUDA)
    assert waiting.found == []


def test_a_model_is_opened_on_the_gpu_in_the_type_of_its_training(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its card says; two threads call it, so that one reads images while the GPU works."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    change_card(folder, training={"precision": "bf16-mixed"})
    given: list[Any] = []
    monkeypatch.setattr(inference, "has_gpu", lambda: True)
    monkeypatch.setattr(models.Segmenter, "to", lambda self, *to: given.extend(to) or self)
    monkeypatch.setattr(inference, "torch_network", lambda _, *how: given.extend(how) or len)
    runtime = inference.open_torch(folder)
    assert given == ["cuda", torch.device("cuda"), torch.bfloat16]
    assert (runtime.calls, inference.InferenceConfig().batch_size) == (2, 8)

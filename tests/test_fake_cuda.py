"""What a GPU would be given to do, on tensors that only claim to be on one: not run on a GPU."""

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
from tiny_training import config
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeProcessGroup, FakeStore

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.model import network as models
from steelseg.model.network import ModelConfig
from steelseg.train import loop
from steelseg.train.keeper import EpochKeeper

CUDA = torch.device("cuda", 0)


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on `cuda` can be made and computed with; they have shapes, but no values."""
    monkeypatch.setattr(fake_tensor, "init_gpu_context", lambda *_: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


@pytest.fixture
def nccl() -> Iterator[None]:
    """A group of two processes that, as nccl's, has no backend for tensors on the CPU."""

    def create(_: Any, rank: int, size: int, __: Any) -> Any:
        return FakeProcessGroup._create_internal(rank, size, None)

    dist.Backend.register_backend("like_nccl", create, devices=["cuda"])
    dist.init_process_group("like_nccl", store=FakeStore(), rank=0, world_size=2)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("nccl", "fake_cuda")
@pytest.mark.filterwarnings("ignore:torch.distributed.nn.functional")
def test_processes_compare_their_checkpoints_on_the_gpu(tmp_path: Path) -> None:
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
        with pytest.raises(SteelsegError, match=fault) if fault else nullcontext():
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
    recipe = ModelConfig(
        arch=arch, encoder="resnet18", encoder_weights=None, in_channels=1, arch_options={}
    )
    segmenter = models.build(recipe, 2, 0.4, 0.2)
    loop._refuse_what_cannot_repeat(config(**changes), segmenter)
    settings = config(deterministic=True, **changes)
    with pytest.raises(BadInput, match=fault) if fault else nullcontext():
        loop._refuse_what_cannot_repeat(settings, segmenter)
    monkeypatch.setattr(loop, "has_gpu", lambda: False)
    loop._refuse_what_cannot_repeat(settings, segmenter)

"""Nested values survive a round trip through one safetensors file, bit for bit."""

import resource
from pathlib import Path

import pytest
import torch

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import sha256
from steelseg.train.checkpoint_io import load_tree, random_state, save_tree, set_random_state

ONE = torch.arange(4)
TREE = {
    "epoch": 3,
    "lr": 5e-4,
    "name": "Adam",
    "none": None,
    "flags": [True, False],
    "betas": (0.9, 0.999),
    "state": {0: {"step": torch.tensor(7.0)}, 1: {"exp_avg": torch.arange(6.0).reshape(2, 3).T}},
    "empty": {"dict": {}, "list": [], "tuple": (), "tensor": torch.zeros(0, 3)},
    "odd": [torch.tensor([True, False, True]), torch.ones(3).bfloat16(), torch.ones(1).double()],
    "channels last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "one memory": [ONE, ONE, ONE[1:]],
    "gaps": torch.arange(12).reshape(3, 4)[:, ::2],
    "infinite": float("inf"),
}


def compact(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor)  # has the strides of the tensor, but no gaps


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b) and a.stride() == compact(b).stride()
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        pairs = zip(a, b, strict=True)
        return type(a) is type(b) and all(same(x, y) for x, y in pairs)
    return type(a) is type(b) and a == b


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    """Integer keys, tuples, infinite floats and strided tensors included."""
    digest = save_tree(tmp_path / "x", TREE)
    assert same(load_tree(tmp_path / "x"), TREE)
    assert digest == sha256(tmp_path / "x")


def test_the_state_of_an_optimizer_comes_back(tmp_path: Path) -> None:
    """A real optimizer goes on from it exactly as if it had never stopped."""

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    step(model, optimizer)
    save_tree(tmp_path / "x", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    step(model, optimizer)

    tree = load_tree(tmp_path / "x")
    resumed = torch.nn.Linear(3, 4)
    resumed.load_state_dict(tree["model"])
    second = torch.optim.AdamW(resumed.parameters(), lr=0.1, amsgrad=True)
    second.load_state_dict(tree["optimizer"])
    step(resumed, second)
    assert torch.equal(resumed.weight, model.weight)


@pytest.mark.parametrize("fused", [False, True])
def test_an_optimizer_of_weights_with_channels_last_goes_on(tmp_path: Path, fused: bool) -> None:
    """A fused one takes weights and state by their place in memory, and says nothing of strides."""

    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        images = torch.arange(4 * 5 * 5.0).reshape(1, 4, 5, 5)
        model(images.to(memory_format=torch.channels_last)).pow(3).sum().backward()
        optimizer.step()

    model, optimizer = make()
    step(model, optimizer)
    save_tree(tmp_path / "x", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    step(model, optimizer)
    tree = load_tree(tmp_path / "x")
    resumed, second = make()
    resumed.load_state_dict(tree["model"])
    second.load_state_dict(tree["optimizer"])
    step(resumed, second)
    assert torch.equal(resumed.weight, model.weight)


def test_random_numbers_go_on(tmp_path: Path) -> None:
    """After a resume, the generators give the numbers that would have come."""
    save_tree(tmp_path / "x", random_state())
    expected = torch.rand(5)
    set_random_state(load_tree(tmp_path / "x"))
    assert torch.equal(torch.rand(5), expected)


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {1, 2}])
def test_what_cannot_be_stored_is_refused(tmp_path: Path, value: object) -> None:
    """Nothing is lost silently, and no file is left."""
    with pytest.raises(TypeError):
        save_tree(tmp_path / "x", {"value": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"\x08", b"x" * 100, b"\x80\x04K\x01."])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes) -> None:
    """A pickle in particular is not loaded."""
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(BadInput):
        load_tree(tmp_path / "x")


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files end at 1 KiB here, as on a full disk: one message, and no half of a checkpoint."""
    monkeypatch.chdir(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(SteelsegError) as error:
            save_tree(Path("checkpoint"), {"weight": torch.zeros(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(error.value) == "checkpoint: cannot be written: File too large"
    assert list(tmp_path.iterdir()) == []

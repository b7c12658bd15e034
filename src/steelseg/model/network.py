"""Building, saving and loading of networks of segmentation-models-pytorch."""

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from steelseg.core.errors import BadInput, SteelsegError
from steelseg.core.files import atomic_path, sha256
from steelseg.core.params import nearest
from steelseg.core.pixels import COLOURS, GREY, PixelFormat
from steelseg.model.card import (
    WEIGHTS,
    Card,
    Gate,
    ModelConfig,
    check_weights,
    read_card,
    write_card,
)
from steelseg.model.pretrained import with_constant_padding

OWN_OPTIONS = (
    *("encoder_name", "encoder_weights", "in_channels", "classes", "activation"),
    "aux_params",  # of `label_head`
)


class Segmenter(nn.Module):
    """A network with its normalisation: from pixel levels to logits."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        pixels: PixelFormat,
        mean: Sequence[float],
        std: Sequence[float],
        label_head: Gate = "none",
    ) -> None:
        """Wrap a network; mean and std are per channel, of levels from 0 to 1."""
        super().__init__()
        self.network = network
        self.pixels = pixels
        self.label_head: Gate = label_head
        self.register_buffer("mean", _of_channels(mean), persistent=False)
        self.register_buffer("std", _of_channels(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, N, H, W) uint8 or uint16 to logits (B, C, H, W).

        H and W are multiples of 32, and N is the number of channels.
        """
        return gate(*self.heads(images), self.label_head)

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the ungated logits of pixels (B, C, H, W), and those of labels (B, C) or None."""
        answer = self.network((images.float() / self.pixels.white - self.mean) / self.std)
        return answer if self.label_head != "none" else (answer, None)


def gate(logits: Tensor, label_logits: Tensor | None, kind: Gate) -> Tensor:
    """Combine the logits of pixels (B, C, H, W) and labels (B, C) to logits (B, C, H, W).

    `soft` multiplies a pixel's probability p by the probability q that the image shows its class.
    `hard` takes min(p, q): a label below the pixel threshold, or below the tuned gate of the class,
    empties the mask, and one above it changes nothing.
    """
    if label_logits is None:
        return logits
    logits, labels = logits.float(), label_logits[..., None, None].float()  # sums overflow half
    if kind == "hard":
        return torch.minimum(logits, labels)
    # 1 / (p q) - 1 = exp(-a) + exp(-b) + exp(-a - b) for logits a and b
    return -torch.logaddexp(torch.logaddexp(-logits, -labels), -logits - labels)


def _of_channels(values: Sequence[float]) -> Tensor:
    """Return values per channel as a tensor (N, 1, 1); a single one as a scalar."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor[0] if len(values) == 1 else tensor[:, None, None]


def build(
    config: ModelConfig,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    pixels: PixelFormat = GREY,
) -> Segmenter:
    """Build a network, with pretrained encoder weights if configured.

    Args:
        config: which network.
        n_classes: channels of its output.
        mean, std: per channel of the images, of levels from 0 to 1.
        pixels: the format of the images.

    Raises:
        BadInput: the architecture, the encoder or an option is unknown, or a weight file does not
            fit the encoder.
        SteelsegError: pretrained weights cannot be downloaded.
    """
    _check_names(config)
    _check_options(config)
    local = config.encoder_weights is not None and config.encoder_weights.endswith(".safetensors")
    download: str | bool | None = None if local else config.encoder_weights
    if download and config.encoder.startswith("tu-"):
        download = True  # timm's weights are part of the encoder's name
    try:
        network = smp.create_model(
            config.arch,
            encoder_name=config.encoder,
            encoder_weights=download,
            in_channels=pixels.channels,
            classes=n_classes,
            aux_params={"classes": n_classes} if config.label_head != "none" else None,
            **config.arch_options,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise _explain(error, config, download) from error
    if local:
        _load_encoder(network.encoder, Path(str(config.encoder_weights)))
    with_constant_padding(network)
    return Segmenter(network, pixels, mean, std, config.label_head)


def save_model(folder: Path, segmenter: Segmenter, config: ModelConfig, **facts: Any) -> Card:
    """Write a network's weights and card; `facts` are the card's other fields."""
    save_weights(folder / WEIGHTS, segmenter)
    card = Card(
        weights_sha256=sha256(folder / WEIGHTS),
        model=config.model_copy(update={"encoder_weights": None}),
        pixels=segmenter.pixels,
        mean=segmenter.mean.flatten().tolist(),
        std=segmenter.std.flatten().tolist(),
        **facts,
    )
    write_card(folder, card)
    return card


def save_weights(path: Path, segmenter: Segmenter) -> None:
    """Write the network's weights as safetensors, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(_tensors(segmenter)))


def weights_digest(segmenter: Segmenter) -> str:
    """Return the SHA-256 of the file that `save_weights` would write."""
    return hashlib.sha256(save(_tensors(segmenter))).hexdigest()


def load(folder: Path) -> tuple[Segmenter, Card]:
    """Load a model and its card from a folder, in evaluation mode.

    Raises:
        BadInput: a file is missing or damaged, or the weights belong to another network.
    """
    card = read_card(folder)
    check_weights(folder, card)
    config = card.model
    segmenter = build(config, len(card.classes), card.mean, card.std, card.pixels)
    load_weights(folder / WEIGHTS, segmenter.network, f"{config.arch} with {config.encoder}")
    return segmenter.eval(), card


def load_weights(path: Path, module: nn.Module, what: str) -> None:
    """Load safetensors into a module; names and shapes must match exactly.

    Raises:
        BadInput: the file is missing or damaged, or has weights of another network.
    """
    _put_weights(path, _read_weights(path), module, what)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: cannot be read as safetensors: {error}") from error


def _put_weights(path: Path, tensors: dict[str, Tensor], module: nn.Module, what: str) -> None:
    own = module.state_dict()
    wrong = [n for n in sorted(own.keys() | tensors.keys()) if _shape(own, n) != _shape(tensors, n)]
    if wrong:
        name = wrong[0]
        raise BadInput(
            f"{path}: expected the weights of {what}, but {len(wrong)} tensors differ, the first "
            f"`{name}`: {_shape(own, name)} in the network, {_shape(tensors, name)} in the file"
        )
    module.load_state_dict(tensors)


def encoder_file_sha256(config: ModelConfig) -> str | None:
    """Return the checksum of the file with the encoder's weights, or None if there is none.

    Raises:
        BadInput: the file is missing.
    """
    if config.encoder_weights is None or not config.encoder_weights.endswith(".safetensors"):
        return None
    path = Path(config.encoder_weights)
    if not path.is_file():
        raise BadInput(f"`encoder_weights`: {path}: no such file")
    return sha256(path)


def _tensors(segmenter: Segmenter) -> dict[str, Tensor]:
    state = segmenter.network.state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load an encoder's weights; those for three colours are adapted to other channels.

    Each of N channels gets 1/N of the sum over the colours. So a grey image in all N channels gives
    the same output as in all three colours, and all channels count equally.
    """
    tensors = _read_weights(path)
    for name, own in encoder.state_dict().items():
        given, n_channels = tensors.get(name, own), own.shape[1] if own.ndim == 4 else 0
        if n_channels not in (0, COLOURS) and given.shape[1:] == (COLOURS, *own.shape[2:]):
            grey = given.sum(dim=1, keepdim=True)
            tensors[name] = (grey / n_channels).repeat(1, n_channels, 1, 1)
    _put_weights(path, tensors, encoder, "this encoder")


def _shape(tensors: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _check_names(config: ModelConfig) -> None:
    architectures = {a.__name__ for a in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if config.arch.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
        raise BadInput(
            f"`arch`: unknown architecture {config.arch!r}{nearest(config.arch, architectures)}"
        )
    encoders = smp.encoders.encoders.keys()
    if config.encoder not in encoders and not config.encoder.startswith("tu-"):
        raise BadInput(
            f"`encoder`: unknown encoder {config.encoder!r}{nearest(config.encoder, encoders)}"
        )


def _check_options(config: ModelConfig) -> None:
    # smp silently ignores unknown options
    architecture = smp.MODEL_ARCHITECTURES_MAPPING[config.arch.lower()]
    known = set(inspect.signature(architecture).parameters) - {*OWN_OPTIONS, "self", "kwargs"}
    for name in config.arch_options:
        if name not in known:
            raise BadInput(f"`arch_options`: {config.arch} has no {name!r}{nearest(name, known)}")


def _explain(error: Exception, config: ModelConfig, download: str | bool | None) -> SteelsegError:
    reason = " ".join(str(error).split())[:300]
    if download and isinstance(error, OSError | RuntimeError):
        return SteelsegError(
            f"`encoder_weights`: {config.encoder_weights!r} of {config.encoder} cannot be "
            f"downloaded ({reason}). Set `encoder_weights: null`, or give the path of a "
            ".safetensors file"
        )
    return BadInput(
        f"`arch` {config.arch} with `encoder` {config.encoder}: cannot be built: {reason}"
    )

"""Stores nested Python values with tensors in one safetensors file, without pickling.

Tensors are stored as such, and everything else as JSON in the file's header. Supported are the
types of training checkpoints: dicts with string or integer keys, lists, tuples, tensors, and None,
bool, int, float and str.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steelseg.core.device import has_gpu
from steelseg.core.errors import BadInput
from steelseg.core.files import atomic_path, seal

_HEADER = "tree"
_FAULTS = OSError, SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError


def save_tree(path: Path, tree: Any) -> str:
    """Write a nested value, whole or not at all.

    Returns:
        The SHA-256 of the file.

    Raises:
        TypeError: the value contains other types than those above.
        SteelsegError: the disk is full.
    """
    tensors: dict[str, Tensor] = {}
    header = json.dumps(_encode(tree, tensors))
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for piece in _pieces(header, tensors):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _pieces(header: str, tensors: dict[str, Tensor]) -> Iterator[Any]:
    """Yield a safetensors file in pieces: its own writer copies all tensors twice."""
    largest_first = sorted(tensors, key=lambda name: -tensors[name].element_size())  # to align them
    entries: dict[str, Any] = {"__metadata__": {_HEADER: header}}
    end = 0
    for name in largest_first:
        start, end = end, end + tensors[name].nbytes
        shape = [end - start]
        entries[name] = {"dtype": "U8", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for name in largest_first:
        yield tensors[name].view(torch.uint8).numpy().data


def load_tree(path: Path) -> Any:
    """Read what `save_tree` wrote.

    Raises:
        BadInput: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return _decode(tree, tensors)
    except _FAULTS as error:
        raise BadInput(f"{path}: cannot be read as a checkpoint: {error}") from error


class SafetensorsIO(CheckpointIO):
    """Lets Lightning write and read checkpoints without pickling."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all, and seal it."""
        seal(Path(path), save_tree(Path(path), checkpoint))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint."""
        checkpoint: dict[str, Any] = load_tree(Path(path))
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name, tensor = str(len(tensors)), value.detach().cpu()
        if torch.empty_like(tensor, device="meta").stride() != tensor.stride():
            tensor = tensor.contiguous()  # it has gaps
        # as its memory has it, channels last too: an optimizer's state must lie as its weights do
        tensors[name] = tensor.as_strided((tensor.numel(),), (1,))
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {"tensor": [name, dtype, list(tensor.shape), list(tensor.stride())]}
    if isinstance(value, dict):
        return {"dict": [[_key(k), _encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(v, tensors) for v in value]}
    if value is None or type(value) in {bool, int, float, str}:
        return {"value": value}
    raise TypeError(f"Expected plain values and tensors in a checkpoint, but got {type(value)}")


def _key(key: Any) -> str | int:
    if type(key) not in {str, int}:
        raise TypeError(f"Expected keys of type str or int in a checkpoint, but got {key!r}")
    return key  # type: ignore[no-any-return]


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        name, dtype, shape, stride = value
        return tensors[name].view(getattr(torch, dtype)).as_strided(shape, stride)
    if kind == "dict":
        return {k: _decode(v, tensors) for k, v in value}
    if kind == "value":
        return value
    items = [_decode(v, tensors) for v in value]
    return tuple(items) if kind == "tuple" else items


def random_state() -> dict[str, Tensor]:
    """Return the state of torch's random generators: of the CPU, and of this process's GPU.

    All processes of a training draw alike, so that the state of one is that of all.
    """
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if has_gpu() else {})


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put back what `random_state` returned, on whichever GPU this process has."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and has_gpu():
        torch.cuda.set_rng_state(state["cuda"])

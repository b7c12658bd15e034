"""ONNX files that carry a checksum and say which weights they were made of.

Messages of Protocol Buffers that stand one after the other in a file are read as one. So the seal,
an entry of the model's metadata, is a message of its own after the model, and what is before it
can be hashed as it lies in the file.
"""

import hashlib
from pathlib import Path

from steelseg.errors import BadInput

_KEY = b"steelseg.seal"
_METADATA, _NAME, _VALUE = b"\x72", b"\x0a", b"\x12"  # fields 14 of a model, 1 and 2 of an entry


def seal(path: Path, weights_sha256: str) -> None:
    """Add a seal to an ONNX file, which the runtimes pass over."""
    model = path.read_bytes()
    path.write_bytes(model + _seal(model, weights_sha256))


def read_onnx(path: Path, weights_sha256: str) -> bytes:
    """Read a sealed ONNX file, which must have been made of the weights with that checksum.

    Raises:
        BadInput: the file is missing, is damaged, or was made of other weights.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    length = len(_seal(b"", weights_sha256))
    model, found = data[:-length], data[-length:]
    if found != _seal(model, weights_sha256):
        raise BadInput(
            f"{path}: is damaged, or was made of other weights than models/model.safetensors; "
            "delete it and run `dvc repro`"
        )
    return data


def _seal(model: bytes, weights_sha256: str) -> bytes:
    value = f"{hashlib.sha256(model).hexdigest()} {weights_sha256}".encode()
    entry = _field(_NAME, _KEY) + _field(_VALUE, value)
    return _field(_METADATA, entry)


def _field(tag: bytes, value: bytes) -> bytes:
    length = len(value)  # of up to 14 bits, seven a byte, the last byte without the high bit
    size = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
    return tag + size + value

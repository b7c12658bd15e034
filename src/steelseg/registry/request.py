"""Parsing of requests to a served model: image files as base64 in JSON, and nothing else.

No path or URL in a request is opened. MLflow's own parser is not used, since it is unsafe with
untrusted input: a table of distinct columns uses memory for rows times columns, and invalid input
is answered with a traceback or with status 500.
"""

import base64
import binascii
import json
from typing import Any

from steelseg.core.arrays import Pixels
from steelseg.core.errors import BadInput, quote
from steelseg.core.pixels import PixelFormat
from steelseg.data import decoding

MAX_BODY = 2**26  # bytes; some 500 frames of 256x1600 as JPEG
MAX_VALUES = 2**20  # objects that JSON is parsed into, of up to 100 bytes each
EXPECTED = 'expected {"dataframe_records": [{"image": "<base64 of an image file>"}, ...]}'
_URL_SAFE = str.maketrans("-_", "+/")


def images_of(body: bytes, content_type: str | None) -> list[Any]:
    """Return the image values of a request, in any of MLflow's JSON forms.

    Content types other than JSON are rejected, since any web page can make a browser send them.

    Raises:
        BadInput: the body has another type or form, or is too large.
    """
    if (content_type or "").partition(";")[0].strip().lower() != "application/json":
        got = quote(content_type) if content_type else "none"
        raise BadInput(f"expected the content type application/json, but got {got}")
    if len(body) > MAX_BODY:
        raise BadInput(f"expected at most {MAX_BODY} bytes per request, but got {len(body)}")
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadInput(f"expected at most {MAX_VALUES} values per request; send fewer images")
    try:
        return _column(json.loads(body))
    except (LookupError, TypeError, ValueError, RecursionError):
        raise BadInput(EXPECTED) from None


def _column(document: Any) -> list[Any]:
    match document:
        case {"dataframe_records": [*rows]} | {"instances": [*rows]}:
            return [row["image"] for row in rows]
        case {"dataframe_split": {"columns": [*names], "data": [*rows]}}:
            at = names.index("image")
            return [row[at] for row in rows]
        case {"inputs": {"image": [*images]}}:
            return images
    raise BadInput(EXPECTED)


def decode(image: Any, pixels: PixelFormat, max_pixels: int) -> Pixels:
    """Decode an image file's bytes, or their base64, as `decoding.decode` does.

    The base64 may be standard or URL-safe, contain line breaks, or be a data URI.

    Raises:
        BadInput: it is something else, or needs more memory or time than `max_pixels` pixels.
    """
    if isinstance(image, str):
        image = _from_base64(image)
    if not isinstance(image, bytes):
        raise BadInput(f"expected an image file's bytes, but got {quote(image)}")
    return decoding.decode(image, pixels, max_pixels)


def _from_base64(text: str) -> bytes:
    encoded = text.partition(";base64,")[2] if text.startswith("data:") else text
    standard = "".join(encoded.split()).translate(_URL_SAFE)
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadInput(
            f"expected the base64 of an image file's bytes, but got {quote(text)}"
        ) from None

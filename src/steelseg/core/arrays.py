"""Aliases for array types; a variable's name gives its content and axes."""

from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Uint8 = npt.NDArray[np.uint8]
Uint16 = npt.NDArray[np.uint16]
Pixels = npt.NDArray[np.unsignedinteger[Any]]
"""uint8 or uint16"""
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

"""Reading .npz files from memory without trusting them.

``np.load`` allocates what an array's header declares and inflates members whole. Here the header
is compared with the bytes that are really there first, and object arrays are refused.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from raxe_fast.archive import read_zip_member

__all__ = ["read_npz"]

MAX_ARRAY_BYTES = 1 << 28


def read_npz(data: bytes) -> Mapping[str, np.ndarray[Any, np.dtype[Any]]]:
    """All arrays of an ``.npz``, read-only. Raises ``ValueError`` saying what is wrong."""
    arrays: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"not an .npz file: {error}") from error
    with archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            try:
                arrays[name] = _read_npy(read_zip_member(archive, info, MAX_ARRAY_BYTES))
            except ValueError as error:
                raise ValueError(f"array {name!r}: {error}") from error
    return arrays


def _read_npy(data: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"unknown .npy version {version}")
    if dtype.hasobject:
        raise ValueError("object arrays are not allowed")
    body = memoryview(data)[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ValueError(f"shape {shape} of {dtype} does not fit {len(body)} bytes")
    if dtype.itemsize == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")

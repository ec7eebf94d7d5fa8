"""Reads the graph of an ONNX file: nodes, raw tensors and metadata, without the onnx package.

Only what an exported encoder holds is understood; tensors are views of the bytes given. Nothing is
trusted: whatever lies outside the file or is no ONNX raises ``ValueError``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Graph", "Node", "read_onnx"]

# Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. ``attributes`` holds int, float and bytes values; other kinds are ``None``."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int | float | bytes | None]


@dataclass(frozen=True, slots=True)
class Graph:
    """``nodes`` in order, initialisers by name, names of inputs and outputs."""

    nodes: tuple[Node, ...]
    tensors: dict[str, npt.NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def read_onnx(data: bytes) -> Graph:
    """The graph of a serialised ModelProto. Raises ``ValueError`` if it is none, uses external
    data, or stores a tensor otherwise than as raw little-endian numbers of a known type."""
    graph: memoryview | None = None
    metadata: dict[str, str] = {}
    for field, value in _fields(memoryview(data)):
        if field == 7:
            graph = _message(value)
        elif field == 14:
            key, text = _entry(_message(value))
            metadata[key] = text
    if graph is None:
        raise ValueError("holds no graph")
    nodes: list[Node] = []
    tensors: dict[str, npt.NDArray[Any]] = {}
    inputs: list[str] = []
    outputs: list[str] = []
    for field, value in _fields(graph):
        if field == 1:
            nodes.append(_node(_message(value)))
        elif field == 5:
            name, tensor = _tensor(_message(value))
            if name in tensors:
                raise ValueError(f"holds the tensor {name!r} twice")
            tensors[name] = tensor
        elif field == 11:
            inputs.append(_value_name(_message(value)))
        elif field == 12:
            outputs.append(_value_name(_message(value)))
        elif field == 15:
            raise ValueError("holds sparse tensors")
    return Graph(tuple(nodes), tensors, tuple(inputs), tuple(outputs), metadata)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field: an int for numbers (fixed ones by their bits), a view
    for bytes, texts and messages."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"not an ONNX file: wire type {wire}")
        if size > len(data) - at:
            raise ValueError("truncated, or not an ONNX file")
        content = data[at : at + size]
        at += size
        yield tag >> 3, content if wire == _BYTES else int.from_bytes(content, "little")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("truncated, or not an ONNX file")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("not an ONNX file: a number has more than 64 bits")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("not an ONNX file: a number where a message belongs")
    return value


def _number(value: int | memoryview) -> int:
    """A number of 64 bits, signed."""
    if not isinstance(value, int):
        raise ValueError("not an ONNX file: a message where a number belongs")
    return value - (1 << 64) if value >> 63 else value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError:
        raise ValueError("not an ONNX file: a name is not UTF-8") from None


def _entry(message: memoryview) -> tuple[str, str]:
    texts = {field: _text(value) for field, value in _fields(message) if field in (1, 2)}
    return texts.get(1, ""), texts.get(2, "")


def _value_name(message: memoryview) -> str:
    return next((_text(value) for field, value in _fields(message) if field == 1), "")


def _node(message: memoryview) -> Node:
    inputs: list[str] = []
    outputs: list[str] = []
    op = domain = ""
    attributes: dict[str, int | float | bytes | None] = {}
    for field, value in _fields(message):
        if field == 1:
            inputs.append(_text(value))
        elif field == 2:
            outputs.append(_text(value))
        elif field == 4:
            op = _text(value)
        elif field == 5:
            name, content = _attribute(_message(value))
            attributes[name] = content
        elif field == 7:
            domain = _text(value)
    return Node(op, domain, tuple(inputs), tuple(outputs), attributes)


def _attribute(message: memoryview) -> tuple[str, int | float | bytes | None]:
    name = ""
    kind = 0
    values: dict[int, int | float | bytes] = {}
    for field, value in _fields(message):
        if field == 1:
            name = _text(value)
        elif field == 2 and isinstance(value, int):
            values[1] = struct.unpack("<f", struct.pack("<I", value & 0xFFFF_FFFF))[0]
        elif field == 3:
            values[2] = _number(value)
        elif field == 4:
            values[3] = bytes(_message(value))
        elif field == 20:
            kind = _number(value)
    return name, values.get(kind)


def _tensor(message: memoryview) -> tuple[str, npt.NDArray[Any]]:
    name = ""
    kind = location = 0
    shape: list[int] = []
    raw: memoryview | None = None
    for field, value in _fields(message):
        if field == 1:
            shape.extend(_dimensions(value))
        elif field == 2:
            kind = _number(value)
        elif field == 8:
            name = _text(value)
        elif field == 9:
            raw = _message(value)
        elif field == 14:
            location = _number(value)
    if location != 0:
        raise ValueError(f"keeps the tensor {name!r} in another file")
    if kind not in _DTYPES:
        raise ValueError(f"tensor {name!r} is of type {kind}, which is not supported")
    dtype = np.dtype(_DTYPES[kind])
    if any(size < 0 for size in shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has the impossible shape {shape}")
    # Python's integers do not overflow.
    needed = prod(shape) * dtype.itemsize
    if (0 if raw is None else len(raw)) != needed:
        raise ValueError(f"tensor {name!r} of shape {shape} does not hold {needed} raw bytes")
    if raw is None or not needed:
        return name, np.zeros(shape, dtype)
    return name, np.frombuffer(raw, dtype).reshape(shape)


def _dimensions(value: int | memoryview) -> list[int]:
    if isinstance(value, int):
        return [_number(value)]
    sizes = []
    at = 0
    while at < len(value):
        size, at = _varint(value, at)
        sizes.append(_number(size))
    return sizes

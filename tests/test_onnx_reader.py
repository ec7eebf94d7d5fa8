"""The small ONNX reader says what the onnx package says, and only ValueError of what is broken."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raxe_fast.onnx_reader import read_onnx


@pytest.fixture(scope="module")
def content(tiny_model: Path) -> bytes:
    return (tiny_model / "encoder.onnx").read_bytes()


def test_equals_the_onnx_package(content):
    onnx = pytest.importorskip("onnx", reason="the oracle")
    expected = onnx.load_from_string(content)
    graph = read_onnx(content)
    assert list(graph.inputs) == [value.name for value in expected.graph.input]
    assert list(graph.outputs) == [value.name for value in expected.graph.output]
    assert graph.metadata == {entry.key: entry.value for entry in expected.metadata_props}
    assert list(graph.tensors) == [tensor.name for tensor in expected.graph.initializer]
    for tensor in expected.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        held = graph.tensors[tensor.name]
        assert held.dtype == array.dtype and np.array_equal(held, array)
        assert not held.flags.writeable or held.size == 0
    assert len(graph.nodes) == len(expected.graph.node)
    for node, other in zip(graph.nodes, expected.graph.node, strict=True):
        assert (node.op, node.domain) == (other.op_type, other.domain)
        assert (node.inputs, node.outputs) == (tuple(other.input), tuple(other.output))
        assert node.attributes == {
            a.name: onnx.helper.get_attribute_value(a) for a in other.attribute
        }


def test_every_form_of_a_field():
    onnx = pytest.importorskip("onnx", reason="the oracle")
    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node("Op", ["a", ""], ["b"], i=-3, f=0.5, s="text", many=[1, 2], domain="d")
    tensors = [
        helper.make_tensor("scalar", kind.FLOAT, [], b"\0\0\x80?", raw=True),
        helper.make_tensor("empty", kind.INT64, [0, 4], b"", raw=True),
        helper.make_tensor("half", kind.FLOAT16, [2], b"\0<\0@", raw=True),
    ]
    model = helper.make_model(helper.make_graph([node], "g", [], [], tensors))
    graph = read_onnx(model.SerializeToString())
    assert graph.nodes[0].attributes == {"i": -3, "f": 0.5, "s": b"text", "many": None}
    assert graph.nodes[0].inputs == ("a", "") and graph.nodes[0].domain == "d"
    assert graph.tensors["scalar"].shape == () and graph.tensors["scalar"] == 1.0
    assert graph.tensors["empty"].shape == (0, 4)
    assert graph.tensors["half"].tolist() == [1.0, 2.0]
    # The same shape as one packed field.
    plain = model.SerializeToString()
    packed = plain.replace(b"\x08\x00\x08\x04", b"\x0a\x02\x00\x04")
    assert packed != plain
    assert read_onnx(packed).tensors["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x3a\x05",  # a graph that is not there
        b"\x3a\x80",  # half a number
        b"\x38\x01",  # a number for the graph
        b"\x3b",  # a group
        b"\xff" * 12,  # a number of more than 64 bits
        b"\x3a\x04\x0a\x02\x0a\xff",  # a node that is truncated
        b"\x3a\x05\x0a\x03\x0a\x01\xff",  # a name that is not UTF-8
        b"\x3a\x04\x2a\x02\x10\x63",  # a tensor of type 99
        b"\x3a\x06\x2a\x04\x10\x03\x08\x05",  # a tensor without its bytes
        b"\x3a\x06\x2a\x04\x10\x03\x70\x01",  # a tensor in another file
        b"\x3a\x0f\x2a\x0d\x10\x03\x08" + b"\xff" * 9 + b"\x01",  # a negative shape
        b"\x3a\x08\x2a\x02\x10\x03\x2a\x02\x10\x03",  # the same name twice
        b"\x3a\x02\x7a\x00",  # a sparse tensor
    ],
)
def test_broken_files(data):
    with pytest.raises(ValueError):
        read_onnx(data)


def test_huge_shapes_take_no_memory():
    sizes = b"\x08" + b"\xff" * 8 + b"\x7f"  # 2^63 - 1
    tensor = b"\x10\x03" + sizes * 3
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    with pytest.raises(ValueError, match="raw bytes"):
        read_onnx(b"\x3a" + bytes([len(graph)]) + graph)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_a_value_error_or_harmless(content, data):
    head = content[:6000]  # nodes; the tensors follow
    damaged = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(head) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    for broken in (bytes(damaged), bytes(damaged) + content[6000:]):
        with suppress(ValueError):
            read_onnx(broken)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data):
    with suppress(ValueError):
        read_onnx(data)

"""Values cross the line unchanged, and what is no value is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlatlas.publish.grading.values import Packer, Unpacker
from dlatlas.publish.grading.wire import BrokenMessage, framed, from_bytes, length_in, to_bytes


def refuse(value, packer):
    raise TypeError(f"{type(value).__name__} is not plain")


def crossed(value):
    packer = Packer(refuse)
    head, pieces = from_bytes(to_bytes({"value": packer.pack(value)}, packer.pieces))
    return Unpacker(pieces, {}).unpack(head["value"])


keys = st.one_of(st.integers(), st.text(max_size=5), st.booleans())
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_plain_values_cross_unchanged(value):
    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float16, torch.float64, torch.complex64]
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_cross_bit_by_bit(dtype, shape):
    tensor = torch.randn(shape).mul(3).to(dtype)
    got = crossed({"x": [tensor]})["x"][0]
    assert got.dtype == dtype
    torch.testing.assert_close(got, tensor, rtol=0, atol=0)


def test_views_cross_as_what_they_show():
    tensor = torch.arange(12.0).reshape(3, 4).T[::2]
    torch.testing.assert_close(crossed(tensor), tensor)
    torch.testing.assert_close(crossed(torch.tensor([1 + 2j]).conj()), torch.tensor([1 - 2j]))


@pytest.mark.parametrize("value", [np.arange(6.0).reshape(2, 3), np.float32(1.5), np.array(["a"])[:0].astype(int)])
def test_arrays_cross(value):
    got = crossed(value)
    assert got.dtype == value.dtype
    np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize(
    "value",
    [torch.float32, torch.Size([2, 3]), slice(1, None), range(3), Ellipsis, 1 + 2j, torch.device("cpu"), {1, 2}],
)
def test_small_values_cross(value):
    assert crossed(value) == value


def test_not_a_number_and_infinity_cross():
    assert math.isnan(crossed(float("nan")))
    assert crossed(-math.inf) == -math.inf


def test_named_tuples_keep_their_fields():
    got = crossed(torch.tensor([3.0, 1.0]).sort())
    assert got._fields == ("values", "indices")
    torch.testing.assert_close(got.values, torch.tensor([1.0, 3.0]))


@pytest.mark.parametrize(
    "node",
    [
        {"tensor": ["float32", [2], 0]},
        {"tensor": ["float32", [-1, -1], 0]},
        {"tensor": ["float32", [2**62, 2**62], 0]},
        {"tensor": ["object", [1], 0]},
        {"tensor": ["float32", [1], 1]},
        {"tensor": ["float32", [1], -1]},
        {"array": ["O", [1], 0]},
        {"array": ["<i4,<f4", [1], 0]},
        {"named": ["x", ["__import__('os')"], [1]]},
        {"dict": [[{"list": []}, 1]]},
        {"pickle": 0},
        {"handle": [1, "object", "x"]},
        {"unheard": 1},
        {"list": 1, "tuple": 2},
        {"size": ["a"]},
        {},
        [1],
    ],
)
def test_hostile_nodes_are_refused(node):
    with pytest.raises(BrokenMessage):
        Unpacker([b"\0\0\0\0"], {}).unpack(node)


def test_deep_nodes_are_refused():
    node = None
    for _ in range(100_000):
        node = {"list": [node]}
    with pytest.raises(BrokenMessage):
        Unpacker([], {}).unpack(node)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\xff\xff\xff\xff{}",
        b"\2\0\0\0{}",
        to_bytes({}) + b"more",
        to_bytes({})[:-1],
        to_bytes({}).replace(b'"head": {}', b'"head": []'),
        b"\x1a\0\0\0" + b'{"head":{},"sizes":[-1,1]}',
    ],
)
def test_hostile_bytes_are_no_message(data):
    with pytest.raises(BrokenMessage):
        from_bytes(data)


def test_a_frame_that_announces_too_much_is_refused():
    assert length_in(framed(b"abc")) == len(framed(b"abc"))
    assert length_in(b"\0") is None
    with pytest.raises(BrokenMessage, match="too large"):
        length_in(b"\xff" * 8)

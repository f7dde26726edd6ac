"""Facts about rounding to few levels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.ops.quantisation import quantize_blockwise
from tests.examples import Example

EXAMPLES = [
    Example(quantize_blockwise, lambda make: {"W": make.normal(7, 20), "block": 16}),
    Example(quantize_blockwise, lambda make: {"W": make.normal(150), "bits": 3, "levels": "uniform"}),
]

# Table of the NF4 data type (QLoRA), to four digits.
NF4 = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
NF4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1]


def values_of(W, **settings):
    return quantize_blockwise(W, block=W.numel(), **settings).unique()


def test_nf4_has_the_published_levels():
    torch.testing.assert_close(values_of(torch.linspace(-1, 1, 4001)), torch.tensor(NF4), atol=6e-5, rtol=0)


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_number_of_levels(bits):
    W = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    assert len(values_of(W, bits=bits)) == 2**bits
    uniform = values_of(W, bits=bits, levels="uniform")
    torch.testing.assert_close(uniform, torch.linspace(-1, 1, 2**bits - 1, dtype=torch.float64))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), block=st.integers(1, 50), levels=st.sampled_from(["nf", "uniform"]))
def test_rounds_to_the_nearest_level_of_the_block(n, block, levels):
    W = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    table = values_of(torch.linspace(-1, 1, 4001, dtype=torch.float64), levels=levels)
    Q = quantize_blockwise(W, block=block, levels=levels)
    for start in range(0, n, block):
        part, got = W[start : start + block], Q[start : start + block]
        scale = part.abs().max()
        expected = torch.stack([scale * table[(w / scale - table).abs().argmin()] for w in part])
        torch.testing.assert_close(got, expected)


def test_extremes_and_zeros_are_kept():
    W = torch.tensor([[0.0, 3.0, -1.0], [0.0, 0.0, 0.0]])
    Q = quantize_blockwise(W, block=3)
    assert Q[0, 0] == 0
    assert Q[0, 1] == 3
    assert torch.equal(Q[1], W[1])


def test_twice_is_once():
    W = torch.randn(10, 13, generator=torch.Generator().manual_seed(0))
    Q = quantize_blockwise(W)
    torch.testing.assert_close(quantize_blockwise(Q), Q)


def test_refuses():
    W = torch.ones(4)
    for wrong, message in (
        ({"bits": 1}, "bits must lie"),
        ({"bits": 9}, "bits must lie"),
        ({"block": 0}, "block must be at least 1"),
        ({"levels": "log"}, "levels must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            quantize_blockwise(W, **wrong)
    with pytest.raises(ValueError, match="W must be finite"):
        quantize_blockwise(torch.tensor([1.0, torch.inf]))

"""Facts about effective ranks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dlatlas.ops.spectra import effective_rank
from tests.examples import Example

EXAMPLES = [
    Example(
        effective_rank,
        lambda make, order=order: {"spectrum": make.uniform(2, 6, low=0.1, high=2.0), "order": order},
        differentiable=("spectrum",),
    )
    for order in (0.5, 1.0, 2.0)
]
ORDERS = st.floats(0.2, 5.0)
spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8).map(lambda s: torch.tensor(s, dtype=torch.float64))


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None)
@given(k=st.integers(1, 9), zeros=st.integers(0, 4), scale=st.floats(1e-3, 1e3), order=ORDERS)
def test_equal_values_count_once_each_and_zeros_not_at_all(k, zeros, scale, order):
    spectrum = torch.cat([torch.full((k,), scale, dtype=torch.float64), torch.zeros(zeros, dtype=torch.float64)])
    assert effective_rank(spectrum, order=order).item() == pytest.approx(k)


@settings(deadline=None)
@given(spectrum=spectra, order=ORDERS)
def test_lies_between_one_and_the_length_and_ignores_scale_and_order_of_values(spectrum, order):
    rank = effective_rank(spectrum, order=order)
    assert 1 - 1e-9 <= rank <= len(spectrum) + 1e-9
    torch.testing.assert_close(effective_rank(7 * spectrum.flip(0), order=order), rank)


@settings(deadline=None)
@given(spectrum=spectra, order=ORDERS)
def test_falls_with_the_order(spectrum, order):
    assert effective_rank(spectrum, order=order + 0.5) <= effective_rank(spectrum, order=order) + 1e-9


def test_known_values():
    spectrum = doubles(4, 2, 1, 1)
    assert effective_rank(spectrum).item() == pytest.approx(2 ** (1 / 2 + 1 / 2 + 3 / 8 + 3 / 8))
    assert effective_rank(spectrum, order=2).item() == pytest.approx(64 / 22)
    assert effective_rank(spectrum, order=0.5).item() == pytest.approx((2 + math.sqrt(2) + 2) ** 2 / 8)


def test_order_one_is_the_limit():
    spectrum = doubles(5, 3, 1, 0.5)
    nearby = (effective_rank(spectrum, order=1 - 1e-6) + effective_rank(spectrum, order=1 + 1e-6)) / 2
    torch.testing.assert_close(effective_rank(spectrum), nearby, atol=1e-8, rtol=0)


def test_batches():
    spectra = doubles(1, 1, 1, 1, 3, 0, 0, 0).reshape(2, 4)
    torch.testing.assert_close(effective_rank(spectra), doubles(4, 1))


@pytest.mark.parametrize(
    ("spectrum", "order", "message"),
    [
        (doubles(1, -1e-3), 1.0, "spectrum must lie in"),
        (doubles(0, 0), 1.0, "sum of the spectrum must lie in"),
        (doubles(1, 1), 0.0, "order must be greater than 0"),
    ],
)
def test_refuses(spectrum, order, message):
    with pytest.raises(ValueError, match=message):
        effective_rank(spectrum, order=order)


def test_refuses_integers():
    with pytest.raises(TypeCheckError):
        effective_rank(torch.tensor([1, 2]))

"""Facts of `dlatlas.ops.transport`."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.ops.transport import sliced_wasserstein1, wasserstein1
from tests.examples import Example

EXAMPLES = [
    Example(
        wasserstein1,
        lambda make: {"a": make.normal(6, 2), "b": make.normal(6, 2)},
        differentiable=("a", "b"),
        vmap=False,
    ),
    Example(
        sliced_wasserstein1,
        lambda make: {"a": make.normal(6, 2), "b": make.normal(6, 2), "directions": make.normal(4, 2)},
        differentiable=("a", "b", "directions"),
    ),
]


def two(seed, n=5, d=2):
    return torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_is_the_best_of_all_assignments(seed):
    a, b = two(seed)
    best = min((a - b[list(order)]).norm(dim=1).mean() for order in itertools.permutations(range(5)))
    torch.testing.assert_close(wasserstein1(a, b), best)


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_sliced_is_a_lower_bound(seed):
    (a, b), (directions, _) = two(seed), two(seed + 1, n=7)
    assert sliced_wasserstein1(a, b, directions) <= wasserstein1(a, b) + 1e-12


def test_a_shift_moves_as_far_as_it_is_long():
    a, _ = two(0, n=20)
    shift = torch.tensor([3.0, -4.0], dtype=torch.float64)
    assert wasserstein1(a, a + shift).item() == pytest.approx(5.0)
    assert sliced_wasserstein1(a, a + shift, 2 * shift[None]).item() == pytest.approx(5.0)


def test_order_does_not_matter():
    a, b = two(3, n=20)
    assert wasserstein1(a, b.flip(0)).item() == pytest.approx(wasserstein1(a, b).item())


def test_on_the_line_they_agree():
    a, b = two(4, n=30, d=1)
    torch.testing.assert_close(sliced_wasserstein1(a, b, torch.ones(1, 1, dtype=a.dtype)), wasserstein1(a, b))


def test_refuses_bad_input():
    a, b = two(5)
    with pytest.raises(ValueError, match="a must be finite"):
        wasserstein1(a / 0, b)
    with pytest.raises(ValueError, match="directions"):
        sliced_wasserstein1(a, b, torch.zeros(1, 2, dtype=a.dtype))

"""Facts about frames."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.ops.frames import orthogonal_frame, simplex_etf
from tests.examples import Example

EXAMPLES = [
    Example(simplex_etf, lambda make: {"K": 4, "d": 6, "dtype": make.dtype, "device": make.device}, vmap=False),
    Example(
        orthogonal_frame,
        lambda make: {"lengths": make.uniform(3, low=0.5, high=2.0), "d": 5},
        differentiable=("lengths",),
    ),
]


class TestSimplexEtf:
    @settings(deadline=None, max_examples=30)
    @given(K=st.integers(2, 12), extra=st.integers(0, 5))
    def test_gram_matrix(self, K, extra):
        vectors = simplex_etf(K, K - 1 + extra, dtype=torch.float64)
        expected = K / (K - 1) * (torch.eye(K, dtype=torch.float64) - 1 / K)
        torch.testing.assert_close(vectors @ vectors.T, expected)

    def test_vectors_sum_to_zero_and_have_length_one(self):
        vectors = simplex_etf(5, 9, dtype=torch.float64)
        assert vectors.sum(0).abs().max() < 1e-12
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5, dtype=torch.float64))

    def test_two_vectors_are_opposite(self):
        torch.testing.assert_close(simplex_etf(2, 1), torch.tensor([[1.0], [-1.0]]))

    @pytest.mark.parametrize(("K", "d", "name"), [(1, 3, "K"), (5, 3, "d")])
    def test_refuses_what_does_not_exist(self, K, d, name):
        with pytest.raises(ValueError, match=f"^{name} must be at least"):
            simplex_etf(K, d)


class TestOrthogonalFrame:
    def test_gram_matrix(self):
        lengths = torch.tensor([3.0, 0.0, 1.5])
        vectors = orthogonal_frame(lengths, 4)
        torch.testing.assert_close(vectors @ vectors.T, torch.diag(lengths**2))

    def test_refuses_negative_lengths_and_too_few_dimensions(self):
        with pytest.raises(ValueError, match="lengths must lie"):
            orthogonal_frame(torch.tensor([1.0, -1.0]), 2)
        with pytest.raises(ValueError, match="d must be at least 2"):
            orthogonal_frame(torch.tensor([1.0, 1.0]), 1)

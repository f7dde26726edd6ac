"""Facts that the methods of theory/attention_theory must satisfy: attention over pairs of keys."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dlatlas.theory.attention_theory_tensor import (
    BLOCK,
    khatri_rao,
    least_degree,
    lowrank_error_bound,
    match3_head,
    match3_labels,
    monomial_features,
    taylor_features,
    taylor_remainder,
    tensor_attention,
    tensor_attention_lowrank,
)
from tests.examples import Example, Make


def parts(make: Make, **extra) -> dict:
    names = ("q", "k1", "k2", "v1", "v2")
    return {name: make.uniform(n, 3, low=-1.0) for name, n in zip(names, (4, 5, 6, 5, 6), strict=True)} | extra


NAMES = ("q", "k1", "k2", "v1", "v2")
EXAMPLES = [
    Example(khatri_rao, lambda make: {"a": make.normal(4, 3), "b": make.normal(5, 3)}, differentiable=("a", "b")),
    Example(tensor_attention, parts, differentiable=NAMES),
    Example(tensor_attention_lowrank, lambda make: parts(make, degree=4), differentiable=NAMES),
    Example(monomial_features, lambda make: {"x": make.normal(4, 3), "degree": 3}, differentiable=("x",)),
    Example(
        taylor_remainder, lambda make: {"s": make.uniform(5, low=0.1, high=2.0), "degree": 3}, differentiable=("s",)
    ),
    Example(
        lowrank_error_bound, lambda make: {"s": make.uniform(5, low=0.1, high=0.5), "degree": 6}, differentiable=("s",)
    ),
    Example(taylor_features, lambda make: {"x": make.normal(4, 3), "degree": 3}, differentiable=("x",)),
    Example(least_degree, lambda make: {"s": 0.5, "error": 1e-3}, vmap=False),
    Example(match3_head, lambda make: {"angles": make.normal(5), "sharpness": 3.0}, differentiable=("angles",)),
    Example(match3_labels, lambda make: {"x": make.labels(7, classes=11), "modulus": 11}),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def uniform(generator, n, B, d=4):
    return tuple(B * (2 * torch.rand(5, n, d, generator=generator, dtype=torch.float64) - 1))


def literal(q, k1, k2, v1, v2):
    A = torch.einsum("ic,jc,lc->ijl", q, k1, k2).div(q.shape[1]).exp()
    return torch.einsum("ijl,je,le->ie", A, v1, v2) / A.sum((1, 2))[:, None]


class TestExact:
    def test_triple_loop(self, generator):
        given = uniform(generator, 6, 1.5)
        torch.testing.assert_close(tensor_attention(*given), literal(*given))

    def test_blocks_change_nothing(self, generator):
        n = math.isqrt(BLOCK) // 3
        given = uniform(generator, n, 1.0)
        assert n**2 * n > BLOCK
        torch.testing.assert_close(tensor_attention(*given), literal(*given))

    def test_ones_reduce_to_matrix_attention(self, generator):
        q, k, _, v, _ = uniform(generator, 6, 1.5)
        ones = torch.ones_like(q)
        torch.testing.assert_close(tensor_attention(q, k, ones, v, ones), (q @ k.T / 4).softmax(-1) @ v)

    def test_large_logits(self, generator):
        q, k1, k2, v1, v2 = uniform(generator, 6, 1.0)
        best = torch.einsum("ic,jc,lc->ijl", q, k1, k2).flatten(1).argmax(1)
        expected = khatri_rao(v1, v2)[best]
        torch.testing.assert_close(tensor_attention(1e6 * q, k1, k2, v1, v2), expected, atol=1e-6, rtol=0)

    def test_refuses_other_widths(self, generator):
        q, k1, k2, v1, v2 = uniform(generator, 6, 1.0)
        with pytest.raises(TypeCheckError):
            tensor_attention(q, k1[:, :3], k2, v1, v2)


class TestPolynomial:
    @settings(deadline=None, max_examples=20)
    @given(d=st.integers(1, 4), degree=st.integers(0, 6), seed=st.integers(0, 1000))
    def test_features_and_weights_give_the_taylor_polynomial(self, d, degree, seed):
        generator = torch.Generator().manual_seed(seed)
        x, y = torch.randn(2, 5, d, generator=generator, dtype=torch.float64)
        s = x @ y.T / d
        expected = sum(s**h / math.factorial(h) for h in range(degree + 1)) + torch.zeros_like(s)
        features = taylor_features(x, degree)
        assert features.shape[1] == math.comb(d + degree, degree)
        torch.testing.assert_close(features @ monomial_features(y, degree).T, expected)

    def test_first_monomials(self):
        x = torch.tensor([[2.0, 3.0]])
        torch.testing.assert_close(monomial_features(x, 2), torch.tensor([[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]]))
        weights = torch.tensor([[1, 1 / 2, 1 / 2, 1 / 8, 1 / 4, 1 / 8]])
        torch.testing.assert_close(taylor_features(x, 2), weights * monomial_features(x, 2))

    def test_mixed_product(self, generator):
        U2, U3, V1, V2 = torch.randn(4, 6, 5, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(khatri_rao(U2, U3).T @ khatri_rao(V1, V2), (U2.T @ V1) * (U3.T @ V2))

    @pytest.mark.parametrize(("B", "degree"), [(0.5, 2), (0.5, 4), (1.0, 6), (1.0, 9), (1.25, 12)])
    def test_error_is_below_the_bound(self, generator, B, degree):
        given = uniform(generator, 12, B)
        error = (tensor_attention_lowrank(*given, degree) - tensor_attention(*given)).abs().max() / B**2
        bound = lowrank_error_bound(torch.tensor(float(B**3), dtype=torch.float64), degree)
        assert torch.isfinite(bound)
        assert error <= bound + 1e-15

    def test_worst_case_comes_near_the_remainder(self):
        s = torch.tensor(0.3, dtype=torch.float64)
        for degree in (1, 3, 5):
            true = s.exp() - sum(s**h / math.factorial(h) for h in range(degree + 1))
            bound = taylor_remainder(s, degree)
            assert true <= bound <= true * s.exp() * 1.01

    def test_no_bound_for_large_entries(self):
        assert lowrank_error_bound(torch.tensor(27.0), 6).isinf()
        assert taylor_remainder(torch.tensor(0.0), 3) == 0

    @settings(deadline=None, max_examples=30)
    @given(s=st.floats(0.01, 20), error=st.floats(1e-9, 0.5))
    def test_least_degree(self, s, error):
        degree = least_degree(s, error)
        at = torch.tensor(s, dtype=torch.float64)
        assert lowrank_error_bound(at, degree) <= error * (1 + 1e-6)
        if degree:
            assert lowrank_error_bound(at, degree - 1) > error * (1 - 1e-6)

    def test_refuses(self, generator):
        far = uniform(generator, 12, 6.0)
        with pytest.raises(ValueError, match="row sums of the polynomial attention"):
            tensor_attention_lowrank(*(-5 * p for p in far), 3)
        with pytest.raises(ValueError, match="degree must be at least 0"):
            monomial_features(far[0], -1)
        with pytest.raises(ValueError, match="s must lie"):
            taylor_remainder(torch.tensor(-1.0), 2)
        with pytest.raises(ValueError, match="error must be greater than 0"):
            least_degree(1.0, 0.0)


class TestTriples:
    def test_labels_by_hand(self):
        # Modulo 7: 1 + 1 + 5 = 5 + 1 + 1 = 7; 4 needs two tokens that sum to 3 or to 10, and 5 + 5 = 10.
        assert match3_labels(torch.tensor([1, 5, 4]), 7).tolist() == [1, 1, 1]
        # 6 needs two tokens that sum to 1 or to 8.
        assert match3_labels(torch.tensor([1, 5, 6]), 7).tolist() == [1, 1, 0]
        assert match3_labels(torch.tensor([[0, 2], [2, 2]]), 7).tolist() == [[1, 0], [0, 0]]

    @pytest.mark.parametrize("modulus", [5, 17, 31])
    def test_the_head_makes_no_error(self, generator, modulus):
        gap = 1 - math.cos(2 * math.pi / modulus)
        for n in (2, 5, 9):
            x = torch.randint(modulus, (n,), generator=generator)
            answer = match3_head(2 * math.pi * x.double() / modulus, 40 / gap)
            assert torch.equal(answer > 1 - gap / 2, match3_labels(x, modulus).bool())

    def test_refuses(self):
        x = torch.tensor([1, 2])
        with pytest.raises(ValueError, match="modulus must be at least 2"):
            match3_labels(x, 1)
        with pytest.raises(ValueError, match="sharpness must be greater than 0"):
            match3_head(x.float(), 0.0)

"""Facts that the methods of theory/simplicity_bias must satisfy: complexity of features."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.simplicity_bias_complexity import (
    expected_r_squared,
    feature_complexity,
    linear_attribution,
    nmf_dictionary,
    v_information,
)
from tests.examples import Example, Make


def dictionary(make: Make) -> dict:
    return {"A": make.uniform(8, 5), "start": make.uniform(6, 5, low=0.1), "iterations": 5}


EXAMPLES = [
    Example(
        v_information,
        lambda make: {"features": make.normal(20, 3), "z": make.normal(20, 2), "ridge": 1.0},
        differentiable=("z",),
    ),
    Example(expected_r_squared, lambda make: {"r_squared": 0.5, "n": 20, "d": 3}, vmap=False),
    Example(
        feature_complexity,
        lambda make: {"layers": [make.normal(20, 3), make.normal(20, 4)], "z": make.normal(20, 2), "ridge": 1.0},
        differentiable=("z",),
        vmap=False,  # the layers are a list, which the generic test does not stack
    ),
    Example(nmf_dictionary, dictionary, differentiable=("A", "start")),
    Example(
        linear_attribution,
        lambda make: {"codes": make.uniform(7, 4), "atoms": make.uniform(4, 5), "W": make.normal(3, 5)},
        differentiable=("codes", "atoms", "W"),
    ),
]


@pytest.fixture
def make():
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


class TestInformation:
    def test_visible_and_independent(self, make):
        f = make.normal(400, 5)
        z = torch.cat([f @ make.normal(5, 1), make.normal(400, 1)], 1)
        information = v_information(f, z, ridge=0.0)
        assert information[0].item() == pytest.approx(1)
        assert information[1].item() < 0.05

    def test_invariant_without_ridge(self, make):
        f = make.normal(60, 4)
        z = f @ make.normal(4, 2) + make.normal(60, 2)
        same = v_information(f @ make.normal(4, 4) + 3, 5 - 2 * z, ridge=0.0)
        torch.testing.assert_close(same, v_information(f, z, ridge=0.0))

    def test_scale_invariant_with_ridge(self, make):
        f = make.normal(60, 4)
        z = f @ make.normal(4, 2) + make.normal(60, 2)
        torch.testing.assert_close(v_information(100 * f, z, ridge=0.3), v_information(f, z, ridge=0.3))

    def test_survives_dead_and_equal_units(self, make):
        f = make.normal(60, 2)
        z = f @ make.normal(2, 1)
        doubled = torch.cat([f, f, torch.zeros(60, 1, dtype=torch.float64)], 1)
        assert v_information(doubled, z, ridge=0.0).item() == pytest.approx(1)

    @pytest.mark.parametrize("d", [5, 20, 60])
    def test_finite_samples(self, make, d):
        X, new = make.normal(2, 200, d)
        w = torch.nn.functional.normalize(make.normal(d, 400), dim=0)
        z, z_new = X @ w + make.normal(200, 400), new @ w + make.normal(200, 400)
        own = v_information(torch.cat([X, X]), torch.cat([z, z]), ridge=0.0).mean().item()
        fresh = v_information(torch.cat([X, new]), torch.cat([z, z_new]), ridge=0.0).mean().item()
        assert (own, fresh) == pytest.approx(expected_r_squared(0.5, 200, d), abs=0.04)

    def test_no_features_to_speak_of(self):
        on_fit, on_new = expected_r_squared(0.0, 100_000, 1)
        assert on_fit == pytest.approx(0, abs=1e-4)
        assert on_new == pytest.approx(0, abs=1e-4)

    def test_bad_input(self, make):
        f, z = make.normal(10, 2), make.normal(10, 1)
        with pytest.raises(ValueError, match="ridge"):
            v_information(f, z, ridge=-1.0)
        with pytest.raises(ValueError, match="samples for the fit"):
            v_information(f, z, split=0.99)
        with pytest.raises(ValueError, match="split"):
            v_information(f, z, split=1.5)
        with pytest.raises(ValueError, match="variance of z"):
            v_information(f, torch.ones_like(z))
        with pytest.raises(ValueError, match="n must"):
            expected_r_squared(0.5, 5, 4)
        with pytest.raises(ValueError, match="r_squared"):
            expected_r_squared(1.5, 50, 4)


class TestComplexity:
    def test_zero_half_one(self):
        sign = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        bits = torch.cartesian_prod(sign, sign, sign).repeat(2, 1)
        layers = [bits[:, :1], bits[:, 1:2], bits[:, 1:]]
        K = feature_complexity(layers, bits[:, 1:].sum(1, keepdim=True), ridge=0.0)
        assert K.item() == pytest.approx(0.5)

    def test_linear_network(self, make):
        layers = [make.normal(200, 6)]
        layers += [layers[0] @ make.normal(6, 6) for _ in range(2)]
        assert feature_complexity(layers, layers[0] @ make.normal(6, 1), ridge=0.0).item() == pytest.approx(0, abs=1e-9)
        assert feature_complexity(layers, make.normal(200, 1), ridge=0.0).item() > 0.9

    def test_needs_layers(self, make):
        with pytest.raises(ValueError, match="layers"):
            feature_complexity([], make.normal(10, 1))


class TestDictionary:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 1000))
    def test_error_never_grows(self, seed):
        make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed))
        A, start = make.uniform(12, 6), make.uniform(8, 6, low=0.05)
        errors = []
        for iterations in range(0, 30, 3):
            codes, atoms = nmf_dictionary(A, start, iterations=iterations)
            assert (codes >= 0).all()
            assert (atoms >= 0).all()
            torch.testing.assert_close(atoms.norm(dim=1), torch.ones(8, dtype=torch.float64))
            errors.append((A - codes @ atoms).norm().item())
        assert all(b <= a + 1e-12 for a, b in pairwise(errors))

    def test_recovers_a_factorisation(self, make):
        A = make.uniform(40, 2) @ make.uniform(2, 10)
        codes, atoms = nmf_dictionary(A, make.uniform(2, 10, low=0.1), iterations=2000)
        assert ((A - codes @ atoms).norm() / A.norm()).item() < 1e-3

    def test_bad_input(self, make):
        with pytest.raises(ValueError, match="A must"):
            nmf_dictionary(-make.uniform(4, 3), make.uniform(2, 3, low=0.1))
        with pytest.raises(ValueError, match="start"):
            nmf_dictionary(make.uniform(4, 3), torch.zeros(2, 3, dtype=torch.float64))
        with pytest.raises(ValueError, match="iterations"):
            nmf_dictionary(make.uniform(4, 3), make.uniform(2, 3, low=0.1), iterations=-1)


def test_attribution_of_a_linear_head(make):
    codes, atoms, W = make.uniform(5, 3), make.uniform(3, 4), make.normal(2, 4)
    expected = [sum(abs(codes[x, i] * (atoms[i] @ w)) for x in range(5) for w in W).item() / 10 for i in range(3)]
    assert linear_attribution(codes, atoms, W).tolist() == pytest.approx(expected)
    assert torch.allclose(codes @ (atoms @ W.mT), (codes @ atoms) @ W.mT)

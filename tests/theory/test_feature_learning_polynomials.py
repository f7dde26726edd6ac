"""Facts that the methods of theory/feature_learning must satisfy: Hermite polynomials and their kernels."""

import itertools
import math

import numpy as np
import pytest
import torch

from dlatlas.theory.feature_learning_polynomials import (
    hermite,
    hermite2_coefficients,
    hermite2_features,
    hermite2_kernel,
    hermite_kernel,
    hermite_target,
)
from tests.examples import Example, Make


def target_arguments(make: Make) -> dict:
    return {"d": 6, "k": 2, "link": (1.0, 0.5), "generator": torch.Generator().manual_seed(0), "dtype": make.dtype}


EXAMPLES = [
    Example(hermite, lambda make: {"x": make.normal(5), "k": 3}, differentiable=("x",)),
    Example(hermite_target, target_arguments, vmap=False),
    Example(hermite2_kernel, lambda make: {"x": make.normal(4, 3), "y": make.normal(5, 3)}, differentiable=("x", "y")),
    Example(
        hermite_kernel,
        lambda make: {"x": make.normal(4, 3), "y": make.normal(5, 3), "k": 3},
        differentiable=("x", "y"),
    ),
    Example(hermite2_features, lambda make: {"x": make.normal(4, 3)}, differentiable=("x",)),
    Example(
        hermite2_coefficients,
        lambda make: {"directions": make.normal(2, 4), "weights": make.normal(2)},
        differentiable=("directions", "weights"),
    ),
]
MAKE = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


def grid(d: int, order: int = 12):
    """Points (order^d, d) and weights of a Gauss-Hermite rule."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    points = torch.tensor(list(itertools.product(nodes, repeat=d)))
    mass = torch.tensor([math.prod(w) for w in itertools.product(weights / weights.sum(), repeat=d)])
    return points, mass


def test_hermite_polynomials_are_orthonormal():
    x, mass = grid(1)
    values = torch.stack([hermite(x[:, 0], k) for k in range(6)])
    torch.testing.assert_close(values * mass @ values.T, torch.eye(6).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(hermite(x, 3), (x**3 - 3 * x) / 6**0.5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_kernel_sums_over_all_products(k):
    x, y = MAKE.normal(3, 4), MAKE.normal(2, 4)
    literal = torch.zeros(3, 2).double()
    for alpha in itertools.product(range(k + 1), repeat=4):
        if sum(alpha) == k:
            u, v = (math.prod(hermite(z[:, i], j) for i, j in enumerate(alpha)) for z in (x, y))
            literal += torch.outer(u, v)
    torch.testing.assert_close(hermite_kernel(x, y, k), literal)


def test_one_dimension():
    x, y = MAKE.normal(4, 1), MAKE.normal(3, 1)
    torch.testing.assert_close(hermite2_kernel(x, y), (x**2 - 1) @ (y**2 - 1).T / 2)


def test_reproduces_quadratic_polynomials_and_nothing_else():
    points, mass = grid(2)
    x = MAKE.normal(5, 2)

    def project(f):
        return hermite2_kernel(x, points) @ (mass * f(points))

    for f in (lambda z: z[:, 0] * z[:, 1], lambda z: (z[:, 0] ** 2 - 1) / 2**0.5):
        torch.testing.assert_close(project(f), f(x))
    for f in (
        lambda z: z[:, 0],
        lambda z: 0 * z[:, 0] + 1,
        lambda z: hermite(z[:, 0], 4),
        lambda z: hermite(z, 3)[:, 1],
    ):
        assert project(f).abs().max() < 1e-9


def test_features_are_an_orthonormal_basis():
    points, mass = grid(3)
    features = hermite2_features(points)
    torch.testing.assert_close(features.T @ (mass[:, None] * features), torch.eye(6).double(), atol=1e-9, rtol=0)
    x, y = MAKE.normal(4, 3), MAKE.normal(2, 3)
    torch.testing.assert_close(hermite2_features(x) @ hermite2_features(y).T, hermite2_kernel(x, y))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_inner_polynomial_has_unit_variance(k):
    target = hermite_target(4, k=k, link=(1.0,), generator=torch.Generator().manual_seed(1))
    points, mass = grid(4, order=6)
    p = target.p(points)
    assert (mass * p).sum().abs() < 1e-9
    assert (mass * p * p).sum().item() == pytest.approx(1)
    torch.testing.assert_close(target(points), p)
    assert target.energy == 1


def test_target_is_the_composition():
    target = hermite_target(4, k=2, link=(1.0, 0.5, -2.0), generator=torch.Generator().manual_seed(1))
    x = MAKE.normal(7, 4)
    z = target.p(x)
    expected = z + 0.5 * (z**2 - 1) / 2**0.5 - 2 * (z**3 - 3 * z) / 6**0.5
    torch.testing.assert_close(target(x), expected)
    A = (target.directions.T * target.weights) @ target.directions
    torch.testing.assert_close(z, torch.einsum("ni,ij,nj->n", x, A, x) / 2**0.5)
    assert A.trace().abs() < 1e-9
    torch.testing.assert_close(torch.linalg.eigvalsh(A).abs(), torch.full((4,), 0.5).double())


def test_coefficients():
    target = hermite_target(4, k=2, link=(1.0,), generator=torch.Generator().manual_seed(1))
    c = hermite2_coefficients(target.directions, target.weights)
    assert c.norm().item() == pytest.approx(1)
    x = MAKE.normal(7, 4)
    torch.testing.assert_close(hermite2_features(x) @ c, target.p(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"link": (0.0, 1.0)}, "link must begin with a coefficient other than zero"),
        ({"link": ()}, "link must begin"),
        ({"d": 5}, "remainder of d by 2"),
        ({"k": 0}, "k must be at least 1"),
    ],
)
def test_refuses_targets_without_a_signal(change, message):
    with pytest.raises(ValueError, match=message):
        hermite_target(**{**target_arguments(MAKE), **change})


def test_refuses_degrees():
    with pytest.raises(ValueError, match="k must lie"):
        hermite_kernel(torch.ones(2, 2), torch.ones(2, 2), 4)
    with pytest.raises(ValueError, match="k must be at least 0"):
        hermite(torch.ones(2), -1)

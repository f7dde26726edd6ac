"""Facts of `dlatlas.theory.deep_kernels_machine`."""

import math

import pytest
import torch

from dlatlas.theory.deep_kernels_machine import (
    dkm_objective,
    dkm_predict,
    gaussian_kl,
    gram_kernel,
    linear_grams,
    optimise_grams,
)
from tests.examples import Example, Make

KERNELS = ("linear", "relu", "rbf")


def gram(make: Make, P: int = 4) -> torch.Tensor:
    x = make.normal(P, 3 * P)
    return x @ x.mT / (3 * P)


def machine(make: Make, kernel: str) -> dict:
    return {"G0": gram(make), "Y": make.normal(4, 2), "noise": 0.3, "kernel": kernel}


EXAMPLES = [
    *(
        Example(gram_kernel, lambda make, kernel=kernel: {"G": gram(make), "kernel": kernel}, differentiable=("G",))
        for kernel in KERNELS
    ),
    Example(gaussian_kl, lambda make: {"G": gram(make), "K": gram(make)}, differentiable=("G", "K")),
    Example(
        dkm_objective,
        lambda make: {**machine(make, "relu"), "grams": [gram(make), gram(make)], "nus": [1.0, 2.0]},
        differentiable=("G0", "Y"),
    ),
    Example(optimise_grams, lambda make: {**machine(make, "rbf"), "nus": [2.0], "steps": 20, "rate": 0.02}, vmap=False),
    Example(
        dkm_predict,
        lambda make: {**machine(make, "rbf"), "G0": gram(make, 6), "grams": [gram(make)]},
        differentiable=("G0", "Y"),
    ),
    Example(
        linear_grams,
        lambda make: {"G0": gram(make), "S": gram(make), "depth": 2},
        differentiable=("G0", "S"),
    ),
]


@pytest.fixture
def make() -> Make:
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


def test_divergence(make):
    G, K = gram(make), gram(make)
    assert gaussian_kl(G, G).item() == pytest.approx(0, abs=1e-12)
    one, two = torch.ones(1, 1).double(), 2 * torch.ones(1, 1).double()
    assert gaussian_kl(two, one).item() == pytest.approx((2 - math.log(2) - 1) / 2)
    p, q = (torch.distributions.MultivariateNormal(torch.zeros(4).double(), c) for c in (G, K))
    assert gaussian_kl(G, K).item() == pytest.approx(torch.distributions.kl_divergence(p, q).item())


def test_kernels_of_grams():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    G = x @ x.mT
    assert torch.equal(gram_kernel(G, "linear"), G)
    expected = torch.tensor([[1.0, 2 / math.pi], [2 / math.pi, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(gram_kernel(G, "relu"), expected)
    assert gram_kernel(G, "rbf")[0, 1].item() == pytest.approx(math.exp(-2.5))
    assert gram_kernel(G, "rbf")[1, 1].item() == 1


def test_objective_is_likelihood_minus_divergences(make):
    G0, G1, Y = gram(make), gram(make), make.normal(4, 3)
    prior = torch.distributions.MultivariateNormal(torch.zeros(4).double(), G1 + 0.2 * torch.eye(4).double())
    expected = prior.log_prob(Y.mT).sum() - 1.5 * gaussian_kl(G1, G0)
    got = dkm_objective([G1], G0, Y, nus=[1.5], noise=0.2, kernel="linear")
    torch.testing.assert_close(got, expected)


def test_one_point_one_layer():
    """G0 = 1 and ||y||^2/nu = 4: the geometric mean, 2."""
    one = torch.ones(1, 1, dtype=torch.float64)
    (closed,) = linear_grams(one, 4 * one, depth=1)
    assert closed.item() == pytest.approx(2)
    Y = torch.tensor([[2.0, 2.0, 2.0]], dtype=torch.float64)  # three outputs, nu = 3
    (optimised,) = optimise_grams(one, Y, nus=[3.0], noise=1e-9, kernel="linear", steps=600)
    assert optimised.item() == pytest.approx(2, abs=1e-4)


@pytest.mark.parametrize("depth", [1, 3])
def test_linear_closed_form_is_a_stationary_point(make, depth):
    G0, Y = gram(make), make.normal(4, 6)
    grams = [G.requires_grad_() for G in linear_grams(G0, Y @ Y.mT / 6, depth=depth)]
    objective = dkm_objective(grams, G0, Y, nus=[6.0] * depth, noise=1e-10, kernel="linear")
    for gradient in torch.autograd.grad(objective, grams):
        assert gradient.abs().max() < 1e-5
    for G in grams:
        torch.testing.assert_close(G, G.mT)


def test_linear_optimum_is_found(make):
    G0, Y = gram(make), make.normal(4, 6)
    expected = linear_grams(G0, Y @ Y.mT / 6, depth=2)
    got = optimise_grams(G0, Y, nus=[6.0, 6.0], noise=1e-9, kernel="linear", steps=800)
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_learning_when_layers_are_much_wider_than_the_outputs(make, kernel):
    G0, Y = gram(make), make.normal(4, 2)
    first, second = optimise_grams(G0, Y, nus=[1e8, 1e8], noise=0.1, kernel=kernel)
    expected = gram_kernel(G0, kernel)
    torch.testing.assert_close(first, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(second, gram_kernel(expected, kernel), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_optimised_grams_are_better_than_their_neighbours(make, kernel):
    G0, Y = gram(make), make.normal(4, 2)
    grams = optimise_grams(G0, Y, nus=[1.0, 2.0], noise=0.2, kernel=kernel, steps=600)
    settings = {"nus": [1.0, 2.0], "noise": 0.2, "kernel": kernel}
    best = dkm_objective(grams, G0, Y, **settings)
    for _ in range(5):
        roots = [torch.linalg.cholesky(G) @ (torch.eye(4).double() + 0.05 * make.normal(4, 4)) for G in grams]
        assert dkm_objective([root @ root.mT for root in roots], G0, Y, **settings) < best


def test_batches_are_independent(make):
    G0, Y = torch.stack([gram(make), gram(make)]), make.normal(2, 4, 1)
    together = optimise_grams(G0, Y, nus=[1.0], noise=0.2, kernel="rbf", steps=50)[0]
    alone = optimise_grams(G0[1], Y[1], nus=[1.0], noise=0.2, kernel="rbf", steps=50)[0]
    torch.testing.assert_close(together[1], alone)


def test_prediction_without_learning_is_gaussian_process_regression(make):
    G0, Y = gram(make, 6), make.normal(4, 2)
    K = gram_kernel(gram_kernel(G0, "relu"), "relu")
    frozen = [gram_kernel(G0[:4, :4], "relu")]
    mean, variance = dkm_predict(G0, frozen, Y, noise=0.1, kernel="relu")
    inverse = torch.linalg.inv(K[:4, :4] + 0.1 * torch.eye(4).double())
    torch.testing.assert_close(mean, K[4:, :4] @ inverse @ Y)
    torch.testing.assert_close(variance, (K[4:, 4:] - K[4:, :4] @ inverse @ K[:4, 4:]).diagonal() + 0.1)


def test_prediction_at_a_training_input(make):
    """A test input equal to a training input gets its learned features: the extended Gram repeats its row."""
    x = make.normal(5, 9)
    G0 = torch.cat([x, x[:1]]) @ torch.cat([x, x[:1]]).mT / 9
    Y = make.normal(5, 1)
    grams = optimise_grams(G0[:5, :5], Y, nus=[0.5], noise=0.1, kernel="relu", steps=100)
    mean, _ = dkm_predict(G0, grams, Y, noise=0.1, kernel="relu")
    K = gram_kernel(grams[0], "relu")
    expected = K @ torch.linalg.solve(K + 0.1 * torch.eye(5).double(), Y)
    torch.testing.assert_close(mean[0], expected[0], atol=1e-6, rtol=1e-6)


def test_refuses_what_makes_no_sense(make):
    G0, Y = gram(make), make.normal(4, 2)
    duplicates = torch.ones(4, 4).double()
    with pytest.raises(ValueError, match="minor of G"):
        gaussian_kl(duplicates, G0)
    with pytest.raises(ValueError, match="minor of K"):
        optimise_grams(duplicates, Y, nus=[1.0], noise=0.1, kernel="linear")
    with pytest.raises(ValueError, match="kernel must be one of"):
        gram_kernel(G0, "tanh")
    with pytest.raises(ValueError, match="diagonal of G"):
        gram_kernel(-G0, "relu")
    with pytest.raises(ValueError, match="noise must be greater"):
        dkm_predict(G0, [], Y, noise=0.0, kernel="relu")
    with pytest.raises(ValueError, match="one value for each of 1"):
        dkm_objective([G0], G0, Y, nus=[1.0, 2.0], noise=0.1, kernel="relu")
    with pytest.raises(ValueError, match="smallest of nus"):
        optimise_grams(G0, Y, nus=[0.0], noise=0.1, kernel="relu")
    with pytest.raises(ValueError, match="depth must be at least"):
        linear_grams(G0, G0, depth=0)

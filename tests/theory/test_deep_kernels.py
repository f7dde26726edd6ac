"""Facts of `dlatlas.theory.deep_kernels`."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.deep_kernels import (
    effective_dimension,
    hierarchical_kernel,
    kernel_of_cosines,
    learning_exponent,
    torus_spectrum,
)
from dlatlas.theory.neural_tangent_kernel import ntk_recursion
from tests.examples import Example, Make


def patches(make: Make, *shape: int) -> torch.Tensor:
    x = make.normal(*shape)
    return x / x.norm(dim=-1, keepdim=True)


EXAMPLES = [
    Example(
        kernel_of_cosines,
        lambda make: {"cosines": make.uniform(3, 4, low=-0.9, high=0.9), "filters": [2], "kind": "ntk"},
        differentiable=("cosines",),
    ),
    *(
        Example(
            hierarchical_kernel,
            lambda make, kind=kind: {
                "x": patches(make, 3, 4, 3),
                "y": patches(make, 2, 4, 3),
                "filters": [2, 2],
                "kind": kind,
            },
        )
        for kind in ("rfk", "ntk")
    ),
    Example(torus_spectrum, lambda make: {"values": make.normal(5, 4)}, differentiable=("values",)),
    Example(effective_dimension, lambda make: {"patch_size": 3, "filters": [2, 2]}, vmap=False),
    Example(learning_exponent, lambda make: {"nu_target": 0.5, "nu": 1.5, "local_dim": 1, "input_dim": 4}, vmap=False),
]


def random_patches(*shape: int, seed: int = 0) -> torch.Tensor:
    return patches(Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed)), *shape)


@pytest.mark.parametrize("filters", [(), (2,), (2, 2), (1, 4), (4,), (1, 1, 1)])
def test_diagonal(filters):
    x = random_patches(3, 4, 3)
    for kind, expected in (("rfk", 1.0), ("ntk", len(filters) + 2.0)):
        diagonal = hierarchical_kernel(x, x, filters=filters, kind=kind).diagonal()
        torch.testing.assert_close(diagonal, torch.full_like(diagonal, expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_one_patch_is_the_fully_connected_network(layers):
    """The rectifier halves the variance in every layer; inputs there have mean square 1."""
    x, y = random_patches(4, 1, 3), random_patches(5, 1, 3, seed=1)
    flat = [math.sqrt(3) * v[:, 0] for v in (x, y)]
    nngp, ntk = ntk_recursion(*flat, depth=layers + 1)
    filters = [1] * (layers - 1)
    torch.testing.assert_close(hierarchical_kernel(x, y, filters=filters, kind="rfk"), 2**layers * nngp)
    torch.testing.assert_close(hierarchical_kernel(x, y, filters=filters, kind="ntk"), 2**layers * ntk)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(["rfk", "ntk"]))
def test_patches_of_one_meta_patch_can_be_swapped_together(seed, kind):
    x, y = random_patches(4, 4, 3, seed=seed), random_patches(3, 4, 3, seed=seed + 1)
    kernel = hierarchical_kernel(x, y, filters=[2, 2], kind=kind)
    swap, across = [1, 0, 2, 3], [2, 1, 0, 3]
    torch.testing.assert_close(hierarchical_kernel(x[:, swap], y[:, swap], filters=[2, 2], kind=kind), kernel)
    assert (hierarchical_kernel(x[:, across], y[:, across], filters=[2, 2], kind=kind) - kernel).abs().max() > 1e-6
    assert torch.linalg.eigvalsh(hierarchical_kernel(x, x, filters=[2, 2], kind=kind))[0] > -1e-6


def test_two_layers_by_hand():
    """All patches orthogonal: K^1 = 1/pi; k1(-1) = 0 for opposite ones."""
    t = torch.zeros(2, dtype=torch.float64)
    first = 1 / math.pi
    angle = math.acos(first)
    second = (math.sin(angle) + first * (math.pi - angle)) / math.pi
    assert kernel_of_cosines(t, filters=[2], kind="rfk").item() == pytest.approx(second)
    tangent = second + first * (math.pi - angle) / math.pi
    assert kernel_of_cosines(t, filters=[2], kind="ntk").item() == pytest.approx(tangent)
    assert kernel_of_cosines(-torch.ones(2).double(), filters=[], kind="rfk").item() == pytest.approx(0.0)


def half_grid(n: int, p: int) -> torch.Tensor:
    angles = 2 * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64) / n
    return torch.stack(torch.meshgrid(*[angles] * p, indexing="ij"), -1)


def test_spectrum_is_the_fourier_transform():
    n = 8
    angles = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    grid = torch.stack(torch.meshgrid(angles, angles, indexing="ij"), -1)
    full = torch.fft.fft2(kernel_of_cosines(grid.cos(), filters=[2], kind="ntk")).real / n**2
    values = kernel_of_cosines(half_grid(n, 2).cos(), filters=[2], kind="ntk")
    eigenvalues, multiplicities = torus_spectrum(values)
    torch.testing.assert_close(eigenvalues, full[: n // 2 + 1, : n // 2 + 1])
    assert multiplicities.sum() == n**2
    assert (multiplicities * eigenvalues).sum().item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("kind", "local", "pair"), [("rfk", (-4.1, 0.1), (-4.95, 0.05)), ("ntk", (-2.2, 0.1), (-2.95, 0.05))]
)
def test_slopes_of_the_sectors(kind, local, pair):
    eigenvalues, _ = torus_spectrum(kernel_of_cosines(half_grid(256, 2).cos(), filters=[2], kind=kind))
    k = torch.arange(4, 32, 2)
    x = k.double().log() - k.double().log().mean()
    for values, (expected, margin) in ((eigenvalues[k, 0], local), (eigenvalues[k, k], pair)):
        assert (x @ values.log() / (x @ x)).item() == pytest.approx(expected, abs=margin)


def test_dimensions_and_exponents():
    assert [effective_dimension(2, f) for f in ((), (2,), (2, 2))] == [1, 2, 4]
    assert effective_dimension(3, [3]) == 6
    for d in (1, 2, 4):
        assert learning_exponent(nu_target=0.5, nu=0.5, local_dim=d, input_dim=d) == pytest.approx(1 / d)
    saturated = learning_exponent(nu_target=9.0, nu=0.5, local_dim=2, input_dim=2)
    assert saturated == pytest.approx((4 * 0.5 + 2 * 2) / 2)
    assert learning_exponent(nu_target=0.5, nu=0.5, local_dim=1, input_dim=4) == pytest.approx(0.625)
    far = learning_exponent(nu_target=0.5, nu=0.5, local_dim=1, input_dim=10**9)
    assert far == pytest.approx(0.5)


def test_refuses_what_makes_no_sense():
    x = random_patches(2, 4, 3)
    with pytest.raises(ValueError, match="norm of the patches of x"):
        hierarchical_kernel(2 * x, x, filters=[2])
    with pytest.raises(ValueError, match="norm of the patches of y"):
        hierarchical_kernel(x, 0.5 * x, filters=[2])
    with pytest.raises(ValueError, match="divide 4 patches"):
        hierarchical_kernel(x, x, filters=[3])
    with pytest.raises(ValueError, match="kind must be one of"):
        hierarchical_kernel(x, x, filters=[2], kind="nngp")
    with pytest.raises(ValueError, match="at least 2"):
        torus_spectrum(torch.ones(1, 3).double())
    with pytest.raises(ValueError, match="patch_size"):
        effective_dimension(1, [2])
    with pytest.raises(ValueError, match="local_dim"):
        learning_exponent(nu_target=0.5, nu=0.5, local_dim=5, input_dim=4)

"""Facts of `dlatlas.theory.neural_tangent_kernel`."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from numpy.polynomial.laguerre import laggauss

from dlatlas.models.parametrised_mlp import NTKMLP, StandardMLP
from dlatlas.ops.functional import empirical_ntk
from dlatlas.theory.neural_tangent_kernel import (
    layer_factors,
    layerwise_ntk,
    ntk_recursion,
    standard_ntk_recursion,
    tangent_recursion,
)
from tests.examples import Example, Make

KINDS = {"relu": 0.0, "erf": 0.3, "linear": 0.1}


def network(make: Make, build=NTKMLP, widths=(3, 6, 5, 1), act="erf", beta=0.3):
    net = build(widths, act, beta).to(make.device, make.dtype)
    return net, {name: make.normal(*value.shape) for name, value in net.named_parameters()}


def factor_arguments(make: Make, names: tuple[str, ...]) -> dict:
    net, params = network(make)
    return {"net": net, "params": params, **{name: make.normal(4, 3) for name in names}}


EXAMPLES = [
    *(
        Example(
            ntk_recursion,
            lambda make, act=act, beta=beta: {
                "x1": make.normal(4, 3),
                "x2": make.normal(5, 3),
                "depth": 3,
                "act": act,
                "beta": beta,
            },
            differentiable=("x1", "x2"),
        )
        for act, beta in KINDS.items()
    ),
    Example(
        standard_ntk_recursion,
        lambda make: {"x1": make.normal(4, 3), "x2": make.normal(5, 3), "depth": 3, "width": 7, "beta": 0.2},
        differentiable=("x1", "x2"),
    ),
    Example(
        tangent_recursion,
        lambda make: {
            "x1": make.normal(4, 3),
            "x2": make.normal(5, 3),
            "weight_gains": [2.0, 0.0, 3.0],
            "bias_gain": 0.5,
            "act": "erf",
            "beta": 0.2,
        },
        differentiable=("x1", "x2"),
    ),
    Example(layer_factors, lambda make: factor_arguments(make, ("x",)), differentiable=("x",)),
    Example(layerwise_ntk, lambda make: factor_arguments(make, ("x1", "x2")), differentiable=("x1", "x2")),
]


def on_sphere(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Points with mean square 1."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True) * math.sqrt(d)


def test_one_hidden_relu_layer_by_hand():
    x = torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    nngp, ntk = ntk_recursion(x, x, depth=2)
    expected = torch.tensor([[1.0, 1 / (2 * math.pi), 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    expected[1, 0] = expected[1, 2] = expected[2, 1] = 1 / (2 * math.pi)
    torch.testing.assert_close(ntk, expected, atol=1e-7, rtol=0)
    assert nngp[0, 0].item() == pytest.approx(0.5)
    assert nngp[0, 1].item() == pytest.approx(1 / (2 * math.pi))


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_linear_network(depth):
    x1, x2 = on_sphere(4, 3), torch.randn(5, 3, dtype=torch.float64)
    nngp, ntk = ntk_recursion(x1, x2, depth=depth, act="linear")
    torch.testing.assert_close(nngp, x1 @ x2.mT / 3)
    torch.testing.assert_close(ntk, depth * x1 @ x2.mT / 3)


def test_depth_one_is_the_linear_kernel_with_a_bias():
    x = on_sphere(4, 3)
    nngp, ntk = ntk_recursion(x, x, depth=1, beta=0.5)
    torch.testing.assert_close(ntk, x @ x.mT / 3 + 0.25)
    assert torch.equal(nngp, ntk)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_relu_kernels_on_the_diagonal(depth):
    """With beta = 0 and unit inputs, S halves in every layer and so does what is left of Theta: L / 2^(L-1)."""
    x = on_sphere(3, 4)
    nngp, ntk = ntk_recursion(x, x, depth=depth)
    torch.testing.assert_close(nngp.diagonal(), torch.full((3,), 2.0 ** (1 - depth), dtype=torch.float64))
    expected = torch.full((3,), depth * 2.0 ** (1 - depth), dtype=torch.float64)
    torch.testing.assert_close(ntk.diagonal(), expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["relu", "erf", "linear"]), st.integers(1, 5), st.floats(0.0, 1.0))
def test_kernels_are_symmetric_and_semi_definite(seed, act, depth, beta):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for kernel in ntk_recursion(x, x, depth=depth, act=act, beta=beta):
        torch.testing.assert_close(kernel, kernel.mT)
        assert torch.linalg.eigvalsh(kernel)[0] > -1e-6 * kernel.norm()


def test_relu_kernel_scales_with_its_inputs_where_there_are_no_biases():
    x1, x2 = on_sphere(4, 3), on_sphere(5, 3, seed=1)
    for once, twice in zip(ntk_recursion(x1, x2, depth=3), ntk_recursion(2 * x1, x2, depth=3), strict=True):
        torch.testing.assert_close(twice, 2 * once)


def test_odd_frequencies_need_biases():
    """One hidden ReLU layer without biases has no odd frequencies above 1 on the circle; with biases it has."""
    angle = 2 * math.pi * torch.arange(64, dtype=torch.float64) / 64
    x = math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], dim=1)
    for beta, present in ((0.0, False), (0.1, True)):
        spectrum = torch.fft.fft(ntk_recursion(x, x, depth=2, beta=beta)[1][0]).real
        assert (spectrum[3] > 1e-6) == present
        assert spectrum[2] > 1e-2


@pytest.mark.parametrize("act", ["relu", "erf"])
def test_quadrature_over_the_hidden_weights_is_the_recursion(act):
    """One hidden layer in d = 2: the mean of the empirical kernel over the law of one hidden unit's weights."""
    x = torch.tensor([[1.2, 0.4], [-0.3, 1.0], [0.5, -0.9]], dtype=torch.float64)
    angles = 2 * math.pi * (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    half_squared, weight = (torch.tensor(v) for v in laggauss(40))
    total = torch.zeros(3, 3, dtype=torch.float64)
    for q, probability in zip(half_squared, weight, strict=True):
        net = NTKMLP((2, 4000, 1), act, 0.0).double()
        params = {"weights.0": torch.sqrt(2 * q) * directions, "weights.1": torch.ones(1, 4000, dtype=torch.float64)}
        total += probability * layerwise_ntk(net, params, x)
    # Output weights of size 1 are exact here: only their squares, of mean 1, enter the kernel.
    torch.testing.assert_close(total, ntk_recursion(x, x, depth=2, act=act)[1], atol=2e-4, rtol=0)


def test_only_the_last_layer_trained_gives_the_covariance_of_the_outputs():
    """A random feature model: its tangent kernel is that of a Gaussian process with the same prior."""
    x = on_sphere(5, 3)
    nngp, ntk = tangent_recursion(x, x, weight_gains=[0.0, 0.0, 1.0], bias_gain=0.0, act="relu", beta=0.0)
    torch.testing.assert_close(ntk, nngp)


@pytest.mark.parametrize("build", [NTKMLP, StandardMLP])
@pytest.mark.parametrize("act", ["relu", "erf", "linear"])
@pytest.mark.parametrize("beta", [0.0, 0.4])
def test_layerwise_kernel_is_the_jacobian_contraction(build, act, beta):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    net, params = network(make, build, act=act, beta=beta)
    x1, x2 = make.normal(4, 3), make.normal(6, 3)

    def f(p, x):
        return torch.func.functional_call(net, p, (x,))

    torch.testing.assert_close(layerwise_ntk(net, params, x1, x2), empirical_ntk(f, params, x1, x2))
    torch.testing.assert_close(layerwise_ntk(net, params, x1), empirical_ntk(f, params, x1))


@pytest.mark.parametrize("act", ["relu", "erf"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_wide_networks_have_the_kernel_of_the_recursion(act, beta):
    x, width = on_sphere(4, 3), 3000
    torch.manual_seed(0)
    limits = {
        NTKMLP: ntk_recursion(x, x, depth=3, act=act, beta=beta)[1],
        StandardMLP: standard_ntk_recursion(x, x, depth=3, width=width, act=act, beta=beta)[1],
    }
    for build, limit in limits.items():
        net = build((3, width, width, 1), act, beta).double()
        kernel = layerwise_ntk(net, {k: v.detach() for k, v in net.named_parameters()}, x)
        assert (kernel - limit).norm() < 0.12 * limit.norm()
        assert (kernel - 1.5 * limit).norm() > 0.2 * limit.norm()


def test_standard_kernel_is_exact_where_the_width_is_all_that_differs():
    """Linear, one hidden layer: n x.x'/n0 from the last layer, x.x' from the first, whose deltas have norm 1."""
    x = on_sphere(4, 3)
    nngp, ntk = standard_ntk_recursion(x, x, depth=2, width=50, act="linear")
    torch.testing.assert_close(nngp, x @ x.mT / 3)
    torch.testing.assert_close(ntk, x @ x.mT + 50 * x @ x.mT / 3)


def test_refuses_what_makes_no_sense():
    x = on_sphere(3, 4)
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        ntk_recursion(x, x, depth=0)
    with pytest.raises(ValueError, match="beta must be at least"):
        ntk_recursion(x, x, depth=2, beta=-1.0)
    with pytest.raises(ValueError, match="act must be one of"):
        ntk_recursion(x, x, depth=2, act="tanh")
    with pytest.raises(ValueError, match="width must be at least 1"):
        standard_ntk_recursion(x, x, depth=2, width=0)
    with pytest.raises(TypeCheckError):
        ntk_recursion(x, x[:, :2], depth=2)
    origin = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="norm of the rows of x2"):
        ntk_recursion(x, origin, depth=2)
    assert torch.isfinite(ntk_recursion(x, origin, depth=2, beta=0.1)[1]).all()


def test_layerwise_kernel_refuses_what_it_cannot_do():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    net, params = network(make, widths=(3, 4, 2))
    with pytest.raises(ValueError, match="one output, got 2"):
        layerwise_ntk(net, params, make.normal(4, 3))
    plain = torch.nn.Linear(3, 1).double()
    with pytest.raises(TypeCheckError):
        layerwise_ntk(plain, dict(plain.named_parameters()), make.normal(4, 3))

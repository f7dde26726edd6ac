"""Facts of `dlatlas.ops.kernels`."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from numpy.polynomial.laguerre import laggauss

from dlatlas.ops.kernels import arccos_k0, arccos_k1, gaussian_expectations, kernel_alignment, kernel_flow
from tests.examples import Example, Make


def gram(make: Make, n: int) -> torch.Tensor:
    features = make.normal(n, n + 3)
    return features @ features.mT / n


def flow_arguments(make: Make) -> dict:
    kernel = gram(make, 9)
    return {
        "K_train": kernel[:5, :5],
        "K_test": kernel[5:, :5],
        "y": make.normal(5, 2),
        "f0_train": make.normal(5, 2),
        "f0_test": make.normal(4, 2),
        "t": 3.0,
        "eta": 0.1,
    }


def moments(make: Make, act: str) -> dict:
    joint = gram(make, 7)
    diagonal = joint.diagonal()
    return {"act": act, "variance1": diagonal[:3, None], "covariance": joint[:3, 3:], "variance2": diagonal[3:]}


EXAMPLES = [
    Example(arccos_k0, lambda make: {"cosine": make.uniform(4, 3, low=-1.0)}, differentiable=("cosine",)),
    Example(arccos_k1, lambda make: {"cosine": make.uniform(4, 3, low=-1.0)}, differentiable=("cosine",)),
    *(
        Example(
            gaussian_expectations,
            lambda make, act=act: moments(make, act),
            differentiable=("variance1", "covariance", "variance2") if act != "linear" else ("covariance",),
        )
        for act in ("relu", "erf", "linear")
    ),
    Example(kernel_alignment, lambda make: {"K": gram(make, 6), "y": make.normal(6, 2)}, differentiable=("K", "y")),
    Example(kernel_flow, flow_arguments, differentiable=("K_train", "K_test", "y", "f0_train", "f0_test")),
]

ACTIVATION = {"relu": torch.relu, "erf": torch.erf, "linear": lambda z: z}
DERIVATIVE = {
    "relu": lambda z: (z > 0).to(z.dtype),
    "erf": lambda z: 2 / math.sqrt(math.pi) * torch.exp(-(z**2)),
    "linear": torch.ones_like,
}


def quadrature(function, a: float, c: float, b: float, angles: int = 20_000) -> float:
    """E[function(u) function(v)] in polar coordinates: half the squared radius is exponential, the angle uniform."""
    angle = (torch.arange(angles, dtype=torch.float64) + 0.5) * 2 * math.pi / angles
    half_squared, weight = (torch.tensor(v, dtype=torch.float64) for v in laggauss(60))
    radius = torch.sqrt(2 * half_squared)
    first, second = radius[:, None] * torch.cos(angle), radius[:, None] * torch.sin(angle)
    u = math.sqrt(a) * first
    v = c / math.sqrt(a) * first + math.sqrt(b - c**2 / a) * second
    return float((weight[:, None] * function(u) * function(v)).sum() / angles)


@pytest.mark.parametrize("act", ["relu", "erf", "linear"])
@pytest.mark.parametrize(("a", "c", "b"), [(1.0, 0.3, 1.0), (0.5, -0.6, 2.0), (2.0, 1.2, 0.9)])
def test_expectations_are_the_gaussian_integrals(act, a, c, b):
    value, slope = gaussian_expectations(act, *(torch.tensor(v, dtype=torch.float64) for v in (a, c, b)))
    assert value.item() == pytest.approx(quadrature(ACTIVATION[act], a, c, b), abs=2e-4)
    assert slope.item() == pytest.approx(quadrature(DERIVATIVE[act], a, c, b), abs=2e-4)


def test_known_values():
    t = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(arccos_k0(t), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(arccos_k1(t), torch.tensor([0.0, 1 / math.pi, 1.0], dtype=torch.float64))


@given(st.floats(-0.999, 0.999))
def test_the_slope_of_k1_is_k0(cosine):
    t = torch.tensor(cosine, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(arccos_k1(t), t)
    assert slope.item() == pytest.approx(arccos_k0(t).item(), abs=1e-9)


def test_gradients_are_finite_at_the_ends_and_beyond():
    t = torch.tensor([-1.0, 1.0, 1.0 + 1e-12, -1.0 - 1e-12], dtype=torch.float64, requires_grad=True)
    for kernel in (arccos_k0, arccos_k1):
        assert torch.isfinite(kernel(t)).all()
        assert torch.isfinite(torch.autograd.grad(kernel(t).sum(), t)[0]).all()
    torch.testing.assert_close(torch.autograd.grad(arccos_k1(t).sum(), t)[0].detach(), arccos_k0(t).detach())


@pytest.mark.parametrize("variance", [0.0, -1.0])
def test_refuses_variances_without_an_angle(variance):
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="variance1"):
        gaussian_expectations("relu", variance * one, one, one)
    with pytest.raises(ValueError, match="variance2"):
        gaussian_expectations("relu", one, one, variance * one)


def test_refuses_an_unknown_activation():
    one = torch.ones(1)
    with pytest.raises(ValueError, match="act must be one of relu, erf, linear; got 'tanh'"):
        gaussian_expectations("tanh", one, one, one)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 12))
def test_alignment_is_one_for_the_targets_own_kernel_and_between_zero_and_one(seed, n):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(seed))
    y = make.normal(n)
    centred = y - y.mean()
    assert kernel_alignment(torch.outer(centred, centred), y).item() == pytest.approx(1.0, abs=1e-10)
    kernel = gram(make, n)
    assert -1e-12 <= kernel_alignment(kernel, y).item() <= 1 + 1e-12
    shifted = kernel_alignment(3 * kernel + 5, y + 2)
    assert shifted.item() == pytest.approx(kernel_alignment(kernel, y).item(), abs=1e-10)


def test_alignment_is_the_written_formula():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    kernel, y = gram(make, 6), make.normal(6)
    h = torch.eye(6, dtype=torch.float64) - 1 / 6
    kernel_c, y_c = h @ kernel @ h, h @ y
    expected = y_c @ kernel_c @ y_c / (torch.linalg.matrix_norm(kernel_c) * (y_c @ y_c))
    torch.testing.assert_close(kernel_alignment(kernel, y), expected)


def test_alignment_refuses_what_centring_empties():
    with pytest.raises(ValueError, match="norm of the centred targets"):
        kernel_alignment(torch.eye(4), torch.ones(4))
    with pytest.raises(ValueError, match="norm of the centred kernel"):
        kernel_alignment(torch.ones(4, 4), torch.arange(4.0))
    with pytest.raises(TypeCheckError):
        kernel_alignment(torch.eye(4), torch.ones(3))


def flow(t: float, **changes):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    given = {**flow_arguments(make), **changes, "t": t}
    return given, kernel_flow(**given)


def test_flow_starts_at_the_initial_function_and_ends_at_the_data():
    given_, (train, test) = flow(0.0)
    assert torch.equal(train, given_["f0_train"])
    assert torch.equal(test, given_["f0_test"])
    given_, (train, test) = flow(math.inf)
    torch.testing.assert_close(train, given_["y"], atol=1e-10, rtol=0)
    weights = torch.linalg.solve(given_["K_train"], given_["y"] - given_["f0_train"])
    torch.testing.assert_close(test, given_["f0_test"] + given_["K_test"] @ weights, atol=1e-8, rtol=1e-8)


def test_flow_solves_the_differential_equation():
    given_, (train, _) = flow(3.0)
    step = 1e-4
    _, (train_later, test_later) = flow(3.0 + step)
    _, (train_before, test_before) = flow(3.0 - step)
    residual = train - given_["y"]
    for later, before, kernel in (
        (train_later, train_before, given_["K_train"]),
        (test_later, test_before, given_["K_test"]),
    ):
        velocity = (later - before) / (2 * step)
        torch.testing.assert_close(velocity, -given_["eta"] * kernel @ residual, atol=1e-7, rtol=1e-6)


def test_flow_in_one_output_is_a_column_of_the_flow_in_two():
    given_, (train, test) = flow(2.0)
    single = {name: given_[name][:, 0] for name in ("y", "f0_train", "f0_test")}
    _, (train_0, test_0) = flow(2.0, **single)
    torch.testing.assert_close(train_0, train[:, 0])
    torch.testing.assert_close(test_0, test[:, 0])


def test_flow_in_a_singular_kernel_leaves_the_null_direction():
    u = torch.tensor([0.6, 0.8], dtype=torch.float64)
    y = torch.tensor([1.0, -2.0], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    train, _ = kernel_flow(torch.outer(u, u), torch.outer(u, u), y, zero, zero, math.inf, eta=1.0)
    torch.testing.assert_close(train, u * (u @ y))


def test_flow_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="t must be at least"):
        flow(-1.0)
    with pytest.raises(ValueError, match="eta must be greater than 0"):
        flow(1.0, eta=0.0)
    with pytest.raises(ValueError, match="smallest eigenvalue of K_train"):
        flow(1.0, K_train=-torch.eye(5, dtype=torch.float64))

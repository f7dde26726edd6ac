"""Facts that the methods of theory/feature_learning must satisfy: the limit of a linear network."""

import math

import pytest
import torch

from dlatlas.theory.feature_learning_linear import (
    LinearLimit,
    mup_linear_gram,
    mup_linear_limit,
    mup_linear_map,
    mup_linear_start,
    squared_error_slope,
)
from tests.examples import Example, Make


def stream(make: Make) -> dict:
    return {"x": make.normal(4, 5, 3), "y": make.normal(4, 5, 2), "eta": 0.1, "s_u": 0.7, "s_v": 1.3}


def some_state(make: Make) -> LinearLimit:
    return LinearLimit(make.normal(3, 3), make.normal(2, 3), make.normal(2, 2), make.normal(3, 2))


EXAMPLES = [
    Example(squared_error_slope, lambda make: {"f": make.normal(4, 2), "y": make.normal(4, 2)}, differentiable=("f",)),
    Example(mup_linear_start, lambda make: {"d": 3, "o": 2, "like": make.normal(1)}),
    Example(mup_linear_map, lambda make: {"state": some_state(make), "s_u": 0.7, "s_v": 1.3}, vmap=False),
    Example(mup_linear_gram, lambda make: {"state": some_state(make), "s_u": 0.7, "s_v": 1.3}, vmap=False),
    Example(mup_linear_limit, stream, differentiable=("x", "y")),
]
MAKE = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


def finite(U, V, x, y, eta, slope):
    outputs, n = [], len(U)
    for batch, target in zip(x, y, strict=True):
        f = batch @ (V.T @ U / n).T
        chi = slope(f, target)
        new_U, new_V = U.clone(), V.clone()
        for i in range(len(batch)):
            new_U -= eta / len(batch) * torch.outer(V @ chi[i], batch[i])
            new_V -= eta / len(batch) * torch.outer(U @ batch[i], chi[i])
        U, V = new_U, new_V
        outputs.append(f)
    return torch.stack(outputs), U


@pytest.mark.parametrize("n", [5, 8, 40])
@pytest.mark.parametrize("loss", ["square", "softmax"])
def test_orthogonal_start_is_on_the_limit_at_any_width(n, loss):
    d, o = 3, 2
    slope = squared_error_slope if loss == "square" else lambda f, y: f.softmax(-1) - y.softmax(-1)
    columns, _ = torch.linalg.qr(MAKE.normal(n, d + o))
    U0, V0 = math.sqrt(0.7 * n) * columns[:, :d], math.sqrt(1.3 * n) * columns[:, d:]
    x, y = MAKE.normal(12, 5, d), MAKE.normal(12, 5, o)
    expected, U = finite(U0, V0, x, y, 0.1, slope)
    got, state = mup_linear_limit(x, y, eta=0.1, s_u=0.7, s_v=1.3, slope=slope)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(mup_linear_gram(state, s_u=0.7, s_v=1.3), U.T @ U / n, rtol=1e-9, atol=1e-10)


def test_wide_networks_approach_it():
    x, y = MAKE.normal(10, 6, 3), MAKE.normal(10, 6, 2)
    exact, _ = mup_linear_limit(x, y, eta=0.2)
    gaps = []
    for n in (100, 10_000):
        U, V = MAKE.normal(n, 3), MAKE.normal(n, 2)
        gaps.append((finite(U, V, x, y, 0.2, squared_error_slope)[0] - exact).square().mean().sqrt().item())
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.7)


def test_starts_at_zero_with_round_features():
    state = mup_linear_start(3, 2, like=MAKE.normal(1))
    assert mup_linear_map(state, s_u=0.7, s_v=1.3).abs().max() == 0
    torch.testing.assert_close(mup_linear_gram(state, s_u=0.7, s_v=1.3), 0.7 * torch.eye(3).double())
    outputs, _ = mup_linear_limit(MAKE.normal(1, 4, 3), MAKE.normal(1, 4, 2), eta=0.1)
    assert outputs.abs().max() == 0


def test_learns_a_linear_teacher():
    W = MAKE.normal(2, 3)
    x = MAKE.normal(400, 20, 3)
    _, state = mup_linear_limit(x, x @ W.T, eta=0.1)
    torch.testing.assert_close(mup_linear_map(state, s_u=1.0, s_v=1.0), W, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["eta", "s_u", "s_v"])
def test_refuses(name):
    with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
        mup_linear_limit(**{**stream(MAKE), name: 0.0})

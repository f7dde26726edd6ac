"""Facts of the regression with known exponents."""

import math

import pytest
import torch

from dlatlas.ops.power_laws import fit_power_law
from dlatlas.theory.scaling_laws_regression import power_law_task, sgd_risk, stable_rate
from tests.examples import Example, Make


def spectrum(make: Make) -> torch.Tensor:
    return make.uniform(5, low=0.1, high=1.0)


EXAMPLES = [
    Example(power_law_task, lambda make: {"N": 5, "dtype": make.dtype}, vmap=False),
    Example(stable_rate, lambda make: {"eigenvalues": spectrum(make), "B": 4.0}, differentiable=("eigenvalues",)),
    Example(
        sgd_risk,
        lambda make: {
            "eigenvalues": spectrum(make),
            "power": spectrum(make),
            "hidden": make.uniform(1)[0],
            "B": 4.0,
            "rate": 0.2,
            "steps": 6,
        },
        differentiable=("eigenvalues", "power", "hidden"),
    ),
]


def test_hidden_power_is_the_rest_of_the_sum():
    task = power_law_task(10, b=2.0)
    assert (task.power.sum() + task.hidden).item() == pytest.approx(math.pi**2 / 6)


def test_risk_is_that_of_many_simulated_learners():
    task, B, rate, g = power_law_task(4), 3, 0.15, torch.Generator().manual_seed(0)
    wrong = (task.power / task.eigenvalues).sqrt().expand(20_000, -1)
    for _ in range(12):
        x = task.eigenvalues.sqrt() * torch.randn(20_000, B, 4, generator=g, dtype=torch.float64)
        noise = task.hidden.sqrt() * torch.randn(20_000, B, generator=g, dtype=torch.float64)
        residual = (x * wrong[:, None]).sum(-1) + noise
        wrong = wrong - rate * (residual[..., None] * x).mean(1)
    simulated = (task.eigenvalues * wrong.square()).sum(1) + task.hidden
    expected = sgd_risk(*task, B=float(B), rate=rate, steps=12)[-1]
    assert abs(simulated.mean() - expected) < 4 * simulated.std() / 20_000**0.5


def test_infinite_batch_is_gradient_descent():
    task = power_law_task(4)
    risk = sgd_risk(*task, B=math.inf, rate=0.3, steps=7)[-1]
    expected = (task.power * (1 - 0.3 * task.eigenvalues) ** 14).sum() + task.hidden
    torch.testing.assert_close(risk, expected)


@pytest.mark.parametrize("B", [1.0, 7.0, math.inf])
def test_rate_is_stable(B):
    task = power_law_task(50)
    risk = sgd_risk(*task, B=B, rate=stable_rate(task.eigenvalues, B), steps=400)
    assert risk[-1] < 3 * task.hidden
    assert risk.max() == risk[0]


def test_exponents_are_those_of_the_theory():
    sizes = [200, 400, 800]
    hidden = torch.stack([power_law_task(N).hidden for N in sizes])
    assert fit_power_law(torch.tensor(sizes).double(), hidden).exponent.item() == pytest.approx(0.75, abs=2e-3)
    risk = sgd_risk(*power_law_task(2000), B=math.inf, rate=1.0, steps=2000)
    at = torch.tensor([100, 400, 1600])
    assert fit_power_law(at.double(), risk[at]).exponent.item() == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize("wrong", [{"N": 0}, {"a": 1.0}, {"b": 0.5}])
def test_sums_that_diverge_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        power_law_task(**{"N": 3, **wrong})


def test_senseless_training_is_refused():
    task = power_law_task(3)
    for wrong in ({"B": 0.0}, {"rate": 0.0}, {"steps": 0}):
        with pytest.raises(ValueError, match="must"):
            sgd_risk(*task, **{"B": 2.0, "rate": 0.1, "steps": 3, **wrong})
    with pytest.raises(ValueError, match="B must"):
        stable_rate(task.eigenvalues, -1.0)

"""Facts of the hyperbola of steps and tokens."""

import pytest
import torch

from dlatlas.theory.scaling_laws_batches import (
    critical_batch,
    fit_hyperbola,
    steps_to_levels,
    to_min_steps,
    to_min_tokens,
)
from tests.examples import Example, Make

DOUBLE = {"dtype": torch.float64}


def three(make: Make, first: str) -> dict:
    return {
        first: make.uniform(4, low=10.0, high=99.0),
        "B": make.uniform(4, low=1.0, high=9.0),
        "B_crit": make.uniform(4, low=1.0, high=9.0),
    }


def hyperbolas(make: Make) -> dict:
    B = torch.tensor([2.0, 8.0, 32.0, 128.0], dtype=make.dtype, device=make.device)
    B_crit = make.uniform(3, 1, low=5.0, high=9.0)
    return {"steps": make.uniform(3, 1, low=50.0, high=90.0) * (1 + B_crit / B), "B": B}


EXAMPLES = [
    Example(to_min_steps, lambda make: three(make, "S"), differentiable=("S", "B", "B_crit")),
    Example(to_min_tokens, lambda make: three(make, "E"), differentiable=("E", "B", "B_crit")),
    Example(
        steps_to_levels,
        lambda make: {
            "steps": torch.tensor([1.0, 2.0, 5.0, 9.0], dtype=make.dtype, device=make.device),
            "losses": 5 - make.uniform(3, 4, low=0.5, high=1.0).cumsum(-1),
            "levels": make.uniform(2, low=3.1, high=3.9),
        },
        differentiable=("losses", "levels"),
    ),
    Example(fit_hyperbola, hyperbolas, differentiable=("steps", "B")),
    Example(
        critical_batch,
        lambda make: {
            **hyperbolas(make),
            "levels": torch.tensor([3.0, 2.0, 1.0], dtype=make.dtype, device=make.device),
        },
        differentiable=("steps",),
    ),
]


def doubles(*values):
    return torch.tensor(values, **DOUBLE)


def test_hyperbola_holds_for_every_batch():
    B, S, B_crit = torch.logspace(-2, 5, 30, **DOUBLE), doubles(100.0), doubles(40.0)
    steps, tokens = S / to_min_steps(S, B, B_crit) - 1, B * S / to_min_tokens(B * S, B, B_crit) - 1
    torch.testing.assert_close(steps * tokens, torch.ones(30, **DOUBLE))


def test_critical_batch_doubles_both_and_an_infinite_one_saves_all_steps():
    S, B = doubles(100.0), doubles(40.0)
    assert to_min_steps(S, B, B) == 50
    assert to_min_tokens(B * S, B, B) == 2000
    assert to_min_steps(S, doubles(torch.inf), B) == 100


def test_crossings_are_interpolated_on_logarithms():
    steps, losses = doubles(1, 10, 100), doubles(4, 2, 1)
    got = steps_to_levels(steps, losses, doubles(2**1.5, 2, 2**0.5, 1))
    torch.testing.assert_close(got, doubles(10**0.5, 10, 10**1.5, 100))


def test_first_crossing_counts():
    got = steps_to_levels(doubles(1, 2, 3, 4, 5), doubles(4, 2, 3, 1.5, 1), doubles(2.0))
    torch.testing.assert_close(got, doubles(2.0))


@pytest.mark.parametrize("level", [5.0, 0.5])
def test_level_that_is_not_passed_is_refused(level):
    with pytest.raises(ValueError, match="every run"):
        steps_to_levels(doubles(1, 10, 100), doubles(4, 2, 1), doubles(level))


def test_hyperbola_minimises_relative_errors():
    g = torch.Generator().manual_seed(0)
    B = doubles(2, 8, 32, 128)
    steps = 80 * (1 + 12 / B) * torch.exp(0.1 * torch.randn(5, 4, generator=g, **DOUBLE))
    fit = fit_hyperbola(steps, B)

    def error(S_min, B_crit):
        return (S_min[:, None] * (1 + B_crit[:, None] / B) / steps - 1).square().sum(1)

    best = error(*fit)
    for a, b in ((1.01, 1), (0.99, 1), (1, 1.02), (1, 0.98)):
        assert (error(a * fit.S_min, b * fit.B_crit) > best).all()


def test_critical_batch_law_is_found():
    B, levels = doubles(4, 16, 64), doubles(3, 2, 1.5, 1.1)
    steps = levels[:, None] ** -3 * (1 + 70 * levels[:, None] ** -1.7 / B)
    found = critical_batch(steps, B, levels)
    assert found.B_star.item() == pytest.approx(70)
    assert found.inverse_a_B.item() == pytest.approx(1.7)


def test_batches_that_do_not_help_are_refused():
    with pytest.raises(ValueError, match="offset"):
        critical_batch(torch.ones(3, 2, **DOUBLE) * doubles(1, 2), doubles(4, 16), doubles(3, 2, 1))


def test_senseless_batches_are_refused():
    one = doubles(1.0)
    with pytest.raises(ValueError, match="B must"):
        to_min_steps(one, -one, one)
    with pytest.raises(ValueError, match="B_crit"):
        to_min_tokens(one, one, -one)
    with pytest.raises(ValueError, match="batch sizes"):
        fit_hyperbola(torch.ones(2, 1, **DOUBLE), one)

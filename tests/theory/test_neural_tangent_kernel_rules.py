"""Facts of `dlatlas.theory.neural_tangent_kernel_rules`."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlatlas.theory.neural_tangent_kernel_rules import epsilon_greedy, igw_fast, igw_square
from tests.examples import Example

EXAMPLES = [
    Example(igw_square, lambda make: {"yhat": make.normal(4), "gamma": 8.0}, differentiable=("yhat",)),
    Example(igw_fast, lambda make: {"yhat": make.uniform(4), "gamma": 8.0}, differentiable=("yhat",)),
    Example(epsilon_greedy, lambda make: {"yhat": make.normal(4), "epsilon": 0.1}),
]

RULES = [igw_square, igw_fast]


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_equal_predictions_are_drawn_equally(rule, level):
    torch.testing.assert_close(rule(double(level, level, level, level), 8.0), double(0.25, 0.25, 0.25, 0.25))


def test_two_arms_by_hand():
    yhat = double(0.25, 0.5)
    torch.testing.assert_close(igw_square(yhat, 8.0), double(0.75, 0.25))
    torch.testing.assert_close(igw_fast(yhat, 8.0), double(0.9, 0.1))


def test_a_sure_best_arm_with_loss_zero_is_not_doubted_by_the_fast_rule():
    yhat = double(0.0, 0.3, 0.3)
    torch.testing.assert_close(igw_fast(yhat, 1.0), double(1.0, 0.0, 0.0))
    assert igw_square(yhat, 1.0)[1] > 0.25


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12), st.floats(0.01, 1e4))
def test_rules_give_distributions_that_fall_with_the_prediction(values, gamma):
    yhat = double(*values)
    for rule in RULES:
        p = rule(yhat, gamma)
        assert (p >= 0).all()
        assert p.sum().item() == pytest.approx(1.0)
        assert p[yhat.argmin()] >= 1 / len(values) - 1e-12
        ordered = p[yhat.argsort(stable=True)]
        assert (ordered[1:] <= ordered[:-1] + 1e-12).all()


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6))
def test_more_greed_explores_less(values):
    yhat = double(*values)
    best = yhat.argmin()
    for rule in RULES:
        assert rule(yhat, 100.0)[best] >= rule(yhat, 1.0)[best] - 1e-12


PREDICTED_AND_TRUE = st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 1.0)), min_size=2, max_size=6)


@settings(deadline=None)
@given(PREDICTED_AND_TRUE, st.floats(0.01, 1e4))
def test_square_rule_pays_its_excess_loss_with_squared_errors(pairs, gamma):
    yhat, y = double(*pairs).T
    p, arms = igw_square(yhat, gamma), len(pairs)
    bound = 2 * (arms - 1) / gamma + gamma / 4 * (p * (yhat - y).square()).sum()
    assert (p * y).sum() - y.min() <= bound + 1e-9


@settings(deadline=None)
@given(PREDICTED_AND_TRUE, st.floats(0.0, 1e4))
def test_fast_rule_pays_its_excess_loss_with_triangular_discrimination(pairs, more):
    """First-order: the price of exploring is a share of the loss itself; every arm may be the comparison."""
    yhat, y = double(*pairs).T
    gamma = len(pairs) + more
    p = igw_fast(yhat, gamma)
    loss, discrimination = (p * y).sum(), (p * (yhat - y).square() / (yhat + y)).sum()
    bound = 7 * len(pairs) / gamma * loss + 12 * gamma * discrimination
    assert (loss - y <= bound + 1e-9).all()


def test_settings_may_differ_by_run():
    yhat, gamma = double(0.1, 0.5, 0.4).expand(2, 3), double(1.0, 50.0)
    for rule in RULES:
        together = rule(yhat, gamma)
        for run in range(2):
            torch.testing.assert_close(together[run], rule(yhat[run], gamma[run].item()))


def test_fast_rule_refuses_predictions_that_are_no_losses():
    for bad in (double(-1.0, 0.0), double(0.2, 1.5)):
        with pytest.raises(ValueError, match=r"yhat must lie in \[0.0, 1.0\]"):
            igw_fast(bad, 8.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gamma", [0.0, -1.0])
def test_rules_refuse_a_gamma_that_is_not_positive(rule, gamma):
    with pytest.raises(ValueError, match="gamma"):
        rule(double(0.1, 0.2), gamma)
    with pytest.raises(ValueError, match="gamma"):
        rule(double(0.1, 0.2).expand(2, 2), double(1.0, gamma))


def test_epsilon_greedy():
    torch.testing.assert_close(epsilon_greedy(double(0.3, 0.1), 0.2), double(0.1, 0.9))
    with pytest.raises(ValueError, match="epsilon"):
        epsilon_greedy(double(0.3, 0.1), 1.2)

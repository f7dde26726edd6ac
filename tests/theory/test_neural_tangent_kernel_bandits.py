"""Facts of `dlatlas.theory.neural_tangent_kernel_bandits`."""

import math

import pytest
import torch
from torch.func import grad, hessian

from dlatlas.models.parametrised_mlp import NTKMLP
from dlatlas.theory.neural_tangent_kernel_bandits import (
    BlockBandit,
    NeuralUCB,
    OnlineRegressor,
    perturbed_output,
    run_bandit,
)
from dlatlas.theory.neural_tangent_kernel_rules import epsilon_greedy
from tests.examples import Example, Make


def linear(theta, x):
    return x @ theta


def small_bandit(make: Make, runs=2, rounds=5, arms=3, d=2) -> BlockBandit:
    best = make.labels(runs, rounds, classes=arms)
    losses = 1 - torch.nn.functional.one_hot(best, arms).to(make.dtype)
    return BlockBandit(make.normal(runs, rounds, d), losses, best)


def small_regressor(make: Make, runs=2, link=torch.sigmoid, widths=(6, 8, 1), **settings) -> OnlineRegressor:
    nets = [NTKMLP(widths, "relu", 0.0).to(make.device, make.dtype) for _ in range(runs)]
    for net in nets:
        for parameter in net.parameters():
            parameter.data = make.normal(*parameter.shape)
    chosen = {"rate": 0.5, "radius": 100.0, "c_p": 0.1, "copies": 3, **settings}
    return OnlineRegressor(nets, link, generator=torch.Generator(make.device).manual_seed(1), **chosen)


def bandit_arguments(make: Make) -> dict:
    return {
        "regressor": small_regressor(make),
        "policy": lambda regressor, x: epsilon_greedy(regressor.predict(x), 0.0),
        "env": small_bandit(make),
        "T": 5,
        "generator": torch.Generator(make.device).manual_seed(0),
    }


EXAMPLES = [
    Example(
        perturbed_output,
        lambda make: {
            "f": linear,
            "theta": make.normal(6),
            "theta0": make.normal(6),
            "x": make.normal(4, 6),
            "eps": make.normal(3, 6).sign(),
            "c_p": 0.3,
            "m": 16,
        },
        differentiable=("theta", "theta0", "x"),
    ),
    Example(run_bandit, bandit_arguments, vmap=False),  # plays all its runs side by side already
]


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def perturbation_case():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    return make.normal(6), make.normal(6), make.normal(4, 6), make.normal(3, 6).sign()


def test_opposite_signs_cancel_and_nothing_is_added_at_the_start():
    theta, theta0, x, eps = perturbation_case()
    both = torch.cat([eps, -eps])
    torch.testing.assert_close(
        perturbed_output(linear, theta, theta0, x, both, c_p=0.5, m=16).mean(0), linear(theta, x)
    )
    at_start = perturbed_output(linear, theta0, theta0, x, eps, c_p=0.5, m=16)
    assert torch.equal(at_start, linear(theta0, x).expand(3, 4))


def test_mean_hessian_over_all_signs_is_the_gram_matrix_with_a_ridge():
    """For a linear f the expectation over the signs adds exactly c_p^2 / sqrt(m) to every eigenvalue."""
    theta, theta0, x, _ = perturbation_case()
    signs = torch.cartesian_prod(*[double(-1.0, 1.0)] * 6)

    def loss(at):
        outputs = perturbed_output(linear, at, theta0, x, signs, c_p=0.5, m=16)
        return (outputs - 0.7).square().sum(1).mean() / 2

    ridge = 0.25 / 4 * len(x) * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(hessian(loss)(theta), x.mT @ x + ridge)


def test_a_few_copies_leave_directions_without_curvature():
    theta, theta0, x, eps = perturbation_case()

    def loss(at):
        return perturbed_output(linear, at, theta0, x[:1], eps, c_p=0.5, m=16).square().mean() / 2

    assert torch.linalg.matrix_rank(hessian(loss)(theta)) == len(eps) < len(theta)


def test_perturbation_refuses_what_makes_no_sense():
    theta, theta0, x, eps = perturbation_case()
    with pytest.raises(ValueError, match="c_p"):
        perturbed_output(linear, theta, theta0, x, eps, c_p=-0.1, m=16)
    with pytest.raises(ValueError, match="m must be at least 1"):
        perturbed_output(linear, theta, theta0, x, eps, c_p=0.1, m=0)


LOSSES = {
    torch.nn.Identity(): lambda output, y: (y - output).square() / 2,
    torch.sigmoid: lambda output, y: -y * output.sigmoid().log() - (1 - y) * (1 - output.sigmoid()).log(),
}


@pytest.mark.parametrize("link", LOSSES, ids=["square", "cross-entropy"])
@pytest.mark.parametrize("radius", [100.0, 0.6])
def test_update_is_a_projected_gradient_step_of_the_written_loss(link, radius):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    regressor = small_regressor(make, link=link, radius=radius)
    x, y = make.normal(2, 6), make.uniform(2)
    for _ in range(3):
        before = regressor.theta.clone()
        regressor.update(x, y)
        for run in range(2):

            def loss(theta, run=run):
                w1, w2 = theta[:48].view(8, 6), theta[48:]
                output = torch.relu(w1 @ x[run] / math.sqrt(6)) @ w2 / math.sqrt(8)
                displacement = theta - regressor.theta0[run]
                copies = [output + 0.1 / 8**0.25 * (displacement @ e) for e in regressor.eps[run]]
                return sum(LOSSES[link](copy, y[run]) for copy in copies) / len(copies)

            moved = before[run] - 0.5 * grad(loss)(before[run]) - regressor.theta0[run]
            moved = moved * min(1.0, radius / moved.norm().item())
            torch.testing.assert_close(regressor.theta[run], regressor.theta0[run] + moved)


def test_prediction_averages_the_copies_before_the_link():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    regressor = small_regressor(make)
    x = make.normal(2, 3, 6)
    regressor.update(x[:, 0], make.uniform(2))

    def f(theta, rows):
        return torch.relu(rows @ theta[:48].view(8, 6).mT / math.sqrt(6)) @ theta[48:] / math.sqrt(8)

    for run in range(2):
        copies = perturbed_output(
            f, regressor.theta[run], regressor.theta0[run], x[run], regressor.eps[run], c_p=0.1, m=8
        )
        torch.testing.assert_close(regressor.predict(x)[run], torch.sigmoid(copies.mean(0)))


def test_ucb_bonus_is_the_written_formula():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    regressor = small_regressor(make, link=torch.nn.Identity(), runs=1)
    policy, x = NeuralUCB(0.7, ridge=2.0), make.normal(1, 3, 6)

    def f(theta, row):
        return torch.relu(theta[:48].view(8, 6) @ row / math.sqrt(6)) @ theta[48:] / math.sqrt(8)

    z = torch.full((56,), 2.0, dtype=torch.float64)
    for _ in range(3):
        g = torch.stack([grad(f)(regressor.theta[0], row) for row in x[0]])
        expected = (regressor.predict(x)[0] - 0.7 * (g**2 / z).sum(1).sqrt()).argmin()
        assert policy(regressor, x)[0].argmax() == expected
        z = z + g[expected] ** 2
    precision = torch.cat([leaf.flatten() for leaf in policy.precision])
    torch.testing.assert_close(precision, z)


def test_features_put_the_context_into_the_arm_s_block():
    env = BlockBandit(double(1.0, 2.0).view(1, 1, 2), torch.zeros(1, 1, 3), torch.zeros(1, 1, dtype=torch.long))
    expected = double(1, 2, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 1, 2).view(1, 3, 6)
    assert torch.equal(env.features(0), expected)


def test_regret_counts_against_the_reference():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    env = small_bandit(make, rounds=6)

    class Always:
        def __init__(self, choose):
            self.choose, self.t = choose, 0

        def __call__(self, regressor, x):
            arm = self.choose(self.t)
            self.t += 1
            return torch.nn.functional.one_hot(arm, 3).double()

    def play(choose):
        generator = torch.Generator().manual_seed(0)
        return run_bandit(small_regressor(make), Always(choose), env, 6, generator=generator)

    assert torch.equal(play(lambda t: env.reference[:, t]), torch.zeros(2, 6, dtype=torch.float64))
    wrong = play(lambda t: (env.reference[:, t] + 1) % 3)
    assert torch.equal(wrong, torch.arange(1.0, 7.0, dtype=torch.float64).expand(2, 6))


def test_runs_do_not_see_each_other():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    env = small_bandit(make, runs=2)
    greedy = lambda regressor, x: epsilon_greedy(regressor.predict(x), 0.0)  # noqa: E731
    together = small_regressor(make)
    alone = small_regressor(Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(3)), runs=1)
    alone.theta, alone.theta0 = together.theta[1:].clone(), together.theta0[1:].clone()
    alone.eps = together.eps[1:]
    single = BlockBandit(env.contexts[1:], env.losses[1:], env.reference[1:])
    paths = [
        run_bandit(regressor, greedy, bandit, 5, generator=torch.Generator().manual_seed(0))
        for regressor, bandit in ((together, env), (alone, single))
    ]
    assert torch.equal(paths[0][1], paths[1][0])
    torch.testing.assert_close(together.theta[1], alone.theta[0])


def test_environment_refuses_rewards_and_unknown_arms():
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    env = small_bandit(make)
    with pytest.raises(ValueError, match=r"losses \(not rewards\) must lie in"):
        BlockBandit(env.contexts, -env.losses, env.reference)
    with pytest.raises(ValueError, match="reference"):
        BlockBandit(env.contexts, env.losses, env.reference + 3)
    with pytest.raises(ValueError, match="T must lie in"):
        run_bandit(small_regressor(make), lambda r, x: r.predict(x), env, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 0.0}, "rate"),
        ({"radius": 0.0}, "radius must be greater than 0"),
        ({"copies": 0}, "copies must be at least 1"),
        ({"c_p": -0.1}, "c_p must be at least"),
    ],
)
def test_regressor_refuses_what_makes_no_sense(changes, message):
    make = Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        small_regressor(make, **changes)
    biased = [NTKMLP((6, 8, 1), "relu", 0.1)]
    with pytest.raises(ValueError, match=r"no biases, got beta=0\.1"):
        OnlineRegressor(
            biased, torch.sigmoid, rate=1.0, radius=1.0, c_p=0.1, copies=1, generator=torch.Generator().manual_seed(0)
        )


def test_ucb_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="strength"):
        NeuralUCB(-0.1)
    with pytest.raises(ValueError, match="ridge"):
        NeuralUCB(0.1, ridge=0.0)

"""Facts of `dlatlas.theory.deep_kernels_sampling`."""

import pytest
import torch

from dlatlas.theory.deep_kernels_machine import optimise_grams
from dlatlas.theory.deep_kernels_sampling import linear_gp_grams
from tests.examples import Example, Make


def process(make: Make, chains: int = 2) -> dict:
    x = make.normal(chains, 3, 8)
    return {"G0": x @ x.mT / 8, "Y": make.normal(chains, 3, 1)}


EXAMPLES = [
    Example(
        linear_gp_grams,
        lambda make: {
            **process(make),
            "width": 3,
            "depth": 2,
            "noise": 0.5,
            "burn_in": 1,
            "samples": 2,
            "generator": torch.Generator().manual_seed(0),
        },
        vmap=False,
    )
]


@pytest.fixture
def make() -> Make:
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


def sample(problem: dict, **options) -> tuple:
    generator = torch.Generator().manual_seed(1)
    return linear_gp_grams(**problem, **{"burn_in": 50, "samples": 400, "generator": generator, **options})


def test_one_point_is_an_integral(make):
    """P = 1, one layer, N = 4: g = G0 chi^2_4 / 4, weighted by the likelihood."""
    G0, y, noise = 1.5, 2.0, 0.4
    g = torch.linspace(1e-4, 40, 400_000, dtype=torch.float64)
    log_prior = (4 / 2 - 1) * torch.log(g) - 4 * g / (2 * G0)
    log_posterior = log_prior - 4 * (y**2 / (g + noise) + torch.log(g + noise)) / 2
    weight = torch.softmax(log_posterior, 0)
    problem = {"G0": torch.full((20, 1, 1), G0).double(), "Y": torch.full((20, 1, 1), y).double()}
    (grams,), accepted = sample(problem, width=4, depth=1, noise=noise)
    assert grams.mean().item() == pytest.approx((weight * g).sum().item(), rel=0.04)
    assert 0.5 < accepted.mean() < 1


def test_without_information_it_is_the_prior(make):
    problem = process(make, chains=10)
    problem["G0"] = problem["G0"][:1].expand(10, 3, 3).contiguous()
    grams, _ = sample(problem, width=8, depth=2, noise=1e8)
    for G in grams:
        deviation = (G.mean(0) - problem["G0"][0]).norm() / problem["G0"][0].norm()
        assert deviation < 0.08


def test_wide_processes_approach_the_deep_kernel_machine(make):
    problem = process(make, chains=4)
    limit = optimise_grams(problem["G0"], problem["Y"], nus=[1.0, 1.0], noise=0.3, kernel="linear", steps=600)
    errors = []
    for width in (4, 64):
        grams, _ = sample(problem, width=width, depth=2, noise=0.3, samples=200)
        errors.append(((grams[0] - limit[0]).norm() / limit[0].norm()).item())
    assert errors[1] < 0.12
    assert errors[1] < errors[0] / 2


def test_refuses_what_makes_no_sense(make):
    problem = process(make)
    with pytest.raises(ValueError, match="width must be at least 1"):
        sample(problem, width=0, depth=1, noise=0.1)
    with pytest.raises(ValueError, match="noise must be greater"):
        sample(problem, width=2, depth=1, noise=0.0)

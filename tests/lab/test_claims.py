import math

import numpy as np
import pytest
import torch

from dlatlas.lab.cards import CLAIM_MIME, RUN_MIME
from dlatlas.lab.claims import CheckFailed
from dlatlas.lab.run import start
from dlatlas.registry import UnknownEntry

pytestmark = pytest.mark.usefixtures("registry")


def payload(bundles):
    return bundles[-1][CLAIM_MIME]


def test_direction_comes_from_the_registry(run, shown):
    better, worse = torch.tensor([1.0, 1.1, 1.2, 1.1]), torch.tensor([0.5, 0.7, 0.6, 0.4])
    assert run.claim("paper/more", method=better, baseline=worse) == "supported"
    assert run.claim("paper/less", method=better, baseline=worse) == "contradicted"
    assert run.claim("paper/same", method=better, baseline=worse) == "contradicted"
    assert run.claim("paper/same", method=better, baseline=better + 0.01) == "supported"


def test_effect_is_paired(run, shown):
    hard_seeds = np.array([0.0, 10.0, 20.0, 30.0])
    assert (
        run.claim("paper/more", method=hard_seeds + np.array([1.0, 1.1, 0.9, 1.0]), baseline=hard_seeds) == "supported"
    )
    assert payload(shown)["effect"] == pytest.approx(1.0)


def test_value_without_a_baseline(run, shown):
    assert run.claim("paper/few", method=[0, 0, 0, 0]) == "supported"
    assert run.claim("paper/few", method=[3, 3, 4, 3]) == "contradicted"


def test_every_baseline_must_be_beaten(run, shown):
    method = np.array([1.0, 1.1, 1.2, 1.1])
    verdict = run.claim(
        "paper/more", method=method, baseline={"weak": method - 1 + np.array([0, 0.1, 0, 0]), "strong": method + 1}
    )
    assert verdict == "contradicted"
    rows = {row["baseline"]: row["verdict"] for row in payload(shown)["comparisons"]}
    assert rows == {"weak": "supported", "strong": "contradicted"}
    assert payload(shown)["effect"] == pytest.approx(-1)


def test_the_card_leads_with_the_least_favourable_comparison(run, shown):
    method = np.array([1.0, 1.1, 1.2, 1.1])
    far, near = method - 5 + np.array([0, 0.1, 0, 0]), method - 1 + np.array([0, 0.1, 0, 0])
    assert run.claim("paper/more", method=method, baseline={"far": far, "near": near}) == "supported"
    assert payload(shown)["effect"] == pytest.approx(0.975)


def test_slope(run, shown):
    x = np.array([8.0, 16.0, 32.0])
    noise = np.exp(np.random.default_rng(0).normal(scale=0.01, size=(4, 3)))
    assert run.claim_slope("paper/rate", x=x, method=noise / x, baseline=noise) == "supported"
    assert run.claim_slope("paper/rate", x=x, method=noise * x) == "contradicted"
    assert run.claim_slope("paper/steeper", x=x, method=noise * x, baseline=noise) == "supported"
    assert run.claim_slope("paper/steeper", x=x, method=noise * x, baseline=noise * x**2) == "contradicted"
    assert payload(shown)["comparisons"][0]["baseline_mean"] == pytest.approx(2, abs=0.05)


def test_card_carries_its_numbers(run, shown):
    run.claim("paper/more", method=[1.0, 2.0, 3.0, 4.0], baseline=[0.0, 1.0, 2.5, 3.0])
    card = payload(shown)
    assert card["paper"] == "paper"
    assert (card["seeds"], card["profile"], card["confidence"]) == (4, "cpu", 0.95)
    assert "supported" in shown[-1]["text/html"].lower()
    assert "SUPPORTED paper/more" in shown[-1]["text/plain"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"method": [1.0, math.nan, 1.0, 1.0], "baseline": [0.0] * 4},
            "method must be finite, got 1 infinite or undefined of 4",
        ),
        ({"method": [1.0] * 4, "baseline": [0.0, math.inf, 0, 0]}, "baseline baseline must be finite"),
        (
            {"method": [1.0] * 3, "baseline": [0.0] * 4},
            r"method must hold values over the run's 4 seeds, shape \(4,\); got shape \(3,\)",
        ),
        (
            {"method": [1.0] * 4, "baseline": {"plain": [0.0] * 5}},
            "baseline plain must hold values over the run's 4 seeds",
        ),
    ],
)
def test_refuses_values_that_are_no_sample(run, shown, arguments, message):
    with pytest.raises(ValueError, match=message):
        run.claim("paper/more", **arguments)
    assert not shown


def test_refuses_an_unknown_claim(run, shown):
    with pytest.raises(UnknownEntry, match=r"paper/mere.*paper/more"):
        run.claim("paper/mere", method=[1.0] * 4)
    with pytest.raises(UnknownEntry, match="nobody"):
        run.claim("nobody/more", method=[1.0] * 4)


def test_refuses_a_slope_measured_as_a_difference(run, shown):
    with pytest.raises(ValueError, match=r"measure it with run\.claim_slope"):
        run.claim("paper/rate", method=[1.0] * 4)
    with pytest.raises(ValueError, match=r"measure it with run\.claim\b"):
        run.claim_slope("paper/more", x=[1.0, 2.0], method=np.ones((4, 2)))


def test_refuses_the_logarithm_of_nothing(run, shown):
    with pytest.raises(ValueError, match="method must be positive"):
        run.claim_slope("paper/rate", x=[1.0, 2.0], method=np.zeros((4, 2)))
    with pytest.raises(ValueError, match="x must hold at least two sizes"):
        run.claim_slope("paper/rate", x=[1.0], method=np.ones((4, 1)))


def test_check_passes_and_fails(run, shown):
    run.check("paper/fact", torch.tensor([1.0, 2.0 + 1e-9]), [1.0, 2.0], atol=1e-6)
    assert payload(shown)["passed"]
    with pytest.raises(CheckFailed, match=r"deviation 0\.5 exceeds"):
        run.check("paper/fact", 1.5, 1.0, atol=1e-6)
    assert not payload(shown)["passed"]


def test_check_refuses_shapes_that_would_broadcast(run, shown):
    with pytest.raises(CheckFailed, match="shape"):
        run.check("paper/fact", torch.ones(3), 1.0)


def test_check_needs_a_known_paper_and_numbers(run, shown):
    with pytest.raises(UnknownEntry):
        run.check("nobody/fact", 1, 1)
    with pytest.raises(ValueError, match="got must be finite"):
        run.check("paper/fact", math.nan, 1.0)


def test_start_introduces_the_machine(shown):
    run = start("smoke", "theory/grokking")
    facts = shown[-1][RUN_MIME]
    assert facts["chapter"] == "theory/grokking"
    assert (facts["profile"], facts["seeds"], facts["device"]) == ("smoke", run.seeds, "cpu")
    assert facts["torch"] == torch.__version__


def test_start_refuses_an_unknown_profile_or_chapter():
    with pytest.raises(ValueError, match=r"unknown profile 'fast'; the profiles are smoke, cpu, gpu"):
        start("fast", "theory/grokking")
    with pytest.raises(UnknownEntry, match=r"theory/groking.*theory/grokking"):
        start("smoke", "theory/groking")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_start_refuses_the_gpu_profile_without_a_gpu():
    with pytest.raises(ValueError, match="needs a CUDA device"):
        start("gpu", "theory/grokking")

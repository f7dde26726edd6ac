"""Score networks: the formula, the zero start, the parity of ensembles, refused input."""

import math

import jaxtyping
import pytest
import torch

from dlatlas import lab
from dlatlas.lab.run import Run
from dlatlas.models.score import MLPDenoiser, TwoLayerDenoiser, denoiser_input


@pytest.fixture(autouse=True)
def _fixed_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_input_is_time_point_and_one():
    t, x = torch.tensor([0.1, 0.7]), torch.tensor([[0.3, 0.4], [6.0, 8.0]])
    z = denoiser_input(t, x, radius=5.0)
    torch.testing.assert_close(z, torch.tensor([[0.1, 0.3, 0.4, 1.0], [0.7, 3.0, 4.0, 1.0]]))


def test_input_has_a_gradient_at_the_origin():
    x = torch.zeros(1, 2, requires_grad=True)
    denoiser_input(torch.ones(1), x, radius=1.0).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(1, 2))


def test_input_refuses_a_radius_of_zero():
    with pytest.raises(ValueError, match="radius"):
        denoiser_input(torch.ones(1), torch.ones(1, 2), radius=0.0)


def test_two_layers_are_the_formula():
    network, z = TwoLayerDenoiser(3, 8).double(), torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        network.weight.add_(torch.randn(8, 5))
    expected = torch.zeros(4, 3, dtype=torch.float64)
    for j in range(4):
        for i in range(3):
            for r in range(8):
                unit = max((network.weight[r] @ z[j]).item(), 0.0)
                expected[j, i] += network.signs[i, r].item() * unit / math.sqrt(8)
    torch.testing.assert_close(network(z), expected)


def test_two_layers_start_at_zero_and_learn_the_first_layer_alone():
    network, z = TwoLayerDenoiser(2, 64), torch.randn(9, 4)
    assert network(z).abs().max() < 1e-5
    assert [name for name, _ in network.named_parameters()] == ["weight"]
    assert set(network.signs.unique().tolist()) == {-1.0, 1.0}
    network(z).sum().backward()
    assert network.weight.grad.norm() > 0


@pytest.mark.parametrize("width", [0, 3])
def test_two_layers_refuse_an_odd_width(width):
    with pytest.raises(ValueError, match="even"):
        TwoLayerDenoiser(2, width)


def test_two_layers_refuse_another_dimension():
    with pytest.raises(ValueError, match="z must have shape"):
        TwoLayerDenoiser(2, 4)(torch.ones(3, 5))


def test_mlp_sees_the_rescaled_sample_and_the_level():
    network, x, sigma = MLPDenoiser(3, 16), torch.randn(5, 3), torch.full((5,), 2.0)
    seen = torch.cat([x / math.sqrt(5), torch.full((5, 1), math.log(2))], 1)
    torch.testing.assert_close(network(x, sigma), network.network(seen))


def test_mlp_refuses_levels_of_another_number():
    with pytest.raises(jaxtyping.TypeCheckError):
        MLPDenoiser(3, 16)(torch.ones(5, 3), torch.ones(4))


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda: TwoLayerDenoiser(2, 16), (torch.randn(2, 5, 4),)),
        (lambda: MLPDenoiser(3, 8, 8), (torch.randn(2, 5, 3), torch.rand(2, 5) + 0.1)),
    ],
    ids=["two layers", "mlp"],
)
def test_ensemble_is_separate_networks(build, inputs):
    nets = lab.Ensemble(build, Run("theory/diffusion_theory", "smoke", 2, torch.device("cpu")))
    together = nets(*inputs)
    for seed in range(2):
        torch.testing.assert_close(together[seed], nets.module(seed)(*(x[seed] for x in inputs)))

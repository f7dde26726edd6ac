"""Facts of `dlatlas.models.parametrised_mlp`."""

import math

import pytest
import torch
from torch.func import functional_call, vmap

from dlatlas.models.parametrised_mlp import NTKMLP, StandardMLP

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def both(widths=(3, 40, 30, 2), act="relu", beta=0.5):
    """The two parametrisations from the same random numbers."""
    nets = []
    for build in (NTKMLP, StandardMLP):
        torch.manual_seed(0)
        nets.append(build(widths, act, beta))
    return nets


@pytest.mark.parametrize("act", ["relu", "erf", "linear"])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_both_compute_the_same_function_at_initialisation(act, beta):
    first, second = both(act=act, beta=beta)
    torch.testing.assert_close(first(X), second(X))


def test_the_forward_pass_is_the_written_formula():
    net, _ = both()
    h = X
    for index, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        s = h if index == 0 else torch.relu(h)
        h = s @ weight.T / math.sqrt(weight.shape[1]) + 0.5 * bias
    torch.testing.assert_close(net(X), h)


def test_initial_scales():
    ntk, standard = both(widths=(100, 400, 400, 1), beta=0.3)
    for weight in ntk.weights[:2]:
        assert weight.std().item() == pytest.approx(1.0, rel=0.02)
    for weight in standard.weights[:2]:
        assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.02)
    assert ntk.biases[0].std().item() == pytest.approx(1.0, rel=0.1)
    assert standard.biases[0].std().item() == pytest.approx(0.3, rel=0.1)


def test_no_biases_at_beta_zero():
    assert all(name.startswith("weights") for name, _ in NTKMLP([3, 4, 1], "relu", 0.0).named_parameters())


def test_several_networks_at_once_are_a_loop():
    nets = [NTKMLP((3, 6, 1), "erf", 0.2) for _ in range(3)]
    stacked = {name: torch.stack([dict(net.named_parameters())[name] for net in nets]) for name in nets[0].state_dict()}
    x = torch.randn(3, 5, 3)
    together = nets[0].preactivations(stacked, x)[-1]
    mapped = vmap(lambda params, rows: functional_call(nets[0], params, (rows,)))(stacked, x)
    for index, net in enumerate(nets):
        torch.testing.assert_close(together[index], net(x[index]))
    torch.testing.assert_close(together, mapped)


def test_a_shift_moves_what_it_names():
    net = NTKMLP((3, 6, 1), "linear", 0.0)
    params = dict(net.named_parameters())
    shifts = [torch.ones(5, 6), torch.zeros(5, 1)]
    moved = net.preactivations(params, X, shifts)
    plain = net.preactivations(params, X)
    torch.testing.assert_close(moved[0], plain[0] + 1)
    torch.testing.assert_close(moved[1], plain[1] + params["weights.1"].sum() / math.sqrt(6))


@pytest.mark.parametrize(
    ("widths", "act", "beta", "message"),
    [
        ((3,), "relu", 0.1, "number of widths"),
        ((3, 0, 1), "relu", 0.1, "smallest of the widths must be at least 1, got 0"),
        ((3, 4, 1), "tanh", 0.1, "act must be one of relu, erf, linear; got 'tanh'"),
        ((3, 4, 1), "relu", -0.1, "beta must be at least"),
    ],
)
@pytest.mark.parametrize("build", [NTKMLP, StandardMLP])
def test_refuses_what_makes_no_sense(build, widths, act, beta, message):
    with pytest.raises(ValueError, match=message):
        build(widths, act, beta)

"""Facts of `dlatlas.ops.functional`."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.func import grad, vmap

from dlatlas.ops.functional import empirical_ntk, linearised
from tests.examples import Example


def network(params, x):
    return torch.tanh(x @ params["w1"]) @ params["w2"]


def parameters(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w1": (3, 5), "w2": (5,)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


X = torch.randn(7, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

EXAMPLES = [
    Example(
        linearised,
        lambda make: {"f": network, "params0": {"w1": make.normal(3, 5), "w2": make.normal(5)}},
        vmap=False,  # a function comes out, and a function and a tree go in
    ),
    Example(
        empirical_ntk,
        lambda make: {
            "f": network,
            "params": {"w1": make.normal(3, 5), "w2": make.normal(5)},
            "x1": make.normal(4, 3),
            "x2": make.normal(6, 3),
        },
        differentiable=("x1", "x2"),
    ),
]


def test_value_and_gradient_agree_at_the_point_of_expansion():
    params0 = parameters(0)
    f_lin = linearised(network, params0)
    torch.testing.assert_close(f_lin(params0, X), network(params0, X), atol=1e-14, rtol=0)
    here, there = (grad(lambda p, f=f: f(p, X).pow(2).sum())(params0) for f in (network, f_lin))
    for name in params0:
        torch.testing.assert_close(here[name], there[name], atol=1e-12, rtol=1e-12)


def test_is_linear_in_the_displacement():
    params0, other = parameters(0), parameters(1)
    f_lin = linearised(network, params0)

    def change(scale):
        moved = {name: params0[name] + scale * other[name] for name in params0}
        return f_lin(moved, X) - f_lin(params0, X)

    torch.testing.assert_close(change(-3.0), -3 * change(1.0), atol=1e-12, rtol=1e-12)


def test_error_is_of_second_order():
    params0, other = parameters(0), parameters(1)
    f_lin = linearised(network, params0)

    def error(scale):
        moved = {name: params0[name] + scale * other[name] for name in params0}
        return (f_lin(moved, X) - network(moved, X)).norm()

    assert 3.8 < error(2e-3) / error(1e-3) < 4.2


def test_vmap_over_parameters():
    params0, others = parameters(0), [parameters(seed) for seed in (1, 2, 3)]
    f_lin = linearised(network, params0)
    stacked = {name: torch.stack([other[name] for other in others]) for name in params0}
    together = vmap(f_lin, in_dims=(0, None))(stacked, X)
    for index, other in enumerate(others):
        torch.testing.assert_close(together[index], f_lin(other, X))


def test_one_tensor_is_a_tree_too():
    f_lin = linearised(lambda w, x: (x @ w) ** 2, torch.ones(3, dtype=torch.float64))
    assert torch.equal(f_lin(torch.ones(3, dtype=torch.float64), X), X.sum(1) ** 2)


def test_refuses_other_parameters():
    f_lin = linearised(network, parameters(0))
    with pytest.raises(ValueError, match="structure"):
        f_lin({"w1": parameters(0)["w1"]}, X)
    with pytest.raises(ValueError, match=r"shape \(5,\) of params0, got \(4,\)"):
        f_lin({"w1": parameters(0)["w1"], "w2": torch.ones(4, dtype=torch.float64)}, X)


def several(params, x):
    return torch.tanh(x @ params["w1"])


def jacobian(f, params, x):
    """The whole Jacobian as one matrix, (n, outputs, p), an output at a time."""
    rows = []
    for i in range(len(x)):
        outputs = f(params, x[i : i + 1]).reshape(-1)
        for k in range(len(outputs)):
            gradient = grad(lambda p, i=i, k=k: f(p, x[i : i + 1]).reshape(-1)[k])(params)
            rows.append(torch.cat([leaf.flatten() for leaf in gradient.values()]))
    return torch.stack(rows).reshape(len(x), -1, rows[0].numel())


@pytest.mark.parametrize("memory", [1, 700, 2**28])
def test_empirical_kernel_is_the_jacobian_contraction_in_blocks_of_any_size(memory):
    params, x2 = parameters(0), X[:4] + 0.5
    full = [jacobian(network, params, x)[:, 0] for x in (X, x2)]
    torch.testing.assert_close(empirical_ntk(network, params, X, x2, memory=memory), full[0] @ full[1].mT)
    torch.testing.assert_close(empirical_ntk(network, params, X, memory=memory), full[0] @ full[0].mT)


@pytest.mark.parametrize("memory", [1, 3000, 2**28])
def test_reductions_of_several_outputs(memory):
    params, x2 = parameters(0), X[:4] + 0.5
    full = [jacobian(several, params, x) for x in (X, x2)]
    expected = torch.einsum("icp,jdp->ijcd", *full)
    got = empirical_ntk(several, params, X, x2, reduction="full", memory=memory)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        empirical_ntk(several, params, X, reduction="full", memory=memory),
        torch.einsum("icp,jdp->ijcd", full[0], full[0]),
    )
    trace = empirical_ntk(several, params, X, x2, reduction="trace", memory=memory)
    torch.testing.assert_close(trace, expected.diagonal(dim1=2, dim2=3).sum(-1))


def test_several_outputs_need_a_declared_reduction():
    with pytest.raises(ValueError, match="reduction must be 'trace' or 'full' for a network with 5 outputs"):
        empirical_ntk(several, parameters(0), X)
    with pytest.raises(TypeCheckError):
        empirical_ntk(several, parameters(0), X, reduction="mean")

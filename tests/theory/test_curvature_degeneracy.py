"""Facts that the methods of theory/curvature must satisfy: degenerate directions and the interaction basis."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, hessian

from dlatlas.models.mlp import mlp
from dlatlas.ops.hessian import flatten, unflatten
from dlatlas.theory.curvature_degeneracy import (
    behavioural_hessian_eigenvalues,
    behavioural_hessian_rank,
    edges_needed,
    interaction_basis,
    interaction_edges,
    linear_layer_ranks,
    relu_sync_groups,
    two_layer_rank,
)
from tests.examples import Example, Make


def product_network(params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Two inputs, two hidden units, two outputs; the parameters are one vector of eight."""
    return torch.tanh(x @ params[:4].reshape(2, 2)) @ params[4:].reshape(2, 2)


def folded(make: Make, n: int = 20, d: int = 4) -> torch.Tensor:
    return torch.cat([make.normal(n, d - 1), torch.ones(n, 1).to(make.normal(1))], dim=1)


def share_kept(kept: torch.Tensor) -> torch.Tensor:
    return kept.float().mean()


def edge_arguments(make: Make) -> dict:
    C_in, C_out = make.normal(4, 3), make.normal(5, 2)
    return {
        "acts": make.normal(9, 4),
        "jac": make.normal(9, 5, 4),
        "C_in": C_in,
        "C_in_pinv": make.normal(3, 4),
        "C_out": C_out,
    }


EXAMPLES = [
    Example(
        behavioural_hessian_eigenvalues,
        lambda make: {"f": product_network, "params": make.normal(8), "x": make.normal(12, 2)},
        differentiable=("params", "x"),
    ),
    Example(
        behavioural_hessian_rank,
        lambda make: {"f": product_network, "params": make.normal(8), "x": make.normal(12, 2), "tol": 1e-4},
    ),
    Example(two_layer_rank, lambda make: {"width": 2, "inputs": 4, "outputs": 3}, vmap=False),
    Example(linear_layer_ranks, lambda make: {"acts": make.normal(20, 3), "grads": make.normal(20, 2, 4), "tol": 1e-4}),
    Example(relu_sync_groups, lambda make: {"masks": make.normal(6, 4) > 0}),
    Example(
        interaction_basis,
        lambda make: {"acts": folded(make), "jac": make.normal(20, 3, 4)},
        vmap=False,  # equal up to the signs of eigenvectors, which batched solvers choose differently
    ),
    Example(interaction_edges, edge_arguments, differentiable=("acts", "jac", "C_in", "C_in_pinv", "C_out")),
    Example(
        edges_needed,
        lambda make: {
            "edges": make.uniform(3, 4),
            "accuracy": share_kept,
            "level": torch.tensor(0.5, device=make.device),
        },
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_constant(a):
    return torch.cat([a, torch.ones_like(a[:, :1])], dim=1)


def functional(net):
    return lambda p, x: functional_call(net, p, (x,)), {k: v.detach() for k, v in net.double().named_parameters()}


class TestRank:
    @pytest.mark.parametrize("n", [3, 40])
    def test_eigenvalues_are_those_of_the_second_derivative(self, generator, n):
        torch.manual_seed(0)
        f, params = functional(mlp(3, 4, 2, activation="tanh"))
        x = normal(generator, n, 3)
        target = f(params, x)

        def behavioural_loss(flat):
            return (f(unflatten(flat, params), x) - target).square().sum(1).mean()

        exact = torch.linalg.eigvalsh(hessian(behavioural_loss)(flatten(params)))
        got = behavioural_hessian_eigenvalues(f, params, x)
        torch.testing.assert_close(got, exact[-len(got) :], atol=1e-10, rtol=1e-8)
        assert exact[: -len(got)].abs().sum() < 1e-10

    @pytest.mark.parametrize("m", [1, 2, 4, 7])
    @pytest.mark.parametrize("n", [2, 5, 60])
    def test_two_linear_layers(self, generator, m, n):
        torch.manual_seed(m)
        f, params = functional(mlp(5, m, 4, activation="identity", bias=False))
        expected = two_layer_rank(m, min(n, 5), 4)
        assert behavioural_hessian_rank(f, params, normal(generator, n, 5)) == expected

    @pytest.mark.parametrize(("activation", "free"), [("relu", 4), ("tanh", 0), ("identity", 16 + 4)])
    def test_free_directions_with_biases(self, generator, activation, free):
        torch.manual_seed(2)
        f, params = functional(mlp(6, 4, 5, activation=activation))
        total = sum(p.numel() for p in params.values())
        assert total - behavioural_hessian_rank(f, params, normal(generator, 500, 6)) == free

    def test_duplicated_neuron_adds_no_effective_parameter(self, generator):
        torch.manual_seed(3)
        f, params = functional(mlp(3, 4, 2, activation="tanh"))
        wide, _ = functional(mlp(3, 5, 2, activation="tanh"))
        out = params["2.weight"].clone()
        out[:, 0] /= 2
        doubled = {
            "0.weight": params["0.weight"][[0, 1, 2, 3, 0]],
            "0.bias": params["0.bias"][[0, 1, 2, 3, 0]],
            "2.weight": out[:, [0, 1, 2, 3, 0]],
            "2.bias": params["2.bias"],
        }
        x = normal(generator, 80, 3)
        torch.testing.assert_close(wide(doubled, x), f(params, x))
        assert behavioural_hessian_rank(wide, doubled, x) == behavioural_hessian_rank(f, params, x)
        hidden = torch.tanh(x @ doubled["0.weight"].mT + doubled["0.bias"])
        assert torch.linalg.matrix_rank(hidden.mT @ hidden) == 4

    @pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2), (3, 1)])
    def test_synchronised_groups(self, generator, sizes):
        which = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        gates = torch.nn.functional.one_hot(which, len(sizes)) * (1 + normal(generator, len(which), 1).abs())
        on = torch.randint(2, (400, len(sizes)), generator=generator) * 40.0 - 20
        x = torch.cat([normal(generator, 400, 5), on.double()], dim=1)
        params = {
            "0.weight": torch.cat([normal(generator, len(which), 5), gates], dim=1),
            "2.weight": normal(generator, 5, len(which)),
        }
        f, _ = functional(mlp(5 + len(sizes), len(which), 5, bias=False))
        groups = relu_sync_groups(x @ params["0.weight"].mT > 0)
        assert torch.bincount(groups).count_nonzero() == len(sizes)
        free = sum(p.numel() for p in params.values()) - behavioural_hessian_rank(f, params, x)
        assert free == sum(k**2 for k in sizes)

    def test_refuses_what_it_cannot_tell_from_zero(self, generator):
        with pytest.raises(ValueError, match="tol"):
            behavioural_hessian_rank(product_network, torch.randn(8), torch.randn(5, 2), tol=1e-10)
        with pytest.raises(ValueError, match="width"):
            two_layer_rank(0, 1, 1)


class TestLayer:
    def test_product_of_ranks(self, generator):
        acts, grads = normal(generator, 90, 5), normal(generator, 90, 2, 4)
        acts[:, 4] = acts[:, 0] + acts[:, 1]
        grads[..., 3] = -grads[..., 0]
        exact, bound = linear_layer_ranks(acts, grads)
        assert exact == bound == 4 * 3

    def test_only_a_bound_where_activations_and_gradients_depend(self, generator):
        eye = torch.eye(3, dtype=torch.float64)
        exact, bound = linear_layer_ranks(eye, eye[:, None])
        assert exact == 3
        assert bound == 9

    def test_is_the_rank_of_the_layer(self, generator):
        acts, p = normal(generator, 40, 3), normal(generator, 40, 2, 4)
        exact, _ = linear_layer_ranks(acts, p)

        def f(W, x):
            return torch.einsum("noh,hd,nd->no", x[..., 3:].reshape(len(x), 2, 4), W, x[..., :3])

        x = torch.cat([acts, p.flatten(1)], dim=1)
        assert exact == behavioural_hessian_rank(f, normal(generator, 4, 3), x)


class TestSync:
    def test_groups_are_named_by_their_first_neuron(self):
        masks = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]]).bool()
        assert relu_sync_groups(masks).tolist() == [0, 1, 0, 3, 1]

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 10_000))
    def test_same_label_means_same_pattern(self, seed):
        masks = torch.rand(3, 7, generator=torch.Generator().manual_seed(seed)) > 0.5
        groups = relu_sync_groups(masks)
        for i in range(7):
            for j in range(7):
                assert (groups[i] == groups[j]) == torch.equal(masks[:, i], masks[:, j])


class TestBasis:
    @pytest.fixture
    def layer(self, generator):
        acts = with_constant(normal(generator, 50, 5))
        acts[:, 2] = acts[:, 0] + acts[:, 1]
        return acts, normal(generator, 50, 3, 6)

    def test_diagonalises_both(self, layer):
        acts, jac = layer
        C, C_pinv, lam = interaction_basis(acts, jac)
        G, M = acts.mT @ acts / 50, torch.einsum("noi,noj->ij", jac, jac) / 50
        torch.testing.assert_close(C.mT @ G @ C, lam.diag(), atol=1e-10, rtol=0)
        torch.testing.assert_close(C_pinv @ M @ C_pinv.mT, (lam > 0).double().diag(), atol=1e-10, rtol=0)
        assert (lam > 0).sum() == 5
        assert torch.equal(lam, lam.sort(descending=True).values)

    def test_eigenvalues_of_the_product(self, layer):
        acts, jac = layer
        G, M = acts.mT @ acts / 50, torch.einsum("noi,noj->ij", jac, jac) / 50
        exact = torch.linalg.eigvals(G @ M).real.sort(descending=True).values
        torch.testing.assert_close(interaction_basis(acts, jac)[2], exact, atol=1e-10, rtol=1e-9)

    def test_gives_the_activations_back(self, layer):
        acts, jac = layer
        C, C_pinv, _ = interaction_basis(acts, jac)
        torch.testing.assert_close(acts @ C @ C_pinv, acts)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 1000))
    def test_invariant_under_a_change_of_coordinates(self, seed):
        g = torch.Generator().manual_seed(seed)
        acts, jac = with_constant(normal(g, 40, 3)), normal(g, 40, 2, 4)
        A = normal(g, 4, 4) + 3 * torch.eye(4, dtype=torch.float64)
        C, _, lam = interaction_basis(acts, jac)
        moved, _, moved_lam = interaction_basis(acts @ A.mT, jac @ torch.linalg.inv(A))
        torch.testing.assert_close(moved_lam, lam, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close((acts @ A.mT @ moved).abs(), (acts @ C).abs(), atol=1e-5, rtol=1e-5)

    def test_drops_what_the_outputs_do_not_see(self, layer):
        acts, jac = layer
        jac = jac.clone()
        jac[..., 0] = jac[..., 1] = jac[..., 2] = 0
        C, _, lam = interaction_basis(acts, jac)
        assert (lam > 0).sum() == 3
        assert C[:, 3:].abs().max() == 0

    def test_per_seed_up_to_signs(self, generator):
        acts = torch.stack([with_constant(normal(generator, 30, 3)) for _ in range(3)])
        jac = normal(generator, 3, 30, 2, 4)
        C, _, lam = torch.vmap(interaction_basis)(acts, jac)
        for s in range(3):
            alone, _, alone_lam = interaction_basis(acts[s], jac[s])
            torch.testing.assert_close(lam[s], alone_lam)
            torch.testing.assert_close((acts[s] @ C[s]).abs(), (acts[s] @ alone).abs(), atol=1e-8, rtol=1e-6)

    def test_next_layer_or_outputs_make_no_difference_before_a_linear_readout(self, generator):
        """With a linear layer in between, the next layer's basis has the derivatives of the outputs."""
        hidden, W = with_constant(normal(generator, 40, 4)), normal(generator, 3, 5)
        into_hidden = normal(generator, 40, 5, 6)
        acts = with_constant(normal(generator, 40, 5))
        C_next, _, _ = interaction_basis(hidden, W.expand(40, 3, 5))
        local = interaction_basis(acts, C_next.mT @ into_hidden)[2]
        torch.testing.assert_close(local, interaction_basis(acts, W @ into_hidden)[2])

    def test_refuses_missing_constant(self, generator):
        with pytest.raises(ValueError, match="constant"):
            interaction_basis(normal(generator, 50, 3), normal(generator, 50, 2, 3))

    def test_refuses_tolerance_below_rounding(self, generator):
        acts = 1000 * with_constant(normal(generator, 50, 3)).float()
        with pytest.raises(ValueError, match="rounding"):
            interaction_basis(acts, torch.randn(50, 2, 4), tol=1e-6)


class TestEdges:
    def test_linear_map_between_whitened_layers(self, generator):
        acts, jac = normal(generator, 30, 3), normal(generator, 4, 3).expand(30, 4, 3)
        eye3, eye4 = torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
        expected = jac[0].square() * acts.square().mean(0)
        torch.testing.assert_close(interaction_edges(acts, jac, eye3, eye3, eye4), expected)

    def test_from_the_definition(self, generator):
        g = generator
        acts, jac = normal(g, 6, 3), normal(g, 6, 4, 3)
        C_in, C_out = normal(g, 3, 3), normal(g, 4, 2)
        inverse = torch.linalg.inv(C_in)
        expected = torch.zeros(2, 3, dtype=torch.float64)
        for a, J in zip(acts, jac, strict=True):
            slopes = C_out.mT @ J @ inverse.mT  # a = inverse' â, so J inverse' is the derivative by â
            expected += (slopes * (C_in.mT @ a)) ** 2 / 6
        torch.testing.assert_close(interaction_edges(acts, jac, C_in, inverse, C_out), expected)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 12), st.integers(0, 100))
    def test_counts_exactly(self, count, seed):
        edges = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed))
        needed = edges_needed(edges, lambda kept: kept.sum().float(), torch.tensor(float(count)))
        assert needed == count

    def test_keeps_the_strongest(self):
        edges = torch.tensor([[0.1, 5.0], [3.0, 0.2]])
        important = torch.tensor([[False, True], [True, False]])
        assert edges_needed(edges, lambda kept: (kept & important).sum().float(), torch.tensor(2.0)) == 2

    def test_level_out_of_reach_needs_all(self):
        assert edges_needed(torch.rand(2, 3), lambda kept: kept.float().mean(), torch.tensor(2.0)) == 6

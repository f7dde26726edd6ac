"""Facts of `dlatlas.ops.hessian`."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch.func import hessian

from dlatlas.models.mlp import mlp
from dlatlas.ops.hessian import (
    flatten,
    gauss_newton_vp,
    hutchinson_trace,
    hutchpp_trace,
    hvp,
    lanczos,
    ritz,
    slq_density,
    smooth_density,
    unflatten,
)
from tests.examples import Example, Make

SCALES = torch.tensor([3.0, 2.0, 1.0, 0.5, -1.0, -2.0])


def scaled(v: torch.Tensor) -> torch.Tensor:
    return SCALES.to(v) * v


def quartic(theta: torch.Tensor) -> torch.Tensor:
    return theta.pow(4).sum() + theta.prod()


def outputs(theta: torch.Tensor) -> torch.Tensor:
    return torch.outer(theta[:2], theta[2:]).tanh()


def softmax_loss(z: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(z, -1).sum()


def tridiagonal_of(make: Make) -> dict:
    alpha, beta, basis = lanczos(scaled, make.normal(6), 4)
    return {"alpha": alpha, "beta": beta, "basis": basis}


EXAMPLES = [
    Example(flatten, lambda make: {"params": make.normal(2, 3)}, differentiable=("params",)),
    Example(
        unflatten, lambda make: {"vector": make.normal(6), "params": make.normal(2, 3)}, differentiable=("vector",)
    ),
    Example(
        hvp,
        lambda make: {"loss": quartic, "params": make.normal(4), "v": make.normal(4)},
        differentiable=("params", "v"),
    ),
    Example(
        gauss_newton_vp,
        lambda make: {"f": outputs, "loss": softmax_loss, "params": make.normal(5), "v": make.normal(5)},
        differentiable=("params", "v"),
    ),
    Example(lanczos, lambda make: {"matvec": scaled, "start": make.normal(6), "m": 4}, differentiable=("start",)),
    Example(ritz, tridiagonal_of),
    Example(slq_density, lambda make: {"matvec": scaled, "probes": make.normal(2, 6), "m": 3}),
    Example(
        smooth_density,
        lambda make: {"nodes": make.normal(5), "weights": make.simplex(5), "grid": make.normal(7), "width": 0.3},
        differentiable=("nodes", "weights", "grid"),
    ),
    Example(
        hutchinson_trace,
        lambda make: {"matvec": scaled, "probes": make.normal(3, 6)},
        differentiable=("probes",),
    ),
    Example(
        hutchpp_trace,
        lambda make: {"matvec": scaled, "sketch": make.normal(2, 6), "probes": make.normal(3, 6)},
        differentiable=("sketch", "probes"),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def symmetric(generator, size):
    A = normal(generator, size, size)
    return A + A.mT


@pytest.fixture
def network(generator):
    """Logits and loss of a small network as functions of its flat parameters, and the parameters."""
    torch.manual_seed(0)
    net = mlp(4, 3, 3, activation="tanh").double()
    params = {name: p.detach() for name, p in net.named_parameters()}
    x, y = normal(generator, 8, 4), torch.arange(8) % 3

    def logits(flat):
        return torch.func.functional_call(net, unflatten(flat, params), (x,))

    def loss(z):
        return F.cross_entropy(z, y)

    return logits, loss, flatten(params)


def test_flatten_and_back():
    tree = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(()), torch.zeros(2)]}
    vector = flatten(tree)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 1, 0, 0]
    back = unflatten(vector, tree)
    assert torch.equal(back["a"], tree["a"])
    assert back["b"][0].shape == ()


class TestProducts:
    def test_hessian(self, network, generator):
        logits, loss, flat = network
        v = normal(generator, len(flat))
        H = hessian(lambda t: loss(logits(t)))(flat)
        torch.testing.assert_close(hvp(lambda t: loss(logits(t)), flat, v), H @ v)

    def test_trees_and_vectors_agree(self, generator):
        tree = {"a": normal(generator, 2, 2), "b": normal(generator, 3)}
        v = normal(generator, 7)

        def loss(t):
            return (t["a"].sum() * t["b"]).pow(3).sum()

        on_vector = hvp(lambda flat: loss(unflatten(flat, tree)), flatten(tree), v)
        torch.testing.assert_close(hvp(loss, tree, v), on_vector)

    def test_gauss_newton_is_the_sandwich(self, network, generator):
        logits, loss, flat = network
        v = normal(generator, len(flat))
        J = torch.func.jacrev(logits)(flat).flatten(0, 1)
        outer = hessian(loss)(logits(flat)).reshape(len(J), len(J))
        torch.testing.assert_close(gauss_newton_vp(logits, loss, flat, v), J.mT @ outer @ J @ v)

    def test_gauss_newton_is_the_hessian_of_a_linear_network(self, generator):
        X, v = normal(generator, 8, 5), normal(generator, 5)
        theta, y = normal(generator, 5), normal(generator, 8)

        def loss(z):
            return (z - y).square().sum()

        expected = hvp(lambda t: loss(X @ t), theta, v)
        torch.testing.assert_close(gauss_newton_vp(lambda t: X @ t, loss, theta, v), expected)

    def test_gauss_newton_has_no_negative_curvature(self, network, generator):
        logits, loss, flat = network
        for v in normal(generator, 20, len(flat)):
            assert v @ gauss_newton_vp(logits, loss, flat, v) > -1e-12


class TestLanczos:
    @settings(max_examples=20, deadline=None)
    @given(st.integers(2, 20), st.integers(0, 1000))
    def test_all_steps_give_all_eigenvalues(self, size, seed):
        g = torch.Generator().manual_seed(seed)
        A = symmetric(g, size)
        theta, vectors = ritz(*lanczos(lambda v: A @ v, normal(g, size), size))
        torch.testing.assert_close(theta, torch.linalg.eigvalsh(A), atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(vectors @ A, theta[:, None] * vectors, atol=1e-6, rtol=1e-6)

    def test_tridiagonal_in_its_basis(self, generator):
        A = symmetric(generator, 12)
        alpha, beta, Q = lanczos(lambda v: A @ v, normal(generator, 12), 5)
        T = torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)
        torch.testing.assert_close(Q @ A @ Q.mT, T, atol=1e-10, rtol=0)
        torch.testing.assert_close(Q @ Q.mT, torch.eye(5, dtype=torch.float64), atol=1e-12, rtol=0)

    def test_largest_comes_from_below_and_fast(self, generator):
        A = symmetric(generator, 60)
        A[0, 0] += 100
        start = normal(generator, 60)
        exact = torch.linalg.eigvalsh(A)[-1]
        tops = [ritz(*lanczos(lambda v: A @ v, start, m))[0][-1] for m in (2, 4, 8, 16)]
        assert all(low <= high + 1e-9 for low, high in zip(tops, [*tops[1:], exact], strict=True))
        torch.testing.assert_close(tops[-1], exact, rtol=1e-8, atol=0)

    def test_reorthogonalisation_prevents_copies(self, generator):
        values = torch.linspace(0, 1, 200, dtype=torch.float64)
        values[-1] = 50
        start = normal(generator, 200)
        copies = {}
        for reorth in (True, False):
            theta, _ = ritz(*lanczos(lambda v: values * v, start, 120, reorth=reorth))
            copies[reorth] = int((theta > 40).sum())
        assert copies[True] == 1
        assert copies[False] > 1

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_exhausted_space_adds_nothing(self, dtype):
        A = torch.diag(torch.tensor([4.0, 4.0, 1.0, 1.0, 2.0], dtype=dtype))
        start = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0], dtype=dtype)
        alpha, beta, Q = lanczos(lambda v: A @ v, start, 5)
        theta, _ = ritz(alpha, beta, Q)
        assert torch.count_nonzero(Q.norm(dim=1)) == 2
        assert theta[0].item() == pytest.approx(1, abs=1e-5)
        assert theta[-1].item() == pytest.approx(4, abs=1e-5)
        _, weights = slq_density(lambda v: A @ v, start[None], 5)
        assert weights.sum().item() == pytest.approx(1, abs=1e-5)

    def test_bad_input(self, generator):
        start = normal(generator, 5)
        for m in (0, 6):
            with pytest.raises(ValueError, match="m must lie"):
                lanczos(scaled, start, m)
        with pytest.raises(ValueError, match="norm of start"):
            lanczos(lambda v: v, torch.zeros(5), 2)


class TestDensity:
    def test_moments_are_exact(self, generator):
        A, v = symmetric(generator, 15), normal(generator, 15)
        nodes, weights = slq_density(lambda u: A @ u, v[None], 4)
        assert weights.sum().item() == pytest.approx(1)
        q = v / v.norm()
        for power in range(8):
            expected = q @ torch.linalg.matrix_power(A, power) @ q
            torch.testing.assert_close((weights * nodes**power).sum(), expected, rtol=1e-9, atol=1e-9)

    def test_full_quadrature_over_axes_is_the_spectrum(self, generator):
        A = symmetric(generator, 6)
        nodes, weights = slq_density(lambda u: A @ u, torch.eye(6, dtype=torch.float64), 6)
        exact = torch.linalg.eigvalsh(A)
        for function in (torch.exp, torch.cos):
            torch.testing.assert_close((weights * function(nodes)).sum(), function(exact).mean())

    def test_smooth_density_integrates_to_one(self):
        grid = torch.linspace(-5, 5, 2001, dtype=torch.float64)
        nodes, weights = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
        density = smooth_density(nodes, weights, grid, 0.2)
        assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-9)
        assert torch.trapezoid(density * grid, grid).item() == pytest.approx(1.1, abs=1e-9)
        with pytest.raises(ValueError, match="width"):
            smooth_density(nodes, weights, grid, 0.0)


class TestTrace:
    def test_all_signs_are_exact(self, generator):
        A = symmetric(generator, 4)
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
        torch.testing.assert_close(hutchinson_trace(lambda v: A @ v, signs), A.trace())

    def test_variance_of_signs(self, generator):
        A = symmetric(generator, 8)
        signs = torch.randint(2, (20_000, 8), generator=generator).double() * 2 - 1
        values = torch.einsum("ki,ij,kj->k", signs, A, signs)
        predicted = 2 * (A.square().sum() - A.diagonal().square().sum())
        assert values.var().item() == pytest.approx(predicted.item(), rel=0.05)
        torch.testing.assert_close(hutchinson_trace(lambda v: A @ v, signs[:50]), values[:50].mean())

    def test_hutchpp_is_exact_for_low_rank(self, generator):
        L = normal(generator, 30, 3)
        sketch, probes = normal(generator, 3, 30), normal(generator, 2, 30)
        torch.testing.assert_close(hutchpp_trace(lambda v: L @ (L.mT @ v), sketch, probes), L.square().sum())

    def test_hutchpp_beats_hutchinson_on_a_spiked_operator(self, generator):
        values = torch.cat([torch.tensor([100.0, 50.0]), torch.rand(98, generator=generator)]).double()
        basis = torch.linalg.qr(normal(generator, 100, 100)).Q
        A = basis @ torch.diag(values) @ basis.mT
        errors = {"plain": [], "plus": []}
        for _ in range(30):
            draws = normal(generator, 12, 100)
            errors["plain"].append(hutchinson_trace(lambda v: A @ v, draws) - values.sum())
            errors["plus"].append(hutchpp_trace(lambda v: A @ v, draws[:4], draws[4:8]) - values.sum())
        assert torch.stack(errors["plus"]).square().mean() < 0.1 * torch.stack(errors["plain"]).square().mean()

    def test_bad_input(self, generator):
        with pytest.raises(ValueError, match="dim"):
            hutchpp_trace(scaled, normal(generator, 7, 6), normal(generator, 1, 6))


def test_refuses_wrong_shapes(generator):
    with pytest.raises(ValueError, match="entries"):
        hvp(quartic, normal(generator, 4), normal(generator, 5))
    with pytest.raises(ValueError, match="number of tensors"):
        flatten({})
    with pytest.raises(TypeCheckError):
        lanczos(scaled, normal(generator, 2, 6), 3)


def test_works_per_seed_inside_vmap(generator):
    matrices = torch.stack([symmetric(generator, 9) for _ in range(4)])
    starts = normal(generator, 4, 9)
    together = torch.vmap(lambda A, v: ritz(*lanczos(lambda u: A @ u, v, 9))[0])(matrices, starts)
    torch.testing.assert_close(together, torch.linalg.eigvalsh(matrices), atol=1e-8, rtol=0)

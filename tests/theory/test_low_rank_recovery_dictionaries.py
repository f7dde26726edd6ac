"""Facts that supervised dictionary learning must satisfy in the product variables."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import minimize

from dlatlas.theory.low_rank_recovery_dictionaries import (
    rank_project,
    sdl_curvature,
    sdl_lifted_gradients,
    sdl_lifted_loss,
    sdl_local_rate,
    sdl_projected_gradient,
    sdl_rate_bound,
    sdl_stack,
    sdl_unstack,
)
from tests.examples import Example, Make

KINDS = ("feature", "filter")
N, P, Q = 7, 5, 2


def lifted_arguments(make: Make, kind: str, **extra) -> dict:
    return {
        "A": make.normal(N if kind == "feature" else P),
        "B": make.normal(N, P),
        "gamma": make.normal(Q),
        "X": make.normal(N, P),
        "y": torch.arange(N, device=make.device) % 2,
        "X_aux": make.normal(N, Q),
        "xi": 0.3,
        "nu": 0.2,
        "kind": kind,
        **extra,
    }


def fixed_point(make: Make) -> dict:
    U, V = (torch.linalg.qr(make.normal(5, 4)).Q for _ in range(2))
    s = make.uniform(4, low=0.5, high=1.0).sort(descending=True).values
    return {"Z": (U[:, :2] * s[:2]) @ V[:, :2].mT, "gradient": 0.3 * (U[:, 2:] * s[2:]) @ V[:, 2:].mT}


EXAMPLES = [
    *(
        Example(
            function,
            lambda make, kind=kind: lifted_arguments(make, kind),
            differentiable=("A", "B", "gamma", "X", "X_aux"),
        )
        for function in (sdl_lifted_loss, sdl_lifted_gradients)
        for kind in KINDS
    ),
    *(
        Example(
            sdl_projected_gradient,
            lambda make, kind=kind: lifted_arguments(make, kind, r=2, tau=0.01, iters=3),
            differentiable=("A", "B", "gamma", "X"),
        )
        for kind in KINDS
    ),
    *(
        Example(
            sdl_curvature,
            lambda make, kind=kind: {
                "X": make.normal(N, P),
                "X_aux": make.normal(N, Q),
                "xi": 0.3,
                "nu": 0.2,
                "kind": kind,
            },
            differentiable=("X_aux",),
        )
        for kind in KINDS
    ),
    Example(rank_project, lambda make: {"Z": make.normal(6, 4), "r": 2}, differentiable=("Z",)),
    Example(
        sdl_rate_bound,
        lambda make: {"mu": make.uniform(1)[0], "L": make.uniform(1, low=1.0, high=2.0)[0], "tau": 0.7},
        differentiable=("mu", "L"),
    ),
    Example(
        sdl_local_rate,
        lambda make: {**fixed_point(make), "r": 2, "mu": 0.5, "tau": 1.0},
        differentiable=("Z", "gradient"),
    ),
    *(
        Example(
            sdl_stack,
            lambda make, kind=kind: {
                "A": make.normal(N if kind == "feature" else P),
                "B": make.normal(N, P),
                "kind": kind,
            },
            differentiable=("A", "B"),
        )
        for kind in KINDS
    ),
    *(
        Example(sdl_unstack, lambda make, kind=kind: {"Z": make.normal(4, 6), "kind": kind}, differentiable=("Z",))
        for kind in KINDS
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def problem(generator, kind, n=20, p=6, xi=0.25, nu=0.25):
    X, X_aux = normal(generator, n, p), normal(generator, n, 2)
    data = {
        "X": X / torch.linalg.matrix_norm(X, 2),
        "y": torch.arange(n) % 2,
        "X_aux": X_aux / torch.linalg.matrix_norm(X_aux, 2),
        "xi": xi,
        "nu": nu,
        "kind": kind,
    }
    start = (normal(generator, n if kind == "feature" else p), normal(generator, n, p), normal(generator, 2))
    return data, start


@pytest.mark.parametrize("kind", KINDS)
class TestLifted:
    def test_gradients_are_those_of_autograd(self, generator, kind):
        data, start = problem(generator, kind)
        start = tuple(v.requires_grad_() for v in start)
        expected = torch.autograd.grad(sdl_lifted_loss(*start, **data), start)
        for got, wanted in zip(sdl_lifted_gradients(*start, **data), expected, strict=True):
            torch.testing.assert_close(got, wanted)

    def test_curvature_lies_within_its_bounds(self, generator, kind):
        data, start = problem(generator, kind, n=6, p=3, xi=0.4)
        flat = torch.cat([v.flatten() for v in start])
        sizes = [v.numel() for v in start]

        def loss(flat):
            A, B, gamma = flat.split(sizes)
            return sdl_lifted_loss(A, B.view_as(start[1]), gamma, **data)

        values = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, flat))
        mu, L = sdl_curvature(data["X"], data["X_aux"], xi=0.4, nu=0.25, kind=kind)
        assert mu - 1e-9 <= values.min()
        assert values.max() <= L + 1e-9

    def test_full_rank_separates(self, generator, kind):
        data, start = problem(generator, kind)
        _, L = sdl_curvature(data["X"], data["X_aux"], xi=0.25, nu=0.25, kind=kind)
        (A, B, gamma), _ = sdl_projected_gradient(*start, **data, r=7, tau=1 / L.item(), iters=200)
        torch.testing.assert_close(B, data["X"])
        D = torch.eye(20, dtype=torch.float64) if kind == "feature" else data["X"]
        J = torch.cat([D, data["X_aux"]], 1)

        def ridge(v):
            a = J @ torch.as_tensor(v)
            return (torch.nn.functional.softplus(a) - data["y"] * a).sum().item() + 0.25 * (v**2).sum()

        best = minimize(ridge, torch.zeros(J.shape[1], dtype=torch.float64).numpy(), tol=1e-12)
        torch.testing.assert_close(torch.cat([A, gamma]), torch.as_tensor(best.x), atol=1e-4, rtol=0)

    def test_heavy_reconstruction_is_pca(self, generator, kind):
        data, (A, B, gamma) = problem(generator, kind, xi=1e5)
        _, L = sdl_curvature(data["X"], data["X_aux"], xi=1e5, nu=0.25, kind=kind)
        (A, B, gamma), _ = sdl_projected_gradient(
            torch.zeros_like(A), B, gamma, **data, r=2, tau=0.9 / L.item(), iters=100
        )
        torch.testing.assert_close(B, rank_project(data["X"], 2), atol=1e-3, rtol=0)

    def test_contracts_at_the_local_rate(self, generator, kind):
        data, start = problem(generator, kind, n=40)
        data["X"] = rank_project(data["X"], 2) + 0.1 * (data["X"] - rank_project(data["X"], 2))
        mu, L = (v.item() for v in sdl_curvature(data["X"], data["X_aux"], xi=0.25, nu=0.25, kind=kind))
        tau = 0.9 / L
        best, _ = sdl_projected_gradient(*start, **data, r=2, tau=tau, iters=400)
        Z = sdl_stack(*best[:2], kind=kind)
        G = sdl_stack(*sdl_lifted_gradients(*best, **data)[:2], kind=kind)
        torch.testing.assert_close(Z, rank_project(Z - tau * G, 2))
        distances = []
        for iters in (24, 25):
            now, _ = sdl_projected_gradient(*start, **data, r=2, tau=tau, iters=iters)
            distances.append((sdl_stack(*now[:2], kind=kind) - Z).norm().item())
        predicted = sdl_local_rate(Z, G, 2, mu=mu, tau=tau).item()
        assert distances[1] / distances[0] == pytest.approx(predicted, rel=0.1)

    def test_refuses(self, generator, kind):
        data, start = problem(generator, kind)
        with pytest.raises(ValueError, match=r"tau \* L must lie"):
            sdl_projected_gradient(*start, **{**data, "X": 30 * data["X"], "xi": 30.0}, r=2, tau=1.0, iters=1)
        with pytest.raises(ValueError, match="samples of class 1"):
            sdl_lifted_loss(*start, **{**data, "y": torch.ones(20, dtype=torch.int64)})
        with pytest.raises(ValueError, match="y must lie"):
            sdl_lifted_loss(*start, **{**data, "y": torch.arange(20) % 3})
        with pytest.raises(ValueError, match="xi must be at least 0"):
            sdl_lifted_loss(*start, **{**data, "xi": -1.0})
        with pytest.raises(ValueError, match="kind must be one of"):
            sdl_lifted_loss(*start, **{**data, "kind": "wrapper"})
        with pytest.raises(ValueError, match="A must have"):
            sdl_lifted_loss(start[0][1:], *start[1:], **data)
        with pytest.raises(TypeCheckError):
            sdl_lifted_loss(*start, **{**data, "y": data["y"].double()})

    def test_unstack_undoes_stack(self, generator, kind):
        _, (A, B, _) = problem(generator, kind)
        for got, expected in zip(sdl_unstack(sdl_stack(A, B, kind=kind), kind=kind), (A, B), strict=True):
            assert torch.equal(got, expected)


class TestRankProject:
    @settings(deadline=None, max_examples=30)
    @given(rows=st.integers(1, 8), columns=st.integers(1, 8), r=st.integers(1, 8), seed=st.integers(0, 99))
    def test_nearest_and_idempotent(self, rows, columns, r, seed):
        Z = normal(torch.Generator().manual_seed(seed), rows, columns)
        projected = rank_project(Z, r)
        torch.testing.assert_close(rank_project(projected, r), projected)
        s = torch.linalg.svdvals(Z)
        torch.testing.assert_close((Z - projected).norm(), s[r:].norm(), atol=1e-9, rtol=1e-9)
        assert torch.linalg.matrix_rank(projected) <= r

    def test_refuses_rank_zero(self):
        with pytest.raises(ValueError, match="r must be at least 1"):
            rank_project(torch.eye(3), 0)


class TestRates:
    def test_bound_is_below_one_exactly_in_the_interval(self):
        mu, L = torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        for tau, guaranteed in ((1.01, True), (1.49, True), (0.99, False), (1.51, False)):
            assert (sdl_rate_bound(mu, L, tau=tau).item() < 1) is guaranteed

    def test_pca_hand_case(self):
        # X = diag(2, 1), rank one, xi = 0.25: the gradient at diag(2, 0) is -0.5 diag(0, 1).
        Z, G = torch.diag(torch.tensor([2.0, 0.0])), -0.5 * torch.diag(torch.tensor([0.0, 1.0]))
        assert sdl_local_rate(Z, G, 1, mu=0.5, tau=1.0).item() == pytest.approx(0.5 / 0.75)

    def test_refuses(self):
        Z = torch.eye(2)
        with pytest.raises(ValueError, match=r"tau \* mu must lie"):
            sdl_local_rate(Z, Z / 10, 1, mu=2.0, tau=1.0)
        with pytest.raises(ValueError, match="sigma_r must lie"):
            sdl_local_rate(Z, 3 * Z, 1, mu=0.5, tau=1.0)
        with pytest.raises(ValueError, match="tau must be greater than 0"):
            sdl_rate_bound(torch.tensor(1.0), torch.tensor(2.0), tau=0.0)

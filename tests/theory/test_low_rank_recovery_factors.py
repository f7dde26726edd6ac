"""Facts that supervised dictionary learning must satisfy on the factors."""

import pytest
import torch

from dlatlas.theory.low_rank_recovery_dictionaries import rank_project, sdl_lifted_loss, sdl_stack, sdl_unstack
from dlatlas.theory.low_rank_recovery_factors import sdl_bcd, sdl_factor, sdl_products
from tests.examples import Example, Make

KINDS = ("feature", "filter")
N, P, R = 9, 6, 2


def low_rank(make: Make, kind: str) -> dict:
    columns = (P if kind == "feature" else N) + 1
    A, B = sdl_unstack(make.normal(N if kind == "feature" else P, R) @ make.normal(R, columns), kind=kind)
    return {"A": A, "B": B, "r": R, "kind": kind}


def factors(make: Make) -> dict:
    return {"W": make.normal(P, R), "H": make.normal(N, R), "beta": make.normal(R)}


def descent_arguments(make: Make, kind: str, **extra) -> dict:
    return {
        **factors(make),
        "gamma": make.normal(1),
        "X": make.normal(N, P),
        "y": torch.arange(N, device=make.device) % 2,
        "X_aux": make.normal(N, 1),
        "xi": 0.5,
        "nu": 0.1,
        "iters": 3,
        "kind": kind,
        **extra,
    }


EXAMPLES = [
    *(
        example
        for kind in KINDS
        for example in (
            # The signs of singular vectors are not fixed, so single precision may give other ones than double.
            Example(sdl_products, lambda make, kind=kind: {**factors(make), "kind": kind}, ("W", "H", "beta")),
            Example(sdl_bcd, lambda make, kind=kind: descent_arguments(make, kind), ("W", "H", "beta", "gamma", "X")),
        )
    ),
    Example(sdl_bcd, lambda make: descent_arguments(make, "filter", nonneg=True), ("W", "H")),
    *(Example(sdl_factor, lambda make, kind=kind: low_rank(make, kind)) for kind in KINDS),
]


@pytest.fixture
def make():
    return Make(torch.float64, torch.device("cpu"), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
class TestFactor:
    def test_multiplies_back(self, make, kind):
        arguments = low_rank(make, kind)
        W, H, beta = sdl_factor(**arguments)
        A, B = sdl_products(W, H, beta, kind=kind)
        torch.testing.assert_close(A, arguments["A"])
        torch.testing.assert_close(B, arguments["B"])
        torch.testing.assert_close(W.norm(dim=0), torch.ones(R, dtype=torch.float64))

    def test_truncates_like_the_projection(self, make, kind):
        A, B = make.normal(N if kind == "feature" else P), make.normal(N, P)
        W, H, beta = sdl_factor(A, B, R, kind=kind)
        got = sdl_stack(*sdl_products(W, H, beta, kind=kind), kind=kind)
        torch.testing.assert_close(got, rank_project(sdl_stack(A, B, kind=kind), R))

    def test_refuses_rank_zero(self, make, kind):
        with pytest.raises(ValueError, match="r must be at least 1"):
            sdl_factor(**{**low_rank(make, kind), "r": 0})


@pytest.mark.parametrize("kind", KINDS)
class TestBCD:
    @pytest.mark.parametrize("nonneg", [False, True])
    def test_never_rises(self, make, kind, nonneg):
        arguments = descent_arguments(make, kind, iters=60, nonneg=nonneg)
        (W, H, _, _), losses = sdl_bcd(**arguments)
        # The start is not yet non-negative, so the first round may rise.
        assert (losses[2:] <= losses[1:-1] + 1e-12).all()
        assert losses[-1] < losses[1]
        assert (min(W.min(), H.min()) >= 0) == nonneg

    def test_stationary_at_the_end(self, make, kind):
        arguments = descent_arguments(make, kind, iters=4000)
        ends, losses = sdl_bcd(**arguments)
        ends = [v.requires_grad_() for v in ends]
        A, B = sdl_products(*ends[:3], kind=kind)
        data = {name: arguments[name] for name in ("X", "y", "X_aux", "xi", "nu", "kind")}
        loss = sdl_lifted_loss(A, B, ends[3], **data)
        torch.testing.assert_close(loss, losses[-1])
        assert max(g.abs().max() for g in torch.autograd.grad(loss, ends)) < 1e-3

    def test_refuses_one_class(self, make, kind):
        arguments = descent_arguments(make, kind)
        with pytest.raises(ValueError, match="samples of class 1"):
            sdl_bcd(**{**arguments, "y": torch.zeros(N, dtype=torch.int64)})

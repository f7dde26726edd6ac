"""Facts that the methods of theory/attention_theory must satisfy: attention as a support vector machine."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.optimize import minimize, nnls
from torch.func import grad

from dlatlas.theory.attention_theory import (
    att_svm,
    att_svm_lower_bound,
    attention_descent,
    attn_logits,
    token_scores,
    train_attention,
    train_key_query,
)
from tests.examples import Example, Make


def sequences(make: Make, **extra) -> dict:
    return {"X": make.normal(3, 4, 5), "z": make.normal(3, 5), **extra}


def chosen(make: Make) -> torch.Tensor:
    return F.one_hot(torch.tensor([0, 2, 3], device=make.device), 4).bool()


EXAMPLES = [
    Example(attn_logits, lambda make: sequences(make, W=make.normal(5, 5)), differentiable=("X", "z", "W")),
    Example(
        token_scores,
        lambda make: {"X": make.normal(3, 4, 5), "y": make.normal(3).sign(), "v": make.normal(5)},
        differentiable=("X", "v"),
    ),
    Example(
        attention_descent,
        lambda make: sequences(make, scores=make.normal(3, 4), W=make.normal(5, 5)),
        differentiable=("X", "z", "scores", "W"),
    ),
    Example(
        train_attention,
        lambda make: sequences(make, scores=make.normal(3, 4), W=make.normal(5, 5), eta=0.1, steps=4),
        differentiable=("X", "z", "scores", "W"),
    ),
    Example(
        train_key_query,
        lambda make: sequences(
            make, scores=make.normal(3, 4), K=make.normal(5, 2), Q=make.normal(5, 2), eta=0.1, steps=4
        ),
        differentiable=("X", "z", "scores", "K", "Q"),
    ),
    Example(att_svm, lambda make: sequences(make, selected=chosen(make), iterations=500), differentiable=("X", "z")),
    Example(
        att_svm,
        lambda make: sequences(make, selected=chosen(make), norm="nuc", iterations=500),
    ),
    Example(
        att_svm_lower_bound,
        lambda make: sequences(make, selected=chosen(make), multipliers=make.uniform(3, 4)),
        differentiable=("X", "z", "multipliers"),
    ),
    Example(
        att_svm_lower_bound,
        lambda make: sequences(make, selected=chosen(make), multipliers=make.uniform(3, 4), norm="nuc"),
        differentiable=("X", "z", "multipliers"),
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def instance(generator, n=4, T=5, d=8):
    X, z, v = normal(generator, n, T, d), normal(generator, n, d), normal(generator, d)
    y = normal(generator, n).sign()
    return X, z, y, v, token_scores(X, y, v)


def mask_of(indices, T):
    return F.one_hot(torch.as_tensor(indices), T).bool()


def margins(X, z, W, indices):
    logits = attn_logits(X, z, W)
    gap = logits.gather(1, torch.as_tensor(indices)[:, None]) - logits
    return gap[~mask_of(indices, X.shape[1])]


def loss(W, X, z, y, v):
    f = torch.einsum("nt,ntd,d->n", attn_logits(X, z, W).softmax(-1), X, v)
    return F.softplus(-y * f).mean()


class TestDescent:
    def test_is_the_negative_gradient(self, generator):
        X, z, y, v, scores = instance(generator)
        W = normal(generator, 8, 8)
        direction, scale = attention_descent(X, z, scores, W)
        torch.testing.assert_close(direction * scale.exp(), -grad(loss)(W, X, z, y, v))

    def test_rectified_head_without_biases(self, generator):
        X, z, y, _, _ = instance(generator)
        W, W1, r = 0.1 * normal(generator, 8, 8), normal(generator, 6, 8), normal(generator, 6)

        def head_loss(W):
            o = torch.einsum("nt,ntd->nd", attn_logits(X, z, W).softmax(-1), X)
            return F.softplus(-y * (torch.relu(o @ W1.T) @ r)).mean()

        o = torch.einsum("nt,ntd->nd", attn_logits(X, z, W).softmax(-1), X)
        slope = ((o @ W1.T > 0) * r) @ W1
        direction, scale = attention_descent(X, z, y[:, None] * torch.einsum("ntd,nd->nt", X, slope), W)
        torch.testing.assert_close(direction * scale.exp(), -grad(head_loss)(W))

    def test_direction_survives_underflow(self, generator):
        X, z, _, _, scores = instance(generator)
        W = att_svm(X, z, mask_of(scores.argmax(-1), 5)).W
        direction, scale = attention_descent(X, z, scores, 3000 * W)
        assert scale < -1000
        assert torch.isfinite(direction).all()
        assert (direction * W).sum() / direction.norm() / W.norm() > 0.1

    def test_a_constant_logit_changes_nothing(self, generator):
        X, z, _, _, scores = instance(generator)
        W = normal(generator, 8, 8)
        # Adding u z^T with u^T x the same for all tokens of a sequence shifts all logits alike.
        shifted = torch.cat([X, torch.ones(4, 5, 1, dtype=torch.float64)], dim=-1)
        base = torch.cat([W, torch.zeros(1, 8, dtype=torch.float64)])
        moved = torch.cat([W, normal(generator, 1, 8)])
        for left, right in zip(
            attention_descent(shifted, z, scores, base), attention_descent(shifted, z, scores, moved), strict=True
        ):
            torch.testing.assert_close(left, right)


class TestPaths:
    def test_steps_have_the_given_length(self, generator):
        X, z, _, _, scores = instance(generator)
        path = train_attention(X, z, scores, normal(generator, 8, 8), eta=0.2, steps=5).W
        torch.testing.assert_close(path.diff(dim=0).norm(dim=(1, 2)), torch.full((5,), 0.2, dtype=torch.float64))

    def test_time_of_the_flow(self, generator):
        X, z, y, v, scores = instance(generator)
        path = train_attention(X, z, scores, torch.zeros(8, 8, dtype=torch.float64), eta=0.1, steps=3)
        expected = sum(0.1 / grad(loss)(W, X, z, y, v).norm() for W in path.W[:3])
        torch.testing.assert_close(path.log_time[-1].exp(), expected)

    def test_converges_to_the_support_vector_machine(self, generator):
        X, z, _, _, scores = instance(generator)
        path = train_attention(X, z, scores, torch.zeros(8, 8, dtype=torch.float64), eta=0.1, steps=600)
        end = path.W[-1]
        W = att_svm(X, z, mask_of(attn_logits(X, z, end).argmax(-1), 5)).W
        assert (end * W).sum() / end.norm() / W.norm() > 0.999
        growth = (end.norm() - path.W[300].norm()) / (path.log_time[-1] - path.log_time[299])
        assert growth.item() == pytest.approx(W.norm().item(), rel=0.02)

    def test_key_query_steps(self, generator):
        X, z, y, v, scores = instance(generator)
        K, Q = normal(generator, 2, 8, 3)
        got = train_key_query(X, z, scores, K, Q, eta=0.1, steps=1)
        slope_K, slope_Q = grad(lambda K, Q: loss(K @ Q.T, X, z, y, v), argnums=(0, 1))(K, Q)
        length = (slope_K.square().sum() + slope_Q.square().sum()).sqrt()
        torch.testing.assert_close(got[0], K @ Q.T)
        torch.testing.assert_close(got[1], (K - 0.1 * slope_K / length) @ (Q - 0.1 * slope_Q / length).T)

    def test_equal_factors_stay_equal(self, generator):
        # With symmetric tokens and queries K = Q is kept by the balance K'K = Q'Q and by symmetry.
        X, _, _, _, scores = instance(generator, n=1, T=2)
        difference = X[0, 0] - X[0, 1]
        K = 0.1 * normal(generator, 8, 3)
        path = train_key_query(X, difference[None], scores, K, K, eta=0.05, steps=40)
        torch.testing.assert_close(path, path.mT)
        assert path[-1].norm() > 10 * path[0].norm()

    def test_refuses(self, generator):
        X, z, _, _, scores = instance(generator)
        W = torch.zeros(8, 8, dtype=torch.float64)
        with pytest.raises(ValueError, match="eta must be greater than 0"):
            train_attention(X, z, scores, W, eta=0.0, steps=3)
        with pytest.raises(ValueError, match="steps must be at least 1"):
            train_key_query(X, z, scores, W, W, eta=0.1, steps=0)
        with pytest.raises(ValueError, match="spread of the scores"):
            attention_descent(X, z, torch.ones_like(scores), W)
        with pytest.raises(TypeCheckError):
            attn_logits(X, z[:, :3], W)

    def test_a_direction_that_loses_a_sequence(self):
        """With equal scores and more dimensions than sequences and tokens, a bad start still goes astray."""
        # Growing the margin of the first sequence grows the lead of the wrong token of the second twice as fast.
        X = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[-2.0, 1.0, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
        z = torch.tensor([[1.0, 0.0], [1.0, 0.2]], dtype=torch.float64)
        scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        start = torch.tensor([[8.0, 0.0], [0.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
        astray = train_attention(X, z, scores, start, eta=0.02, steps=1000).W[-1]
        smaller = att_svm(X[:1], z[:1], mask_of([0], 2)).W
        assert attn_logits(X, z, astray)[1].argmax() == 1
        assert (astray * smaller).sum() / astray.norm() / smaller.norm() > 0.99
        straight = train_attention(X, z, scores, 0 * start, eta=0.02, steps=1000).W[-1]
        assert attn_logits(X, z, straight).argmax(-1).tolist() == [0, 0]


class TestSolution:
    @pytest.mark.parametrize("norm", ["fro", "nuc"])
    def test_two_tokens(self, generator, norm):
        X, z = normal(generator, 1, 2, 6), normal(generator, 1, 4)
        difference = X[0, 1] - X[0, 0]
        expected = torch.outer(difference, z[0]) / difference.square().sum() / z.square().sum()
        torch.testing.assert_close(att_svm(X, z, mask_of([1], 2), norm=norm).W, expected)

    def test_frobenius_is_a_least_distance_problem(self, generator):
        X, z, _, _, _ = instance(generator)
        indices = [0, 3, 2, 1]
        reference = X[torch.arange(4), indices][:, None]
        A = torch.einsum("ntd,ne->ntde", reference - X, z)[~mask_of(indices, 5)].flatten(1).numpy()
        # Lawson and Hanson: the residual of a non-negative least-squares problem points to the solution.
        E = torch.cat([torch.tensor(A).T, torch.ones(1, len(A), dtype=torch.float64)]).numpy()
        target = torch.eye(len(E), dtype=torch.float64)[-1].numpy()
        residual = E @ nnls(E, target)[0] - target
        expected = torch.tensor(-residual[:-1] / residual[-1]).view(8, 8)
        torch.testing.assert_close(att_svm(X, z, mask_of(indices, 5)).W, expected, atol=1e-6, rtol=0)

    def test_nuclear_is_the_best_factorisation(self, generator):
        X, z = normal(generator, 2, 3, 3), normal(generator, 2, 3)

        def product(p):
            return torch.tensor(p[:9].reshape(3, 3) @ p[9:].reshape(3, 3).T)

        found = minimize(
            lambda p: p @ p / 2,
            normal(generator, 18).numpy(),
            jac=lambda p: p,
            constraints={"type": "ineq", "fun": lambda p: (margins(X, z, product(p), [0, 1]) - 1).numpy()},
            options={"maxiter": 400, "ftol": 1e-14},
        )
        got = att_svm(X, z, mask_of([0, 1], 3), norm="nuc").W
        torch.testing.assert_close(got, product(found.x), atol=1e-4, rtol=0)

    @settings(deadline=None, max_examples=15)
    @given(seed=st.integers(0, 10**6), norm=st.sampled_from(["fro", "nuc"]), n=st.integers(1, 5), T=st.integers(2, 5))
    def test_certified(self, seed, norm, n, T):
        generator = torch.Generator().manual_seed(seed)
        X, z = normal(generator, n, T, 6), normal(generator, n, 6)
        indices = torch.randint(T, (n,), generator=generator)
        selected = mask_of(indices, T)
        W, multipliers = att_svm(X, z, selected, norm=norm, iterations=6000)
        assert margins(X, z, W, indices).min().item() == pytest.approx(1, abs=1e-9)
        assert (multipliers >= 0).all()
        bound = att_svm_lower_bound(X, z, selected, multipliers, norm=norm)
        assert bound <= torch.linalg.matrix_norm(W, norm) * (1 + 1e-9) <= bound * (1 + 2e-3)

    def test_optimality_conditions(self, generator):
        X, z, _, _, scores = instance(generator)
        indices = scores.argmax(-1)
        selected = mask_of(indices, 5)
        W, mu = att_svm(X, z, selected, iterations=8000)
        reference = X[torch.arange(4), indices][:, None]
        torch.testing.assert_close(torch.einsum("nt,ntd,ne->de", mu, reference - X, z), W, atol=1e-7, rtol=0)
        assert (mu[~selected] * (margins(X, z, W, indices) - 1)).abs().max() < 1e-7
        assert (mu[selected] == 0).all()
        assert torch.linalg.matrix_rank(W, rtol=1e-6) <= 4

    def test_scales_inversely_with_the_queries(self, generator):
        X, z, _, _, scores = instance(generator)
        selected = mask_of(scores.argmax(-1), 5)
        for norm in ("fro", "nuc"):
            W = att_svm(X, z, selected, norm=norm).W
            torch.testing.assert_close(4 * att_svm(X, 4 * z, selected, norm=norm).W, W, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("norm", ["fro", "nuc"])
    def test_several_tokens_share_the_logit(self, generator, norm):
        X, z, _, _, _ = instance(generator)
        selected = torch.zeros(4, 5, dtype=torch.bool)
        selected[:, 1] = True
        selected[0, 3] = selected[2, 4] = True
        W = att_svm(X, z, selected, norm=norm, iterations=8000).W
        logits = attn_logits(X, z, W)
        torch.testing.assert_close(logits[0, 1], logits[0, 3], atol=1e-6, rtol=0)
        torch.testing.assert_close(logits[2, 1], logits[2, 4], atol=1e-6, rtol=0)
        gaps = (logits[:, 1:2] - logits)[~selected]
        assert gaps.min().item() == pytest.approx(1, abs=1e-6)

    def test_optimal_tokens_need_no_more_dimensions_than_sequences(self, generator):
        X, z, _, _, scores = instance(generator, n=2, T=9, d=2)
        W = att_svm(X, z, mask_of(scores.argmax(-1), 9), iterations=20000).W
        assert margins(X, z, W, scores.argmax(-1)).min() > 0.99

    def test_refuses_what_cannot_be_separated(self, generator):
        # The middle one of three tokens on a line is no corner.
        X = torch.tensor([[[-1.0], [0.0], [1.0]]])
        with pytest.raises(ValueError, match="can be separated"):
            att_svm(X, torch.ones(1, 1), mask_of([1], 3))
        tied = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        with pytest.raises(ValueError, match="can be separated"):
            att_svm(tied, torch.ones(1, 2), mask_of([0], 3))

    def test_refuses_unknown_norms_and_empty_selections(self, generator):
        X, z = normal(generator, 2, 3, 3), normal(generator, 2, 3)
        with pytest.raises(ValueError, match="norm must be one of"):
            att_svm(X, z, mask_of([0, 1], 3), norm="l1")
        with pytest.raises(ValueError, match="norm must be one of"):
            att_svm_lower_bound(X, z, mask_of([0, 1], 3), torch.ones(2, 3, dtype=torch.float64), norm="l1")
        with pytest.raises(ValueError, match="selected tokens of a sequence"):
            att_svm(X, z, torch.zeros(2, 3, dtype=torch.bool))

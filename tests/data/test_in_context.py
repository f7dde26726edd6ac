"""Prompts of regression tasks: shapes, moments, reproducibility, refused input."""

import jaxtyping
import pytest
import torch
from scipy import stats

from dlatlas.data.in_context import icl_regression_batch, icl_unknown_noise_batch, prompt_tokens


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


DRAWS = {
    "regression": lambda g: icl_regression_batch(4, 6, 3, noise=0.2, generator=g),
    "unknown noise": lambda g: icl_unknown_noise_batch(4, 6, 3, k0=1, a0=3, b0=2, generator=g),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_the_generator_decides_everything(draw):
    first = draw(seeded(1))
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, draw(seeded(1)), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, draw(seeded(2)), strict=True))


def test_shapes():
    X, y, xq, yq = icl_regression_batch(4, 6, 3, noise=0.2, generator=seeded())
    assert (X.shape, y.shape, xq.shape, yq.shape) == ((4, 6, 3), (4, 6), (4, 3), (4,))
    X, y, s = icl_unknown_noise_batch(4, 6, 3, k0=1, a0=3, b0=2, generator=seeded())
    assert (X.shape, y.shape, s.shape) == ((4, 6, 3), (4, 6), (4,))


def test_moments_of_regression_prompts():
    Sig_x, Sig_w = torch.tensor([[2.0, 0.5], [0.5, 1.0]]), torch.tensor([[1.0, -0.3], [-0.3, 0.5]])
    X, y, xq, yq = icl_regression_batch(100_000, 3, 2, noise=0.4, Sig_x=Sig_x, Sig_w=Sig_w, generator=seeded())
    for inputs in (X[:, 1], xq):
        torch.testing.assert_close(inputs.mT @ inputs / len(X), Sig_x, atol=0.03, rtol=0)
    expected = torch.trace(Sig_x @ Sig_w) + 0.4
    for labels in (y[:, 2], yq):
        torch.testing.assert_close(labels.square().mean(), expected, atol=0.03, rtol=0)


def test_examples_and_query_share_the_task():
    X, y, xq, yq = icl_regression_batch(50, 4, 2, noise=0, generator=seeded())
    w = torch.linalg.lstsq(X, y[..., None]).solution[..., 0]
    torch.testing.assert_close((xq * w).sum(-1), yq, atol=1e-3, rtol=1e-3)


def test_link_acts_before_the_noise():
    _, y, _, yq = icl_regression_batch(50, 4, 2, noise=0, link=torch.relu, generator=seeded())
    assert y.min() == 0 == yq.min()
    _, y, _, _ = icl_regression_batch(50, 4, 2, noise=1, link=torch.relu, generator=seeded())
    assert y.min() < 0


def test_noise_levels_follow_the_prior():
    _, _, s = icl_unknown_noise_batch(20_000, 1, 1, k0=1, a0=3, b0=2, generator=seeded())
    assert stats.kstest(s.double().square().numpy(), stats.invgamma(3, scale=2).cdf).pvalue > 1e-3


def test_tasks_and_noise_have_the_scale_of_the_prompt():
    X, y, s = icl_unknown_noise_batch(20_000, 40, 2, k0=0.5, a0=3, b0=2, factor=3, generator=seeded())
    w = torch.linalg.lstsq(X, y[..., None]).solution[..., 0]
    residuals = y - (X @ w[..., None])[..., 0]
    assert (residuals.square().sum(-1) / 38 / s.square()).mean().item() == pytest.approx(1, abs=0.01)
    # The noise adds its own share, about factor²/(T - d - 1), to what w has of the scale.
    spread = (w.square().mean(-1) / (s / 3).square()).mean().item()
    assert spread == pytest.approx(2 + 9 / 37, rel=0.05)


def test_tokens():
    X, y, xq = torch.randn(5, 4, 3), torch.randn(5, 4), torch.randn(5, 3)
    E = prompt_tokens(X, y, xq)
    assert E.shape == (5, 4, 5)
    assert torch.equal(E[2, :, 1], torch.cat([X[2, 1], y[2, 1:2]]))
    assert torch.equal(E[2, :, -1], torch.cat([xq[2], torch.zeros(1)]))
    assert torch.equal(prompt_tokens(X[0], y[0], xq[0]), E[0])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: icl_regression_batch(0, 2, 2, noise=0, generator=seeded()), "B must be at least 1"),
        (lambda: icl_regression_batch(2, 0, 2, noise=0, generator=seeded()), "n must be at least 1"),
        (lambda: icl_regression_batch(2, 2, 2, noise=-1, generator=seeded()), "noise must be at least 0"),
        (lambda: icl_unknown_noise_batch(2, 2, 2, k0=0, a0=1, b0=1, generator=seeded()), "k0 must be greater"),
        (lambda: icl_unknown_noise_batch(2, 2, 2, k0=1, a0=1, b0=1, factor=0, generator=seeded()), "factor must be"),
    ],
)
def test_senseless_values_are_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        prompt_tokens(torch.randn(5, 4, 3), torch.randn(5, 3), torch.randn(5, 3))

"""Facts about mixup."""

import pytest
import torch
from scipy import stats

from dlatlas.ops.mixup import mixup_batch
from tests.examples import Example

EXAMPLES = [
    Example(
        mixup_batch,
        lambda make: {
            "x": make.normal(8, 3),
            "y": make.labels(8, classes=4),
            "K": 4,
            "alpha": 0.4,
            "generator": torch.Generator().manual_seed(1),
        },
        differentiable=("x",),
        vmap=False,
    )
]


def drawn(n=4000, alpha=0.4):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.arange(float(n), dtype=torch.float64)[:, None], torch.randint(3, (n,), generator=generator)
    return x, y, mixup_batch(x, y, 3, alpha, generator=generator)


def test_targets_and_inputs_follow_the_formula():
    x, y, (x_mix, t, i, j, lam) = drawn()
    partner = ((x_mix - lam[:, None] * x) / (1 - lam[:, None]))[lam < 0.99].round().long().flatten()
    assert torch.equal(y[partner], j[lam < 0.99])
    assert torch.equal(i, y)
    expected = torch.zeros_like(t)
    rows = torch.arange(len(y))
    expected[rows, i] += lam
    expected[rows, j] += 1 - lam
    torch.testing.assert_close(t, expected)


def test_every_sample_is_partner_once():
    x, _, (x_mix, _, _, _, lam) = drawn(50)
    partners = ((x_mix - lam[:, None] * x) / (1 - lam[:, None])).flatten().round().sort().values
    torch.testing.assert_close(partners, x.flatten())


def test_coefficients_have_the_beta_distribution():
    lam = drawn()[2][4]
    assert stats.kstest(lam, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_images_keep_their_shape():
    x_mix = mixup_batch(torch.randn(4, 3, 5, 5), torch.arange(4), 4)[0]
    assert x_mix.shape == (4, 3, 5, 5)


def test_vmap_draws_for_every_batch():
    x, y = torch.zeros(3, 6, 2), torch.arange(6).expand(3, 6)
    lam = torch.vmap(lambda x, y: mixup_batch(x, y, 6), randomness="different")(x, y)[4]
    assert len(lam.unique()) == 18


def test_refuses_bad_alpha_and_labels():
    with pytest.raises(ValueError, match="alpha must be greater than 0"):
        mixup_batch(torch.zeros(2, 1), torch.tensor([0, 1]), 2, 0.0)
    with pytest.raises(ValueError, match="y must lie"):
        mixup_batch(torch.zeros(2, 1), torch.tensor([0, 2]), 2)

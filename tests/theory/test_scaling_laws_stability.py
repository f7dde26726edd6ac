"""Facts of the proxies of training instabilities."""

import math

import pytest
import torch
from torch import nn

from dlatlas.theory.scaling_laws_stability import (
    IndependentAdamW,
    ProxyTransformer,
    QKNormAttention,
    fit_logit_growth,
    lr_sensitivity,
    max_attention_logit,
    predicted_logit,
    rotary,
    warmup_cosine,
    z_loss,
)
from tests.examples import Example

DOUBLE = {"dtype": torch.float64}


def small_model(dtype: torch.dtype) -> ProxyTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ProxyTransformer(5, dim=8).to(dtype)


EXAMPLES = [
    Example(
        lr_sensitivity,
        lambda make: {"final_losses": make.uniform(6, low=1.0, high=4.0), "init_loss": make.uniform(1, low=5.0)[0] + 5},
        differentiable=("final_losses",),
    ),
    Example(z_loss, lambda make: {"logits": make.normal(3, 5), "coef": 0.2}, differentiable=("logits",)),
    Example(rotary, lambda make: {"x": make.normal(2, 3, 4)}, differentiable=("x",)),
    Example(
        fit_logit_growth,
        lambda make: {
            "sizes": make.uniform(5, low=1.0, high=9.0).cumsum(0),
            "logits": make.uniform(5, low=1.0, high=3.0),
        },
        differentiable=("logits",),
    ),
    Example(
        predicted_logit,
        lambda make: {"sizes": make.uniform(4, low=1.0, high=9.0), "growth": 0.1 * make.normal(3)},
        differentiable=("sizes", "growth"),
    ),
    Example(
        max_attention_logit,
        lambda make: {"model": small_model(make.dtype), "batch": make.labels(2, 6, classes=5)},
    ),
    Example(warmup_cosine, lambda make: {"steps": 10, "peak": 0.1}, vmap=False),
]


def doubles(*values):
    return torch.tensor(values, **DOUBLE)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, **DOUBLE)


class TestSensitivity:
    def test_three_rates(self):
        assert lr_sensitivity(doubles(2, 1, 9), doubles(4.0)[0]).item() == pytest.approx(4 / 3)

    @pytest.mark.parametrize("diverged", [float("nan"), float("inf"), 1e9])
    def test_diverged_run_counts_as_the_start(self, diverged):
        assert lr_sensitivity(doubles(2, 1, diverged), doubles(4.0)[0]).item() == pytest.approx(4 / 3)

    def test_flat_losses_have_none(self):
        assert lr_sensitivity(torch.ones(3, 6), torch.full((3,), 2.0)).abs().max() == 0

    def test_start_must_be_finite(self):
        with pytest.raises(ValueError, match="init_loss"):
            lr_sensitivity(torch.ones(3), torch.tensor(float("nan")))


class TestZLoss:
    def test_normalised_rows_cost_nothing(self, generator):
        assert z_loss(normal(generator, 4, 6).log_softmax(-1)).item() == pytest.approx(0, abs=1e-30)
        assert z_loss(torch.full((3, 8), -math.log(8), **DOUBLE)).item() == pytest.approx(0, abs=1e-30)

    def test_gradient(self, generator):
        y = normal(generator, 4, 6)
        got = torch.func.grad(lambda logits: z_loss(logits, 0.7))(y)
        torch.testing.assert_close(got, 2 * 0.7 * y.logsumexp(-1, keepdim=True) * y.softmax(-1) / 4)

    def test_negative_coefficient_is_refused(self):
        with pytest.raises(ValueError, match="coef"):
            z_loss(torch.ones(2, 3), -1.0)


class TestRotary:
    def test_products_depend_on_distance_only(self, generator):
        q, k = normal(generator, 6), normal(generator, 6)
        turned_q, turned_k = rotary(q.expand(9, -1)), rotary(k.expand(9, -1))
        products = turned_q @ turned_k.T
        for offset in (-3, 0, 4):
            diagonal = products.diagonal(offset)
            torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
        assert (products[0, 0] - products[3, 0]).abs() > 1e-3

    def test_lengths_stay_and_the_first_position_is_not_turned(self, generator):
        x = normal(generator, 5, 4)
        torch.testing.assert_close(rotary(x).norm(dim=-1), x.norm(dim=-1))
        torch.testing.assert_close(rotary(x)[0], x[0])

    def test_odd_width_is_refused(self):
        with pytest.raises(ValueError, match="even"):
            rotary(torch.ones(2, 3))


class TestAttention:
    def test_scale_of_queries_and_keys_does_not_matter(self, generator):
        attention, x = QKNormAttention(8, 2).double(), normal(generator, 2, 5, 8)
        attention.query_norm.eps = attention.key_norm.eps = 0.0
        with torch.no_grad():
            before = attention(x)
            attention.query_key_value.weight[:8] *= 10
            torch.testing.assert_close(attention(x), before)
            attention.query_key_value.weight[8:16] *= 0.1
            torch.testing.assert_close(attention(x), before)

    def test_it_matters_without_the_norm(self, generator):
        attention, x = QKNormAttention(8, 2, qk_norm=False).double(), normal(generator, 2, 5, 8)
        with torch.no_grad():
            before = attention.logits(x)
            attention.query_key_value.weight[:8] *= 10
            torch.testing.assert_close(attention.logits(x), 10 * before)

    def test_logits_are_bounded(self, generator):
        attention = QKNormAttention(24, 3).double()
        z = attention.logits(1e4 * normal(generator, 4, 7, 24))
        assert z.abs().max() <= math.sqrt(8)
        with torch.no_grad():
            attention.query_norm.weight.fill_(3)
            attention.key_norm.weight.fill_(2)
        torch.testing.assert_close(attention.logits(normal(generator, 4, 7, 24)).shape, z.shape)
        assert attention.logits(normal(generator, 4, 7, 24)).abs().max() <= 6 * math.sqrt(8)

    def test_causal(self, generator):
        model = small_model(torch.float64)
        tokens = torch.randint(5, (2, 7), generator=generator)
        changed = tokens.clone()
        changed[:, 4:] = (changed[:, 4:] + 1) % 5
        torch.testing.assert_close(model(tokens)[:, :4], model(changed)[:, :4])
        assert (model(tokens)[:, 4:] - model(changed)[:, 4:]).abs().min() > 0

    def test_sizes_that_do_not_fit_are_refused(self):
        with pytest.raises(ValueError, match="multiple"):
            QKNormAttention(6, 2)

    def test_largest_logit_is_over_visible_pairs_of_all_blocks(self, generator):
        model, tokens = small_model(torch.float64), torch.randint(5, (3, 6), generator=generator)
        seen = []
        for block in model.blocks:
            block.attention.register_forward_hook(lambda module, args, out: seen.append(module.logits(args[0])))
        with torch.no_grad():
            model(tokens)
        visible = [
            abs(z[n, h, i, j]) for z in seen for n in range(3) for h in range(2) for i in range(6) for j in range(i + 1)
        ]
        torch.testing.assert_close(max_attention_logit(model, tokens), max(visible))

    def test_diverged_network_has_infinite_logits(self):
        model = small_model(torch.float64)
        with torch.no_grad():
            model.blocks[1].attention.query_key_value.weight.fill_(float("nan"))
        assert max_attention_logit(model, torch.zeros(1, 4, dtype=torch.long)) == torch.inf


class TestOptimiser:
    def test_decay_alone_does_not_depend_on_the_rate(self):
        ends = []
        for rate in (1e-3, 1e-1):
            theta = nn.Parameter(doubles(1.0, -2.0))
            optimiser = IndependentAdamW([theta], lr=rate, weight_decay=0.1)
            for _ in range(3):
                theta.grad = torch.zeros(2, **DOUBLE)
                optimiser.step()
            ends.append(theta.detach())
        torch.testing.assert_close(ends[0], doubles(1.0, -2.0) * 0.9**3)
        torch.testing.assert_close(ends[0], ends[1])

    def test_schedule_multiplies_both_terms(self):
        theta = nn.Parameter(doubles(1.0))
        optimiser = IndependentAdamW([theta], lr=0.1, weight_decay=0.2)
        optimiser.param_groups[0]["lr"] = 0.05
        theta.grad = doubles(3.0)
        optimiser.step()
        assert theta.item() == pytest.approx(1 - 0.5 * (0.1 + 0.2))

    def test_no_decay_is_adam(self, generator):
        first, second = (nn.Parameter(torch.ones(4, **DOUBLE)) for _ in range(2))
        ours = IndependentAdamW([first], lr=0.02, weight_decay=0.0)
        adam = torch.optim.Adam([second], lr=0.02, betas=(0.9, 0.95))
        for _ in range(5):
            first.grad = second.grad = normal(generator, 4)
            ours.step()
            adam.step()
        torch.testing.assert_close(first, second)

    def test_rate_must_be_positive(self):
        with pytest.raises(ValueError, match="lr"):
            IndependentAdamW([nn.Parameter(torch.ones(1))], lr=0.0)


def test_schedule_rises_and_falls():
    schedule = warmup_cosine(100, peak=0.1, floor=0.001, warmup=0.1)
    assert [schedule(t) for t in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert schedule(55) == pytest.approx((1 + 0.01) / 2)
    assert schedule(100) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="peak"):
        warmup_cosine(10, peak=0.0)


def test_quadratic_growth_is_found_and_extrapolated():
    sizes, growth = doubles(10, 100, 1000, 5000), doubles(0.3, -0.2, 0.08)
    logits = predicted_logit(sizes, growth)
    torch.testing.assert_close(fit_logit_growth(sizes[:3], logits[:3]), growth)
    torch.testing.assert_close(predicted_logit(sizes[3:], fit_logit_growth(sizes[:3], logits[:3])), logits[3:])
    with pytest.raises(ValueError, match="at least 3"):
        fit_logit_growth(sizes[:2], logits[:2])
    with pytest.raises(ValueError, match="logits"):
        fit_logit_growth(sizes, -logits)

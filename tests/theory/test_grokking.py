"""Facts that the methods of theory/grokking must satisfy."""

import copy
import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from dlatlas.ops.functional import linearised
from dlatlas.ops.kernels import kernel_alignment
from dlatlas.theory.grokking import (
    OrthoGrad,
    first_below,
    grok_delay,
    orthogonalise_grads,
    quad_committee,
    quad_committee_test_error,
    softmax_collapse_rate,
    stablemax,
    stablemax_cross_entropy,
    weight_alignment,
)
from tests.examples import Example, Make


def parameters_with_gradients(make: Make, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    parameters = [make.normal(*shape).requires_grad_() for shape in shapes]
    for parameter in parameters:
        parameter.grad = make.normal(*parameter.shape)
    return parameters


EXAMPLES = [
    Example(
        quad_committee,
        lambda make: {"W": make.normal(7, 4), "X": make.normal(5, 4), "alpha": 2.0, "eps": 0.3},
        differentiable=("W", "X"),
    ),
    Example(
        quad_committee_test_error,
        lambda make: {
            "W": make.normal(7, 4),
            "beta": make.normal(4),
            "alpha": 2.0,
            "eps": 0.3,
            "W0": make.normal(7, 4),
        },
        differentiable=("W", "beta", "W0"),
    ),
    Example(first_below, lambda make: {"curve": make.uniform(20), "level": 0.1}),
    Example(
        grok_delay,
        lambda make: {"train": make.uniform(20), "test": make.uniform(20) + 0.05, "level": 0.3},
    ),
    Example(stablemax, lambda make: {"z": 10 * make.normal(5, 4)}, differentiable=("z",)),
    Example(
        stablemax_cross_entropy,
        lambda make: {"z": 10 * make.normal(5, 4), "y": make.labels(5, classes=4)},
        differentiable=("z",),
    ),
    Example(softmax_collapse_rate, lambda make: {"z": 20 * make.normal(50, 4), "dtype": torch.float16}),
    Example(
        orthogonalise_grads,
        lambda make: {"params": parameters_with_gradients(make, (2, 3, 4), (2, 5)), "batch_dims": 1},
        vmap=False,
    ),
    Example(
        weight_alignment,
        lambda make: {"params": parameters_with_gradients(make, (2, 3, 4), (2, 5)), "batch_dims": 1},
        vmap=False,
    ),
]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_gradient(weight, gradient):
    parameter = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    parameter.grad = torch.tensor(gradient, dtype=torch.float64)
    return parameter


class TestCommittee:
    D, N, alpha, eps = 6, 9, 1.7, 0.4

    @pytest.mark.parametrize("centred", [False, True])
    def test_population_error_is_the_average_over_inputs(self, generator, centred):
        W, W0 = normal(generator, self.N, self.D), normal(generator, self.N, self.D)
        beta = normal(generator, self.D)
        f = functools.partial(quad_committee, alpha=self.alpha, eps=self.eps)
        x = normal(generator, 1_000_000, self.D) / math.sqrt(self.D)
        prediction = f(W, x) - f(W0, x) if centred else f(W, x)
        squared = (prediction - (x @ beta).square() / 2).square()
        standard_error = squared.std() / math.sqrt(len(x))
        exact = quad_committee_test_error(W, beta, self.alpha, self.eps, W0 if centred else None)
        assert (squared.mean() - exact).abs() < 3 * standard_error

    def test_the_hand_case_of_one_dimension(self):
        one = torch.ones(1, dtype=torch.float64)
        W = torch.ones(3, 1, dtype=torch.float64)
        assert quad_committee_test_error(W, one, self.alpha, self.eps, W0=W).item() == 0.75

    def test_a_committee_that_equals_the_target_has_no_error(self):
        beta = torch.tensor([1.0, -2.0], dtype=torch.float64)
        size = 1 / math.sqrt(self.alpha * self.eps)
        W = size * torch.stack([beta, -beta])
        assert quad_committee_test_error(W, beta, self.alpha, self.eps).item() == pytest.approx(0, abs=1e-12)

    def test_the_rate_must_grow_with_one_over_alpha_squared(self, generator):
        """With eta = N / alpha^2 the first step changes f equally for every alpha; with one eta it does not."""
        W0 = normal(generator, 500, self.D)
        X, y = normal(generator, 20, self.D) / math.sqrt(self.D), normal(generator, 20)

        def change(alpha, rate):
            f = functools.partial(quad_committee, X=X, alpha=alpha, eps=1e-9)
            step = torch.func.grad(lambda W: (f(W) - f(W0).detach() - y).square().mean())(W0)
            return f(W0 - rate * step) - f(W0)

        right = [change(alpha, 500 / alpha**2) for alpha in (0.5, 4.0)]
        torch.testing.assert_close(*right, atol=1e-7, rtol=0)
        wrong = [change(alpha, 500.0) for alpha in (0.5, 4.0)]
        assert wrong[1].norm() > 50 * wrong[0].norm()

    @pytest.mark.parametrize("name", ["alpha", "eps"])
    @pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
    def test_refuses_scales_that_are_not_positive(self, name, value):
        W, x, beta = torch.ones(3, 2), torch.ones(4, 2), torch.ones(2)
        scales = {"alpha": 1.0, "eps": 0.1, name: value}
        with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
            quad_committee(W, x, **scales)
        with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
            quad_committee_test_error(W, beta, **scales)

    def test_refuses_dimensions_that_do_not_match(self):
        with pytest.raises(TypeCheckError, match="X"):
            quad_committee(torch.ones(3, 2), torch.ones(4, 5), alpha=1.0, eps=0.1)


class TestLinearisation:
    """Facts of the shared ``linearised`` and ``kernel_alignment`` for this chapter's network."""

    alpha, eps = 1.3, 0.4

    @pytest.fixture
    def problem(self, generator):
        W0, X = normal(generator, 11, 5), normal(generator, 8, 5) / math.sqrt(5)
        y = normal(generator, 8)
        f = functools.partial(quad_committee, alpha=self.alpha, eps=self.eps)
        return W0, X, y, f, linearised(f, W0)

    def test_agrees_with_the_network_at_the_start(self, problem):
        W0, X, _, f, f_lin = problem
        torch.testing.assert_close(f_lin(W0, X), f(W0, X))

    def test_is_the_central_difference_of_a_quadratic_network(self, problem, generator):
        W0, X, _, f, f_lin = problem
        step = normal(generator, *W0.shape)
        torch.testing.assert_close(f_lin(W0 + step, X) - f(W0, X), (f(W0 + step, X) - f(W0 - step, X)) / 2)

    def test_its_gradients_are_the_initial_kernel(self, problem):
        W0, X, _, _, f_lin = problem
        jacobian = torch.func.jacrev(f_lin)(W0, X).flatten(1)
        slope = 1 + self.eps * X @ W0.T
        kernel = (self.alpha / len(W0)) ** 2 * (slope @ slope.T) * (X @ X.T)
        torch.testing.assert_close(jacobian @ jacobian.T, kernel)

    def test_the_first_step_of_descent_is_the_same(self, problem):
        W0, X, y, f, f_lin = problem
        steps = [torch.func.grad(lambda W, g=g: (g(W, X) - y).square().mean())(W0) for g in (f, f_lin)]
        torch.testing.assert_close(*steps)

    def test_alignment_is_one_for_the_kernel_of_the_centred_target(self, generator):
        y = normal(generator, 12)
        centred = y - y.mean()
        assert kernel_alignment(torch.outer(centred, centred), y).item() == pytest.approx(1, abs=1e-12)


class TestDelay:
    train = torch.tensor([1.0, 0.04, 0.01, 0.01, 0.01, 0.01])
    test = torch.tensor([1.0, 1.2, 0.5, 0.2, 0.049, 0.3])

    def test_first_below(self):
        assert first_below(self.train, 0.05) == 1
        assert first_below(self.test, 0.05) == 4
        assert first_below(self.test, 0.01) == len(self.test)

    def test_counts_the_steps_between(self):
        assert grok_delay(self.train, self.test, 0.05) == 3

    def test_a_test_error_that_never_falls_is_a_lower_bound(self):
        assert grok_delay(self.train, torch.ones(6), 0.05) == 5

    def test_refuses_a_train_error_that_never_falls(self):
        with pytest.raises(ValueError, match="train falls below level must lie in"):
            grok_delay(torch.ones(6), self.test, 0.05)

    def test_refuses_undefined_entries(self):
        with pytest.raises(ValueError, match="curve must be finite"):
            first_below(torch.tensor([1.0, math.nan]), 0.05)

    @given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.floats(0, 1, width=32))
    @settings(max_examples=50, deadline=None)
    def test_first_below_equals_the_search(self, values, level):
        found = next((index for index, value in enumerate(values) if value < level), len(values))
        assert first_below(torch.tensor(values), level) == found


class TestStableMax:
    def test_s_at_three_points(self):
        """Two classes with logits x and 0 have p = s(x) / (s(x) + 1)."""
        x = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
        p = stablemax(torch.stack([x, torch.zeros(3, dtype=torch.float64)], dim=1))[:, 0]
        torch.testing.assert_close(p / (1 - p), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64))

    def test_loss_of_a_hand_case(self):
        loss = stablemax_cross_entropy(torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.tensor([0]))
        assert loss.item() == pytest.approx(-math.log(0.8), abs=1e-15)
        assert round(loss.item(), 6) == 0.223144

    def test_does_not_collapse_where_the_softmax_does(self):
        z = torch.tensor([[20.0, 0.0]])
        torch.testing.assert_close(stablemax(z)[0, 0], torch.tensor(21 / 22))
        z.requires_grad_()
        stablemax_cross_entropy(z, torch.tensor([0])).backward()
        assert z.grad[0, 0] < -1e-4

    def test_slope_is_continuous_at_zero(self):
        for x in (0.0, -0.0, 1e-9, -1e-9):
            z = torch.tensor([[x, 3.0]], dtype=torch.float64, requires_grad=True)
            stablemax_cross_entropy(z, torch.tensor([0])).backward()
            assert z.grad[0, 0].item() == pytest.approx(-0.8, abs=1e-6)

    def test_dim_is_the_dimension_that_sums_to_one(self):
        p = stablemax(torch.randn(3, 4, 5), dim=1)
        torch.testing.assert_close(p.sum(1), torch.ones(3, 5))

    @pytest.mark.parametrize(("reduction", "expected"), [("mean", 1.5), ("sum", 3.0)])
    def test_reductions_agree(self, reduction, expected, generator):
        z, y = normal(generator, 2, 3), torch.tensor([2, 0])
        each = stablemax_cross_entropy(z, y, reduction="none")
        torch.testing.assert_close(
            stablemax_cross_entropy(z, y, reduction) / each.sum() * 3, torch.tensor(expected).double()
        )

    @given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6))
    @settings(max_examples=100, deadline=None)
    def test_is_a_distribution_in_the_order_of_the_logits(self, logits):
        z = torch.tensor(logits, dtype=torch.float64)
        p = stablemax(z)
        s = torch.tensor([x + 1 if x >= 0 else 1 / (1 - x) for x in logits], dtype=torch.float64)
        torch.testing.assert_close(p, s / s.sum(), rtol=1e-9, atol=0)
        assert (p > 0).all()

    @pytest.mark.parametrize("label", [-1, 3])
    def test_refuses_labels_out_of_range(self, label):
        with pytest.raises(ValueError, match=r"y must lie in \[0, 2\]"):
            stablemax_cross_entropy(torch.zeros(1, 3), torch.tensor([label]))

    def test_refuses_an_unknown_reduction(self):
        with pytest.raises(ValueError, match="reduction must be one of mean, sum, none"):
            stablemax_cross_entropy(torch.zeros(1, 3), torch.tensor([0]), reduction="average")

    def test_refuses_infinite_logits(self):
        with pytest.raises(ValueError, match="z must be finite"):
            stablemax(torch.tensor([0.0, math.inf]))

    def test_refuses_labels_that_are_not_integers(self):
        with pytest.raises(TypeCheckError, match="y"):
            stablemax_cross_entropy(torch.zeros(2, 3), torch.zeros(2))


class TestSoftmaxCollapse:
    def test_the_gap_of_twenty(self):
        z = torch.tensor([[20.0, 0.0]], dtype=torch.float64)
        assert softmax_collapse_rate(z, torch.float32) == 1
        assert softmax_collapse_rate(z, torch.float64) == 0

    @pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 11), (torch.float32, 24), (torch.float64, 53)])
    def test_threshold_is_the_number_of_bits_times_log_two(self, dtype, bits):
        gap = bits * math.log(2)
        below, above = (torch.tensor([[g, 0.0]], dtype=torch.float64) for g in (gap * 0.99, gap * 1.01))
        assert softmax_collapse_rate(below, dtype) == 0
        assert softmax_collapse_rate(above, dtype) == 1

    def test_half_a_unit_is_lost_and_the_next_number_is_not(self):
        one, half_unit = torch.tensor(1.0), torch.tensor(2.0**-24)
        assert one + half_unit == 1
        assert one + torch.nextafter(half_unit, one) > 1

    def test_collapse_is_zero_loss_and_zero_slope_at_the_correct_logit_alone(self):
        z = torch.tensor([[20.0, 0.0]], requires_grad=True)
        loss = torch.nn.functional.cross_entropy(z, torch.tensor([0]))
        loss.backward()
        assert loss == 0
        assert z.grad[0, 0] == 0
        assert z.grad[0, 1] == pytest.approx(math.exp(-20), rel=1e-5)

    def test_is_a_fraction(self):
        z = torch.tensor([[20.0, 0.0], [0.0, 20.0], [1.0, 0.0], [3.0, 3.0]])
        assert softmax_collapse_rate(z, torch.float32) == 0.5

    def test_refuses_a_dtype_that_is_not_floating_point(self):
        with pytest.raises(ValueError, match="dtype must be a floating-point type"):
            softmax_collapse_rate(torch.zeros(2, 3), torch.int32)


class TestOrthogonalGradient:
    def test_the_three_four_five_case(self):
        parameter = with_gradient([3.0, 4.0], [1.0, 0.0])
        orthogonalise_grads([parameter])
        torch.testing.assert_close(parameter.grad, torch.tensor([0.8, -0.6], dtype=torch.float64))

    @given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-3, 3))
    @settings(max_examples=100, deadline=None)
    def test_is_orthogonal_and_keeps_the_norm(self, seed, weight_scale, gradient_scale):
        generator = torch.Generator().manual_seed(seed)
        weight = 10**weight_scale * normal(generator, 3, 5)
        gradient = 10**gradient_scale * normal(generator, 3, 5)
        parameter = with_gradient(weight.tolist(), gradient.tolist())
        orthogonalise_grads([parameter])
        cosine = (parameter.grad * weight).sum() / parameter.grad.norm() / weight.norm()
        assert cosine.abs() < 1e-12
        torch.testing.assert_close(parameter.grad.norm(), gradient.norm(), rtol=1e-12, atol=0)

    def test_a_stack_is_the_networks_one_by_one(self, generator):
        weight, gradient = normal(generator, 4, 3, 2), normal(generator, 4, 3, 2)
        stacked = with_gradient(weight.tolist(), gradient.tolist())
        single = [with_gradient(w.tolist(), g.tolist()) for w, g in zip(weight, gradient, strict=True)]
        orthogonalise_grads([stacked], batch_dims=1)
        orthogonalise_grads(single)
        torch.testing.assert_close(stacked.grad, torch.stack([p.grad for p in single]))
        torch.testing.assert_close(
            weight_alignment([with_gradient(weight.tolist(), gradient.tolist())], batch_dims=1),
            torch.stack(
                [
                    weight_alignment([with_gradient(w, g)])
                    for w, g in zip(weight.tolist(), gradient.tolist(), strict=True)
                ]
            ),
        )

    def test_leaves_weights_and_missing_gradients_alone(self, generator):
        parameter, frozen = with_gradient([3.0, 4.0], [1.0, 0.0]), torch.ones(1)
        orthogonalise_grads([parameter, frozen])
        assert parameter.tolist() == [3.0, 4.0]
        assert frozen.grad is None

    def test_refuses_a_tensor_of_size_one(self):
        with pytest.raises(ValueError, match="parameter 1 must have at least 2 entries"):
            orthogonalise_grads([with_gradient([3.0, 4.0], [1.0, 0.0]), with_gradient([2.0], [1.0])])
        with pytest.raises(ValueError, match="parameter 0 must have at least 2 entries"):
            orthogonalise_grads([with_gradient([2.0, 3.0], [1.0, 1.0])], batch_dims=1)

    def test_refuses_a_zero_tensor(self):
        with pytest.raises(ValueError, match="parameter 0 must not be zero"):
            orthogonalise_grads([with_gradient([[1.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]])], batch_dims=1)


class TestWeightAlignment:
    def test_hand_cases(self):
        assert weight_alignment([with_gradient([3.0, 4.0], [-6.0, -8.0])]).item() == pytest.approx(1)
        assert weight_alignment([with_gradient([3.0, 4.0], [1.0, 0.0])]).item() == pytest.approx(-0.6)

    def test_all_parameters_are_one_vector(self):
        parts = [with_gradient([3.0], [1.0]), with_gradient([4.0], [0.0])]
        assert weight_alignment(parts).item() == pytest.approx(-0.6)

    def test_is_zero_after_the_projection(self, generator):
        parameter = with_gradient(normal(generator, 7).tolist(), normal(generator, 7).tolist())
        orthogonalise_grads([parameter])
        assert weight_alignment([parameter]).item() == pytest.approx(0, abs=1e-12)

    def test_every_layer_of_a_homogeneous_network_has_the_same_radial_slope(self, generator):
        """Euler: f is 1-homogeneous in every layer, so w . dL/dw is one number for all of them."""
        weights = [normal(generator, *shape).requires_grad_() for shape in ((6, 8), (8, 8), (8, 3))]
        x = normal(generator, 20, 6)
        for w in weights[:-1]:
            x = torch.relu(x @ w)
        torch.nn.functional.cross_entropy(x @ weights[-1], torch.arange(20) % 3).backward()
        radial = torch.stack([(w * w.grad).sum() for w in weights])
        torch.testing.assert_close(radial, radial[:1].expand(3))

    def test_refuses_parameters_without_gradients(self):
        with pytest.raises(ValueError, match="params must carry gradients"):
            weight_alignment([torch.ones(3)])

    def test_refuses_zero_gradients(self):
        with pytest.raises(ValueError, match="norm of weights times norm of gradients"):
            weight_alignment([with_gradient([3.0, 4.0], [0.0, 0.0])])


class TestOrthoGrad:
    @pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
    def test_equals_projecting_by_hand(self, base, generator):
        start, targets = normal(generator, 2, 5), normal(generator, 4, 2, 5)

        def train(make, before_step):
            weight = start.clone().requires_grad_()
            optimiser = make([weight])
            for target in targets:
                optimiser.zero_grad()
                (weight - target).square().sum().backward()
                before_step([weight])
                optimiser.step()
            return weight

        wrapped = train(lambda params: OrthoGrad(params, base, batch_dims=1, lr=0.1), lambda params: None)
        by_hand = train(lambda params: base(params, lr=0.1), functools.partial(orthogonalise_grads, batch_dims=1))
        torch.testing.assert_close(wrapped, by_hand)

    def test_a_step_of_plain_descent_moves_at_a_right_angle(self, generator):
        start = normal(generator, 5)
        weight = start.clone().requires_grad_()
        optimiser = OrthoGrad([weight], torch.optim.SGD, lr=0.1)
        weight.sin().sum().backward()
        gradient = start.cos()
        optimiser.step()
        step = weight.detach() - start
        assert (step @ start).abs() < 1e-12
        torch.testing.assert_close(step.norm(), 0.1 * gradient.norm())

    def test_schedulers_and_checkpoints_see_one_optimiser(self, generator):
        def train(optimiser, weight, steps):
            for _ in range(steps):
                optimiser.zero_grad()
                weight.sin().sum().backward()
                optimiser.step()

        weight = normal(generator, 5).requires_grad_()
        optimiser = OrthoGrad([weight], torch.optim.Adam, lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.5)
        train(optimiser, weight, 3)
        scheduler.step()
        assert optimiser.base.param_groups[0]["lr"] == 0.05

        restored = weight.detach().clone().requires_grad_()
        resumed = OrthoGrad([restored], torch.optim.Adam, lr=1.0)
        resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
        train(optimiser, weight, 2)
        train(resumed, restored, 2)
        torch.testing.assert_close(restored, weight)

    def test_evaluates_a_closure(self):
        weight = torch.tensor([3.0, 4.0], requires_grad=True)
        optimiser = OrthoGrad([weight], torch.optim.SGD, lr=0.5)

        def closure():
            optimiser.zero_grad()
            loss = 1 * weight[0]
            loss.backward()
            return loss

        assert optimiser.step(closure) == 3
        torch.testing.assert_close(weight.detach(), torch.tensor([2.6, 4.3]))

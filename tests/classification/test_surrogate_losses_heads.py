"""Facts of the two linear heads: peers, exact updates, the predicted error, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from dlatlas.classification.surrogate_losses_heads import GaussianNaiveBayes, logistic_head, naive_bayes_error
from tests.examples import Example

EXAMPLES = [
    # L-BFGS stops when the gradient is small: control flow that depends on data
    Example(
        logistic_head,
        lambda make: {
            "x": make.normal(30, 5),
            "y": torch.arange(30, device=make.device) % 3,
            "C": 0.5,
            "tolerance": 1e-7,
        },
        vmap=False,
    ),
    Example(
        naive_bayes_error,
        lambda make: {
            "signal": make.uniform(6, low=0.2, high=2.0),
            "chi2": make.uniform(5, 6, low=2.0, high=9.0),
            "n": 9,
            "n_classes": 3,
        },
        differentiable=("signal", "chi2"),
    ),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


class TestGaussianNaiveBayes:
    x, y = normal(60, 4), torch.arange(60) % 3

    def test_two_halves_equal_the_whole(self):
        whole = GaussianNaiveBayes(3).fit(self.x, self.y)
        halves = GaussianNaiveBayes(3).partial_fit(self.x[:7], self.y[:7]).partial_fit(self.x[7:], self.y[7:])
        for name in ("means", "variance", "prior"):
            torch.testing.assert_close(getattr(halves, name), getattr(whole, name), atol=1e-10, rtol=0)

    def test_a_class_may_come_late(self):
        order = self.y.argsort()
        model = GaussianNaiveBayes(3)
        for part in order.chunk(6):
            model.partial_fit(self.x[part], self.y[part])
        whole = GaussianNaiveBayes(3).fit(self.x, self.y)
        torch.testing.assert_close(model.log_joint(self.x), whole.log_joint(self.x), atol=1e-10, rtol=0)

    def test_fitting_again_forgets(self):
        model = GaussianNaiveBayes(3).fit(self.x + 5, self.y).fit(self.x, self.y)
        torch.testing.assert_close(model.means, GaussianNaiveBayes(3).fit(self.x, self.y).means)

    def test_statistics_against_scikit_learn(self):
        model, peer = GaussianNaiveBayes(3).fit(self.x, self.y), GaussianNB(var_smoothing=0).fit(self.x, self.y)
        torch.testing.assert_close(model.means, torch.from_numpy(peer.theta_))
        pooled = torch.from_numpy(peer.class_prior_ @ peer.var_)
        torch.testing.assert_close(model.variance, pooled + 1e-9)

    def test_nearest_mean_with_equal_priors_and_unit_variance(self):
        model = GaussianNaiveBayes(3).fit(self.x, self.y)
        model.squares = torch.full_like(model.squares, 20.0)  # 3 classes of 20: variance one
        nearest = torch.cdist(self.x, model.means).argmin(-1)
        assert torch.equal(model.predict(self.x), nearest)

    def test_linear_head_decides_as_the_densities_do(self):
        model = GaussianNaiveBayes(3).fit(self.x, self.y)
        assert torch.equal(model.predict(self.x), model.log_joint(self.x).argmax(-1))
        weight, bias = model.head()
        difference = self.x @ weight.mT + bias - model.log_joint(self.x)
        torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))

    def test_stacked_problems_are_independent(self):
        x, y = normal(4, 30, 5), (torch.arange(30) % 3).repeat(4, 1)
        together = GaussianNaiveBayes(3).fit(x, y).log_joint(x)
        for s in range(4):
            torch.testing.assert_close(together[s], GaussianNaiveBayes(3).fit(x[s], y[s]).log_joint(x[s]))
        mapped = torch.vmap(lambda x, y: GaussianNaiveBayes(3).fit(x, y).log_joint(x))(x, y)
        torch.testing.assert_close(together, mapped)

    def test_refuses(self):
        with pytest.raises(ValueError, match="number of samples of a class must lie in"):
            GaussianNaiveBayes(4).fit(self.x, self.y)
        with pytest.raises(ValueError, match="number of samples of a class must lie in"):
            GaussianNaiveBayes(3).predict(self.x)
        with pytest.raises(ValueError, match="use smoothing > 0"):
            GaussianNaiveBayes(3, smoothing=0).fit(torch.ones(6, 2), torch.arange(6) % 3)
        with pytest.raises(ValueError, match=r"y must lie in \[0, 1\], got 2"):
            GaussianNaiveBayes(2).fit(self.x, self.y)
        with pytest.raises(ValueError, match="smoothing must be at least 0"):
            GaussianNaiveBayes(2, smoothing=-1)


class TestLogisticHead:
    @pytest.mark.parametrize("C", [0.1, 1.0, 10.0])
    def test_against_scikit_learn(self, C):
        x, y = normal(80, 6), torch.arange(80) % 3
        x[torch.arange(80), y] += 2
        weight, bias = logistic_head(x, y, C=C, tolerance=1e-7)
        peer = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(x, y)
        torch.testing.assert_close(weight, torch.from_numpy(peer.coef_), atol=1e-4, rtol=0)
        centred = bias - bias.mean()
        torch.testing.assert_close(
            centred, torch.from_numpy(peer.intercept_ - peer.intercept_.mean()), atol=1e-4, rtol=0
        )

    def test_two_classes_penalise_half_as_much_as_one_weight_vector(self):
        """Softmax with rows w/2 and -w/2 has penalty |w|^2/4: scikit-learn's binary form at twice the C."""
        x, y = normal(40, 3), torch.arange(40) % 2
        weight, _ = logistic_head(x, y, C=0.5, tolerance=1e-7)
        peer = LogisticRegression(C=1.0, tol=1e-10).fit(x, y)
        torch.testing.assert_close(weight[1] - weight[0], torch.from_numpy(peer.coef_[0]), atol=1e-4, rtol=0)

    def test_gradient_vanishes_on_separable_data(self):
        x = torch.cat([normal(20, 40) - 1, normal(20, 40, seed=1) + 1])
        y = torch.arange(40) // 20
        weight, bias = (t.requires_grad_() for t in logistic_head(x, y, tolerance=1e-7))
        objective = weight.square().sum() / 2 + F.cross_entropy(x @ weight.mT + bias, y, reduction="sum")
        for gradient in torch.autograd.grad(objective, (weight, bias)):
            assert gradient.abs().max() < 1e-3

    def test_stacked_problems_equal_separate_ones(self):
        x, y = normal(3, 40, 5), (torch.arange(40) % 4).repeat(3, 1)
        weight, bias = logistic_head(x, y, tolerance=1e-7)
        for s in range(3):
            alone = logistic_head(x[s], y[s], tolerance=1e-7)
            torch.testing.assert_close(weight[s], alone[0], atol=1e-4, rtol=0)
            torch.testing.assert_close(bias[s], alone[1], atol=1e-4, rtol=0)

    def test_refuses(self):
        x, y = normal(10, 2), torch.arange(10) % 2
        with pytest.raises(ValueError, match="C must be greater than 0"):
            logistic_head(x, y, C=0)
        with pytest.raises(ValueError, match="number of samples of a class"):
            logistic_head(x, 2 * y)
        with pytest.raises(ValueError, match="number of classes must be at least 2"):
            logistic_head(x, 0 * y)
        with pytest.raises(RuntimeError, match="stopped at a gradient"):
            logistic_head(x, y, tolerance=1e-30)


class TestNaiveBayesError:
    """Against fits to drawn data, and the limits."""

    @staticmethod
    def measured(signal, n, classes, fits=3000):
        """Test error between the first two of some classes that stand far apart from the others."""
        deviations = torch.linspace(0.5, 2, len(signal), dtype=torch.float64)
        means = torch.zeros(classes, len(signal), dtype=torch.float64)
        means[1] = signal.sqrt() * deviations
        means[2:] = 100 * deviations
        y = torch.arange(n) % classes
        x = means[y] + deviations * normal(fits, n, len(signal))
        model = GaussianNaiveBayes(classes).fit(x, y.expand(fits, n))
        y_new = torch.arange(40) % 2
        x_new = means[y_new] + deviations * normal(fits, 40, len(signal), seed=1)
        return (model.predict(x_new) != y_new).double().mean().item()

    @pytest.mark.parametrize(("n", "classes"), [(8, 2), (40, 2), (12, 3)])
    def test_against_fits_to_drawn_data(self, n, classes):
        signal = torch.cat([torch.full((30,), 0.3), torch.full((30,), 0.01)]).double()
        chi2 = normal(400, 60, n - classes, seed=2).square().sum(-1)
        predicted = naive_bayes_error(signal, chi2, n, classes).item()
        assert predicted == pytest.approx(self.measured(signal, n, classes), abs=0.01)

    def test_many_examples_reach_the_smallest_error(self):
        signal = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
        limit = stats.norm.cdf(-(5.5**0.5) / 2)
        assert naive_bayes_error(signal, torch.ones(1, 3).double(), 10**9).item() == pytest.approx(limit, rel=1e-6)

    def test_known_variances(self):
        """Two classes, signal s in all: s / (2 sqrt(s (1 + 2/n) + (4d/n)(1 + 1/n))) standard deviations."""
        d, n, s = 50, 20, 9.0
        deviations = s / (2 * (s * (1 + 2 / n) + 4 * d / n * (1 + 1 / n)) ** 0.5)
        got = naive_bayes_error(torch.full((d,), s / d).double(), torch.ones(1, d).double(), n)
        assert got.item() == pytest.approx(stats.norm.cdf(-deviations))

    def test_no_signal_is_a_coin(self):
        assert naive_bayes_error(torch.zeros(4).double(), normal(9, 4).square(), 6, 3).item() == 0.5

    def test_refuses(self):
        signal, chi2 = torch.ones(3).double(), torch.ones(2, 3).double()
        with pytest.raises(ValueError, match="signal must lie in"):
            naive_bayes_error(-signal, chi2, 4)
        with pytest.raises(ValueError, match="chi2 must lie in"):
            naive_bayes_error(signal, 0 * chi2, 4)
        with pytest.raises(ValueError, match="n must be at least 3"):
            naive_bayes_error(signal, chi2, 2, 3)

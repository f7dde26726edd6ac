"""Two linear heads on given features: Gaussian naive Bayes in closed form, with its error, and logistic regression."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

MAX_ITERATIONS = 1000


class GaussianNaiveBayes:
    r"""Gaussian naive Bayes with one diagonal variance for all classes: a generative linear head.

    .. math:: \log\pi_k - \tfrac12 \sum_j \frac{(x_j - \mu_{kj})^2}{v_j}, \qquad
        v_j = \sum_k \pi_k \mathrm{var}_{kj} + \epsilon

    It keeps counts (K,), means (K, d) and sums of squared deviations (K, d) of the classes, and updates them exactly as
    data come. Leading axes of the data are independent problems.

    Parameters
    ----------
    n_classes, smoothing
        Number of classes K, and :math:`\epsilon`; with 0, a feature that is constant within all classes is refused.

    Raises
    ------
    ValueError
        Fewer than two classes, negative smoothing, a label outside 0, ..., K - 1; and, when something is predicted, a
        class without a sample or a feature without variance.

    References
    ----------
    discriminative-vs-generative-linear-eval
    """

    def __init__(self, n_classes: int, *, smoothing: float = 1e-9):
        validate.at_least("the number of classes", n_classes, 2)
        validate.at_least("smoothing", smoothing, 0)
        self.n_classes, self.smoothing = n_classes, smoothing
        self.counts = self.means = self.squares = 0

    @typed
    def fit(self, x: Float[Tensor, "*stack n d"], y: Int[Tensor, "*stack n"]) -> "GaussianNaiveBayes":
        """Forget what was seen and fit; every class must occur."""
        self.counts = self.means = self.squares = 0
        self.partial_fit(x, y)._check_complete()
        return self

    @typed
    def partial_fit(self, x: Float[Tensor, "*stack n d"], y: Int[Tensor, "*stack n"]) -> "GaussianNaiveBayes":
        """Add data: equal to one fit on all of it. A class may be missing until something is predicted."""
        validate.labels("y", y, self.n_classes)
        member = F.one_hot(y, self.n_classes).to(x.dtype)
        counts = member.sum(-2)
        means = member.mT @ x / counts.clamp_min(1)[..., None]
        share = counts / (self.counts + counts).clamp_min(1)
        shift = means - self.means
        between = (share * self.counts)[..., None] * shift**2
        self.squares = self.squares + member.mT @ (x - member @ means) ** 2 + between
        self.means = self.means + share[..., None] * shift
        self.counts = self.counts + counts
        return self

    @property
    def prior(self) -> Tensor:
        """Class frequencies, (K,)."""
        return self.counts / self.counts.sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        """Shared diagonal variance, (d,)."""
        return self.squares.sum(-2) / self.counts.sum(-1)[..., None] + self.smoothing

    @typed
    def log_joint(self, x: Float[Tensor, "*stack n d"]) -> Float[Tensor, "*stack n K"]:
        """Scores of the classes, up to a constant that all share."""
        self._check_complete()
        v = self.variance[..., None, :]
        distances = [((x - mean[..., None, :]) ** 2 / v).sum(-1) for mean in self.means.unbind(-2)]
        return self.prior.log()[..., None, :] - torch.stack(distances, -1) / 2

    @typed
    def head(self) -> tuple[Float[Tensor, "*stack K d"], Float[Tensor, "*stack K"]]:
        """Return the same decision as a linear head, W = mu / v and b = log pi - mu^2 / (2 v) summed over features."""
        self._check_complete()
        weight = self.means / self.variance[..., None, :]
        return weight, self.prior.log() - (weight * self.means).sum(-1) / 2

    @typed
    def predict(self, x: Float[Tensor, "*stack n d"]) -> Int[Tensor, "*stack n"]:
        """Most probable class."""
        return self.log_joint(x).argmax(-1)

    def _check_complete(self) -> None:
        validate.in_range("the number of samples of a class", self.counts, 1, torch.inf)
        tiny = torch.finfo(self.squares.dtype).tiny
        validate.in_range("the variance of a feature (use smoothing > 0)", self.variance, tiny, torch.inf)


@typed
def logistic_head(
    x: Float[Tensor, "*stack n d"], y: Int[Tensor, "*stack n"], *, C: float = 1.0, tolerance: float = 1e-5
) -> tuple[Float[Tensor, "*stack K d"], Float[Tensor, "*stack K"]]:
    r"""Softmax regression with a ridge penalty, by L-BFGS.

    .. math:: \min_{W, b} \tfrac12 \|W\|^2 + C \sum_i \mathrm{CE}(W x_i + b, y_i)

    Found in float64. Leading axes are independent problems: one L-BFGS minimises the sum of their objectives. When it
    stops depends on the data, so it does not run under vmap.

    Parameters
    ----------
    x, y
        Features (n, d), and labels 0, ..., K - 1 (n,), of which every one must occur: the bias is not penalised.
    C, tolerance
        Inverse strength of the penalty; largest gradient entry, per example in standardised features, at which to stop.

    Returns
    -------
    tuple of Tensor
        W (K, d) and b (K,), without a graph.

    Raises
    ------
    ValueError, RuntimeError
        C not positive, a class without a sample; no convergence.

    References
    ----------
    discriminative-vs-generative-linear-eval
    """
    validate.positive("C", C)
    n_classes = int(y.max()) + 1
    validate.at_least("the number of classes", n_classes, 2)
    validate.in_range("the number of samples of a class", F.one_hot(y, n_classes).sum(-2), 1, torch.inf)
    # the same problem in standardised features, V = W scale and c = b + W centre, takes L-BFGS far fewer steps
    x64 = x.detach().double()
    centre, scale = x64.mean(-2, keepdim=True), (x64.var(-2, correction=0, keepdim=True) + 1 / (C * y.shape[-1])).sqrt()
    features, target = (x64 - centre) / scale, y.reshape(-1, y.shape[-1])
    weight = features.new_zeros(*x.shape[:-2], n_classes, x.shape[-1], requires_grad=True)
    bias = features.new_zeros(*x.shape[:-2], n_classes, 1, requires_grad=True)
    stop = {"max_iter": MAX_ITERATIONS, "tolerance_grad": tolerance, "tolerance_change": 1e-14}
    optimiser = torch.optim.LBFGS([weight, bias], history_size=10, line_search_fn="strong_wolfe", **stop)

    def objective() -> Tensor:
        optimiser.zero_grad()
        logits = (weight @ features.mT + bias).reshape(-1, n_classes, y.shape[-1])
        misfit = F.cross_entropy(logits, target, reduction="sum")
        value = (misfit + (weight / scale).square().sum() / (2 * C)) / y.shape[-1]
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(objective)
        objective()
    steepest = max(parameter.grad.abs().max().item() for parameter in (weight, bias))
    if steepest > 10 * tolerance:
        raise RuntimeError(f"logistic_head stopped at a gradient of {steepest:.2g}, the tolerance is {tolerance:.2g}")
    weight = weight.detach() / scale
    return weight.to(x.dtype), (bias.detach() - weight @ centre.mT).squeeze(-1).to(x.dtype)


@typed
def naive_bayes_error(
    signal: Float[Tensor, " d"], chi2: Float[Tensor, "R d"], n: int, n_classes: int = 2
) -> Float[Tensor, ""]:
    r"""Chance that naive Bayes, fitted to n examples, prefers the wrong one of two Gaussian classes.

    .. math:: \mathbb E\, \Phi\left(-\frac{\sum_j t_j u_j}{2 \sqrt{\sum_j c_j u_j^2}}\right), \qquad
        u_j = \frac{1}{\chi^2_j}, \qquad
        c_j = t_j \Big(1 + \frac Kn\Big) + \frac{2K}{n} \Big(1 + \frac{K}{2n}\Big)

    Mean and variance of the score are exact given the estimated variances; that it is normal holds for many features.

    Parameters
    ----------
    signal
        :math:`t_j = (\mu_{kj} - \mu_{lj})^2 / v_j`, squared distances of the two class means in units of the variance.
    chi2
        Draws of :math:`\chi^2_{n-K}`, the shape of the estimated variances; the error is averaged over the R rows. Ones
        for known variances.
    n, n_classes
        Training examples, :math:`n / K` of each of the K classes.

    Returns
    -------
    Tensor
        A scalar in (0, 1/2].

    Raises
    ------
    ValueError
        A negative signal, a chi2 that is not positive, n below the number of classes.

    References
    ----------
    discriminative-vs-generative-linear-eval
    """
    validate.at_least("the number of classes", n_classes, 2)
    validate.at_least("n", n, n_classes)
    validate.in_range("signal", signal, 0, torch.inf)
    validate.in_range("chi2", chi2, torch.finfo(chi2.dtype).tiny, torch.inf)
    noise = n_classes / n
    spread = signal * (1 + noise) + 2 * noise * (1 + noise / 2)
    u = chi2.amin(-1, keepdim=True) / chi2  # a common factor cancels; this one keeps the largest weight at 1
    return torch.special.ndtr(-(signal * u).sum(-1) / (2 * (spread * u**2).sum(-1).sqrt())).mean()

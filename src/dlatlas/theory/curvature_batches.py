"""Curvature of minibatches: spiked random matrices, the noise they are fitted with, and stable learning rates."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def effective_batch(B: float, N: float) -> float:
    r"""Size of the batch with replacement that is as noisy as B of N samples without replacement.

    .. math:: \frac1b = \frac1B - \frac1N

    Parameters
    ----------
    B, N
        Batch and data set, :math:`1 \le B \le N`.

    Returns
    -------
    float
        b, infinite for the full batch.

    Raises
    ------
    ValueError
        When B is out of range.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.in_range("B", B, 1, N)
    return float("inf") if B == N else B / (1 - B / N)


@typed
def spiked_edge(lam: Float[Tensor, "*batch"], noise: Float[Tensor, "*batch"] | float) -> Float[Tensor, "*batch"]:
    r"""Largest eigenvalue of a spike plus symmetric noise with independent entries.

    .. math:: \lambda' = \begin{cases} \lambda + \dfrac{w}{\lambda} & \lambda > \sqrt w \\ 2 \sqrt w & \text{else}
        \end{cases} \qquad w = \frac{P \sigma^2}{b}

    Parameters
    ----------
    lam
        Eigenvalue :math:`\lambda \ge 0` without noise.
    noise
        w: size P of the matrix times the variance :math:`\sigma^2 / b` of an entry of the noise.

    Returns
    -------
    Tensor
        :math:`\lambda'`, in the limit of large P.

    Raises
    ------
    ValueError
        When an eigenvalue or the noise is negative.

    References
    ----------
    batch-hessian-learning-rates
    """
    radius = _radius(lam, noise)
    seen = lam > radius
    return torch.where(seen, lam + radius.square() / torch.where(seen, lam, torch.ones_like(lam)), 2 * radius)


@typed
def spiked_overlap(lam: Float[Tensor, "*batch"], noise: Float[Tensor, "*batch"] | float) -> Float[Tensor, "*batch"]:
    r"""Squared cosine between the top eigenvectors with and without noise.

    .. math:: |\langle \phi', \phi \rangle|^2 = \max\Bigl( 1 - \frac{w}{\lambda^2},\; 0 \Bigr)

    Parameters
    ----------
    lam, noise
        See `spiked_edge`.

    Returns
    -------
    Tensor
        Between 0 and 1, in the limit of large P.

    Raises
    ------
    ValueError
        When an eigenvalue or the noise is negative.

    References
    ----------
    batch-hessian-learning-rates
    """
    radius = _radius(lam, noise)
    seen = lam > radius
    return torch.where(seen, 1 - (radius / torch.where(seen, lam, torch.ones_like(lam))).square(), 0 * radius)


@typed
def covariance_edge(lam: Float[Tensor, "*batch"], ratio: Float[Tensor, "*batch"], s: float) -> Float[Tensor, "*batch"]:
    r"""Largest eigenvalue of a sample covariance whose population has one spike: noise that is positive.

    .. math:: \lambda' = \begin{cases} \lambda \Bigl( 1 + \dfrac{r s}{\lambda - s} \Bigr) & \lambda > s (1 + \sqrt r) \\
        s (1 + \sqrt r)^2 & \text{else} \end{cases} \qquad r = \frac Pb

    Parameters
    ----------
    lam
        Largest eigenvalue :math:`\lambda` of the population.
    ratio
        Dimension over samples, r.
    s
        All its other eigenvalues.

    Returns
    -------
    Tensor
        :math:`\lambda'`, in the limit of large P and b. Where r is large it grows like r, not like :math:`\sqrt r`.

    Raises
    ------
    ValueError
        When s is not positive, or an eigenvalue or a ratio is negative.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.positive("s", s)
    validate.in_range("lam", lam, 0, torch.inf)
    validate.in_range("ratio", ratio, 0, torch.inf)
    root = ratio.sqrt()
    seen = lam > s * (1 + root)
    distance = torch.where(seen, lam - s, torch.ones_like(lam))
    return torch.where(seen, lam * (1 + ratio * s / distance), s * (1 + root).square())


@typed
def fit_noise(
    measured: Float[Tensor, " sizes"], lam: Float[Tensor, ""], b: Float[Tensor, " sizes"]
) -> Float[Tensor, ""]:
    r"""The one constant of `spiked_edge` that fits the eigenvalues of batches of several sizes best.

    .. math:: P\sigma^2 = \arg\min_{v \ge 0} \sum_b \Bigl( \log \lambda'(\lambda_1, v / b) - \log \lambda'_b \Bigr)^2

    By a grid over all values that make sense, refined once.

    Parameters
    ----------
    measured
        Mean largest eigenvalue :math:`\lambda'_b` of batches of each size.
    lam
        Largest eigenvalue :math:`\lambda_1` of the full data.
    b
        Effective sizes, see `effective_batch`.

    Returns
    -------
    Tensor
        :math:`P \sigma^2`, a scalar, to about four digits.

    Raises
    ------
    ValueError
        When an eigenvalue or a size is not positive.

    References
    ----------
    batch-hessian-learning-rates
    """
    for name, value in (("measured", measured), ("lam", lam), ("b", b)):
        validate.in_range(name, value, torch.finfo(value.dtype).tiny, torch.inf)

    def best(candidates: Tensor) -> Tensor:
        predicted = spiked_edge(lam.expand(len(candidates), len(b)), candidates[:, None] / b)
        return (predicted / measured).log().square().sum(-1).argmin()

    steps = torch.linspace(0, 1, 2001, dtype=b.dtype, device=b.device)
    # Noise above this would put every predicted edge above every measured one.
    largest = (b * measured.square()).amax() / 4
    coarse = steps**3 * largest
    near = best(coarse)
    low, high = (coarse[(near + shift).clamp(0, len(steps) - 1)] for shift in (-1, 1))
    fine = low + steps * (high - low)
    return fine[best(fine)]


@typed
def stable_rate(lam: Float[Tensor, "*batch"], *, momentum: float = 0.0) -> Float[Tensor, "*batch"]:
    r"""Largest learning rate for which gradient descent with momentum stays near a quadratic minimum.

    .. math:: \eta_{\max} = \frac{2 (1 + \rho)}{\lambda_1}

    Parameters
    ----------
    lam
        Largest eigenvalue of the Hessian, positive.
    momentum
        :math:`\rho` in [0, 1), of heavy-ball momentum :math:`v \leftarrow \rho v + g`,
        :math:`\theta \leftarrow \theta - \eta v`.

    Returns
    -------
    Tensor
        :math:`\eta_{\max}`.

    Raises
    ------
    ValueError
        When an eigenvalue is not positive or the momentum is outside [0, 1).

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.in_range("lam", lam, torch.finfo(lam.dtype).tiny, torch.inf)
    validate.in_range("momentum", momentum, 0, 1 - 1e-12)
    return 2 * (1 + momentum) / lam


@typed
def lanczos_momentum(top: Float[Tensor, "*batch"], bulk: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    r"""Momentum for a quadratic whose eigenvalues lie between two Ritz values: the rule for training on the fly.

    .. math:: \rho = \Bigl( \frac{\sqrt k - 1}{\sqrt k + 1} \Bigr)^2, \qquad
        k = \frac{\theta_{\max}}{\theta_{\mathrm{bulk}}}

    Parameters
    ----------
    top, bulk
        :math:`\theta_{\max} \ge \theta_{\mathrm{bulk}} > 0`.

    Returns
    -------
    Tensor
        :math:`\rho`, in [0, 1).

    Raises
    ------
    ValueError
        When the bulk is not positive or lies above the top.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.in_range("bulk", bulk, torch.finfo(bulk.dtype).tiny, torch.inf)
    validate.in_range("top / bulk", top / bulk, 1, torch.inf)
    root = (top / bulk).sqrt()
    return ((root - 1) / (root + 1)).square()


@typed
def max_stable_rate(
    stable: Callable[[Tensor], Bool[Tensor, "points *seeds"]],
    low: Float[Tensor, "*seeds"],
    high: Float[Tensor, "*seeds"],
    *,
    points: int = 1,
    rounds: int = 8,
) -> Float[Tensor, "*seeds"]:
    r"""Largest learning rate for which training is stable, by section search on a logarithmic scale.

    .. math:: \eta_{\max} = \sup \{ \eta : \text{stable with every } \eta' \le \eta \}

    Parameters
    ----------
    stable
        ``stable(rates)`` trains with each rate (points, ...) of each seed and says whether it was stable.
    low, high
        A stable and an unstable rate for each seed.
    points
        Rates that are tried together in a round; 1 is bisection.
    rounds
        The result is known to a factor
        :math:`(\mathrm{high} / \mathrm{low})^{(\mathrm{points} + 1)^{-\mathrm{rounds}}}`.

    Returns
    -------
    Tensor
        The geometric middle of the last interval of each seed.

    Raises
    ------
    ValueError
        When ``low`` is not positive or ``high`` not above it, or no rate would be tried.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.in_range("low", low, torch.finfo(low.dtype).tiny, torch.inf)
    validate.in_range("high / low", high / low, 1 + torch.finfo(low.dtype).eps, torch.inf)
    validate.at_least("points", points, 1)
    validate.at_least("rounds", rounds, 1)
    for _ in range(rounds):
        section = (high / low) ** (1 / (points + 1))
        rates = torch.stack([low * section**k for k in range(1, points + 1)])
        passed = stable(rates).to(low.dtype).cumprod(0).sum(0)
        low = low * section**passed
        high = low * section
    return (low * high).sqrt()


def _radius(lam: Tensor, noise: Tensor | float) -> Tensor:
    validate.in_range("lam", lam, 0, torch.inf)
    validate.in_range("noise", noise, 0, torch.inf)
    return torch.as_tensor(noise, dtype=lam.dtype, device=lam.device).expand(lam.shape).sqrt()

"""How well data can be told apart through noise: the one function of the data that kinetic energy depends on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.theory.diffusion_theory import mixture_posterior
from dlatlas.typed import typed

# Largest value of u^2 Q(u) over u > 0, Q the upper tail of the standard normal law, from above.
TAIL_CONSTANT = 0.16575


@typed
def data_separation(
    x: Float[Tensor, "n d"], r: Float[Tensor, "ratios"], noise: Float[Tensor, "k d"]
) -> Float[Tensor, "ratios"]:
    r"""How well the points of a data set can be told apart through noise, by Monte Carlo.

    .. math:: \lambda(r) = \frac1d\, \mathbb E\, \bigl\lVert \mathbb E[x_1 \mid y] \bigr\rVert^2
        = 1 - \frac1d\, \mathbb E \operatorname{tr} \operatorname{Cov}[x_1 \mid y], \qquad y = r x_1 + x_0

    with the posterior :math:`\operatorname{softmax}_i(r \langle y, x_i \rangle - \frac12 r^2 \lVert x_i \rVert^2)`.
    The mean is taken over the second form, whose error falls with :math:`1 - \lambda`.

    Parameters
    ----------
    x
        Data, centred and normalised to :math:`\mathbb E \lVert x_1 \rVert^2 = d`.
    r
        Signal-to-noise ratios :math:`a / s`, at least 0.
    noise
        Standard normal draws :math:`x_0`; draw j is added to point j modulo n.

    Returns
    -------
    Tensor
        :math:`\lambda` for each ratio, at most 1.

    Raises
    ------
    ValueError
        For data that are not normalised (a mean square away from 1 by more than a hundredth) or negative ratios.

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("mean square of x", x.square().mean(), 0.99, 1.01)
    validate.in_range("r", r, 0.0, math.inf)
    n, d = x.shape
    own = torch.arange(len(noise), device=x.device) % n
    gram, cross = x @ x.mT, noise @ x.mT
    squares = gram.diagonal()
    r = r[:, None, None]
    posterior = (r.square() * (gram[own] - squares / 2) + r * cross).softmax(-1)
    variance = posterior @ squares - (posterior @ x).square().sum(-1)
    return 1 - variance.mean(1) / d


@typed
def mixture_separation(
    r: Float[Tensor, "ratios"],
    x1: Float[Tensor, "k d"],
    noise: Float[Tensor, "k d"],
    means: Float[Tensor, "K d"],
    covs: Float[Tensor, "K d d"],
    weights: Float[Tensor, "K"],
) -> Float[Tensor, "ratios"]:
    r"""The separation function of a Gaussian mixture: `data_separation` with the exact posterior of the mixture.

    .. math:: \lambda(r) = 1 - \frac1d\, \mathbb E \operatorname{tr} \operatorname{Cov}[x_1 \mid r x_1 + x_0]

    Parameters
    ----------
    r
        Signal-to-noise ratios, at least 0.
    x1, noise
        Draws from the mixture, which has :math:`\mathbb E \lVert x_1 \rVert^2 = d`, and standard normal draws.
    means, covs, weights
        Of the mixture, see `dlatlas.theory.diffusion_theory.mixture_posterior`.

    Returns
    -------
    Tensor
        :math:`\lambda` for each ratio, at most 1.

    Raises
    ------
    ValueError
        For negative ratios, and as `dlatlas.theory.diffusion_theory.mixture_posterior`.

    References
    ----------
    kinetic-optimal-paths
    """
    validate.in_range("r", r, 0.0, math.inf)
    k, d = x1.shape
    scale = r.repeat_interleave(k)
    y = (r[:, None, None] * x1 + noise).reshape(-1, d)
    _, variance = mixture_posterior(y, scale, torch.ones_like(scale), means, covs, weights)
    return 1 - variance.reshape(-1, k).mean(1) / d


@typed
def separation_bound(r: Float[Tensor, "ratios"], *, n: int, d: int) -> Float[Tensor, "ratios"]:
    r"""Lower bound on the separation of any n points with mean square norm d.

    .. math:: \lambda(r) \ge \max\!\left( \frac{r^2}{1 + r^2},\; 1 - \frac{4 c\,(n - 1)}{r^2 d} \right), \qquad
        c = \max_u u^2\, \mathbb P(Z > u) \approx 0.166

    The first is what a linear estimate achieves, the second what the nearest point achieves.

    Parameters
    ----------
    r
        Signal-to-noise ratios, greater than 0.
    n, d
        Number of points and their dimension.

    Returns
    -------
    Tensor
        A bound for each ratio.

    Raises
    ------
    ValueError
        For sizes below 1 or a ratio that is not positive.

    References
    ----------
    kinetic-optimal-paths
    """
    validate.at_least("n", n, 1)
    validate.at_least("d", d, 1)
    validate.in_range("r", r, torch.finfo(r.dtype).tiny, math.inf)
    squared = r.square()
    return torch.maximum(squared / (1 + squared), 1 - 4 * TAIL_CONSTANT * (n - 1) / (squared * d))


def energy_gap_bound(n: int, d: int) -> float:
    r"""Most that straight lines can lose to the kinetic optimal path, for any n points with mean square norm d.

    .. math:: \frac{KE_{\mathrm{CondOT}} - KE^*}{d} \le 2 \sin\!\left( \frac\pi2 \sqrt\varepsilon \right), \qquad
        \varepsilon = \min\!\left( \frac{4 c\,(n - 1)}{d},\, 1 \right)

    Parameters
    ----------
    n, d
        Number of points and their dimension.

    Returns
    -------
    float
        The bound, between 0 and 2.

    Raises
    ------
    ValueError
        For sizes below 1.

    References
    ----------
    kinetic-optimal-paths
    """
    validate.at_least("n", n, 1)
    validate.at_least("d", d, 1)
    epsilon = min(4 * TAIL_CONSTANT * (n - 1) / d, 1.0)
    return 2 * math.sin(math.pi / 2 * math.sqrt(epsilon))

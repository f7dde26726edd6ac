"""Random-feature ridge regression: its error from the spectrum, and how well it pays to fit the training set."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernel_ridge import ridge_fit
from dlatlas.typed import typed

_BISECTIONS = 60


@typed
def rf_omniscient(
    eigs: Float[Tensor, " modes"],
    coefs: Float[Tensor, " modes"],
    *,
    n: float,
    k: float,
    delta: float,
    noise: float = 0.0,
) -> dict[str, Float[Tensor, ""]]:
    r"""Predict the errors of random-feature ridge regression.

    .. math::
        \sum_i \frac{\lambda_i}{\lambda_i + \gamma} + \frac{\delta}{\kappa} &= n, \qquad
        \sum_i \frac{\lambda_i}{\lambda_i + \gamma} + \frac{k \kappa}{\gamma} = k, \\
        z = \sum_i \frac{\lambda_i}{\lambda_i + \gamma}, \qquad
        q &= \sum_i \Bigl(\frac{\lambda_i}{\lambda_i + \gamma}\Bigr)^2, \\
        E_{\text{test}} &= \frac{\sum_i \Bigl(\frac{\gamma}{\lambda_i + \gamma}
        - \frac{k}{k - q} \frac{\kappa \lambda_i}{(\lambda_i + \gamma)^2}\Bigr) v_i^2 + \sigma^2}
        {1 - \frac{q (k - 2z) + z^2}{n (k - q)}}, \qquad
        E_{\text{train}} = \Bigl(\frac{\delta}{n \kappa}\Bigr)^2 E_{\text{test}}

    The second equation gives :math:`\kappa` for a given :math:`\gamma`, which is then found by bisection; the gradient
    does not flow through it. ``k = math.inf`` is kernel ridge regression.

    Parameters
    ----------
    eigs, coefs
        Eigenvalues :math:`\lambda_i > 0` of the mean kernel; coefficients :math:`v_i` of the target in its
        orthonormal eigenfunctions.
    n, k
        Number of samples and of features.
    delta
        Ridge :math:`\delta` in :math:`\hat K + \delta I`, :math:`\hat K = \Psi \Psi^\top / k`.
    noise
        Variance :math:`\sigma^2` of the label noise, part of both errors.

    Returns
    -------
    dict
        ``kappa``, ``gamma``, ``test``, ``train``: scalars.

    Raises
    ------
    ValueError
        For eigenvalues that are not positive, fewer than one sample or feature, a negative ridge or noise; and without
        a ridge when n = k, where the error is infinite, or when there are no more modes than min(n, k).

    References
    ----------
    more-is-better-rf
    """
    validate.in_range("eigs", eigs, torch.finfo(eigs.dtype).tiny, math.inf)
    validate.at_least("n", n, 1)
    validate.at_least("k", k, 1)
    validate.at_least("delta", delta, 0.0)
    validate.at_least("noise", noise, 0.0)
    if delta == 0 and (n == k or len(eigs) <= min(n, k)):
        raise ValueError(f"delta must be greater than 0 for n = {n}, k = {k} and {len(eigs)} modes, got {delta}")
    gamma = _solve_gamma(eigs, n, k, delta)
    learnt = eigs / (eigs + gamma)
    z, q = learnt.sum(), learnt.square().sum()
    # Of two equal forms the one without cancellation.
    kappa = gamma * (1 - z / k) if n <= k else delta / (n - z)
    residual = delta / (n * kappa) if n <= k else 1 - z / n
    slope = gamma * (1 - z / k) / (1 - q / k)
    bias = ((gamma / (eigs + gamma) - slope * eigs / (eigs + gamma).square()) * coefs.square()).sum()
    test = (bias + noise) / (1 - (q + (z - q).square() / (k - q)) / n)
    return {"kappa": kappa, "gamma": gamma, "test": test, "train": residual**2 * test}


@typed
def rf_ridge(
    psi_train: Float[Tensor, "n k"],
    y: Float[Tensor, "n *outputs"],
    psi_test: Float[Tensor, "m k"],
    *,
    delta: float,
) -> Float[Tensor, "m *outputs"]:
    r"""Predict by ridge regression on random features.

    .. math:: \hat f(x) = \hat K(x, X) \bigl(\hat K(X, X) + \delta I\bigr)^{-1} y, \qquad
        \hat K(x, x') = \frac1k \sum_{j=1}^k \psi_j(x)\, \psi_j(x')

    Parameters
    ----------
    psi_train, psi_test
        Features :math:`\psi_j` at the training and test points.
    y
        Targets, (n,) or (n, c).
    delta
        Ridge :math:`\delta`, at least 0.

    Returns
    -------
    Tensor
        (m,) or (m, c).

    Raises
    ------
    ValueError
        For a negative ridge, or a matrix that is not positive definite without one.

    References
    ----------
    more-is-better-rf
    """
    scale = psi_train.shape[1] ** -0.5
    return torch.tensordot(scale * psi_test, ridge_fit(scale * psi_train, y, ridge=delta), dims=1)


@typed
def gaussian_features(
    n: int, eigs: Float[Tensor, " modes"], k: int, *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n modes"], Float[Tensor, "n k"], Float[Tensor, "k modes"]]:
    r"""Draw eigenfunctions and random features that satisfy the assumptions of `rf_omniscient` exactly.

    .. math:: \psi_j(x) = \sum_i \sqrt{\lambda_i}\, g_{ji}\, \phi_i(x), \qquad \phi_i(x),\, g_{ji} \sim N(0, 1)

    Calls with a generator cannot be mapped by ``vmap``.

    Parameters
    ----------
    n, k
        Number of samples and of features.
    eigs
        Eigenvalues :math:`\lambda_i`, at least 0.
    generator
        Source of the random numbers.

    Returns
    -------
    tuple of Tensor
        :math:`\phi` (n, modes), :math:`\psi` (n, k) and :math:`g` (k, modes).

    Raises
    ------
    ValueError
        For fewer than one sample or feature, or negative eigenvalues.

    References
    ----------
    more-is-better-rf
    """
    validate.at_least("n", n, 1)
    validate.at_least("k", k, 1)
    validate.in_range("eigs", eigs, 0.0, math.inf)
    phi, g = (torch.randn(rows, len(eigs), generator=generator, dtype=torch.float64).to(eigs) for rows in (n, k))
    return phi, (phi * eigs.sqrt()) @ g.mT, g


@typed
def estimate_powerlaw(
    K: Float[Tensor, "n n"], y: Float[Tensor, " n"], *, sizes: Sequence[int]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Estimate the exponents of a task, :math:`\lambda_i \sim i^{-\alpha}` and :math:`v_i^2 \sim i^{-\beta}`.

    .. math:: \kappa_n = \frac{1}{\operatorname{tr} K_n^{-1}} \sim n^{-\alpha}, \qquad
        n\, \kappa_n^2\; y_n^\top K_n^{-2}\, y_n \sim n^{-(\beta - 1)}

    for the leading blocks :math:`K_n` of the kernel matrix: slopes of straight lines through the logarithms.

    Parameters
    ----------
    K, y
        A kernel matrix, positive definite, of samples in random order; their labels.
    sizes
        At least two sizes :math:`n` of the blocks.

    Returns
    -------
    tuple of Tensor
        :math:`\alpha` and :math:`\beta`.

    Raises
    ------
    ValueError
        For fewer than two sizes, a size out of range, or a matrix that is not positive definite.

    References
    ----------
    more-is-better-rf
    """
    validate.at_least("number of sizes", len(sizes), 2)
    for size in sizes:
        validate.in_range("size", size, 1, len(K))
    logs = torch.stack([_log_scales(K[:n, :n], y[:n]) for n in sizes])
    steps = torch.tensor([math.log(n) for n in sizes]).to(logs)
    steps = (steps - steps.mean())[:, None]
    slopes = (steps * logs).sum(0) / steps.square().sum()
    return -slopes[0], 1 - slopes[1]


def optimal_fit_ratio(alpha: float, beta: float, *, relative_noise: float = 0.0) -> float:
    r"""Ratio of training to test error at the best ridge, for a power-law task and many samples.

    .. math:: \frac{E_{\text{train}}}{E_{\text{test}}} = r^2, \qquad
        (\alpha - \beta) - (\alpha - 1)\, \beta\, r + \alpha (\alpha - 1)\, \varrho\, (1 - r)^\beta = 0

    and zero when the left-hand side is not positive at :math:`r = 0`: then the best ridge is none at all.

    Parameters
    ----------
    alpha, beta
        Exponents :math:`\alpha > 1` of the eigenvalues and :math:`1 < \beta < 2\alpha + 1` of the squared coefficients.
    relative_noise
        Variance :math:`\varrho` of the noise in units of the test error without noise and ridge.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        For exponents outside their ranges, or a negative noise.

    References
    ----------
    more-is-better-rf
    """
    if not (alpha > 1 and 1 < beta < 2 * alpha + 1):
        raise ValueError(f"alpha must exceed 1 and beta lie between 1 and 2 alpha + 1, got {alpha} and {beta}")
    validate.at_least("relative_noise", relative_noise, 0.0)
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        r = (low + high) / 2
        left = (alpha - beta) - (alpha - 1) * beta * r + alpha * (alpha - 1) * relative_noise * (1 - r) ** beta
        low, high = (r, high) if left > 0 else (low, r)
    return low**2


def _solve_gamma(eigs: Tensor, n: float, k: float, delta: float) -> Tensor:
    """Bisect in log gamma; the left-hand side of the first equation falls in gamma where z < k."""
    high = torch.log(4 * (eigs.sum() + delta) / min(n, k)).detach()
    low = high - 20 * math.log(10.0)
    for _ in range(_BISECTIONS):
        gamma = ((low + high) / 2).exp()
        z = (eigs / (eigs + gamma)).sum()
        free = 1 - z / k
        too_small = (free <= 0) | (z + delta / (gamma * free) > n)
        middle = gamma.log()
        low, high = torch.where(too_small, middle, low), torch.where(too_small, high, middle)
    return ((low + high) / 2).exp().detach()


def _log_scales(K: Tensor, y: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(K)
    validate.in_range("first minor of K that is not positive (0: none)", info, 0, 0)
    kappa = 1 / torch.cholesky_inverse(factor).diagonal().sum()
    weights = torch.cholesky_solve(y[:, None], factor)[:, 0]
    return torch.stack([kappa, len(y) * kappa.square() * weights.square().sum()]).log()

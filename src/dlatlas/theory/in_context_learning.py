"""Linear self-attention on regression prompts: the one gradient step that is its optimum, and the risk of any step."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def optimal_eta(n: int, d: int, s2: float) -> float:
    r"""Step size of the one gradient step that optimal linear self-attention takes on isotropic prompts.

    .. math:: \eta = \frac{1}{n + d + 1 + \sigma^2}, \qquad \min \mathcal L = d + \sigma^2 - n d \eta

    Parameters
    ----------
    n, d
        Examples in a prompt, dimension of the inputs.
    s2
        Variance σ² of the label noise.

    Returns
    -------
    float
        η.

    Raises
    ------
    ValueError
        When there is no example or no dimension, or the variance is negative.

    References
    ----------
    one-step-gd-icl
    """
    validate.at_least("n", n, 1)
    validate.at_least("d", d, 1)
    validate.at_least("s2", s2, 0)
    return 1 / (n + d + 1 + s2)


@typed
def gd_step_predictor(
    X: Float[Tensor, "*batch n d"],
    y: Float[Tensor, "*batch n"],
    xq: Float[Tensor, "*batch d"],
    eta: float | Float[Tensor, ""],
    precond: Float[Tensor, "d d"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""Prediction of one gradient step from zero on the squared error of the examples, perhaps preconditioned.

    .. math:: f = \eta\, x_q^\top P \sum_i y_i x_i

    Parameters
    ----------
    X, y, xq
        Examples and query.
    eta
        Step size η.
    precond
        Preconditioner P (d, d); the identity when not given.

    Returns
    -------
    Tensor
        ``(*batch,)``.

    References
    ----------
    one-step-gd-icl
    """
    h = (y[..., None, :] @ X)[..., 0, :]
    step = h if precond is None else h @ precond.mT
    return eta * (xq * step).sum(-1)


@typed
def ridge_predictor(
    X: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch n"], xq: Float[Tensor, "*batch d"], lam: float
) -> Float[Tensor, "*batch"]:
    r"""Prediction of ridge regression on the examples, the Bayes optimum for :math:`w \sim \mathcal N(0, I)`, λ = σ².

    .. math:: f = x_q^\top (X^\top X + \lambda I)^{-1} X^\top y

    Parameters
    ----------
    X, y, xq
        Examples and query.
    lam
        Penalty λ.

    Returns
    -------
    Tensor
        ``(*batch,)``.

    Raises
    ------
    ValueError
        When the penalty is not positive.

    References
    ----------
    one-step-gd-icl
    """
    validate.positive("lam", lam)
    penalty = lam * torch.eye(X.shape[-1], dtype=X.dtype, device=X.device)
    w = torch.linalg.solve(X.mT @ X + penalty, X.mT @ y[..., None])
    return (xq * w[..., 0]).sum(-1)


@typed
def optimal_step(
    n: int, Sig_x: Float[Tensor, "d d"], Sig_w: Float[Tensor, "d d"], s2: float | Float[Tensor, ""]
) -> Float[Tensor, "d d"]:
    r"""Matrix of the best predictor that is linear in the query and in :math:`X^\top y`.

    .. math:: B = \arg\min_B \mathbb E (x_q^\top B X^\top y - y_q)^2
        = \Sigma_w \Sigma_x \bigl( (n + 1) \Sigma_x \Sigma_w \Sigma_x
        + (\operatorname{tr} \Sigma_x \Sigma_w + \sigma^2) \Sigma_x \bigr)^{-1}

    :math:`\eta I` for identities, :math:`\eta \Sigma_x^{-1}` for :math:`\Sigma_w = \Sigma_x^{-1}`, and
    :math:`\Gamma^{-1} / n` for :math:`\Sigma_w = I` without noise, with Γ from
    `dlatlas.theory.in_context_learning_dynamics.lsa_gamma`.

    Parameters
    ----------
    n
        Examples in a prompt.
    Sig_x, Sig_w
        Covariances of inputs and tasks, positive definite.
    s2
        Variance σ² of the label noise.

    Returns
    -------
    Tensor
        B (d, d).

    Raises
    ------
    ValueError
        When there is no example, a covariance is not positive definite, or the variance is negative.

    References
    ----------
    one-step-gd-icl, trained-linear-attention-icl
    """
    _check_task(n, Sig_x, Sig_w, s2)
    return torch.linalg.solve(_second_moment(n, Sig_x, Sig_w, s2), n * Sig_x @ Sig_w).mT


@typed
def step_risk(
    B: Float[Tensor, "d d"],
    n: int,
    Sig_x: Float[Tensor, "d d"],
    Sig_w: Float[Tensor, "d d"],
    s2: float | Float[Tensor, ""],
    Sig_query: Float[Tensor, "d d"] | None = None,
) -> Float[Tensor, ""]:
    r"""Expected squared error of the predictor :math:`x_q^\top B X^\top y` on Gaussian prompts of length n.

    .. math:: \operatorname{tr} \Sigma_q \Sigma_w - 2 n \operatorname{tr} \Sigma_q B \Sigma_x \Sigma_w
        + \operatorname{tr} \Sigma_q B\, \mathbb E[h h^\top] B^\top + \sigma^2, \qquad h = X^\top y

    Parameters
    ----------
    B
        The predictor.
    n
        Examples in a prompt, which need not be the number for which B was made.
    Sig_x, Sig_w, s2
        Covariances of inputs and tasks, variance of the label noise, of the prompts on which it is judged.
    Sig_query
        Covariance of the query; that of the inputs when not given.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When there is no example, a covariance is not positive definite, or the variance is negative.

    References
    ----------
    one-step-gd-icl, trained-linear-attention-icl
    """
    _check_task(n, Sig_x, Sig_w, s2)
    Sig_query = Sig_x if Sig_query is None else Sig_query
    QB = Sig_query @ B
    agreement = torch.trace(QB @ (n * Sig_x @ Sig_w))
    energy = torch.trace(QB @ _second_moment(n, Sig_x, Sig_w, s2) @ B.mT)
    return torch.trace(Sig_query @ Sig_w) - 2 * agreement + energy + s2


@typed
def one_step_risk_limit(gamma: Float[Tensor, "*shape"], rho: float) -> Float[Tensor, "*shape"]:
    r"""Risk per dimension of the optimal single step when dimension and prompt length grow together.

    .. math:: \lim \frac{\mathcal L}{d} = 1 + \rho - \frac{\gamma}{\gamma + 1 + \rho},
        \qquad \gamma = \frac nd, \quad \rho = \frac{\sigma^2}{d}

    Parameters
    ----------
    gamma
        Examples per dimension γ, positive.
    rho
        Noise variance per dimension ρ.

    Returns
    -------
    Tensor
        The shape of ``gamma``.

    Raises
    ------
    ValueError
        When a value of γ or ρ is negative.

    References
    ----------
    one-step-gd-icl
    """
    validate.in_range("gamma", gamma, 0, torch.inf)
    validate.at_least("rho", rho, 0)
    return 1 + rho - gamma / (gamma + 1 + rho)


@typed
def ridge_risk_limit(gamma: Float[Tensor, "*shape"], rho: float) -> Float[Tensor, "*shape"]:
    r"""Risk per dimension of ridge regression with the right penalty in the limit of `one_step_risk_limit`.

    .. math:: \lim \frac{\mathcal L}{d} = \rho\, m + \rho, \qquad \rho m^2 + (\rho + \gamma - 1) m - 1 = 0, \quad m > 0

    Here m is the limit of :math:`\operatorname{tr} (X^\top X / d + \rho I)^{-1} / d`, by the law of Marchenko and
    Pastur.

    Parameters
    ----------
    gamma, rho
        See `one_step_risk_limit`; ρ is positive.

    Returns
    -------
    Tensor
        The shape of ``gamma``.

    Raises
    ------
    ValueError
        When a value of γ is negative or ρ is not positive.

    References
    ----------
    one-step-gd-icl
    """
    validate.in_range("gamma", gamma, 0, torch.inf)
    validate.positive("rho", rho)
    b = rho + gamma - 1
    return ((b.square() + 4 * rho).sqrt() - b) / 2 + rho


def _second_moment(n: int, Sig_x: Tensor, Sig_w: Tensor, s2: float | Tensor) -> Tensor:
    """Second moment of X'y over Gaussian prompts."""
    variance = torch.trace(Sig_x @ Sig_w) + s2
    return n * ((n + 1) * Sig_x @ Sig_w @ Sig_x + variance * Sig_x)


def _check_task(n: int, Sig_x: Tensor, Sig_w: Tensor, s2: float | Tensor) -> None:
    validate.at_least("n", n, 1)
    validate.in_range("s2", s2, 0, torch.inf)
    _check_covariance("Sig_x", Sig_x)
    _check_covariance("Sig_w", Sig_w)


def _check_covariance(name: str, covariance: Tensor) -> None:
    smallest = torch.linalg.eigvalsh(covariance)[..., 0]
    validate.in_range(f"smallest eigenvalue of {name}", smallest, torch.finfo(covariance.dtype).tiny, torch.inf)

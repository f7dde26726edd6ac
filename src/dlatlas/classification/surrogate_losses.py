"""Surrogates for the zero-one loss: comp-sum losses with their bounds, and randomly drawn calibrated losses."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

Exponent = float | Float[Tensor, ""]
BISECTION_STEPS = 60  # halves [0, 1] down to the spacing of float64 near 1
NEGATIVE_SLOPE = 1e-6  # keeps every EnsLoss derivative strictly below zero


@typed
def comp_sum_loss(
    logits: Float[Tensor, "n K"], target: Int[Tensor, " n"], *, tau: float = 1.0, reduction: str = "mean"
) -> Float[Tensor, ""] | Float[Tensor, " n"]:
    r"""Comp-sum loss: one exponent from sum-exponential over cross-entropy to mean absolute error.

    .. math:: \ell_\tau = \frac{1 - q_y^{\tau - 1}}{\tau - 1}, \qquad \ell_1 = -\log q_y, \qquad q = \mathrm{softmax}(z)

    Parameters
    ----------
    logits, target
        Logits :math:`z`, (n, K) with K at least 2, not probabilities; labels :math:`y` in 0, ..., K - 1, (n,).
    tau
        0 sum-exponential, 1 cross-entropy, between 1 and 2 generalised cross-entropy, 2 mean absolute error.
    reduction
        ``"mean"``, ``"sum"``, or ``"none"`` for (n,).

    Returns
    -------
    Tensor
        A scalar, or (n,).

    Raises
    ------
    ValueError
        Negative tau, a label outside its range, one class only, or rows that are already probabilities.

    References
    ----------
    comp-sum-losses
    """
    _check_family(tau, logits.shape[-1])
    validate.one_of("reduction", reduction, ("mean", "sum", "none"))
    validate.labels("target", target, logits.shape[-1])
    _check_logits(logits)
    log_p = logits.log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    losses = -_deformed_log(log_p, tau)
    return losses if reduction == "none" else getattr(losses, reduction)()


@typed
def comp_sum_bound_T(beta: Float[Tensor, "*shape"], tau: float, n_classes: int) -> Float[Tensor, "*shape"]:
    r"""Least excess surrogate error that an excess zero-one error of ``beta`` comes with.

    .. math:: T_\tau(\beta) = m^{1-\tau}\,\frac{1 - A^{2-\tau}}{1-\tau}, \quad
        A = \tfrac12\left[(1+\beta)^{\frac{1}{2-\tau}} + (1-\beta)^{\frac{1}{2-\tau}}\right], \quad
        m = 2 \text{ if } \tau < 1 \text{ else } K

    for :math:`\tau < 2`, with its limit at 1; and :math:`K^{1-\tau}\beta/(\tau-1)` for :math:`\tau \ge 2`.

    Parameters
    ----------
    beta, tau, n_classes
        Excess zero-one errors in [0, 1], any shape; member of the family, at least 0; number of classes K, at least 2.

    Returns
    -------
    Tensor
        Of the shape of beta.

    Raises
    ------
    ValueError
        Beta outside [0, 1], negative tau, fewer than two classes.

    References
    ----------
    comp-sum-losses
    """
    _check_family(tau, n_classes)
    validate.in_range("beta", beta, 0, 1)
    if tau == 1:
        return (torch.special.xlog1py(1 + beta, beta) + torch.special.xlog1py(1 - beta, -beta)) / 2
    if tau >= 2:
        return n_classes ** (1 - tau) * beta / (tau - 1)
    power = 1 / (2 - tau)
    # A - 1 rather than A: T vanishes like beta squared, which 1 - A would lose to rounding
    excess = (torch.expm1(power * torch.log1p(beta)) + torch.expm1(power * torch.log1p(-beta))) / 2
    shrink = (2 if tau < 1 else n_classes) ** (1 - tau)
    return shrink * torch.expm1((2 - tau) * torch.log1p(excess)) / (tau - 1)


@typed
def comp_sum_bound_gamma(t: Float[Tensor, "*shape"], tau: float, n_classes: int) -> Float[Tensor, "*shape"]:
    r"""Largest excess zero-one error that an excess surrogate error of ``t`` allows.

    .. math:: \Gamma_\tau(t) = T_\tau^{-1}(\min(t, T_\tau(1)))

    by bisection with a fixed number of steps, so it maps under vmap; it is not differentiable.

    Parameters
    ----------
    t, tau, n_classes
        Excess surrogate errors, at least 0, any shape; the others as in `comp_sum_bound_T`.

    Returns
    -------
    Tensor
        Of the shape of t, in [0, 1].

    Raises
    ------
    ValueError
        Negative t or tau, fewer than two classes.

    References
    ----------
    comp-sum-losses
    """
    validate.in_range("t", t, 0, torch.inf)
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        below = comp_sum_bound_T(middle, tau, n_classes) < t
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


@typed
def conditional_regret(
    p: Float[Tensor, "n K"], q: Float[Tensor, "n K"], tau: float = 1.0
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""Excess zero-one error and excess comp-sum error at one input, when labels follow p and the model says q.

    .. math:: \max_k p_k - p_{\arg\max q}, \qquad
        \sum_k p_k f_\tau(q_k) - \inf_s \sum_k p_k f_\tau(s_k), \qquad f_\tau(s) = \frac{1 - s^{\tau-1}}{\tau-1}

    The infimum is at :math:`s_k \propto p_k^{1/(2-\tau)}`, for :math:`\tau \ge 2` at a vertex.

    Parameters
    ----------
    p, q, tau
        True and predicted class probabilities, rows of (n, K), q positive for a finite answer; member of the family.

    Returns
    -------
    tuple of Tensor
        Zero-one regret and surrogate regret of every row, each (n,).

    Raises
    ------
    ValueError
        Rows of p or q that are no probabilities, negative tau, one class only.

    References
    ----------
    comp-sum-losses
    """
    _check_family(tau, p.shape[-1])
    _check_probabilities("p", p)
    _check_probabilities("q", q)
    best = p.amax(-1)
    zero_one = best - p.gather(-1, q.argmax(-1, keepdim=True)).squeeze(-1)
    return zero_one, -(p * _deformed_log(q.log(), tau)).sum(-1) - _bayes_risk(p, best, tau)


def _bayes_risk(p: Tensor, best: Tensor, tau: float) -> Tensor:
    """Infimum over the simplex of the expected comp-sum loss."""
    if tau == 1:
        return torch.special.entr(p).sum(-1)
    if tau >= 2:
        return (1 - best) / (tau - 1)
    normaliser = (p ** (1 / (2 - tau))).sum(-1)
    return -torch.expm1((2 - tau) * normaliser.log()) / (tau - 1)


def _deformed_log(log_p: Tensor, tau: float) -> Tensor:
    """(p**(tau - 1) - 1)/(tau - 1) from log p; log p itself at tau = 1."""
    return log_p if tau == 1 else torch.expm1((tau - 1) * log_p) / (tau - 1)


def _check_family(tau: float, n_classes: int) -> None:
    validate.at_least("tau", tau, 0)
    validate.at_least("the number of classes", n_classes, 2)


def _check_logits(logits: Tensor) -> None:
    """Refuse what is a softmax already: rows without a negative entry that all sum to one."""
    distance = torch.maximum((logits.sum(-1) - 1).abs(), -logits.amin(-1)).amax()
    name = "the distance of logits from rows of probabilities (pass scores, not their softmax)"
    validate.in_range(name, distance, 1e-5, torch.inf)


def _check_probabilities(name: str, rows: Tensor) -> None:
    validate.in_range(name, rows, 0, 1)
    validate.in_range(f"the sum of a row of {name}", rows.sum(-1), 1 - 1e-4, 1 + 1e-4)


@typed
def box_cox_inverse(x: Float[Tensor, "*shape"], lam: Exponent) -> Float[Tensor, "*shape"]:
    r"""Inverse Box-Cox transform, from the line to the non-negative numbers.

    .. math:: v = \max(1 + \lambda x, 0)^{1/\lambda}, \qquad v = e^x \text{ at } \lambda = 0

    Infinite, its limit, where :math:`\lambda < 0` and :math:`1 + \lambda x \le 0`.

    Parameters
    ----------
    x, lam
        Numbers of any shape, and the exponent :math:`\lambda`, any real number.

    Returns
    -------
    Tensor
        Of the shape of x.

    References
    ----------
    ensloss
    """
    lam = torch.as_tensor(lam, dtype=x.dtype, device=x.device)
    nonzero = torch.where(lam == 0, torch.ones_like(lam), lam)
    power = torch.exp(torch.log1p((nonzero * x).clamp_min(-1)) / nonzero)
    return torch.where(lam == 0, torch.exp(x), power)


@typed
def ensloss_gradients(
    margins: Float[Tensor, " n"], noise: Float[Tensor, " n"], *, lam: Exponent = 0.0, clip: float = 1.0
) -> Float[Tensor, " n"]:
    r"""Derivatives, at the margins of one batch, of a randomly drawn convex calibrated loss.

    .. math:: g = \mathrm{sort}(\max(-\mathrm{BC}^{-1}_\lambda(\xi), -c)), \qquad
        g_i = \frac{g_{(\mathrm{rank}\ z_i)}}{\max(z_i, 1)} - 10^{-6}

    The smallest margin receives the most negative derivative: g, (n,) and detached, is non-decreasing and negative.

    Parameters
    ----------
    margins, noise
        :math:`z_i = y_i f(x_i)` with :math:`y_i \in \{-1, +1\}` and independent standard normal :math:`\xi_i`, (n,).
    lam, clip
        Box-Cox exponent :math:`\lambda`, and largest size :math:`c` of a derivative.

    Raises
    ------
    ValueError
        Fewer than two margins (no ranks), clip not positive, or margins made with {0, 1} labels.

    References
    ----------
    ensloss
    """
    validate.at_least("the batch size", len(margins), 2)
    validate.positive("clip", clip)
    _check_margins(margins)
    z = margins.detach()
    legal = (-box_cox_inverse(noise, lam)).clamp_min(-clip).sort().values
    rank = z.argsort(stable=True).argsort()
    return legal.gather(0, rank) / z.clamp_min(1) - NEGATIVE_SLOPE


@typed
def ens_loss(
    scores: Float[Tensor, " n"], targets: Int[Tensor, " n"], noise: Float[Tensor, " n"], *, lam: Exponent = 0.0
) -> Float[Tensor, ""]:
    r"""EnsLoss: a scalar whose gradient, not value, is that of a randomly drawn convex calibrated loss.

    .. math:: \frac1n \sum_i \mathrm{stopgrad}(g_i)\, z_i, \qquad z_i = (2 t_i - 1) f(x_i)

    Parameters
    ----------
    scores, targets
        :math:`f(x_i)`, positive for class 1, and labels :math:`t_i \in \{0, 1\}`, both (n,).
    noise, lam
        As in `ensloss_gradients`; the noise fresh at every step.

    Returns
    -------
    Tensor
        A scalar; only its gradient has a meaning.

    Raises
    ------
    ValueError
        Targets other than 0 and 1, fewer than two examples.

    References
    ----------
    ensloss
    """
    validate.labels("targets", targets, 2)
    margins = (2 * targets - 1) * scores
    return (ensloss_gradients(margins, noise, lam=lam) * margins).mean()


def _check_margins(margins: Tensor) -> None:
    """Refuse a product of scores with {0, 1} labels: it has zeros wherever the label is 0.

    All zeros pass (hence the remainder): so answers a network whose last layer starts at zero.
    """
    zeros, few = (margins == 0).sum() % len(margins), max(1, len(margins) // 4)
    validate.in_range("the number of margins that are exactly 0 (labels must be -1 and +1)", zeros, 0, few)

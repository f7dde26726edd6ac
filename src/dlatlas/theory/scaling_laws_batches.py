"""Steps, tokens and batch sizes: the hyperbola that trades them, and the critical batch size estimated from runs."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.power_laws import fit_power_law
from dlatlas.typed import typed


class Hyperbola(NamedTuple):
    """Smallest number of steps, and critical batch size, for every level of loss: (levels,) each."""

    S_min: Tensor
    B_crit: Tensor


class CriticalBatch(NamedTuple):
    r"""The law :math:`B_{\mathrm{crit}} = B_* L^{-1/\alpha_B}` with the standard error of :math:`1/\alpha_B`."""

    B_star: Tensor
    inverse_a_B: Tensor
    inverse_a_B_error: Tensor


@typed
def to_min_steps(S: Float[Tensor, "*#n"], B: Float[Tensor, "*#n"], B_crit: Float[Tensor, "*#n"]) -> Float[Tensor, "*n"]:
    r"""Steps that a huge batch would have taken to the loss that S steps with batches of B tokens reach.

    .. math:: S_{\min} = \frac{S}{1 + B_{\mathrm{crit}} / B}

    Parameters
    ----------
    S, B, B_crit
        Steps, batch size, and critical batch size at the loss reached, both in tokens; shapes that broadcast.

    Returns
    -------
    Tensor
        :math:`S_{\min} \le S`.

    Raises
    ------
    ValueError
        When a batch size is not positive or a critical one is negative.

    References
    ----------
    scaling-laws-part-one
    """
    _check_batches(B, B_crit)
    return S / (1 + B_crit / B)


@typed
def to_min_tokens(
    E: Float[Tensor, "*#n"], B: Float[Tensor, "*#n"], B_crit: Float[Tensor, "*#n"]
) -> Float[Tensor, "*n"]:
    r"""Tokens that tiny batches would have needed for the loss that E tokens in batches of B reach.

    .. math:: E_{\min} = \frac{E}{1 + B / B_{\mathrm{crit}}}, \qquad E = B S

    Parameters
    ----------
    E, B, B_crit
        Tokens read, batch size, and critical batch size at the loss reached; shapes that broadcast.

    Returns
    -------
    Tensor
        :math:`E_{\min} \le E`.

    Raises
    ------
    ValueError
        When a batch size is not positive or a critical one is negative.

    References
    ----------
    scaling-laws-part-one
    """
    _check_batches(B, B_crit)
    return E * B_crit / (B_crit + B)


@typed
def steps_to_levels(
    steps: Float[Tensor, " t"], losses: Float[Tensor, "*runs t"], levels: Float[Tensor, " levels"]
) -> Float[Tensor, "*runs levels"]:
    r"""Steps at which loss curves first pass below each level, interpolated between two measurements.

    .. math:: \log S = \log s_{j-1} + \frac{\ell_{j-1} - \ell}{\ell_{j-1} - \ell_j} \log \frac{s_j}{s_{j-1}}

    with j the first measurement at or below the level and :math:`\ell` the logarithm of the loss.

    Parameters
    ----------
    steps
        When the losses were measured, positive, increasing.
    losses
        Positive losses of every run.
    levels
        Losses to reach, each below the first and not below the smallest loss of every run.

    Returns
    -------
    Tensor
        Steps, no integers.

    Raises
    ------
    ValueError
        When a run starts below a level or does not reach it.

    References
    ----------
    scaling-laws-part-one
    """
    validate.in_range("steps", steps, torch.finfo(steps.dtype).tiny, torch.inf)
    lowest, first = losses.amin(-1), losses[..., 0]
    validate.in_range("levels.min() - losses.min() of every run", levels.min() - lowest, 0.0, torch.inf)
    validate.in_range("first loss of every run - levels.max()", first - levels.max(), 0.0, torch.inf)
    reached = losses[..., None, :] <= levels[:, None]
    after = reached.to(losses.dtype).argmax(-1).clamp(min=1)
    log_loss, log_step = losses.log(), steps.log()
    loss_after, loss_before = log_loss.gather(-1, after), log_loss.gather(-1, after - 1)
    step_after, step_before = log_step[after], log_step[after - 1]
    share = (loss_before - levels.log()) / (loss_before - loss_after)
    return (step_before + share * (step_after - step_before)).exp()


@typed
def fit_hyperbola(steps: Float[Tensor, "levels batches"], B: Float[Tensor, " batches"]) -> Hyperbola:
    r"""Split the steps to a loss into those that no batch size can save and those that noise costs.

    .. math:: S(B) = S_{\min} \Bigl(1 + \frac{B_{\mathrm{crit}}}{B}\Bigr)

    Linear least squares in 1/B of the relative errors, since S varies over orders of magnitude.

    Parameters
    ----------
    steps
        Steps to each level of loss with each batch size, positive.
    B
        Batch sizes, at least two different ones; an infinite one is welcome.

    Returns
    -------
    Hyperbola
        :math:`S_{\min}` and :math:`B_{\mathrm{crit}}` for each level. Where larger batches do not help, or help more
        than in proportion, one of the two is not positive.

    Raises
    ------
    ValueError
        When steps or batch sizes are not positive, or there is one batch size only.

    References
    ----------
    scaling-laws-part-one
    """
    validate.at_least("number of batch sizes", B.shape[0], 2)
    validate.in_range("steps", steps, torch.finfo(steps.dtype).tiny, torch.finfo(steps.dtype).max)
    validate.in_range("B", B, torch.finfo(B.dtype).tiny, torch.inf)
    u, v = 1 / steps, 1 / (B * steps)
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    determinant = uu * vv - uv * uv
    S_min = (vv * u.sum(-1) - uv * v.sum(-1)) / determinant
    noise = (uu * v.sum(-1) - uv * u.sum(-1)) / determinant
    return Hyperbola(S_min, noise / S_min)


@typed
def critical_batch(
    steps: Float[Tensor, "levels batches"], B: Float[Tensor, " batches"], levels: Float[Tensor, " levels"]
) -> CriticalBatch:
    r"""Estimate how the critical batch size grows as the loss falls.

    .. math:: \log B_{\mathrm{crit}}(L) = \log B_* - \frac{1}{\alpha_B} \log L

    with :math:`B_{\mathrm{crit}}(L)` from `fit_hyperbola` at each level.

    Parameters
    ----------
    steps
        Steps to each level of loss with each batch size, of one model.
    B, levels
        Batch sizes in tokens, and the losses, at least three.

    Returns
    -------
    CriticalBatch
        :math:`B_*`, :math:`1/\alpha_B` and the standard error of the latter.

    Raises
    ------
    ValueError
        When a fitted critical batch size is not positive, and as `fit_hyperbola`.

    References
    ----------
    scaling-laws-part-one
    """
    fit = fit_power_law(levels, fit_hyperbola(steps, B).B_crit)
    return CriticalBatch(fit.scale**fit.exponent, fit.exponent, fit.exponent_error)


def _check_batches(B: Tensor, B_crit: Tensor) -> None:
    validate.in_range("B", B, torch.finfo(B.dtype).tiny, torch.inf)
    validate.in_range("B_crit", B_crit, 0.0, torch.inf)

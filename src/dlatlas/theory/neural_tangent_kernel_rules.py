"""Rules that turn predicted losses of the arms of a bandit into probabilities."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

SMALLEST = math.ulp(0.0)  # the closed interval from here on is all numbers greater than 0


@typed
def igw_square(
    yhat: Float[Tensor, "*batch arms"], gamma: float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch arms"]:
    r"""Inverse-gap weighting for predictions from squared loss.

    .. math:: p_a = \frac{1}{K + \gamma\,(\hat y_a - \hat y_b)} \quad (a \ne b), \qquad p_b = 1 - \sum_{a \ne b} p_a

    Parameters
    ----------
    yhat
        Predicted losses :math:`\hat y` of K arms; :math:`b` is the arm with the least.
    gamma
        Greed :math:`\gamma > 0`: 0 would be uniform, infinity the best arm.

    Returns
    -------
    Tensor
        Probabilities of the arms.

    Raises
    ------
    ValueError
        For a ``gamma`` that is not positive.

    References
    ----------
    neural-square-fast-cb
    """
    validate.in_range("gamma", gamma, SMALLEST, math.inf)
    best, gap, gamma = _gaps(yhat, gamma)
    return _fill_best(best, 1 / (yhat.shape[-1] + gamma * gap))


@typed
def igw_fast(
    yhat: Float[Tensor, "*batch arms"], gamma: float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch arms"]:
    r"""Inverse-gap weighting for predictions from cross-entropy: less exploration where the best arm's loss is small.

    .. math:: p_a = \frac{\hat y_b}{K \hat y_b + \gamma\,(\hat y_a - \hat y_b)} \quad (a \ne b), \qquad
        p_b = 1 - \sum_{a \ne b} p_a

    Parameters
    ----------
    yhat
        Predicted losses :math:`\hat y \in [0, 1]` of K arms; :math:`b` is the arm with the least. Arms that tie at 0
        share equally.
    gamma
        Greed :math:`\gamma > 0`.

    Returns
    -------
    Tensor
        Probabilities of the arms.

    Raises
    ------
    ValueError
        For predictions outside [0, 1] (a logit, or a reward below 0), or a ``gamma`` that is not positive.

    References
    ----------
    neural-square-fast-cb
    """
    validate.in_range("yhat", yhat, 0.0, 1.0)
    validate.in_range("gamma", gamma, SMALLEST, math.inf)
    best, gap, gamma = _gaps(yhat, gamma)
    arms, lowest = yhat.shape[-1], yhat.amin(-1, keepdim=True)
    weight = arms * lowest + gamma * gap
    tied_at_zero = weight == 0
    return _fill_best(best, torch.where(tied_at_zero, 1 / arms, lowest / torch.where(tied_at_zero, 1.0, weight)))


@typed
def epsilon_greedy(
    yhat: Float[Tensor, "*batch arms"], epsilon: float | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch arms"]:
    r"""The arm with the least predicted loss, or with probability :math:`\varepsilon` any arm.

    .. math:: p_a = \varepsilon / K \quad (a \ne b), \qquad p_b = 1 - \varepsilon\,(K - 1) / K

    Parameters
    ----------
    yhat, epsilon
        Predicted losses of K arms, of which :math:`b` has the least; :math:`\varepsilon \in [0, 1]`.

    Returns
    -------
    Tensor
        Probabilities of the arms.

    Raises
    ------
    ValueError
        For an ``epsilon`` outside [0, 1].

    References
    ----------
    neural-square-fast-cb
    """
    validate.in_range("epsilon", epsilon, 0.0, 1.0)
    best, _, epsilon = _gaps(yhat, epsilon)
    return _fill_best(best, epsilon / yhat.shape[-1] * torch.ones_like(yhat))


def _gaps(yhat: Tensor, setting: float | Tensor) -> tuple[Tensor, Tensor, Any]:
    """Where the least prediction is, how far the others are above it, and the setting shaped to go with them."""
    best = torch.arange(yhat.shape[-1], device=yhat.device) == yhat.argmin(-1, keepdim=True)
    gap = yhat - yhat.amin(-1, keepdim=True)
    return best, gap, setting[..., None] if isinstance(setting, Tensor) else setting


def _fill_best(best: Tensor, p: Tensor) -> Tensor:
    others = torch.where(best, 0.0, p)
    return torch.where(best, 1 - others.sum(-1, keepdim=True), others)

"""Scaling laws of the loss in model size, steps and batch size: prediction, estimation, best use of compute."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.power_laws import fit_power_law, power_law
from dlatlas.theory.scaling_laws_batches import critical_batch, to_min_steps
from dlatlas.typed import typed

_BISECTIONS = 60

Number = float | Float[Tensor, ""]


class ScalingLaw(NamedTuple):
    r"""The six constants of the law :math:`L = (N_c/N)^{\alpha_N} + (S_c/S_{\min})^{\alpha_S}`.

    Attributes
    ----------
    N_c, a_N
        Scale (parameters) and exponent of model size.
    B_star, inverse_a_B
        Critical batch size at L = 1 (tokens), and :math:`1/\alpha_B`: zero for one that does not change with the loss.
    S_c, a_S
        Scale (steps) and exponent of training.
    """

    N_c: Number
    a_N: Number
    B_star: Number
    inverse_a_B: Number
    S_c: Number
    a_S: Number


class Allocation(NamedTuple):
    """The best use of a compute budget: parameters, batch size in tokens, steps, and the loss, each ``(*n)``."""

    N: Tensor
    B: Tensor
    S: Tensor
    L: Tensor


@typed
def critical_batch_size(L: Float[Tensor, "*n"], law: ScalingLaw) -> Float[Tensor, "*n"]:
    r"""Batch size at which a loss costs twice the fewest steps and twice the fewest tokens.

    .. math:: B_{\mathrm{crit}}(L) = B_* / L^{1/\alpha_B}

    Parameters
    ----------
    L
        Losses, positive, in nats a token.
    law
        The constants.

    Returns
    -------
    Tensor
        Tokens a step.

    Raises
    ------
    ValueError
        When a loss is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    validate.in_range("L", L, torch.finfo(L.dtype).tiny, torch.inf)
    return law.B_star * L ** (-law.inverse_a_B)


@typed
def predict_trajectory(
    N: Float[Tensor, "*#n"], S: Float[Tensor, "*#n"], B: Float[Tensor, "*#n"], law: ScalingLaw
) -> Float[Tensor, "*n"]:
    r"""Loss after S steps of a model of N parameters with batches of B tokens.

    .. math:: L = \Bigl(\frac{N_c}{N}\Bigr)^{\alpha_N}
        + \Bigl(\frac{S_c \,(1 + B_{\mathrm{crit}}(L) / B)}{S}\Bigr)^{\alpha_S}

    The right-hand side falls in L, so there is one root, between the first term and the value of the right-hand side
    there. Bisection in log L finds it; one step of Newton's method carries the gradient.

    Parameters
    ----------
    N, S, B
        Parameters, steps and batch sizes, positive; shapes that broadcast. An infinite B is welcome.
    law
        The constants, of which :math:`\alpha_N` and :math:`\alpha_S` are positive and :math:`1/\alpha_B` is at least 0.

    Returns
    -------
    Tensor
        Losses.

    Raises
    ------
    ValueError
        When N, S or B is not positive, or an exponent makes the root ambiguous.

    References
    ----------
    scaling-laws-part-one
    """
    for name, value in (("N", N), ("S", S), ("B", B)):
        validate.in_range(name, value, torch.finfo(value.dtype).tiny, torch.inf)
    _check_law(law)
    N, S, B = torch.broadcast_tensors(N, S, B)

    def right_side(L: Tensor) -> Tensor:
        return power_law(N, law.N_c, law.a_N) + _step_term(L, S, B, law)

    with torch.no_grad():
        low = power_law(N, law.N_c, law.a_N).log()
        high = right_side(low.exp()).log()
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            above = right_side(middle.exp()) > middle.exp()
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        L = ((low + high) / 2).exp()
        # d/dL of the step term is -a_S (1/a_B) (B_crit/B) / (1 + B_crit/B) / L times the term itself.
        share = critical_batch_size(L, law) / B
        slope = -law.a_S * law.inverse_a_B * share / (1 + share) / L * _step_term(L, S, B, law)
    return L + (right_side(L) - L) / (1 - slope)


@typed
def steps_for_loss(
    L: Float[Tensor, "*#n"], N: Float[Tensor, "*#n"], B: Float[Tensor, "*#n"], law: ScalingLaw
) -> Float[Tensor, "*n"]:
    r"""Steps that a model of N parameters needs to a loss L with batches of B tokens: `predict_trajectory` inverted.

    .. math:: S = S_c \bigl(L - (N_c/N)^{\alpha_N}\bigr)^{-1/\alpha_S}
        \Bigl(1 + \frac{B_{\mathrm{crit}}(L)}{B}\Bigr)

    Parameters
    ----------
    L
        Losses above what the model can reach.
    N, B
        Parameters and batch sizes, positive; shapes that broadcast.
    law
        The constants.

    Returns
    -------
    Tensor
        Steps, no integers.

    Raises
    ------
    ValueError
        When a loss is not above the smallest one that the model reaches, or N or B is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    _check_law(law)
    validate.in_range("B", B, torch.finfo(B.dtype).tiny, torch.inf)
    excess = L - power_law(N, law.N_c, law.a_N)
    validate.in_range("L - (N_c/N)^a_N", excess, torch.finfo(L.dtype).tiny, torch.inf)
    return law.S_c * excess ** (-1 / law.a_S) * (1 + critical_batch_size(L, law) / B)


@typed
def fit_scaling_law(
    N: Float[Tensor, " sizes"],
    converged: Float[Tensor, " sizes"],
    B: Float[Tensor, " batches"],
    levels: Float[Tensor, "sizes levels"],
    steps: Float[Tensor, "sizes levels batches"],
    *,
    reference: int = -1,
) -> ScalingLaw:
    r"""Estimate the six constants one after the other, from runs of small models.

    .. math:: (N_c, \alpha_N) \text{ from } L(N, \infty); \qquad (B_*, \alpha_B) \text{ from one size}; \qquad
        \log\bigl(L - (N_c/N)^{\alpha_N}\bigr) = \alpha_S \log S_c - \alpha_S \log S_{\min}

    Parameters
    ----------
    N, converged
        Parameters of each model, at least three, and its loss after long training with large batches.
    B
        Batch sizes in tokens.
    levels, steps
        Losses of each model, all above its fitted :math:`(N_c/N)^{\alpha_N}`, and the steps to them with each batch
        size: at a constant learning rate, without the warm-up.
    reference
        The model that the second estimate uses.

    Returns
    -------
    ScalingLaw
        The constants, with :math:`1/\alpha_B \ge 0` as the law demands.

    Raises
    ------
    ValueError
        When a level is not above what the model can reach by the fit, and as `fit_power_law` and `critical_batch`.

    References
    ----------
    scaling-laws-part-one
    """
    size = fit_power_law(N, converged)
    batch = critical_batch(steps[reference], B, levels[reference])
    # A slope that noise has turned negative is set to its bound: the best fit then is the mean of log B_crit.
    too_low = batch.inverse_a_B.clamp(max=0.0)
    B_star = batch.B_star * (-too_low * levels[reference].log().mean()).exp()
    law = ScalingLaw(size.scale, size.exponent, B_star, batch.inverse_a_B - too_low, 1.0, 1.0)
    L = levels[:, :, None].expand_as(steps)
    S_min = to_min_steps(steps, B, critical_batch_size(L, law))
    floor = power_law(N, size.scale, size.exponent)[:, None, None].expand_as(steps)
    training = fit_power_law(S_min.flatten(), L.flatten(), floor.flatten())
    return law._replace(S_c=training.scale, a_S=training.exponent)


@typed
def optimal_allocation(C: Float[Tensor, "*n"], law: ScalingLaw) -> Allocation:
    r"""Model size, batch size and steps that give the smallest loss for C floating-point operations.

    .. math:: C = 6 N B S, \quad B = B_{\mathrm{crit}}(L), \quad S = 2 S_{\min}: \qquad
        L \propto C^{-\alpha_C}, \quad N \propto C^{\alpha_C/\alpha_N}, \quad B \propto C^{\alpha_C/\alpha_B}, \quad
        S \propto C^{\alpha_C/\alpha_S}, \quad
        \frac1{\alpha_C} = \frac1{\alpha_N} + \frac1{\alpha_B} + \frac1{\alpha_S}

    At the optimum the step term is :math:`\alpha_N / \alpha_S` times the size term.

    Parameters
    ----------
    C
        Budgets, positive.
    law
        The constants.

    Returns
    -------
    Allocation
        N, B, S and L for each budget.

    Raises
    ------
    ValueError
        When a budget is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    validate.in_range("C", C, torch.finfo(C.dtype).tiny, torch.inf)
    _check_law(law)
    size_share = law.a_S / (law.a_S + law.a_N)

    def at(L: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        N = law.N_c * (size_share * L) ** (-1 / law.a_N)
        S = 2 * law.S_c * ((1 - size_share) * L) ** (-1 / law.a_S)
        return N, critical_batch_size(L, law), S

    N, B, S = at(torch.ones_like(C))
    L = (C / (6 * N * B * S)) ** (-1 / (1 / law.a_N + law.inverse_a_B + 1 / law.a_S))
    return Allocation(*at(L), L)


def _step_term(L: Tensor, S: Tensor, B: Tensor, law: ScalingLaw) -> Tensor:
    return (law.S_c * (1 + critical_batch_size(L, law) / B) / S) ** law.a_S


def _check_law(law: ScalingLaw) -> None:
    for name in ("N_c", "a_N", "S_c", "a_S", "B_star"):
        value = torch.as_tensor(getattr(law, name))
        validate.in_range(name, value, torch.finfo(value.dtype).tiny, torch.inf)
    validate.in_range("inverse_a_B", torch.as_tensor(law.inverse_a_B), 0.0, torch.inf)

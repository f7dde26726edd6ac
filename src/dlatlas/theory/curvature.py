"""Opposing signals: detecting groups whose losses swap, and the two-layer model in which they sharpen the loss."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad

from dlatlas.ops import validate
from dlatlas.ops.hessian import flatten, hvp, lanczos, ritz
from dlatlas.typed import typed


@typed
def sharpness(
    loss: Callable[[Any], Tensor], params: Any, start: Float[Tensor, " p"], *, m: int = 20
) -> Float[Tensor, ""]:
    r"""Largest eigenvalue of the Hessian of a loss, by Lanczos.

    .. math:: \lambda_1 = \max_{\lVert v \rVert = 1} v^\top \nabla^2 \mathcal L(\theta)\, v

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar that is the same at every call (no dropout, no batch statistics).
    params
        A tensor or a tree of tensors :math:`\theta` with p entries.
    start
        A random vector (p,).
    m
        Hessian-vector products, at most p. The result approaches :math:`\lambda_1` from below.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When m is out of range or the start is zero.

    References
    ----------
    opposing-signals
    """
    return ritz(*lanczos(lambda v: hvp(loss, params, v), start, m))[0][-1]


@typed
def opposing_groups(
    losses_t: Float[Tensor, " n"], losses_t1: Float[Tensor, " n"], k: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    r"""Samples whose loss rose most and fell most in one full-batch step.

    .. math:: U = \operatorname{top}_k \bigl( \ell_i(\theta_{t+1}) - \ell_i(\theta_t) \bigr), \qquad
        D = \operatorname{top}_k \bigl( \ell_i(\theta_t) - \ell_i(\theta_{t+1}) \bigr)

    Parameters
    ----------
    losses_t, losses_t1
        Losses of the same n samples before and after the step. The step must be a full-batch one: the noise of a
        minibatch would move the losses of its own samples.
    k
        Size of each group, at most n / 2.

    Returns
    -------
    tuple
        Indices of the rising and of the falling samples, the largest change first.

    Raises
    ------
    ValueError
        When the groups would be empty or overlap.

    References
    ----------
    opposing-signals
    """
    validate.in_range("k", k, 1, len(losses_t) // 2)
    change = losses_t1 - losses_t
    return change.topk(k).indices, (-change).topk(k).indices


@typed
def group_gradient_cosine(
    losses: Callable[[Any], Tensor], params: Any, group_a: Int[Tensor, " a"], group_b: Int[Tensor, " b"]
) -> Float[Tensor, ""]:
    r"""Cosine between the mean gradients of two groups of samples.

    .. math:: \cos(g_A, g_B), \qquad g_A = \frac{1}{|A|} \sum_{i \in A} \nabla_\theta\, \ell_i(\theta)

    Parameters
    ----------
    losses
        ``losses(params)`` gives the loss of every sample, (n,).
    params
        A tensor or a tree of tensors :math:`\theta`.
    group_a, group_b
        Indices of the samples.

    Returns
    -------
    Tensor
        A scalar from -1 (the groups pull in opposite directions) to 1.

    Raises
    ------
    ValueError
        When a group is empty.

    References
    ----------
    opposing-signals
    """
    gradients = []
    for name, group in (("group_a", group_a), ("group_b", group_b)):
        validate.at_least(f"size of {name}", len(group), 1)
        gradients.append(flatten(grad(lambda p, group=group: losses(p)[group].mean())(params)))
    return F.cosine_similarity(*gradients, dim=0)


@typed
def opposing_toy_loss(weights: Float[Tensor, "3"], *, al: float, be: float, ka: float = 1.0) -> Float[Tensor, ""]:
    r"""Population loss of the two-layer linear model on a signal and a rare feature with two opposite signs.

    .. math:: L(c, b, b_o) = \tfrac12 (c b - \beta)^2 + \tfrac12 \alpha\, (c b_o)^2 + \tfrac12 \kappa^2 \alpha

    for :math:`x_s \sim \mathcal N(0, 1)`, :math:`x_o = \pm \sqrt{\alpha / p}` with total probability p and else 0,
    the target :math:`\beta x_s + \kappa |x_o|` and the prediction :math:`c\,(b x_s + b_o x_o)`.

    Parameters
    ----------
    weights
        :math:`(c, b, b_o)`.
    al, be, ka
        Variance :math:`\alpha` of the rare feature, strength :math:`\beta` of the signal, and strength
        :math:`\kappa` of the part of the target that the model cannot express.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When :math:`\alpha` or :math:`\beta` is not positive.

    References
    ----------
    opposing-signals
    """
    _check_toy(al, be)
    c, b, bo = weights
    return (c * b - be).square() / 2 + al * (c * bo).square() / 2 + ka**2 * al / 2


@typed
def opposing_toy(
    weights: Float[Tensor, "3"], *, al: float, be: float, eta: float, steps: int
) -> Float[Tensor, "times 3"]:
    r"""Gradient descent on `opposing_toy_loss`.

    .. math:: c \leftarrow c - \eta \bigl( (c b - \beta)\, b + \alpha c\, b_o^2 \bigr), \qquad
        b \leftarrow b - \eta\, (c b - \beta)\, c, \qquad b_o \leftarrow (1 - \eta \alpha c^2)\, b_o

    Parameters
    ----------
    weights
        The start :math:`(c, b, b_o)`.
    al, be
        See `opposing_toy_loss`; :math:`\kappa` does not enter the gradient.
    eta, steps
        Learning rate :math:`\eta`, number of steps.

    Returns
    -------
    Tensor
        The weights before each step and at the end, (steps + 1, 3).

    Raises
    ------
    ValueError
        When a constant or the learning rate is not positive, or the number of steps is negative.

    References
    ----------
    opposing-signals
    """
    validate.positive("eta", eta)
    validate.at_least("steps", steps, 0)
    _check_toy(al, be)
    c, b, bo = weights
    path = [weights]
    for _ in range(steps):
        error = c * b - be
        c, b, bo = (
            c - eta * (error * b + al * c * bo.square()),
            b - eta * error * c,
            (1 - eta * al * c.square()) * bo,
        )
        path.append(torch.stack([c, b, bo]))
    return torch.stack(path)


@typed
def opposing_toy_sharpening(t: Float[Tensor, " times"], *, al: float, be: float, c0: float) -> Float[Tensor, " times"]:
    r"""Curvature along the rare feature under gradient flow from a balanced start: logistic growth.

    .. math:: \alpha c^2(t) = \frac{\alpha \beta}{1 + (\beta / c_0^2 - 1)\, e^{-2 \beta t}}
        \qquad (b = c,\; b_o = 0)

    Parameters
    ----------
    t
        Times, :math:`\eta` times the number of steps for gradient descent.
    al, be
        See `opposing_toy_loss`.
    c0
        The start :math:`c(0) = b(0)`, positive.

    Returns
    -------
    Tensor
        (times,), from :math:`\alpha c_0^2` to :math:`\alpha \beta`.

    Raises
    ------
    ValueError
        When a constant or the start is not positive.

    References
    ----------
    opposing-signals
    """
    _check_toy(al, be)
    validate.positive("c0", c0)
    return al * be / (1 + (be / c0**2 - 1) * torch.exp(-2 * be * t))


def _check_toy(al: float, be: float) -> None:
    validate.positive("al", al)
    validate.positive("be", be)

"""The exact infinite-width limit of a linear network with one hidden layer in the mu-parametrisation."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


class LinearLimit(NamedTuple):
    r"""State of the infinitely wide linear network: :math:`U = U_0 A + V_0 B`, :math:`V = U_0 D + V_0 C`."""

    A: Float[Tensor, "d d"]
    B: Float[Tensor, "o d"]
    C: Float[Tensor, "o o"]
    D: Float[Tensor, "d o"]


def squared_error_slope(f: Tensor, y: Tensor) -> Tensor:
    r"""Slope of :math:`\frac12 \lVert f - y \rVert^2` by f."""
    return f - y


@typed
def mup_linear_start(d: int, o: int, *, like: Tensor) -> LinearLimit:
    r"""State of the limit before training: :math:`A = I_d, B = 0, C = I_o, D = 0`.

    Parameters
    ----------
    d, o
        Dimensions of the inputs and the outputs.
    like
        A tensor of the wanted dtype and device.

    Returns
    -------
    LinearLimit
        The state.

    References
    ----------
    mu-parametrisation
    """
    eye = {n: torch.eye(n, dtype=like.dtype, device=like.device) for n in (d, o)}
    return LinearLimit(eye[d], like.new_zeros(o, d), eye[o], like.new_zeros(d, o))


@typed
def mup_linear_map(state: LinearLimit, *, s_u: float, s_v: float) -> Float[Tensor, "o d"]:
    r"""The map that the infinitely wide network computes, :math:`s_u D^\top A + s_v C^\top B`.

    Parameters
    ----------
    state, s_u, s_v
        As in `mup_linear_limit`.

    Returns
    -------
    Tensor
        (o, d).

    References
    ----------
    mu-parametrisation
    """
    return s_u * state.D.mT @ state.A + s_v * state.C.mT @ state.B


@typed
def mup_linear_gram(state: LinearLimit, *, s_u: float, s_v: float) -> Float[Tensor, "d d"]:
    r"""Inner products of the features of two inputs in the limit.

    .. math:: \frac1n h(x) \cdot h(x') = x^\top \bigl( s_u A^\top A + s_v B^\top B \bigr)\, x', \qquad h(x) = U x

    Parameters
    ----------
    state, s_u, s_v
        As in `mup_linear_limit`.

    Returns
    -------
    Tensor
        The matrix between the two inputs, (d, d); :math:`s_u I_d` before training, and for ever in a kernel limit.

    References
    ----------
    mu-parametrisation
    """
    return s_u * state.A.mT @ state.A + s_v * state.B.mT @ state.B


@typed
def mup_linear_limit(
    x: Float[Tensor, "steps n d"],
    y: Float[Tensor, "steps n o"],
    *,
    eta: float,
    s_u: float = 1.0,
    s_v: float = 1.0,
    slope: Callable[[Tensor, Tensor], Tensor] = squared_error_slope,
) -> tuple[Float[Tensor, "steps n o"], LinearLimit]:
    r"""Train a one-hidden-layer linear network of infinite width in the mu-parametrisation, exactly.

    .. math::
        f &= (s_u D^\top A + s_v C^\top B)\, x, \qquad \chi = \partial\mathcal L / \partial f \\
        A &\leftarrow A - \eta\, D \chi x^\top, \quad B \leftarrow B - \eta\, C \chi x^\top, \quad
        D \leftarrow D - \eta\, A x \chi^\top, \quad C \leftarrow C - \eta\, B x \chi^\top

    with the old values on all right-hand sides, and :math:`\chi x^\top` averaged over a batch. It is the limit of
    :math:`f = \frac1n V^\top U x` with independent entries of variance :math:`s_u, s_v` and the rate :math:`\eta n`.

    Parameters
    ----------
    x, y
        One batch a step: inputs and targets.
    eta
        Learning rate :math:`\eta`.
    s_u, s_v
        Variances of the entries of :math:`U_0` (n, d) and :math:`V_0` (n, o).
    slope
        ``slope(f, y)``: the derivative :math:`\chi` of the loss of each sample by its outputs, (n, o).

    Returns
    -------
    tuple
        The outputs on every batch before the step on it, and the final state.

    Raises
    ------
    ValueError
        When the rate or a variance is not positive.

    References
    ----------
    mu-parametrisation
    """
    for name, value in (("eta", eta), ("s_u", s_u), ("s_v", s_v)):
        validate.positive(name, value)
    state = mup_linear_start(x.shape[2], y.shape[2], like=x)
    outputs = []
    for batch, targets in zip(x, y, strict=True):
        f = batch @ mup_linear_map(state, s_u=s_u, s_v=s_v).mT
        g = eta * slope(f, targets).mT @ batch / len(batch)
        A, B, C, D = state
        state = LinearLimit(A - D @ g, B - C @ g, C - B @ g.mT, D - A @ g.mT)
        outputs.append(f)
    return torch.stack(outputs), state

"""Barriers and curvature: the exact barrier from the curvature along the line, and its prediction from the ends."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp
from torch.utils import _pytree as pytree

from dlatlas.ops import validate
from dlatlas.theory.mode_connectivity import interpolate
from dlatlas.typed import typed


@typed
def line_derivatives(
    loss: Callable[[Any], Tensor], params: Any, direction: Any
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Slope and curvature of the loss along a direction.

    .. math:: g^\top D, \qquad D^\top H D

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params, direction
        Trees of tensors of one structure, :math:`\theta` and :math:`D`; D need not have unit length.

    Returns
    -------
    tuple
        Two scalars, by forward differentiation twice: no gradient and no Hessian is formed.

    References
    ----------
    landscaping-lmc
    """

    def slope(at: Any) -> Tensor:
        return jvp(loss, (at,), (direction,))[1]

    return jvp(slope, (params,), (direction,))


@typed
def barrier_from_curvature(
    loss: Callable[[Any], Tensor], p1: Any, p2: Any, *, a: float = 0.5, nodes: int = 20
) -> Float[Tensor, ""]:
    r"""Height of the loss above the line between its ends, from the curvature along the way.

    .. math:: B(a) = -\int_0^1 G(a, s)\; D^\top H(\theta(s))\, D \; ds, \qquad
        G(a, s) = \begin{cases} s\,(1 - a) & s \le a \\ a\,(1 - s) & s \ge a \end{cases}

    Gauss-Legendre on both sides of the kink of G at a. Exact for losses that are twice differentiable along the line;
    a rectified network has kinks, whose jumps of slope no Hessian sees.

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    p1, p2
        The ends, tensors or trees of tensors; :math:`D = \theta_2 - \theta_1`.
    a
        Position, between 0 and 1.
    nodes
        Evaluations of the curvature, half of them on either side.

    Returns
    -------
    Tensor
        B(a), a scalar.

    Raises
    ------
    ValueError
        When a is not strictly between 0 and 1, or the number of nodes is not even.

    References
    ----------
    landscaping-lmc
    """
    validate.positive("a", a)
    validate.positive("1 - a", 1 - a)
    if nodes < 2 or nodes % 2:
        raise ValueError(f"nodes must be a positive even number, got {nodes}")
    direction = _difference(p1, p2)
    x, weights = np.polynomial.legendre.leggauss(nodes // 2)
    total = 0.0
    for low, high in ((0.0, a), (a, 1.0)):
        for s, weight in zip(low + (high - low) * (x + 1) / 2, weights * (high - low) / 2, strict=True):
            green = s * (1 - a) if s <= a else a * (1 - s)
            _, curvature = line_derivatives(loss, interpolate(p1, p2, float(s)), direction)
            total = total - float(weight * green) * curvature
    return total


@typed
def barrier_endpoint_predictor(loss: Callable[[Any], Tensor], p1: Any, p2: Any) -> Float[Tensor, ""]:
    r"""Barrier halfway, predicted from slopes and curvatures at the two ends alone.

    .. math:: \hat B = \tfrac14\, (g_1 - g_2)^\top D + \tfrac1{16}\, D^\top (H_1 + H_2)\, D
        = B(\tfrac12) + \tfrac{1}{128}\, D^4 \mathcal L + O(\lVert D \rVert^6)

    the mean of the two second-order Taylor expansions. For one layer alone, let the ends differ in that layer only, see
    `replace_layers`.

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    p1, p2
        The ends, tensors or trees of tensors; :math:`D = \theta_2 - \theta_1`.

    Returns
    -------
    Tensor
        A scalar; :math:`D^4 \mathcal L` is the fourth derivative along D, halfway.

    References
    ----------
    landscaping-lmc
    """
    direction = _difference(p1, p2)
    slope1, curvature1 = line_derivatives(loss, p1, direction)
    slope2, curvature2 = line_derivatives(loss, p2, direction)
    return (slope1 - slope2) / 4 + (curvature1 + curvature2) / 16


@typed
def layer_names(params: Mapping[str, Tensor]) -> list[str]:
    """Names of the layers of a network: those of its parameters without the last part, in order.

    Parameters
    ----------
    params
        Parameters by dotted name, such as ``"0.weight"`` and ``"0.bias"``.

    Returns
    -------
    list
        Each layer once.

    References
    ----------
    landscaping-lmc
    """
    return list(dict.fromkeys(name.rpartition(".")[0] for name in params))


@typed
def replace_layers(p1: Mapping[str, Tensor], p2: Mapping[str, Tensor], layers: Collection[str]) -> dict[str, Tensor]:
    r"""The first network with some layers of the second.

    .. math:: \theta_1 + m \odot (\theta_2 - \theta_1)

    Parameters
    ----------
    p1, p2
        Parameters by name.
    layers
        Layers to take from the second, as `layer_names` calls them: the places where the mask m is 1.

    Returns
    -------
    dict
        Parameters by name.

    Raises
    ------
    ValueError
        When a layer is not known, or the networks have different parameters.

    References
    ----------
    landscaping-lmc
    """
    if p1.keys() != p2.keys():
        raise ValueError(f"both ends must have the same parameters, got {list(p1)} and {list(p2)}")
    known = layer_names(p1)
    if unknown := [layer for layer in layers if layer not in known]:
        raise ValueError(f"layers must be among {', '.join(known)}; got {', '.join(unknown)}")
    return {name: p2[name] if name.rpartition(".")[0] in layers else value for name, value in p1.items()}


def _difference(p1: Any, p2: Any) -> Any:
    return pytree.tree_map(lambda u, v: v - u, p1, p2)

"""Sharpness along an interpolation: adaptive sharpness, by layers, the layers that lag behind, and their repair."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, grad_and_value
from torch.utils import _pytree as pytree

from dlatlas.ops import validate
from dlatlas.ops.hessian import flatten
from dlatlas.theory.mode_connectivity import interpolation_curve
from dlatlas.theory.mode_connectivity_curvature import layer_names, replace_layers
from dlatlas.typed import typed


@typed
def adaptive_sharpness(
    loss: Callable[[Any], Tensor], params: Any, rho: float, *, steps: int = 20, layers: Collection[str] | None = None
) -> Float[Tensor, ""]:
    r"""Largest increase of the loss under a perturbation relative to the size of every weight.

    .. math:: S_\rho(w) = \max_{\lVert \delta / |w| \rVert \le \rho} \mathcal L(w + \delta) - \mathcal L(w)

    By steps to the best point of the ball for the slope at the present one, :math:`\delta = |w| \odot e` with
    :math:`e \leftarrow \rho\, \nabla_e \mathcal L / \lVert \nabla_e \mathcal L \rVert`. Where the loss is convex in the
    ball every step increases it; the largest value on the way is returned.

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params
        A tensor or a tree of tensors w.
    rho
        Radius :math:`\rho`, the length of the vector of relative changes.
    steps
        Number of steps. One costs a gradient.
    layers
        Layers that are perturbed, as `layer_names` calls them; all of them when not given.

    Returns
    -------
    Tensor
        A scalar, not negative. Zero where the gradient vanishes, since the steps find no direction there.

    Raises
    ------
    ValueError
        When the radius is not positive, there are no steps, or a layer is not known.

    References
    ----------
    clip-interpolation-sharpness
    """
    validate.positive("rho", rho)
    validate.at_least("steps", steps, 1)
    scale = _scale(params, layers)

    def perturbed(e: Any) -> Tensor:
        return loss(pytree.tree_map(lambda w, size, change: w + size * change, params, scale, e))

    e, values = pytree.tree_map(torch.zeros_like, params), []
    for _ in range(steps):
        slope, value = grad_and_value(perturbed)(e)
        values.append(value)
        norm = flatten(slope).norm()
        shorten = rho / norm.clamp_min(torch.finfo(norm.dtype).tiny)
        e = pytree.tree_map(lambda g, shorten=shorten: shorten * g, slope)
    values.append(perturbed(e))
    return torch.stack(values).amax() - values[0]


@typed
def layer_sharpness(
    loss: Callable[[dict[str, Tensor]], Tensor], params: Mapping[str, Tensor], rho: float
) -> dict[str, Float[Tensor, ""]]:
    r"""Adaptive sharpness of every layer to first order, all from one gradient.

    .. math:: S_\rho^l \approx \rho\, \bigl\lVert |w_l| \odot \nabla_l \mathcal L \bigr\rVert

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params
        Parameters by name.
    rho
        Radius :math:`\rho`.

    Returns
    -------
    dict
        A scalar for each layer. The squares add up to the square of the whole network's sharpness to first order.

    Raises
    ------
    ValueError
        When the radius is not positive.

    References
    ----------
    clip-interpolation-sharpness
    """
    validate.positive("rho", rho)
    gradient = grad(loss)(dict(params))
    products = {name: value.abs() * gradient[name] for name, value in params.items()}
    return {
        layer: rho * flatten({n: v for n, v in products.items() if n.rpartition(".")[0] == layer}).norm()
        for layer in layer_names(params)
    }


@typed
def straggler_layers(
    loss: Callable[[dict[str, Tensor]], Tensor],
    p0: Mapping[str, Tensor],
    p1: Mapping[str, Tensor],
    *,
    frac: float = 0.1,
    n: int = 5,
) -> list[str]:
    r"""Layers with the highest barrier when they alone are interpolated.

    .. math:: b_l = \max_a \bigl[ \mathcal L\bigl(\theta_0 + a\, m_l \odot (\theta_1 - \theta_0)\bigr)
        - (1 - a)\, \mathcal L(\theta_0) - a\, \mathcal L\bigl(\theta_0 + m_l \odot (\theta_1 - \theta_0)\bigr) \bigr]

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    p0, p1
        Parameters by name before and after fine-tuning.
    frac
        Share of the layers that are called stragglers, rounded up to a number of layers.
    n
        Positions a on every line. Where no layer has a barrier, the one whose curve lies least below its chord counts.

    Returns
    -------
    list
        Names of the stragglers, the highest barrier first. Layers are chosen by values, so there is no ``vmap``.

    Raises
    ------
    ValueError
        When the share is not in (0, 1], or there are fewer than three positions.

    References
    ----------
    clip-interpolation-sharpness
    """
    validate.positive("frac", frac)
    validate.in_range("frac", frac, 0, 1)
    validate.at_least("n", n, 3)
    first = next(iter(p0.values()))
    lams = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device)
    start, heights = loss(dict(p0)), {}
    for layer in layer_names(p0):
        curve = interpolation_curve(loss, dict(p0), replace_layers(p0, p1, [layer]), lams[1:])
        chord = torch.lerp(start, curve[-1], lams[1:])
        heights[layer] = (curve - chord)[:-1].amax().item()
    return sorted(heights, key=lambda layer: -heights[layer])[: math.ceil(frac * len(heights))]


@typed
def sparsify_delta(
    p0: Mapping[str, Tensor], p1: Mapping[str, Tensor], layers: Collection[str], q: float
) -> dict[str, Tensor]:
    r"""Undo the smallest changes of fine-tuning in some layers.

    .. math:: \theta_0 + m \odot (\theta_1 - \theta_0)

    with m = 0 at the fraction q of smallest :math:`|\theta_1 - \theta_0|` of each of these layers and 1 elsewhere.

    Parameters
    ----------
    p0, p1
        Parameters by name before and after fine-tuning.
    layers
        Layers to sparsify, as `layer_names` calls them.
    q
        Fraction in [0, 1], rounded down to a number of weights; 0 changes nothing.

    Returns
    -------
    dict
        Parameters by name.

    Raises
    ------
    ValueError
        When q is not in [0, 1], or a layer is not known.

    References
    ----------
    clip-interpolation-sharpness
    """
    validate.in_range("q", q, 0, 1)
    result = replace_layers(p1, p0, layers)
    for layer in layers:
        names = [name for name in p1 if name.rpartition(".")[0] == layer]
        delta = torch.cat([(p1[name] - p0[name]).reshape(-1) for name in names])
        order = delta.abs().argsort(stable=True)
        kept = torch.ones_like(delta).scatter(0, order[: math.floor(q * len(delta))], 0.0)
        for name, keep in zip(names, kept.split([p1[name].numel() for name in names]), strict=True):
            result[name] = torch.where(keep.view_as(p1[name]) > 0, p1[name], p0[name])
    return result


def _scale(params: Any, layers: Collection[str] | None) -> Any:
    """Size of every weight; zero where it is not to be perturbed."""
    sizes = pytree.tree_map(torch.abs, params)
    if layers is None:
        return sizes
    return replace_layers(pytree.tree_map(torch.zeros_like, params), sizes, layers)

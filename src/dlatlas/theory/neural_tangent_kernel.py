"""The neural tangent kernel of fully connected networks: in the limit of infinite width, and of one network."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

from dlatlas.models.parametrised_mlp import ACTIVATION_FUNCTIONS, Parameters, ScaledMLP
from dlatlas.ops import validate
from dlatlas.ops.kernels import gaussian_expectations
from dlatlas.typed import typed


@typed
def tangent_recursion(
    x1: Float[Tensor, "n d"],
    x2: Float[Tensor, "m d"],
    *,
    weight_gains: Sequence[float],
    bias_gain: float,
    act: str,
    beta: float,
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    r"""Kernels of a wide fully connected network in any parametrisation that starts from the same random functions.

    .. math::
        \Sigma^1 &= \tfrac1d\, x \cdot x' + \beta^2, &
        \Sigma^{\ell+1} &= \mathrm{E}[\phi(u)\phi(v)] + \beta^2 \\
        \Theta^1 &= g_1\, \tfrac1d\, x \cdot x' + g_b, &
        \Theta^{\ell+1} &= \Theta^\ell \odot \mathrm{E}[\phi'(u)\phi'(v)]
        + g_{\ell+1}\, \mathrm{E}[\phi(u)\phi(v)] + g_b

    with :math:`(u, v)` normal with the covariances :math:`\Sigma^\ell`.

    Parameters
    ----------
    x1, x2
        Inputs, one a row.
    weight_gains
        :math:`g_1, ..., g_L`: how much kernel the weights of each layer add.
    bias_gain
        :math:`g_b`: how much the biases of each layer add.
    act
        :math:`\phi`: ``"relu"``, ``"erf"`` or ``"linear"``.
    beta
        Standard deviation :math:`\beta` of the biases in the forward pass.

    Returns
    -------
    tuple of Tensor
        The covariance of the outputs at initialisation :math:`\Sigma^L`, and the tangent kernel :math:`\Theta^L`.

    Raises
    ------
    ValueError
        For an unknown activation, a negative ``beta``, or an input of norm zero with ``"relu"`` and no biases, where
        the angle is undefined.

    References
    ----------
    neural-tangent-kernel
    """
    validate.at_least("number of weight_gains", len(weight_gains), 1)
    validate.at_least("beta", beta, 0.0)
    if act == "relu" and beta == 0:
        smallest = math.sqrt(torch.finfo(x1.dtype).tiny)
        for name, x in (("x1", x1), ("x2", x2)):
            validate.in_range(f"norm of the rows of {name}", x.norm(dim=1), smallest, math.inf)
    product, square1, square2 = x1 @ x2.mT / x1.shape[1], x1.square().mean(1), x2.square().mean(1)
    ntk = weight_gains[0] * product + bias_gain
    for gain in weight_gains[1:]:
        sigma, sigma1, sigma2 = (value + beta**2 for value in (product, square1, square2))
        product, slope = gaussian_expectations(act, sigma1[:, None], sigma, sigma2[None, :])
        square1, square2 = (
            gaussian_expectations(act, variance, variance, variance)[0] for variance in (sigma1, sigma2)
        )
        ntk = ntk * slope + gain * product + bias_gain
    return product + beta**2, ntk


@typed
def ntk_recursion(
    x1: Float[Tensor, "n d"], x2: Float[Tensor, "m d"], *, depth: int, act: str = "relu", beta: float = 0.0
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    r"""Kernels of an infinitely wide network in the NTK parametrisation.

    .. math:: \Theta^1 = \Sigma^1, \qquad
        \Theta^{\ell+1} = \Theta^\ell \odot \mathrm{E}[\phi'(u)\phi'(v)] + \Sigma^{\ell+1}

    Parameters
    ----------
    x1, x2, act, beta
        As for `tangent_recursion`.
    depth
        Layers of weights :math:`L`; 1 is a linear model, 2 one hidden layer.

    Returns
    -------
    tuple of Tensor
        The covariance of the outputs at initialisation :math:`\Sigma^L`, and the tangent kernel :math:`\Theta^L`.

    Raises
    ------
    ValueError
        As `tangent_recursion`, and for a depth below 1.

    References
    ----------
    neural-tangent-kernel
    """
    validate.at_least("depth", depth, 1)
    return tangent_recursion(x1, x2, weight_gains=[1.0] * depth, bias_gain=float(beta**2), act=act, beta=beta)


@typed
def standard_ntk_recursion(
    x1: Float[Tensor, "n d"], x2: Float[Tensor, "m d"], *, depth: int, width: int, act: str = "relu", beta: float = 0.0
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "n m"]]:
    r"""Kernels of a wide network in the standard parametrisation, to leading order in its width.

    .. math:: \Theta^1 = x \cdot x' + 1_{\beta > 0}, \qquad
        \Theta^{\ell+1} = \Theta^\ell \odot \mathrm{E}[\phi'(u)\phi'(v)] + m\,\mathrm{E}[\phi(u)\phi(v)] + 1_{\beta > 0}

    It grows like the width :math:`m`, so the learning rate must fall like :math:`1/m`; what then moves the function is
    the weights that follow a hidden layer, and the first layer and the biases stand still.

    Parameters
    ----------
    x1, x2, depth, act, beta
        As for `ntk_recursion`.
    width
        :math:`m`, units in every hidden layer.

    Returns
    -------
    tuple of Tensor
        The covariance of the outputs at initialisation, the same as in `ntk_recursion`, and the tangent kernel.

    Raises
    ------
    ValueError
        As `ntk_recursion`, and for a width below 1.

    References
    ----------
    neural-tangent-kernel
    """
    validate.at_least("depth", depth, 1)
    validate.at_least("width", width, 1)
    gains = [float(x1.shape[1])] + [float(width)] * (depth - 1)
    return tangent_recursion(x1, x2, weight_gains=gains, bias_gain=float(beta > 0), act=act, beta=beta)


@typed
def layer_factors(
    net: ScaledMLP, params: Parameters, x: Float[Tensor, "*nets n d"]
) -> list[tuple[Float[Tensor, "*nets n _"], Float[Tensor, "*nets n _"]]]:
    r"""The two factors of each layer's gradient, from one forward and one backward pass.

    .. math:: \frac{\partial f}{\partial (W^\ell, b^\ell)}
        = \delta^\ell \otimes \bigl(a_\ell\, \phi(h^{\ell-1}),\; c\bigr),
        \qquad \delta^\ell = \frac{\partial f}{\partial h^\ell}

    Parameters
    ----------
    net
        Gives the architecture and the parametrisation; one output.
    params
        Its parameters by name; with a leading axis for several networks at once.
    x
        Inputs, with the same leading axis.

    Returns
    -------
    list of tuple of Tensor
        For each layer what enters it, :math:`(a_\ell \phi(h^{\ell-1}), c)`, of shape (n, :math:`m_{\ell-1} + 1`),
        without :math:`c` where there are no biases; and :math:`\delta^\ell`, (n, :math:`m_\ell`).

    Raises
    ------
    ValueError
        For a network with several outputs.

    References
    ----------
    neural-tangent-kernel
    """
    if net.widths[-1] != 1:
        raise ValueError(f"net must have one output, got {net.widths[-1]}; empirical_ntk takes several")

    def outputs(shifts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        *hidden, f = net.preactivations(params, x, shifts)
        return f, hidden

    # Each example has its own shift of h^l, so one derivative by the shifts holds delta^l for all examples.
    f, pull_back, hidden = vjp(outputs, [x.new_zeros(*x.shape[:-1], n) for n in net.fan_out], has_aux=True)
    (deltas,) = pull_back(torch.ones_like(f))
    signals = [x, *(ACTIVATION_FUNCTIONS[net.act](h) for h in hidden)]
    entering = [a * signal for a, signal in zip(net.factors, signals, strict=True)]
    if net.biases is not None:
        entering = [torch.cat([e, torch.full_like(e[..., :1], net.bias_factor)], dim=-1) for e in entering]
    return list(zip(entering, deltas, strict=True))


@typed
def layerwise_ntk(
    net: ScaledMLP, params: Parameters, x1: Float[Tensor, "n d"], x2: Float[Tensor, "m d"] | None = None
) -> Float[Tensor, "n m"]:
    r"""Tangent kernel of a fully connected network with one output, without its Jacobian.

    .. math:: \hat\Theta(x, x') = \sum_{\ell=1}^{L}
        \bigl(a_\ell^2\, \phi(h^{\ell-1}) \cdot \phi(h'^{\,\ell-1}) + c^2\bigr)
        \,\bigl(\delta^\ell \cdot \delta'^{\,\ell}\bigr)

    A layer's gradient is an outer product, so the inner product of two gradients is a product of two inner products:
    memory grows like the width, not like its square.

    Parameters
    ----------
    net, params
        As for `layer_factors`.
    x1, x2
        Inputs; ``x2=None`` means ``x1``.

    Returns
    -------
    Tensor
        (n, m), equal to `dlatlas.ops.functional.empirical_ntk`.

    Raises
    ------
    ValueError
        For a network with several outputs.

    References
    ----------
    neural-tangent-kernel
    """
    factors1 = layer_factors(net, params, x1)
    factors2 = factors1 if x2 is None else layer_factors(net, params, x2)
    return sum((e1 @ e2.mT) * (d1 @ d2.mT) for (e1, d1), (e2, d2) in zip(factors1, factors2, strict=True))

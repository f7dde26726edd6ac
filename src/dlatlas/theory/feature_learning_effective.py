"""Deep networks of finite width: kernel and four-point vertex by recursion, critical initialisation, fluctuations."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp

from dlatlas.ops import validate
from dlatlas.typed import typed

Activation = Callable[[Tensor], Tensor]
_PROBE = 1e-3


@typed
def gauss_expect(fn: Activation, K: Float[Tensor, "*batch"], order: int = 80) -> Float[Tensor, "*batch"]:
    r"""Expectation of a function of a normal variable, by Gauss-Hermite quadrature.

    .. math:: \langle f(z) \rangle_{z \sim N(0, K)} \approx \sum_{i=1}^{q} w_i\, f(\sqrt K\, x_i)

    Exact for polynomials of degree below :math:`2q`. For an even order no node lies at zero, and the nodes are
    symmetric, so that a kink or a jump at zero does no harm.

    Parameters
    ----------
    fn
        :math:`f`, elementwise.
    K
        Variances, at least 0.
    order
        Number of nodes :math:`q`, even.

    Returns
    -------
    Tensor
        One expectation for each variance.

    Raises
    ------
    ValueError
        For an order that is not even and positive, a negative variance, or an expectation that does not settle as nodes
        are added: the function has no finite moment, or is too rough for the rule.

    References
    ----------
    effective-theory-nets
    """
    validate.at_least("order", order, 2)
    validate.in_range("remainder of order by 2", order % 2, 0, 0)
    validate.in_range("K", K, 0.0, math.inf)
    value, size = _quadrature(fn, K, order)
    coarse, _ = _quadrature(fn, K, 2 * (order // 4) if order >= 4 else order)
    if order >= 40:
        drift = (value - coarse).abs() / size.clamp_min(torch.finfo(size.dtype).tiny)
        validate.in_range("relative change of the expectation with more nodes", drift, 0.0, 0.1)
    return value


@typed
def kernel_rg(
    act: Activation, C_W: float, C_b: float, K1: Float[Tensor, "*batch"], depth: int
) -> Float[Tensor, "depth *batch"]:
    r"""Variance of the pre-activations, layer by layer, in the limit of infinite width.

    .. math:: K_{\ell+1} = C_b + C_W \langle \sigma(z)^2 \rangle_{z \sim N(0, K_\ell)}

    Parameters
    ----------
    act
        Activation :math:`\sigma`, elementwise.
    C_W, C_b
        Variances of the weights times their fan-in, and of the biases. Not standard deviations.
    K1
        :math:`K_1 = C_b + C_W \lVert x \rVert^2 / n_0` of the first layer.
    depth
        Number of layers.

    Returns
    -------
    Tensor
        :math:`K_1, \dots, K_{\rm depth}`.

    Raises
    ------
    ValueError
        When C_W is not positive, C_b or K1 is negative, or the activation has no finite second moment.

    References
    ----------
    effective-theory-nets
    """
    validate.positive("C_W", C_W)
    validate.at_least("C_b", C_b, 0.0)
    validate.at_least("depth", depth, 1)
    kernels = [K1]
    for _ in range(depth - 1):
        kernels.append(C_b + C_W * gauss_expect(lambda z: act(z).square(), kernels[-1]))
    return torch.stack(kernels)


@typed
def susceptibilities(
    act: Activation, C_W: float, K: Float[Tensor, "*batch"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    r"""How a small change of the kernel, or of the input's direction, grows from one layer to the next.

    .. math:: \chi_\parallel = \frac{C_W}{2 K^2} \bigl\langle \sigma(z)^2 (z^2 - K) \bigr\rangle
        = C_W \frac{d}{dK} \langle \sigma^2 \rangle, \qquad
        \chi_\perp = C_W \bigl\langle \sigma'(z)^2 \bigr\rangle

    Parameters
    ----------
    act, C_W
        As for `kernel_rg`.
    K
        Variances, greater than 0.

    Returns
    -------
    tuple of Tensor
        :math:`\chi_\parallel` and :math:`\chi_\perp`; both are 1 at a critical point.

    Raises
    ------
    ValueError
        When C_W or a variance is not positive.

    References
    ----------
    effective-theory-nets
    """
    validate.positive("C_W", C_W)
    validate.in_range("K", K, torch.finfo(K.dtype).tiny, math.inf)
    parallel = gauss_expect(lambda x: act(x * K.sqrt()[..., None]).square() * (x.square() - 1), torch.ones_like(K))
    perpendicular = gauss_expect(lambda z: _slope(act, z).square(), K)
    return C_W * parallel / (2 * K), C_W * perpendicular


@typed
def critical_init(act: Activation) -> tuple[float, float]:
    r"""Variances of weights and biases at which signals neither explode nor vanish with depth.

    .. math:: \sigma(z) = a_\pm z: \quad C_W = \frac{2}{a_+^2 + a_-^2}, \qquad\qquad
        \sigma(0) = 0,\ \sigma'(0) \ne 0: \quad C_W = \frac{1}{\sigma'(0)^2}

    and :math:`C_b = 0`. The second kind has its fixed point at :math:`K = 0`, which must attract.

    Parameters
    ----------
    act
        Activation :math:`\sigma`, elementwise.

    Returns
    -------
    tuple of float
        :math:`C_W` and :math:`C_b`.

    Raises
    ------
    ValueError
        For an activation of neither kind: it does not vanish at zero, is flat there, or its fixed point at zero repels.

    References
    ----------
    effective-theory-nets
    """
    if is_homogeneous(act):
        plus, minus = _at(act, 1.0), _at(act, -1.0)
        return 2 / (plus**2 + minus**2), 0.0
    slope = _slope(act, torch.zeros(1, dtype=torch.float64)).item()
    if abs(_at(act, 0.0)) > 1e-12 or abs(slope) < 1e-12:
        raise ValueError("act must vanish at 0 with a slope there, or be linear on either side of 0")
    after = kernel_rg(act, 1 / slope**2, 0.0, torch.tensor(_PROBE, dtype=torch.float64), 2)[1].item()
    if after > _PROBE:
        raise ValueError(f"act must keep small signals small, got a kernel that grows from {_PROBE} to {after}")
    return 1 / slope**2, 0.0


@typed
def is_homogeneous(act: Activation) -> bool:
    r"""Whether an activation is linear on either side of zero, :math:`\sigma(t z) = t\, \sigma(z)` for :math:`t > 0`.

    Parameters
    ----------
    act
        Activation :math:`\sigma`, elementwise.

    Returns
    -------
    bool
        True for the identity, the rectifier and its leaky relatives, unless they vanish altogether.

    References
    ----------
    effective-theory-nets
    """
    z = torch.tensor([-2.0, -0.3, 0.3, 2.0], dtype=torch.float64)
    return bool(torch.allclose(act(3 * z), 3 * act(z), rtol=1e-9, atol=0.0) and act(z).abs().sum() > 0)


@typed
def vertex_rg(
    act: Activation, C_W: float, C_b: float, K1: Float[Tensor, "*batch"], depth: int
) -> Float[Tensor, "depth *batch"]:
    r"""Four-point vertex: how far the pre-activations of a wide network are from Gaussian, to leading order.

    .. math:: V_1 = 0, \qquad V_{\ell+1} = \chi_\parallel(K_\ell)^2\, V_\ell
        + C_W^2 \bigl( \langle \sigma^4 \rangle - \langle \sigma^2 \rangle^2 \bigr), \qquad
        \mathrm E[z_i^2 z_j^2] - \mathrm E[z_i^2]\,\mathrm E[z_j^2] = \frac{V_\ell}{n} \quad (i \ne j)

    for equal widths n. It is the variance over networks of the kernel :math:`C_b + \frac{C_W}{n} \sum_j \sigma(z_j)^2`
    that the layer before hands on.

    Parameters
    ----------
    act, C_W, C_b, K1, depth
        As for `kernel_rg`.

    Returns
    -------
    Tensor
        :math:`V_1, \dots, V_{\rm depth}`.

    Raises
    ------
    ValueError
        As `kernel_rg`.

    References
    ----------
    effective-theory-nets
    """
    kernels = kernel_rg(act, C_W, C_b, K1, depth)
    vertices = [torch.zeros_like(K1)]
    for K in kernels[:-1]:
        parallel, _ = susceptibilities(act, C_W, K)
        second = gauss_expect(lambda z: act(z).square(), K)
        fourth = gauss_expect(lambda z: act(z).pow(4), K)
        vertices.append(parallel.square() * vertices[-1] + C_W**2 * (fourth - second.square()))
    return torch.stack(vertices)


@typed
def homogeneous_fluctuation(act: Activation, n: int, depth: int) -> float:
    r"""Relative variance over networks of the mean square activation, exact at any width.

    .. math:: \frac{\mathrm{Var}\, Q_L}{(\mathrm E\, Q_L)^2} = \Bigl( 1 + \frac{\rho}{n} \Bigr)^{L} - 1, \qquad
        \rho = \frac{\langle \sigma^4 \rangle}{\langle \sigma^2 \rangle^2} - 1

    with :math:`\rho = 5` for the rectifier and 2 for the identity.

    Parameters
    ----------
    act
        An activation that is linear on either side of zero.
    n, depth
        Width of all layers, and their number L.

    Returns
    -------
    float
        The relative variance.

    Raises
    ------
    ValueError
        For another activation, or a width or depth below 1.

    References
    ----------
    effective-theory-nets
    """
    validate.at_least("n", n, 1)
    validate.at_least("depth", depth, 1)
    if not is_homogeneous(act):
        raise ValueError("act must be linear on either side of zero; vertex_rg takes others to leading order")
    one = torch.ones((), dtype=torch.float64)
    second, fourth = (gauss_expect(lambda z, k=k: act(z).pow(k), one).item() for k in (2, 4))
    return (1 + (fourth / second**2 - 1) / n) ** depth - 1


@typed
def forward_kernels(
    act: Activation, C_W: float, C_b: float, K1: Float[Tensor, ""], noise: Float[Tensor, "depth nets n"]
) -> Float[Tensor, "depth nets"]:
    r"""Kernels that the layers of random networks hand on, drawn without their weights.

    .. math:: z^\ell_j = \sqrt{Q_{\ell-1}}\; \epsilon^\ell_j, \qquad
        Q_\ell = C_b + \frac{C_W}{n} \sum_{j=1}^{n} \sigma(z^\ell_j)^2, \qquad Q_0 = K_1

    For one input, the pre-activations of a layer are independent normal variables given the layer before, so this has
    exactly the distribution that weight matrices would give, at 1/n of the cost.

    Parameters
    ----------
    act, C_W, C_b, K1
        As for `kernel_rg`.
    noise
        Standard normal :math:`\epsilon`.

    Returns
    -------
    Tensor
        :math:`Q_1, \dots, Q_{\rm depth}` of every network.

    Raises
    ------
    ValueError
        When C_W is not positive, or C_b or K1 is negative.

    References
    ----------
    effective-theory-nets
    """
    validate.positive("C_W", C_W)
    validate.at_least("C_b", C_b, 0.0)
    validate.in_range("K1", K1, 0.0, math.inf)
    kernels, Q = [], K1.expand(noise.shape[1])
    for layer in noise:
        Q = C_b + C_W * act(Q.sqrt()[:, None] * layer).square().mean(1)
        kernels.append(Q)
    return torch.stack(kernels)


def _quadrature(fn: Activation, K: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Expectation of the function and of its absolute value."""
    nodes, weights = (torch.as_tensor(v, dtype=K.dtype, device=K.device) for v in _rule(order))
    values = fn(K.sqrt()[..., None] * nodes)
    return values @ weights, values.abs() @ weights


@lru_cache
def _rule(order: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return nodes, weights / weights.sum()


def _slope(act: Activation, z: Tensor) -> Tensor:
    return jvp(act, (z,), (torch.ones_like(z),))[1]


def _at(act: Activation, z: float) -> float:
    return act(torch.tensor(z, dtype=torch.float64)).item()

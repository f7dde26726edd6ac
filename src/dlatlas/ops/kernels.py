"""Kernels: arc-cosine functions, Gaussian expectations of activations, alignment, gradient flow in a kernel space."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

ACTIVATIONS = ("relu", "erf", "linear")


@typed
def arccos_k0(cosine: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Arc-cosine kernel of order zero, as a function of the cosine of the angle.

    .. math:: k_0(t) = \frac{\pi - \arccos t}{\pi} = 2\,\mathrm{E}[1\{u>0\}\,1\{v>0\}]

    for standard normal :math:`u, v` with correlation :math:`t`. Its slope is infinite at :math:`t = \pm 1`; the
    gradient returned there is zero.

    Parameters
    ----------
    cosine
        :math:`t`; values that rounding has pushed beyond :math:`\pm 1` count as :math:`\pm 1`.

    Returns
    -------
    Tensor
        :math:`k_0(t)` between 0 and 1.

    References
    ----------
    neural-tangent-kernel
    """
    return 1 - _angle(cosine) / math.pi


@typed
def arccos_k1(cosine: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Arc-cosine kernel of order one, as a function of the cosine of the angle.

    .. math:: k_1(t) = \frac{\sqrt{1 - t^2} + t\,(\pi - \arccos t)}{\pi} = 2\,\mathrm{E}[\max(u, 0)\max(v, 0)]

    for standard normal :math:`u, v` with correlation :math:`t`; :math:`k_1' = k_0`.

    Parameters
    ----------
    cosine
        :math:`t`; values that rounding has pushed beyond :math:`\pm 1` count as :math:`\pm 1`.

    Returns
    -------
    Tensor
        :math:`k_1(t)` between 0 and 1.

    References
    ----------
    neural-tangent-kernel
    """
    angle = _angle(cosine)
    return (torch.sin(angle) + cosine * (math.pi - angle)) / math.pi


@typed
def gaussian_expectations(
    act: str,
    variance1: Float[Tensor, "*#shape"],
    covariance: Float[Tensor, "*#shape"],
    variance2: Float[Tensor, "*#shape"],
) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    r"""Expected products of an activation, and of its derivative, over two correlated normal variables.

    .. math:: \mathrm{E}[\phi(u)\,\phi(v)], \quad \mathrm{E}[\phi'(u)\,\phi'(v)], \qquad
        (u, v) \sim N\!\left(0, \begin{pmatrix} a & c \\ c & b \end{pmatrix}\right)

    in closed form: arc-cosine kernels for the rectifier, an arc-sine for the error function. Elementwise, broadcasting.

    Parameters
    ----------
    act
        ``"relu"``, ``"erf"`` or ``"linear"``.
    variance1, variance2
        :math:`a` and :math:`b`; greater than zero for ``"relu"``, where the angle would be undefined.
    covariance
        :math:`c`.

    Returns
    -------
    tuple of Tensor
        The two expectations, of the broadcast shape.

    Raises
    ------
    ValueError
        For an unknown activation, or a variance that is negative, or zero with ``"relu"``.

    References
    ----------
    neural-tangent-kernel
    """
    validate.one_of("act", act, ACTIVATIONS)
    smallest = torch.finfo(covariance.dtype).tiny if act == "relu" else 0.0
    validate.in_range("variance1", variance1, smallest, math.inf)
    validate.in_range("variance2", variance2, smallest, math.inf)
    return _EXPECTATIONS[act](variance1, covariance, variance2)


@typed
def kernel_alignment(K: Float[Tensor, "n n"], y: Float[Tensor, "n *outputs"]) -> Float[Tensor, ""]:
    r"""Centred alignment of a kernel matrix with the targets.

    .. math:: A(K, y) = \frac{\langle K_c,\, y_c y_c^\top \rangle}{\lVert K_c \rVert_F \,\lVert y_c y_c^\top \rVert_F},
        \qquad K_c = H K H,\quad y_c = H y,\quad H = I - \tfrac1n 1 1^\top

    Parameters
    ----------
    K
        A symmetric kernel matrix.
    y
        Targets, (n,) or (n, c).

    Returns
    -------
    Tensor
        A scalar between 0 and 1 for a positive semi-definite ``K``; 1 for :math:`K = y_c y_c^\top`.

    Raises
    ------
    ValueError
        When the centred kernel or the centred targets vanish, so that the alignment is undefined.

    References
    ----------
    grokking-lazy-to-rich
    """
    n = K.shape[0]
    K = K - K.mean(0, keepdim=True) - K.mean(1, keepdim=True) + K.mean()
    y = y.reshape(n, -1)
    y = y - y.mean(0)
    smallest = torch.finfo(K.dtype).tiny
    validate.in_range("norm of the centred kernel", K.norm(), smallest, math.inf)
    validate.in_range("norm of the centred targets", y.norm(), smallest, math.inf)
    return (y * (K @ y)).sum() / (K.norm() * (y.mT @ y).norm())


@typed
def kernel_flow(
    K_train: Float[Tensor, "n n"],
    K_test: Float[Tensor, "m n"],
    y: Float[Tensor, "n *outputs"],
    f0_train: Float[Tensor, "n *outputs"],
    f0_test: Float[Tensor, "m *outputs"],
    t: float,
    *,
    eta: float,
) -> tuple[Float[Tensor, "n *outputs"], Float[Tensor, "m *outputs"]]:
    r"""Predictions after gradient flow on a squared loss in the space of a fixed kernel.

    .. math::
        f_t(X) &= y + e^{-\eta K t}\,(f_0(X) - y) \\
        f_t(x) &= f_0(x) + \Theta(x, X)\, K^{-1} \bigl(I - e^{-\eta K t}\bigr)(y - f_0(X))

    the exact solution of :math:`\dot f = -\eta\,\Theta(\cdot, X)(f(X) - y)`, by the eigendecomposition of :math:`K`.
    Directions in which :math:`K` is singular keep their initial residual, so a semi-definite kernel needs no jitter.

    Parameters
    ----------
    K_train
        :math:`K = \Theta(X, X)`, symmetric and positive semi-definite.
    K_test
        :math:`\Theta(x, X)`, one row a test point.
    y
        Targets, (n,) or (n, c).
    f0_train, f0_test
        Predictions at time zero.
    t
        Time, at least 0, in steps of gradient descent with rate ``eta``. Infinity gives the limit of training.
    eta
        Learning rate :math:`\eta` for the loss :math:`\frac12 \lVert f(X) - y \rVert^2`.

    Returns
    -------
    tuple of Tensor
        :math:`f_t(X)` and :math:`f_t(x)`.

    Raises
    ------
    ValueError
        For a negative time, a rate that is not positive, or a kernel with negative eigenvalues.

    References
    ----------
    neural-tangent-kernel
    """
    validate.at_least("t", t, 0.0)
    validate.positive("eta", eta)
    eigenvalues, modes = torch.linalg.eigh(K_train)
    tolerance = K_train.shape[0] * torch.finfo(K_train.dtype).eps
    relative = eigenvalues[0] / K_train.norm()
    validate.in_range("smallest eigenvalue of K_train, relative to its norm,", relative, -10 * tolerance, 1.0)
    zero = eigenvalues <= tolerance * eigenvalues[-1]
    rates = torch.where(zero, 1.0, eigenvalues)
    learnt = torch.where(zero, 0.0, -torch.expm1(-eta * t * rates))
    residual = (y - f0_train).reshape(y.shape[0], -1)
    components = modes.mT @ residual
    f_train = f0_train + (modes @ (learnt[:, None] * components)).reshape(f0_train.shape)
    f_test = f0_test + (K_test @ modes @ ((learnt / rates)[:, None] * components)).reshape(f0_test.shape)
    return f_train, f_test


def _angle(cosine: Tensor) -> Tensor:
    # arccos has an infinite slope at +-1, where a zero gradient arriving from above would become NaN: a constant there.
    inside = cosine.abs() < 1
    angle = torch.arccos(torch.where(inside, cosine, 0.0))
    return torch.where(inside, angle, math.pi * (cosine < 0).to(cosine.dtype))


def _relu_expectations(a: Tensor, c: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    scale = torch.sqrt(a * b)
    cosine = c / scale
    return scale * arccos_k1(cosine) / 2, arccos_k0(cosine) / 2


def _erf_expectations(a: Tensor, c: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    scale = (1 + 2 * a) * (1 + 2 * b)
    value = 2 / math.pi * torch.arcsin(2 * c / torch.sqrt(scale))
    return value, 4 / math.pi / torch.sqrt(scale - 4 * c**2)


def _linear_expectations(a: Tensor, c: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return c * torch.ones_like(a * b), torch.ones_like(a * b * c)


_EXPECTATIONS = {"relu": _relu_expectations, "erf": _erf_expectations, "linear": _linear_expectations}

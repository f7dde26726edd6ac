"""Hierarchical polynomials: targets, Hermite kernels and features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def hermite(x: Float[Tensor, "*shape"], k: int) -> Float[Tensor, "*shape"]:
    r"""Hermite polynomial of unit variance under the standard normal distribution.

    .. math:: h_k = \frac{\mathrm{He}_k}{\sqrt{k!}}, \qquad
        \mathrm{He}_{k+1} = x\, \mathrm{He}_k - k\, \mathrm{He}_{k-1}

    Parameters
    ----------
    x, k
        Points, and the degree, at least 0.

    Returns
    -------
    Tensor
        :math:`h_k(x)`.

    Raises
    ------
    ValueError
        For a negative degree.

    References
    ----------
    hierarchical-polynomials
    """
    validate.at_least("k", k, 0)
    previous, current = torch.zeros_like(x), torch.ones_like(x)
    for j in range(k):
        previous, current = current, x * current - j * previous
    return current / math.sqrt(math.factorial(k))


@dataclass(frozen=True)
class HermiteTarget:
    r"""A polynomial of a polynomial, :math:`h = g \circ p`.

    .. math:: p(x) = \sum_r c_r\, h_k(v_r \cdot x), \qquad g(z) = \sum_{j=1}^q g_j\, h_j(z)

    Parameters
    ----------
    directions, weights
        Unit vectors :math:`v_r`, one a row, and :math:`c_r`.
    link
        :math:`g_1, \dots, g_q`.
    k
        Degree of p.
    """

    directions: Tensor
    weights: Tensor
    link: tuple[float, ...]
    k: int

    def p(self, x: Tensor) -> Tensor:
        """The inner polynomial at rows of x."""
        return hermite(x @ self.directions.mT, self.k) @ self.weights

    def __call__(self, x: Tensor) -> Tensor:
        """The target at rows of x."""
        z = self.p(x)
        return sum(g * hermite(z, j) for j, g in enumerate(self.link, start=1))

    @property
    def energy(self) -> float:
        """Variance that the target would have if p were exactly Gaussian, the sum of the squared coefficients of g."""
        return sum(g**2 for g in self.link)


@typed
def hermite_target(
    d: int, *, k: int, link: Sequence[float], generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> HermiteTarget:
    r"""Draw a hierarchical polynomial whose inner part has unit variance and degree k in the Hermite sense.

    The directions are a random orthonormal basis; the weights are :math:`\pm 1/\sqrt d`, half of each sign. For k = 2,
    :math:`p = x^\top A x / \sqrt2` with trace zero, unit Frobenius norm and the smallest operator norm that goes with
    them, so that p is as nearly Gaussian as a quadratic form in d variables can be.

    Parameters
    ----------
    d, k
        Dimension of the inputs, even, and degree of p.
    link
        :math:`g_1, \dots, g_q`, the coefficients of g; the first must not be zero.
    generator, dtype
        Source of the directions, and the type of the result.

    Returns
    -------
    HermiteTarget
        The target.

    Raises
    ------
    ValueError
        When the first coefficient of g is zero (for example :math:`g = h_2`): then :math:`\mathrm E[g'] = 0`, and the
        first stage of training receives no signal. Also for a degree below 1 or an odd dimension.

    References
    ----------
    hierarchical-polynomials
    """
    validate.at_least("k", k, 1)
    validate.at_least("d", d, 2)
    validate.in_range("remainder of d by 2", d % 2, 0, 0)
    if len(link) < 1 or link[0] == 0:
        raise ValueError(f"link must begin with a coefficient other than zero, got {list(link)}")
    basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=dtype))
    weights = torch.ones(d, dtype=dtype) / math.sqrt(d)
    weights[1::2] *= -1
    return HermiteTarget(basis.mT, weights, tuple(link), k)


@typed
def hermite2_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    r"""Reproducing kernel of the quadratic Hermite polynomials.

    .. math:: \mathcal K_2(x, x') = \tfrac12 \bigl( (x \cdot x')^2 - \lVert x \rVert^2 - \lVert x' \rVert^2 + d \bigr),
        \qquad \mathrm E_{x'}[\mathcal K_2(x, x')\, p(x')] = p(x)

    Parameters
    ----------
    x, y
        Inputs; rows are samples.

    Returns
    -------
    Tensor
        (n, m).

    References
    ----------
    hierarchical-polynomials
    """
    return hermite_kernel(x, y, 2)


@typed
def hermite_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int) -> Float[Tensor, "n m"]:
    r"""Reproducing kernel of the Hermite polynomials of degree k in d variables, k = 1, 2 or 3.

    .. math:: \mathcal K_k(x, x') = \sum_{|\alpha| = k} h_\alpha(x)\, h_\alpha(x')

    the coefficient of :math:`t^k` in Mehler's kernel. With :math:`s = x \cdot x'` and
    :math:`u = \lVert x \rVert^2 + \lVert x' \rVert^2`: :math:`s`, then :math:`\frac12 (s^2 - u + d)`, then
    :math:`\frac16 s^3 + \frac12 s\,(d + 2 - u)`.

    Parameters
    ----------
    x, y
        Inputs; rows are samples.
    k
        Degree.

    Returns
    -------
    Tensor
        (n, m).

    Raises
    ------
    ValueError
        For another degree.

    References
    ----------
    hierarchical-polynomials
    """
    validate.in_range("k", k, 1, 3)
    s, d = x @ y.mT, x.shape[1]
    if k == 1:
        return s
    u = x.square().sum(1)[:, None] + y.square().sum(1)
    return (s.square() - u + d) / 2 if k == 2 else s.pow(3) / 6 + s * (d + 2 - u) / 2


@typed
def hermite2_features(x: Float[Tensor, "n d"]) -> Float[Tensor, "n modes"]:
    r"""An orthonormal basis of the quadratic Hermite polynomials: :math:`(x_i^2 - 1)/\sqrt2`, then :math:`x_i x_j`.

    Parameters
    ----------
    x
        Inputs; rows are samples.

    Returns
    -------
    Tensor
        :math:`\Phi` (n, d(d+1)/2), with :math:`\Phi(x) \cdot \Phi(x') = \mathcal K_2(x, x')`.

    References
    ----------
    hierarchical-polynomials
    """
    i, j = torch.triu_indices(x.shape[1], x.shape[1], offset=1, device=x.device)
    return torch.cat([hermite(x, 2), x[:, i] * x[:, j]], dim=1)


@typed
def hermite2_coefficients(directions: Float[Tensor, "r d"], weights: Float[Tensor, " r"]) -> Float[Tensor, " modes"]:
    r"""Coefficients of :math:`p = \sum_r c_r\, h_2(v_r \cdot x)` in the basis of `hermite2_features`.

    With :math:`A = \sum_r c_r v_r v_r^\top`: first :math:`A_{ii}`, then :math:`\sqrt2 A_{ij}`.

    Parameters
    ----------
    directions, weights
        Unit vectors :math:`v_r`, and :math:`c_r`.

    Returns
    -------
    Tensor
        (d(d+1)/2,), of norm 1 when p has unit variance.

    References
    ----------
    hierarchical-polynomials
    """
    A = (directions.mT * weights) @ directions
    i, j = torch.triu_indices(*A.shape, offset=1, device=A.device)
    return torch.cat([A.diagonal(), math.sqrt(2) * A[i, j]])

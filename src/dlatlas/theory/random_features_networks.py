"""Scalable neural network kernels: a unit s(w.x + b) as a dot product of features of the input and of the weights."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Inexact
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.ops.kernel_ridge import ridge_fit
from dlatlas.typed import typed


@typed
def positive_rf(u: Inexact[Tensor, "n d"], g: Float[Tensor, "m d"], A: float = 0.0) -> Inexact[Tensor, "n m"]:
    r"""Random features of the exponential of a dot product.

    .. math:: L(g, u) = (1 - 4A)^{d/4} \exp\Bigl(A \lVert g \rVert^2 + \sqrt{1 - 4A}\; g \cdot u
        - \tfrac12\, u \cdot u\Bigr), \qquad \mathrm E_g\, L(g, u)\, L(g, v) = e^{u \cdot v}

    for :math:`g \sim N(0, I)`. Positive for real vectors. Complex ones are allowed; dot products have no conjugate.

    Parameters
    ----------
    u
        Vectors, real or complex. The features grow like :math:`e^{\lVert u \rVert^2}`: normalise long vectors.
    g
        Gaussian vectors :math:`g_j`.
    A
        Any number below 1/4; below 1/8 the variance is finite.

    Returns
    -------
    Tensor
        (n, m).

    Raises
    ------
    ValueError
        For A of 1/4 or more, or features that overflow.

    References
    ----------
    scalable-neural-network-kernels
    """
    return _scaled_rf(u, g, g.new_ones(len(g)), A)


@typed
def positive_rf_moments(
    u: Inexact[Tensor, "n d"], v: Inexact[Tensor, "k d"], A: float = 0.0
) -> tuple[Inexact[Tensor, "n k"], Inexact[Tensor, "n k"]]:
    r"""Second moments of :math:`Z = L(g, u)\, L(g, v)`, with and without absolute value.

    .. math:: \mathrm E Z^2 = M(u, v), \qquad \mathrm E |Z|^2 = M(\Re u, \Re v)\,
        e^{\lVert \Im u \rVert^2 + \lVert \Im v \rVert^2}, \qquad
        M(u, v) = \frac{(1 - 4A)^d}{(1 - 8A)^{d/2}}
        \exp\Bigl(\tfrac{2 (1 - 4A)}{1 - 8A} (u + v) \cdot (u + v) - u \cdot u - v \cdot v\Bigr)

    Parameters
    ----------
    u, v
        Vectors, real or complex.
    A
        Below 1/8.

    Returns
    -------
    tuple of Tensor
        :math:`\mathrm E Z^2` and :math:`\mathrm E |Z|^2`, (n, k); equal for real vectors.

    Raises
    ------
    ValueError
        For A of 1/8 or more, where the moments are infinite.

    References
    ----------
    scalable-neural-network-kernels
    """
    if not A < 1 / 8:
        raise ValueError(f"A must be less than 1/8, got {A}")
    real_u, real_v = _real(u), _real(v)
    growth = _square(u - real_u)[:, None].abs() + _square(v - real_v).abs()
    return _second_moment(u, v, A), _second_moment(real_u, real_v, A) * growth.exp()


@typed
def best_a(length: float, d: int) -> float:
    r"""The A with the smallest second moment in `positive_rf_moments`.

    .. math:: A^* = \frac{1 - 2\varphi - \sqrt{1 + 12\varphi + 4\varphi^2}}{16}, \qquad
        \varphi = \frac{\lVert \Re(u + v) \rVert^2}{d}

    Parameters
    ----------
    length
        :math:`\lVert \Re(u + v) \rVert^2`, or a mean of it.
    d
        Dimension.

    Returns
    -------
    float
        At most 0.

    Raises
    ------
    ValueError
        For a negative length, or no dimension.

    References
    ----------
    scalable-neural-network-kernels
    """
    validate.at_least("length", length, 0.0)
    validate.at_least("d", d, 1)
    ratio = length / d
    return (1 - 2 * ratio - math.sqrt(1 + 12 * ratio + 4 * ratio**2)) / 16


@typed
def urf(
    x: Float[Tensor, "n d"],
    w: Float[Tensor, "k d"],
    b: Float[Tensor, " k"],
    tau: Callable[[Tensor], Tensor],
    density: Callable[[Tensor], Tensor],
    xi: Float[Tensor, " m"],
    g: Float[Tensor, "m d"],
    A: float = 0.0,
) -> tuple[Inexact[Tensor, "n m"], Inexact[Tensor, "k m"]]:
    r"""Universal random features of a layer.

    .. math::
        s(w \cdot x + b) \approx \Re \sum_j \Phi_j(x)\, \Psi_j(w, b), \qquad
        \Phi_j(x) &= \tfrac{1}{\sqrt m} L(g_j, \varrho_j x), \\
        \Psi_j(w, b) &= \tfrac{1}{\sqrt m} \frac{\tau(\xi_j)}{p(\xi_j)}\, e^{2\pi i \xi_j b}\, L(g_j, \varrho_j w),
        \qquad \varrho_j = \sqrt{2\pi i\, \xi_j}

    for :math:`s(z) = \int \tau(\xi)\, e^{2\pi i \xi z} d\xi`, in the mean over :math:`\xi_j \sim p` and :math:`g_j`.

    Parameters
    ----------
    x, w, b
        Inputs, weights and biases.
    tau, density
        Fourier transform :math:`\tau` of the activation; density :math:`p` of the frequencies, positive.
    xi, g
        Frequencies :math:`\xi_j`, Gaussian vectors :math:`g_j`.
    A
        As for `positive_rf`.

    Returns
    -------
    tuple of Tensor
        :math:`\Phi` (n, m) and :math:`\Psi` (k, m), complex.

    Raises
    ------
    ValueError
        As `positive_rf`.

    References
    ----------
    scalable-neural-network-kernels
    """
    scale = (2j * math.pi * xi).sqrt()
    phase = tau(xi) / density(xi) * torch.exp(2j * math.pi * xi * b[:, None])
    root = len(xi) ** -0.5
    return root * _scaled_rf(x, g, scale, A), root * phase * _scaled_rf(w, g, scale, A)


@typed
def relu_snnk_features(x: Float[Tensor, "*batch d"], G: Float[Tensor, "m d"]) -> Float[Tensor, "*batch m"]:
    r"""Features of the rectifier variant, the same for inputs and weights.

    .. math:: \Phi(x) = \frac{1}{\sqrt m} \max(G x, 0), \qquad
        \mathrm E\, \Phi(x) \cdot \Phi(w) = \lVert x \rVert \lVert w \rVert\,
        \frac{\sin\theta + (\pi - \theta) \cos\theta}{2\pi}

    with the angle :math:`\theta` between :math:`x` and :math:`w`.

    Parameters
    ----------
    x, G
        Vectors; Gaussian rows.

    Returns
    -------
    Tensor
        ``(*batch, m)``.

    References
    ----------
    scalable-neural-network-kernels
    """
    return torch.relu(x @ G.mT) / math.sqrt(len(G))


@typed
def orthogonal_gaussian(
    m: int, d: int, *, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "m d"]:
    r"""Gaussian vectors that are orthogonal within blocks of d.

    Every row is :math:`N(0, I)` by itself: a uniform direction, times a length drawn from the chi distribution. Calls
    with a generator cannot be mapped by ``vmap``.

    Parameters
    ----------
    m, d
        Number of vectors and dimension.
    generator
        Source of the random numbers.
    dtype
        Precision of the result; the random numbers are the same for all.

    Returns
    -------
    Tensor
        (m, d).

    Raises
    ------
    ValueError
        For no vectors or no dimension.

    References
    ----------
    scalable-neural-network-kernels
    """
    validate.at_least("m", m, 1)
    validate.at_least("d", d, 1)
    blocks, lengths = torch.randn(2, -(-m // d), d, d, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(blocks)
    # With the signs of the diagonal of R the distribution of Q is invariant under rotations.
    directions = (Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None]).mT
    return (directions * lengths.norm(dim=-1, keepdim=True)).reshape(-1, d)[:m].to(dtype)


@typed
def bundle_last(phi: Float[Tensor, "n m"], y: Float[Tensor, "n units"], *, ridge: float) -> Float[Tensor, "units m"]:
    r"""Weights of a last layer on features, in closed form for the squared loss.

    .. math:: W = Y^\top \Phi\, (\Phi^\top \Phi + \lambda I)^{-1}

    Parameters
    ----------
    phi, y
        Features and targets.
    ridge
        :math:`\lambda`, at least 0.

    Returns
    -------
    Tensor
        (units, m).

    Raises
    ------
    ValueError
        As `dlatlas.ops.kernel_ridge.ridge_fit`.

    References
    ----------
    scalable-neural-network-kernels
    """
    return ridge_fit(phi, y, ridge=ridge).mT


class SNNK(nn.Module):
    r"""Layer on random features that are frozen.

    .. math:: \mathrm{out} = \Phi(x)\, W^\top

    ``"relu"`` uses `relu_snnk_features`. ``"sine"`` uses `urf` for :math:`\sin(w \cdot x + b)`, with real and imaginary
    parts side by side.

    Parameters
    ----------
    d, units, m
        Dimension of the input, number of outputs, and of Gaussian vectors.
    kind
        ``"relu"`` or ``"sine"``.
    A
        As for `positive_rf`; for ``"sine"`` only.

    References
    ----------
    scalable-neural-network-kernels
    """

    def __init__(self, d: int, units: int, m: int, kind: str = "relu", *, A: float = 0.0) -> None:
        super().__init__()
        for name, value in (("d", d), ("units", units), ("m", m)):
            validate.at_least(name, value, 1)
        validate.one_of("kind", kind, ("relu", "sine"))
        self.kind, self.A = kind, A
        self.register_buffer("G", torch.randn(m, d))
        self.W = nn.Parameter(torch.zeros(units, m if kind == "relu" else 2 * m))

    @classmethod
    def from_linear(cls, layer: nn.Linear, m: int, kind: str = "relu", *, A: float = 0.0) -> "SNNK":
        """Start at the features of the weights of a layer, for ``"sine"`` also of its biases."""
        self = cls(layer.in_features, layer.out_features, m, kind, A=A).to(layer.weight)
        with torch.no_grad():
            self.W.copy_(self._weight_features(layer))
        return self

    def features(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch features"]:
        r"""Give :math:`\Phi(x)`."""
        if self.kind == "relu":
            return relu_snnk_features(x, self.G)
        phi = self._half(x.reshape(-1, x.shape[-1]))
        return torch.cat([phi.real, -phi.imag], -1).unflatten(0, x.shape[:-1])

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch units"]:
        return self.features(x) @ self.W.mT

    def _half(self, x: Tensor) -> Tensor:
        root = self.G.new_tensor(1.0).mul(1j).sqrt()
        return len(self.G) ** -0.5 * _scaled_rf(x, self.G, root.expand(len(self.G)), self.A)

    def _weight_features(self, layer: nn.Linear) -> Tensor:
        if self.kind == "relu":
            return relu_snnk_features(layer.weight, self.G)
        bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
        # sin(z) = Re(-i e^{iz}): the two frequencies +-1/(2 pi) are conjugate, one of them is enough.
        psi = -1j * torch.exp(1j * bias)[:, None] * self._half(layer.weight)
        return torch.cat([psi.real, psi.imag], -1)


def _scaled_rf(x: Tensor, g: Tensor, scale: Tensor, A: float) -> Tensor:
    """Features of the vectors scale_j x, with one scale for each feature."""
    if not A < 1 / 4:
        raise ValueError(f"A must be less than 1/4, got {A}")
    products = x @ g.mT.to(x.dtype)
    exponent = A * g.square().sum(-1) + math.sqrt(1 - 4 * A) * scale * products
    features = (1 - 4 * A) ** (g.shape[1] / 4) * _exp(exponent - scale.square() * _square(x)[:, None] / 2)
    validate.finite("features (long vectors overflow)", features)
    return features


def _exp(z: Tensor) -> Tensor:
    """Exponential; by length and angle, which is faster than that of complex numbers."""
    return torch.polar(z.real.exp(), z.imag) if z.is_complex() else z.exp()


def _square(x: Tensor) -> Tensor:
    return (x * x).sum(-1)


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def _second_moment(u: Tensor, v: Tensor, A: float) -> Tensor:
    squares = _square(u)[:, None] + _square(v)
    total = squares + 2 * u @ v.mT
    d = u.shape[-1]
    return (1 - 4 * A) ** d * (1 - 8 * A) ** (-d / 2) * torch.exp(2 * (1 - 4 * A) / (1 - 8 * A) * total - squares)

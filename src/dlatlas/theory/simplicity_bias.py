"""Shortcuts: two features that differ in predictivity and availability, and which of them a model relies on."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

NEST_WIDTH = 8
NEST_GAIN = 2.0


@typed
def feature_means(rho: Float[Tensor, "*features"]) -> Float[Tensor, "*features"]:
    r"""Means that give features of unit variance their predictivity.

    .. math:: z = y \mu + \varepsilon, \quad \varepsilon \sim \mathcal N(0, 1) \quad\Rightarrow\quad
        P(\operatorname{sign} z = y) = \Phi(\mu) = \rho, \qquad \mu = \Phi^{-1}(\rho)

    Parameters
    ----------
    rho
        Predictivities :math:`\rho`, above one half and below one.

    Returns
    -------
    Tensor
        :math:`\mu`, of the same shape.

    Raises
    ------
    ValueError
        For a predictivity outside (0.5, 1).

    References
    ----------
    shortcut-availability
    """
    smallest = torch.finfo(rho.dtype).eps
    validate.in_range("rho", rho, 0.5 + smallest, 1 - smallest)
    return torch.special.ndtri(rho)


@dataclass(frozen=True)
class FeatureEmbedding:
    r"""Where two latent features lie among the inputs.

    .. math:: x = \alpha_s E_s\, T_s(z_s) + \alpha_c E_c\, T_c(z_c)

    with orthonormal columns of :math:`(E_s, E_c)`. :math:`T = \mathrm{id}` without nesting; with :math:`\eta` layers it
    is a random tanh network from the line into 8 dimensions, scaled to the mean square of z. It is one to one with
    probability one, so nesting changes the form of a feature and not how well it predicts.

    Parameters
    ----------
    directions
        Orthonormal rows (2, 8, dim); a feature without nesting uses the first of its eight.
    alphas
        Amplifications :math:`(\alpha_s, \alpha_c)`.
    nests
        For each feature its layers, pairs of a weight matrix and a bias, and the scale of the output.
    """

    directions: Float[Tensor, "2 width dim"]
    alphas: tuple[float, float]
    nests: tuple["Nest", "Nest"]

    @typed
    def __call__(self, z: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n dim"]:
        """Give the inputs of latent features."""
        features = zip(self.alphas, self.nests, self.directions.to(z), z.split(1, dim=-1), strict=True)
        return sum(alpha * nest(latent) @ rows[: nest.outputs] for alpha, nest, rows, latent in features)


@dataclass(frozen=True)
class Nest:
    """A fixed random network from one latent feature to several inputs; the identity without layers."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    scale: float

    @property
    def outputs(self) -> int:
        """How many dimensions the feature takes."""
        return NEST_WIDTH if self.layers else 1

    def __call__(self, latent: Tensor) -> Tensor:
        """Apply the network to a column."""
        for weight, bias in self.layers:
            latent = torch.tanh(latent @ weight.to(latent) + bias.to(latent))
        return self.scale * latent


class TwoFeatureSample(NamedTuple):
    """Inputs (n, dim), labels -1 or 1 (n,), latent features (n, 2), and the map from latent features to inputs."""

    x: Tensor
    y: Tensor
    z: Tensor
    embed: FeatureEmbedding


@typed
def two_feature_data(
    n: int,
    rho: tuple[float, float],
    alpha: tuple[float, float],
    *,
    nest: tuple[int, int] = (0, 0),
    dim: int = 100,
    noise: float = 0.0,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> TwoFeatureSample:
    r"""Draw labelled inputs with a shortcut and a core feature.

    .. math:: y = \pm 1, \qquad z_i = y\, \Phi^{-1}(\rho_i) + \mathcal N(0, 1), \qquad
        x = \sum_{i \in \{s, c\}} \alpha_i E_i\, T_i(z_i) + \sigma\, \mathcal N(0, I)

    Parameters
    ----------
    n
        Number of samples.
    rho
        Predictivities :math:`(\rho_s, \rho_c)`, in (0.5, 1).
    alpha
        Amplifications :math:`(\alpha_s, \alpha_c)`, greater than zero.
    nest
        Layers of the random networks :math:`(\eta_s, \eta_c)`.
    dim
        Dimension of the inputs, at least 16.
    noise
        Standard deviation :math:`\sigma` of isotropic noise on the inputs.
    generator
        A CPU generator. There are no tensors to map over by vmap.
    dtype
        Of the sample.

    Returns
    -------
    TwoFeatureSample
        ``x`` (n, dim), ``y`` (n,), ``z`` (n, 2), and ``embed``, without noise.

    Raises
    ------
    ValueError
        For a predictivity outside (0.5, 1), an amplification that is not positive, a negative number of layers,
        negative noise, no samples or too few dimensions.

    References
    ----------
    shortcut-availability
    """
    validate.at_least("n", n, 1)
    validate.at_least("dim", dim, 2 * NEST_WIDTH)
    validate.at_least("noise", noise, 0.0)
    for amplification, layers in zip(alpha, nest, strict=True):
        validate.positive("alpha", amplification)
        validate.at_least("nest", layers, 0)
    double = {"generator": generator, "dtype": torch.float64}
    mu = feature_means(torch.tensor(rho, dtype=torch.float64))
    frame = torch.linalg.qr(torch.randn(dim, 2 * NEST_WIDTH, **double)).Q.mT
    nests = tuple(_draw_nest(layers, mean.item(), generator) for layers, mean in zip(nest, mu, strict=True))
    embed = FeatureEmbedding(frame.unflatten(0, (2, NEST_WIDTH)), alpha, nests)
    y = 2 * torch.randint(2, (n,), generator=generator) - 1
    z = y[:, None] * mu + torch.randn(n, 2, **double)
    x = embed(z) + noise * torch.randn(n, dim, **double)
    return TwoFeatureSample(x.to(dtype), y.to(dtype), z.to(dtype), embed)


@typed
def probe_grid(
    points: int = 40, limit: float = 3.0, *, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "{points}*{points} 2"]:
    r"""Latent features on a symmetric square grid that avoids zero, where a feature has no sign.

    Parameters
    ----------
    points
        Points along a side, an even number.
    limit
        Largest coordinate.
    dtype
        Of the grid.

    Returns
    -------
    Tensor
        (points², 2), in units of the features' standard deviation.

    Raises
    ------
    ValueError
        For an odd number of points or a limit that is not positive.

    References
    ----------
    shortcut-availability
    """
    validate.at_least("points", points, 2)
    validate.positive("limit", limit)
    if points % 2:
        raise ValueError(f"points must be even, so that no feature is zero on the grid; got {points}")
    side = torch.linspace(-limit, limit, points, dtype=dtype)
    return torch.cartesian_prod(side, side)


@typed
def reliance(outputs: Float[Tensor, " m"], z: Float[Tensor, "m 2"]) -> Float[Tensor, ""]:
    r"""How much more often a model follows the shortcut than the core feature.

    .. math:: R(f) = P(\operatorname{sign} f = \operatorname{sign} z_s) - P(\operatorname{sign} f =
        \operatorname{sign} z_c)

    Parameters
    ----------
    outputs
        :math:`f` at the probes; zero agrees with neither.
    z
        Latent features of the probes, none of them zero, as of `probe_grid`.

    Returns
    -------
    Tensor
        A scalar between -1/2 and 1/2 on a symmetric grid.

    Raises
    ------
    ValueError
        Where a latent feature is zero.

    References
    ----------
    shortcut-availability
    """
    validate.in_range("absolute value of z", z.abs(), torch.finfo(z.dtype).tiny, math.inf)
    agrees = (outputs.sign()[:, None] == z.sign()).to(outputs.dtype).mean(0)
    return agrees[0] - agrees[1]


@typed
def lda_reference(z: Float[Tensor, "*n 2"], mu: Float[Tensor, " 2"]) -> Float[Tensor, "*n"]:
    r"""Linear discriminant, the best use of both features: :math:`\mu_s z_s + \mu_c z_c`.

    Its sign is that of :math:`E[y \mid z] = \tanh(\mu \cdot z)`.

    Parameters
    ----------
    z
        Latent features.
    mu
        Their means :math:`(\mu_s, \mu_c)` in the class 1.

    Returns
    -------
    Tensor
        One number a row.

    References
    ----------
    shortcut-availability
    """
    return z @ mu


@typed
def shortcut_bias(outputs: Float[Tensor, " m"], z: Float[Tensor, "m 2"], mu: Float[Tensor, " 2"]) -> Float[Tensor, ""]:
    r"""Reliance on the shortcut beyond what its predictivity justifies: :math:`R(f) - R(\mu \cdot z)`.

    Parameters
    ----------
    outputs, z
        As for `reliance`.
    mu
        As for `lda_reference`.

    Returns
    -------
    Tensor
        A scalar between -1 and 1; positive where the model follows the shortcut more than the best rule does.

    Raises
    ------
    ValueError
        As `reliance`.

    References
    ----------
    shortcut-availability
    """
    return reliance(outputs, z) - reliance(lda_reference(z, mu), z)


@typed
def latent_quadrature(
    mu: Float[Tensor, " 2"], *, points: int = 32, limit: float = 5.5
) -> tuple[Float[Tensor, "q 2"], Float[Tensor, " q"], Float[Tensor, " q"]]:
    r"""Nodes and weights for averages over the latent features, and the regression function at the nodes.

    .. math:: p(z) = \tfrac12 \sum_{y = \pm 1} \mathcal N(z; y \mu, I), \qquad E[y \mid z] = \tanh(\mu \cdot z)

    Parameters
    ----------
    mu
        Means :math:`(\mu_s, \mu_c)`.
    points, limit
        Of the square grid, as for `probe_grid`.

    Returns
    -------
    tuple of Tensor
        Nodes (q, 2), weights (q,) that sum to one, and :math:`E[y \mid z]` (q,).

    Raises
    ------
    ValueError
        As `probe_grid`.

    References
    ----------
    shortcut-availability
    """
    z = probe_grid(points, limit, dtype=mu.dtype).to(mu.device)
    density = sum(torch.exp(-(z - sign * mu).square().sum(-1) / 2) for sign in (-1, 1))
    return z, density / density.sum(), torch.tanh(lda_reference(z, mu))


def _draw_nest(layers: int, mu: float, generator: torch.Generator) -> Nest:
    if layers == 0:
        return Nest((), 1.0)
    double = {"generator": generator, "dtype": torch.float64}
    widths = [1] + [NEST_WIDTH] * (layers - 1)
    drawn = tuple(
        (
            NEST_GAIN * torch.randn(inputs, NEST_WIDTH, **double) / math.sqrt(inputs),
            torch.randn(NEST_WIDTH, **double),
        )
        for inputs in widths
    )
    z, weights, _ = latent_quadrature(torch.full((2,), mu, dtype=torch.float64))
    square = (weights[:, None] * Nest(drawn, 1.0)(z[:, :1]).square()).sum()
    return Nest(drawn, math.sqrt((1 + mu**2) / square.item()))

"""Where to evaluate a function for least squares: independent, determinantal and volume-rescaled designs.

Points are rows of a finite set of N candidates with the uniform measure.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def christoffel(phi: Float[Tensor, "N m"]) -> Float[Tensor, " N"]:
    r"""Weights of optimal sampling.

    .. math:: w(x) = \frac{m}{k_m(x)}, \qquad k_m(x) = \lVert \varphi(x) \rVert^2

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal: :math:`\frac1N \sum_x \varphi(x) \varphi(x)^\top = I`.

    Returns
    -------
    Tensor
        (N,).

    Raises
    ------
    ValueError
        When the basis is not orthonormal, or vanishes at a candidate.

    References
    ----------
    dpp-weighted-least-squares
    """
    _check_orthonormal(phi)
    k_m = phi.square().sum(-1)
    validate.in_range("k_m", k_m, torch.finfo(phi.dtype).tiny, math.inf)
    return phi.shape[1] / k_m


@typed
def gram(phi: Float[Tensor, "N m"], idx: Int[Tensor, "*draws n"]) -> Float[Tensor, "*draws m m"]:
    r"""Weighted Gram matrices of designs.

    .. math:: G = \frac1n \sum_i w(x_i)\, \varphi(x_i)\, \varphi(x_i)^\top

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    idx
        Designs: rows of ``phi``.

    Returns
    -------
    Tensor
        ``(*draws, m, m)``.

    Raises
    ------
    ValueError
        As `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    weighted = christoffel(phi).sqrt()[idx][..., None] * phi[idx]
    return weighted.mT @ weighted / idx.shape[-1]


@typed
def sample_optimal_iid(
    phi: Float[Tensor, "N m"], n: int, *, draws: int, generator: torch.Generator | None = None
) -> Int[Tensor, "draws n"]:
    r"""Draw independent points from :math:`\nu = (k_m / m)\, \mu`.

    Random indices: not mapped by ``vmap``.

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    n, draws
        Points a design, and number of designs.
    generator
        Source of the random numbers.

    Returns
    -------
    Tensor
        (draws, n).

    Raises
    ------
    ValueError
        For no points or no designs, and as `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.at_least("n", n, 1)
    validate.at_least("draws", draws, 1)
    chance = (1 / christoffel(phi)).expand(draws, -1)
    return torch.multinomial(chance, n, replacement=True, generator=generator)


@typed
def sample_projection_dpp(
    phi: Float[Tensor, "N m"], *, draws: int, generator: torch.Generator | None = None
) -> Int[Tensor, "draws m"]:
    r"""Draw m points from the projection determinantal process, one after the other.

    .. math:: p(x_{j+1} \mid x_1, \dots, x_j) = \frac{1}{N (m - j)} \bigl(\lVert \varphi(x) \rVert^2
        - \lVert P_j\, \varphi(x) \rVert^2\bigr)

    with the projection :math:`P_j` on the span of :math:`\varphi(x_1), \dots, \varphi(x_j)`. Random indices: not
    mapped by ``vmap``.

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    draws
        Number of designs.
    generator
        Source of the random numbers.

    Returns
    -------
    Tensor
        (draws, m), in the order in which the points were drawn.

    Raises
    ------
    ValueError
        For no designs, and as `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.at_least("draws", draws, 1)
    _check_orthonormal(phi)
    m = phi.shape[1]
    left = phi.square().sum(-1).expand(draws, -1)
    frame = phi.new_zeros(draws, m, m)
    points = []
    for j in range(m):
        x = _draw_rows(left.clamp(min=0), generator)
        points.append(x)
        frame[:, j] = _next_direction(frame, phi[x])
        left = left - (frame[:, j] @ phi.mT).square()
    return torch.stack(points, dim=1)


@typed
def projection_dpp_probability(phi: Float[Tensor, "N m"], idx: Int[Tensor, "*draws m"]) -> Float[Tensor, "*draws"]:
    r"""Chance that the sequential sampler draws these points in this order.

    .. math:: p(x_1, \dots, x_m) = \frac{1}{N^m\, m!} \det \bigl[ \varphi(x_i) \cdot \varphi(x_j) \bigr]_{ij}

    as the product of the conditional chances of `sample_projection_dpp`, the squared diagonal of a QR decomposition.

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    idx
        Ordered designs.

    Returns
    -------
    Tensor
        ``(*draws)``.

    Raises
    ------
    ValueError
        As `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    _check_orthonormal(phi)
    N, m = phi.shape
    heights = torch.linalg.qr(phi[idx].mT).R.diagonal(dim1=-2, dim2=-1).square()
    counts = torch.arange(m, 0, -1).to(phi)
    return (heights / (N * counts)).prod(-1)


@typed
def sample_volume_rescaled(
    phi: Float[Tensor, "N m"], n: int, *, draws: int, generator: torch.Generator | None = None
) -> Int[Tensor, "draws n"]:
    r"""Draw designs with density proportional to :math:`\det G(x)` with respect to :math:`\nu^n`.

    m points from the projection determinantal process, n - m independent ones from :math:`\nu`, in random order. Random
    indices: not mapped by ``vmap``.

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    n, draws
        Points a design, at least m; and number of designs.
    generator
        Source of the random numbers.

    Returns
    -------
    Tensor
        (draws, n).

    Raises
    ------
    ValueError
        For fewer points than basis functions, no designs, and as `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    m = phi.shape[1]
    validate.at_least("n", n, m)
    idx = sample_projection_dpp(phi, draws=draws, generator=generator)
    if n > m:
        more = sample_optimal_iid(phi, n - m, draws=draws, generator=generator)
        idx = torch.cat([idx, more], dim=1)
    order = torch.rand(draws, n, generator=generator).argsort(1).to(idx.device)
    return idx.gather(1, order)


@typed
def sample_repeated_dpp(
    phi: Float[Tensor, "N m"], r: int, *, draws: int, generator: torch.Generator | None = None
) -> Int[Tensor, "draws n"]:
    r"""Draw r independent blocks from the projection determinantal process, :math:`n = r m`.

    Random indices: not mapped by ``vmap``.

    Parameters
    ----------
    phi
        Basis at the candidates, orthonormal.
    r, draws
        Blocks a design, and number of designs.
    generator
        Source of the random numbers.

    Returns
    -------
    Tensor
        (draws, r m).

    Raises
    ------
    ValueError
        For no blocks or no designs, and as `christoffel`.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.at_least("r", r, 1)
    validate.at_least("draws", draws, 1)
    blocks = sample_projection_dpp(phi, draws=draws * r, generator=generator)
    return blocks.reshape(draws, -1)


def condition_gram(
    sampler: Callable[[int], Tensor], phi: Tensor, *, draws: int, delta: float, max_tries: int = 100
) -> Tensor:
    r"""Draw designs on the condition :math:`\lambda_{\min}(G) \ge 1 - \delta`, by drawing the others again.

    Random indices: not mapped by ``vmap``.

    Parameters
    ----------
    sampler
        From a number of designs to designs (draws, n), such as a partial call of `sample_repeated_dpp`.
    phi
        Basis at the candidates (N, m), orthonormal.
    draws
        Number of designs.
    delta
        :math:`\delta`, between 0 and 1.
    max_tries
        How often a design is drawn before the condition is given up.

    Returns
    -------
    Tensor
        (draws, n).

    Raises
    ------
    ValueError
        For a condition outside (0, 1), fewer than one try, or when a design is never good enough.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.in_range("delta", delta, torch.finfo(phi.dtype).tiny, 1.0)
    validate.at_least("max_tries", max_tries, 1)
    idx = sampler(draws)
    for _ in range(max_tries):
        bad = torch.linalg.eigvalsh(gram(phi, idx))[..., 0] < 1 - delta
        if not bad.any():
            return idx
        idx = idx.clone()
        idx[bad] = sampler(int(bad.sum()))
    raise ValueError(f"lambda_min must reach {1 - delta} within {max_tries} tries, got {int(bad.sum())} designs below")


def iid_failure_bound(m: int, n: int, *, delta: float) -> float:
    r"""Bound on the chance that an independent optimal design has :math:`\lambda_{\min}(G) < 1 - \delta`.

    .. math:: m\, e^{-c_\delta n / m}, \qquad c_\delta = \delta + (1 - \delta) \log(1 - \delta)

    Parameters
    ----------
    m, n
        Number of basis functions and of points.
    delta
        :math:`\delta`, between 0 and 1, both excluded.

    Returns
    -------
    float
        At most 1.

    Raises
    ------
    ValueError
        For fewer than one function or point, or a delta out of range.

    References
    ----------
    dpp-weighted-least-squares
    """
    validate.at_least("m", m, 1)
    validate.at_least("n", n, 1)
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie between 0 and 1, got {delta}")
    rate = delta + (1 - delta) * math.log(1 - delta)
    return min(1.0, m * math.exp(-rate * n / m))


def _draw_rows(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw one column a row, with chances in proportion to the weights."""
    total = weights.cumsum(-1)
    height = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64).to(weights) * total[:, -1:]
    return torch.searchsorted(total, height, right=True)[:, 0].clamp(max=weights.shape[1] - 1)


def _next_direction(frame: Tensor, vector: Tensor) -> Tensor:
    # Twice is enough: the second pass removes what rounding left of the first.
    for _ in range(2):
        vector = vector - ((frame @ vector[..., None]).mT @ frame)[..., 0, :]
    return vector / vector.norm(dim=-1, keepdim=True)


def _check_orthonormal(phi: Tensor) -> None:
    N, m = phi.shape
    identity = torch.eye(m, dtype=phi.dtype, device=phi.device)
    deviation = (phi.mT @ phi / N - identity).abs().max()
    validate.in_range(
        "deviation of the basis from orthonormal", deviation, 0.0, 1e3 * torch.finfo(phi.dtype).eps ** 0.75
    )

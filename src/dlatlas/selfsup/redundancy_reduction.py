"""Redundancy reduction: Barlow Twins, its mixed samples, and embeddings as particles that attract and disperse."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.typed import typed

UNIT_NORM_TOLERANCE = 1e-3


@typed
def cross_correlation(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, eps: float = 0.0) -> Float[Tensor, "d d"]:
    r"""Correlation over the batch between every feature of one view and every feature of the other.

    .. math:: C_{ij} = \frac1n \sum_{k=1}^n a_{ki} b_{kj}, \qquad
        a_{ki} = \frac{z^1_{ki} - \bar z^1_i}{\sqrt{\mathrm{Var}\, z^1_i + \epsilon}}

    and b from the other view in the same way. The variance divides by n, so that equal views have
    :math:`C_{ii} = 1`; with n - 1 in its place every entry is smaller by the factor (n - 1)/n.

    Parameters
    ----------
    z1, z2
        Embeddings :math:`z^1, z^2` of two views; row k of both comes from the same image.
    eps
        Added to the variances. A constant feature has no correlation; a positive value gives it 0.

    Returns
    -------
    Tensor
        C (d, d), with entries in [-1, 1].

    Raises
    ------
    ValueError
        When there is one row only, or a feature is constant over the batch and ``eps`` is 0.

    References
    ----------
    barlow-twins
    """
    validate.at_least("eps", eps, 0)
    return _standardise("z1", z1, eps).mT @ _standardise("z2", z2, eps) / z1.shape[0]


@typed
def barlow_twins(z1: Float[Tensor, "n d"], z2: Float[Tensor, "n d"], *, lam: float = 5e-3) -> Float[Tensor, ""]:
    r"""Distance of the cross-correlation matrix to the identity: an invariance and a redundancy term.

    .. math:: \mathcal L = \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2

    Parameters
    ----------
    z1, z2
        Embeddings of two views, see `cross_correlation`; both receive gradients.
    lam
        Weight :math:`\lambda` of the redundancy term.

    Returns
    -------
    Tensor
        A scalar, zero where both views agree and no two features are correlated.

    Raises
    ------
    ValueError
        When ``lam`` is negative, there is one row only, or a feature is constant over the batch.

    References
    ----------
    barlow-twins
    """
    return _distance_to_identity(cross_correlation(z1, z2), lam)


@typed
def projector(d_in: int, width: int, layers: int = 3) -> nn.Sequential:
    """Build the head whose output the loss sees: linear layers of one width, with batch normalisation and ReLU between.

    Parameters
    ----------
    d_in
        Dimension of the encoder's output.
    width
        Width d of every layer.
    layers
        Number of linear layers, at least 1; the last one is plain.

    Returns
    -------
    Sequential
        A module from (n, d_in) to (n, width).

    Raises
    ------
    ValueError
        When a size is not positive.

    References
    ----------
    barlow-twins
    """
    for name, value in (("d_in", d_in), ("width", width), ("layers", layers)):
        validate.at_least(name, value, 1)
    blocks: list[nn.Module] = []
    for inputs in [d_in, *[width] * (layers - 1)][: layers - 1]:
        # Without a bias: the normalisation would remove it.
        blocks += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*blocks, nn.Linear(width if blocks else d_in, width, bias=False))


@typed
def mix_views(
    x1: Float[Tensor, "n *input"], x2: Float[Tensor, "n *input"], *, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "n *input"], Int[Tensor, " n"], Float[Tensor, ""]]:
    r"""Mix one view of every image with the other view of a random partner, all with one coefficient.

    .. math:: x_m = a\, x_1 + (1 - a)\, x_2[\pi], \qquad a \sim \mathrm{Beta}(1, 1)

    Without a generator, ``vmap`` with ``randomness="different"`` maps over calls, and each draws for itself; it cannot
    map over a call with a generator.

    Parameters
    ----------
    x1, x2
        Two views of the same images.
    generator
        Source of a and :math:`\pi`, on the CPU; the default one of torch when not given.

    Returns
    -------
    tuple
        :math:`x_m`, the permutation :math:`\pi` (n,) and the coefficient a, a scalar.

    References
    ----------
    mixed-barlow-twins
    """
    perm = torch.randperm(x1.shape[0], generator=generator).to(x1.device)
    a = torch.rand((), generator=generator, dtype=torch.float64).to(x1)
    return a * x1 + (1 - a) * x2[perm], perm, a


@typed
def mixed_barlow_twins(
    zA: Float[Tensor, "n d"],
    zB: Float[Tensor, "n d"],
    zM: Float[Tensor, "n d"],
    perm: Int[Tensor, " n"],
    a: float | Float[Tensor, ""],
    *,
    lam: float = 1 / 128,
    r: float = 4.0,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Barlow Twins, and a penalty that asks a mixture of two images for the mixture of their correlations.

    .. math:: \mathcal L_{mix} = r \lambda \Bigl(
        \bigl\lVert C^{MA} - a\, C^{AA} - (1 - a)\, C^{B_\pi A} \bigr\rVert_F^2
        + \bigl\lVert C^{MB} - a\, C^{AB} - (1 - a)\, C^{B_\pi B} \bigr\rVert_F^2 \Bigr)

    with :math:`C^{XY}` the cross-correlation of X and Y, and :math:`B_\pi` the rows of B in the order of the partners.
    Gradients flow through the targets, too.

    Parameters
    ----------
    zA, zB, zM
        Embeddings of the two views and of the mixture.
    perm, a
        Permutation :math:`\pi` and coefficient of the mixture, see `mix_views`.
    lam
        Weight :math:`\lambda` of the redundancy term.
    r
        Weight of the penalty in units of ``lam``.

    Returns
    -------
    tuple
        The loss of `barlow_twins`, and :math:`\mathcal L_{mix}`; the objective is their sum.

    Raises
    ------
    ValueError
        When a lies outside [0, 1], ``perm`` is no permutation, there are fewer than three rows, a weight is negative,
        or a feature is constant over the batch.

    References
    ----------
    mixed-barlow-twins
    """
    n = zA.shape[0]
    validate.at_least("rows", n, 3)
    validate.in_range("a", a, 0, 1)
    validate.at_least("r", r, 0)
    misplaced = (perm.sort().values - torch.arange(n, device=perm.device)).abs()
    validate.in_range("distance of perm to a permutation", misplaced, 0, 0)
    A, B, M = _standardise("zA", zA), _standardise("zB", zB), _standardise("zM", zM)
    linear = a * A + (1 - a) * B[perm]
    AB = A.mT @ B / n
    # Both correlations are linear in M, so the two penalties need one difference only.
    excess = (M - linear).mT
    penalty = (excess @ A / n).square().sum() + (excess @ B / n).square().sum()
    return _distance_to_identity(AB, lam), r * lam * penalty


@typed
def centroid_loss(p: Float[Tensor, "n V d"], t: Float[Tensor, "n V d"]) -> Float[Tensor, ""]:
    r"""Mean squared distance of the views of an image to the centroid of its target embeddings.

    .. math:: \mathcal L_c = \frac{1}{nV} \sum_{i, v} \lVert p_{iv} - c_i \rVert^2
        = \frac{1}{nV} \sum_{i, v} (2 - 2\, p_{iv}^\top c_i), \qquad
        c_i = \frac{\sum_v t_{iv}}{\lVert \sum_v t_{iv} \rVert}

    Parameters
    ----------
    p, t
        Embeddings of V views of n images on the unit sphere: of the network that is trained, and of its slow copy,
        which receives no gradient.

    Returns
    -------
    Tensor
        A scalar between 0 and 4.

    Raises
    ------
    ValueError
        When an embedding does not have norm 1, or the target embeddings of an image cancel.

    References
    ----------
    msbreg
    """
    _check_unit_norm("p", p)
    _check_unit_norm("t", t)
    mean = t.detach().mean(1, keepdim=True)
    length = mean.norm(dim=-1, keepdim=True)
    validate.in_range("length of the mean of the targets of an image", length, torch.finfo(t.dtype).eps, torch.inf)
    # Linear in p, so the views are averaged first.
    return (2 - 2 * (p.mean(1, keepdim=True) * mean / length).sum(-1)).mean()


@typed
def brownian_loss(p: Float[Tensor, "n V d"], *, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
    r"""A random force on every image, the same for all of its views.

    .. math:: \mathcal L_b = \frac{1}{nV} \sum_{i, v} p_{iv}^\top e_i, \qquad e_i \text{ uniform on the unit sphere}

    Its expectation over :math:`e` is zero, and so is that of its gradient. Without a generator, ``vmap`` with
    ``randomness="different"`` maps over calls, and each draws for itself; it cannot map over a call with a generator.

    Parameters
    ----------
    p
        Embeddings of V views of n images on the unit sphere.
    generator
        Source of the directions, on the CPU; the default one of torch when not given.

    Returns
    -------
    Tensor
        A scalar between -1 and 1.

    Raises
    ------
    ValueError
        When an embedding does not have norm 1.

    References
    ----------
    msbreg
    """
    _check_unit_norm("p", p)
    n, _, d = p.shape
    directions = F.normalize(torch.randn(n, 1, d, generator=generator, dtype=torch.float64), dim=-1)
    return (p.mean(1, keepdim=True) * directions.to(p)).sum(-1).mean()


@typed
def spectral_spread_loss(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    r"""How far the singular values of a cloud of unit vectors are from being equal.

    .. math:: \mathcal L_s = 1 - \frac{\sum_k \sigma_k(z)}{\sqrt{n \min(n, d)}}

    Parameters
    ----------
    z
        Embeddings of n images on the unit sphere, one row an image.

    Returns
    -------
    Tensor
        A scalar between 0 (all singular values are equal) and :math:`1 - 1/\sqrt{\min(n, d)}` (all rows are equal).

    Raises
    ------
    ValueError
        When there is one row only, or a row does not have norm 1.

    References
    ----------
    msbreg
    """
    n, d = z.shape
    validate.at_least("rows of z", n, 2)
    _check_unit_norm("z", z)
    return 1 - torch.linalg.svdvals(z).sum() / (n * min(n, d)) ** 0.5


def _standardise(name: str, z: Tensor, eps: float = 0.0) -> Tensor:
    validate.at_least(f"rows of {name}", z.shape[0], 2)
    mean = z.mean(0)
    centred = z - mean
    variance = centred.square().mean(0) + eps
    if validate.has_values(z):
        _check_that_columns_vary(name, mean.detach(), variance.detach())
    return centred / variance.sqrt()


def _check_that_columns_vary(name: str, mean: Tensor, variance: Tensor) -> None:
    """A constant column need not leave zeros, but the rounding error of its mean."""
    limits = torch.finfo(mean.dtype)
    size = (mean.square() + variance).sqrt().clamp(min=limits.tiny)
    validate.in_range(f"relative deviation of a column of {name}", variance.sqrt() / size, 4 * limits.eps, torch.inf)


def _distance_to_identity(C: Tensor, lam: float) -> Tensor:
    validate.at_least("lam", lam, 0)
    diagonal = C.diagonal()
    return (1 - diagonal).square().sum() + lam * (C.square().sum() - diagonal.square().sum())


def _check_unit_norm(name: str, z: Tensor) -> None:
    if validate.has_values(z):
        norm = z.detach().norm(dim=-1)
        validate.in_range(f"norm of a row of {name}", norm, 1 - UNIT_NORM_TOLERANCE, 1 + UNIT_NORM_TOLERANCE)

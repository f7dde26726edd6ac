"""Linear mode connectivity: paths, barriers, and what matching the hidden units of two networks does to them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value
from torch.utils import _pytree as pytree

from dlatlas.ops import validate
from dlatlas.ops.hessian import flatten
from dlatlas.ops.matching import Spec, apply_perms, best_assignment, matching_gain, weight_matching
from dlatlas.typed import typed

Params = dict[str, Tensor]


@typed
def interpolate(params_a: Any, params_b: Any, a: float | Float[Tensor, ""]) -> Any:
    r"""A point on the line between two networks.

    .. math:: \theta(a) = (1 - a)\, \theta_a + a\, \theta_b

    Parameters
    ----------
    params_a, params_b
        Tensors or trees of tensors of one structure.
    a
        Position; 0 and 1 are the ends, and values outside are allowed.

    Returns
    -------
    Any
        A tree like ``params_a``.

    Raises
    ------
    ValueError
        When the structures or shapes differ.

    References
    ----------
    clip-interpolation-sharpness
    """
    leaves_a, structure = pytree.tree_flatten(params_a)
    leaves_b, other = pytree.tree_flatten(params_b)
    shapes_a, shapes_b = ([tuple(leaf.shape) for leaf in leaves] for leaves in (leaves_a, leaves_b))
    if structure != other or shapes_a != shapes_b:
        raise ValueError(f"both ends must be one architecture, got shapes {shapes_a} and {shapes_b}")
    between = [(1 - a) * u + a * v for u, v in zip(leaves_a, leaves_b, strict=True)]
    return pytree.tree_unflatten(between, structure)


@typed
def interpolation_curve(
    loss: Callable[[Any], Tensor], params_a: Any, params_b: Any, lams: Float[Tensor, " m"]
) -> Float[Tensor, " m"]:
    r"""The loss along the line between two networks.

    .. math:: \mathcal L\bigl( (1 - \lambda)\, \theta_a + \lambda\, \theta_b \bigr)

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params_a, params_b
        The ends.
    lams
        Positions :math:`\lambda` (m,).

    Returns
    -------
    Tensor
        (m,).

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    return torch.stack([loss(interpolate(params_a, params_b, lam)) for lam in lams])


@typed
def barrier(curve: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    r"""Height of a curve above the line between its ends.

    .. math:: \max_\lambda \bigl[ \mathcal L(\lambda) - (1 - \lambda)\, \mathcal L(0) - \lambda\, \mathcal L(1) \bigr]

    Parameters
    ----------
    curve
        Losses at m equidistant positions, both ends included.

    Returns
    -------
    Tensor
        A scalar, not negative since it is zero at the ends.

    Raises
    ------
    ValueError
        For fewer than three positions.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    return _above_chord(curve).amax()


@typed
def barrier_curve(
    loss: Callable[[Any], Tensor], params_a: Any, params_b: Any, *, n: int = 21
) -> tuple[Float[Tensor, " n"], Float[Tensor, ""]]:
    r"""Loss along a line, above the line between the losses of its ends.

    .. math:: B(a) = \mathcal L(\theta(a)) - (1 - a)\, \mathcal L(\theta_a) - a\, \mathcal L(\theta_b)

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params_a, params_b
        The ends.
    n
        Number of equidistant positions; odd to have the middle among them.

    Returns
    -------
    tuple
        B (n,) and the height :math:`\max_a B(a)`.

    Raises
    ------
    ValueError
        For fewer than three positions.

    References
    ----------
    landscaping-lmc
    """
    first = pytree.tree_leaves(params_a)[0]
    lams = torch.linspace(0, 1, n, dtype=first.dtype, device=first.device)
    above = _above_chord(interpolation_curve(loss, params_a, params_b, lams))
    return above, above.amax()


@typed
def distance_reduction(params_a: Any, params_b: Any, matched_b: Any) -> Float[Tensor, ""]:
    r"""Share of the distance between two networks that matching takes away.

    .. math:: \frac{\lVert \theta_a - \theta_b \rVert - \lVert \theta_a - P \theta_b \rVert}
        {\lVert \theta_a - \theta_b \rVert}

    Parameters
    ----------
    params_a, params_b, matched_b
        Two networks, and the second one after matching.

    Returns
    -------
    Tensor
        A scalar; 1 if the networks are permuted copies.

    Raises
    ------
    ValueError
        When the two networks are equal.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    before = (flatten(params_a) - flatten(params_b)).norm()
    validate.in_range("distance of the networks", before, torch.finfo(before.dtype).tiny, torch.inf)
    return 1 - (flatten(params_a) - flatten(matched_b)).norm() / before


@typed
def singular_overlap(
    layers_a: Sequence[Tensor], layers_b: Sequence[Tensor], g: float | Float[Tensor, ""]
) -> Float[Tensor, ""]:
    r"""How well the leading singular vectors of two networks agree.

    .. math:: R = \frac{\sum_l \sum_{ij \text{ kept}} |u_i^\top u_j'|\, |v_i^\top v_j'|}{\sum_l \#\{i \text{ kept}\}},
        \qquad i \text{ kept if } s_i \ge g\, s_{\max}

    Parameters
    ----------
    layers_a, layers_b
        Weight matrices :math:`W_l = \sum_i s_i u_i v_i^\top` of the two networks, the second one matched or not.
    g
        Threshold from 0 (all singular vectors) to 1 (only the first).

    Returns
    -------
    Tensor
        A scalar; at least 1 if both networks are equal.

    Raises
    ------
    ValueError
        When the numbers of layers differ, or the threshold is not in [0, 1].

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    validate.in_range("g", g, 0, 1)
    overlap, kept = [], []
    for Wa, Wb in zip(layers_a, layers_b, strict=True):
        (U, s, Vh), (U2, s2, Vh2) = (torch.linalg.svd(W, full_matrices=False) for W in (Wa, Wb))
        keep, keep2 = (values >= g * values[..., :1] for values in (s, s2))
        agreement = (U.mT @ U2).abs() * (Vh @ Vh2.mT).abs()
        overlap.append((agreement * keep[:, None] * keep2).sum())
        kept.append(keep.sum())
    return torch.stack(overlap).sum() / torch.stack(kept).sum()


@typed
def distance_from_singular_values(
    Wa: Float[Tensor, "m n"], Wb: Float[Tensor, "m n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Squared distance of two matrices from their singular systems, and what no orthogonal matrices could undercut.

    .. math:: \lVert W^a - W^b \rVert_F^2 = \sum_i s_i^2 + \sum_j s_j'^2
        - 2 \sum_{ij} s_i s_j'\, (u_i^\top u_j')(v_i^\top v_j') \;\ge\; \sum_i (s_i - s_i')^2

    Parameters
    ----------
    Wa, Wb
        Two matrices; permuting the rows or columns of one changes the overlaps, not the lower bound.

    Returns
    -------
    tuple
        The squared distance and its lower bound, scalars.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    (U, s, Vh), (U2, s2, Vh2) = (torch.linalg.svd(W, full_matrices=False) for W in (Wa, Wb))
    cross = torch.einsum("i,j,ij,ij->", s, s2, U.mT @ U2, Vh @ Vh2.mT)
    return s.square().sum() + s2.square().sum() - 2 * cross, (s - s2).square().sum()


@typed
def expected_mismatches(units: Float[Tensor, "m d"], noise: float | Float[Tensor, ""]) -> Float[Tensor, ""]:
    r"""Share of hidden units that matching is expected to misplace in a noisy permuted copy, by short cycles.

    .. math:: \frac1m \sum_{i \ne j} \Phi\Bigl( -\frac{\sqrt{2 d_{ij}}}{2 \sigma} \Bigr)
        + \frac1m \sum_{i \ne j \ne k \ne i} \Phi\Bigl( -\frac{\sqrt{d_{ij} + d_{jk} + d_{ki}}}{2 \sigma} \Bigr),
        \qquad d_{ij} = \lVert w_i - w_j \rVert^2

    The terms are the probabilities that it is favourable to exchange two units or to rotate three. Longer cycles, and
    cycles that exclude each other, are left out, so the value is right while it is small, and may exceed 1.

    Parameters
    ----------
    units
        One row a unit: all weights into it, its bias, and all weights out of it, :math:`w_i`.
    noise
        Standard deviation :math:`\sigma` of the Gaussian noise on every weight of the copy.

    Returns
    -------
    Tensor
        A scalar. Takes time of order :math:`m^3`.

    Raises
    ------
    ValueError
        When the noise is not positive.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    validate.in_range("noise", noise, torch.finfo(units.dtype).tiny, torch.inf)
    d = (units[:, None] - units).square().sum(-1)
    same = torch.eye(len(units), dtype=torch.bool, device=units.device)
    # No cycle visits a unit twice; an infinite length says so, and keeps the square root away from its kink at zero.
    d = torch.where(same, torch.inf, d)

    def favourable(squared_length: Tensor) -> Tensor:
        return torch.special.ndtr(-squared_length.sqrt() / (2 * noise)).sum()

    exchanges = favourable(2 * d)
    # A cycle of three and its mirror image are equally long, so units in ascending order suffice, six times each.
    later = [(d[i, i + 1 :], d[i + 1 :, i + 1 :]) for i in range(len(units))]
    rotations = 3 * torch.stack([favourable(row[:, None] + rest + row) for row, rest in later]).sum()
    return (exchanges + rotations) / len(units)


@typed
def ste_matching(
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    spec: Spec,
    loss: Callable[[Params], Tensor],
    *,
    steps: int = 40,
    lr: float = 0.01,
) -> dict[str, Tensor]:
    r"""Permutations that make the loss halfway small, by the straight-through estimator.

    .. math:: \min_{\tilde\theta}\; \mathcal L\bigl( \tfrac12 (\theta_a + P \theta_b) \bigr), \qquad
        P = \arg\max_P \langle \tilde\theta, P \theta_b \rangle, \qquad
        \frac{\partial P \theta_b}{\partial \tilde\theta} := I

    Parameters
    ----------
    params_a, params_b
        The two networks.
    spec
        The permutation of every axis, see `dlatlas.ops.matching.mlp_spec`.
    loss
        ``loss(params)``, a scalar: on a batch that stays the same.
    steps, lr
        Steps and rate of Adam on the free weights :math:`\tilde\theta`, which start at :math:`\theta_a`, so that the
        first permutations are those of weight matching. After each step one more round over the layers follows them.

    Returns
    -------
    dict
        The permutations (m,) with the smallest loss of all that were visited.

    Raises
    ------
    ValueError
        When there are no steps.

    Notes
    -----
    Assignments are solved by SciPy on the CPU, so it works neither under ``vmap`` nor under ``grad``.

    References
    ----------
    lmc-weight-matching-singular-vectors
    """
    validate.at_least("steps", steps, 1)
    free = {name: value.clone() for name, value in params_a.items()}
    optimiser = torch.optim.Adam(free.values(), lr=lr)
    perms = weight_matching(free, params_b, spec)
    best, lowest = perms, math.inf
    for _ in range(steps):
        moved = apply_perms(params_b, perms, spec)
        gradients, value = grad_and_value(lambda b: loss(interpolate(dict(params_a), b, 0.5)))(moved)
        if value < lowest:
            best, lowest = perms, value.item()
        for name, weight in free.items():
            weight.grad = gradients[name]
        optimiser.step()
        for key in perms:
            perms = perms | {key: best_assignment(matching_gain(free, params_b, perms, key, spec))}
    return best


def _above_chord(curve: Tensor) -> Tensor:
    validate.at_least("number of positions", len(curve), 3)
    lams = torch.linspace(0, 1, len(curve), dtype=curve.dtype, device=curve.device)
    return curve - (1 - lams) * curve[0] - lams * curve[-1]

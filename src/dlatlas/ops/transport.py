"""Wasserstein distances between samples."""

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def wasserstein1(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    r"""Wasserstein-1 distance between two samples of equal size, by optimal assignment.

    .. math:: W_1 = \min_\tau \frac1n \sum_i \lVert a_i - b_{\tau(i)} \rVert

    The assignment is found by SciPy outside of PyTorch, so the function does not work under ``vmap``; the gradient is
    that of the assignment found. The time grows like :math:`n^3`.

    Parameters
    ----------
    a, b
        Samples.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        For a sample that is not finite.

    References
    ----------
    perturbed-likelihood-singular
    """
    validate.finite("a", a)
    validate.finite("b", b)
    cost = torch.cdist(a.detach(), b.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    rows, columns = (torch.as_tensor(i, device=a.device) for i in linear_sum_assignment(cost.cpu().numpy()))
    return (a[rows] - b[columns]).norm(dim=1).mean()


@typed
def sliced_wasserstein1(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], directions: Float[Tensor, "k d"]
) -> Float[Tensor, ""]:
    r"""Mean Wasserstein-1 distance between projections of two samples of equal size on unit vectors.

    .. math:: \frac1k \sum_{j=1}^k W_1\bigl( \theta_j^\top a,\; \theta_j^\top b \bigr), \qquad
        W_1 = \frac1n \sum_i \lvert a_{(i)} - b_{(i)} \rvert \text{ on the line}

    Parameters
    ----------
    a, b
        Samples.
    directions
        :math:`\theta_j`; normalised here, not zero.

    Returns
    -------
    Tensor
        A scalar, at most the Wasserstein-1 distance.

    Raises
    ------
    ValueError
        For a sample that is not finite or a direction that is zero.

    References
    ----------
    perturbed-likelihood-singular, kinetic-optimal-paths
    """
    validate.finite("a", a)
    validate.finite("b", b)
    length = directions.norm(dim=1, keepdim=True)
    validate.in_range("norm of the directions", length, torch.finfo(length.dtype).tiny, float("inf"))
    theta = (directions / length).mT
    return ((a @ theta).sort(0).values - (b @ theta).sort(0).values).abs().mean()

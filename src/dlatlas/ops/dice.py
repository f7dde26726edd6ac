"""Overlap of masks."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def dice_loss(
    logits: Float[Tensor, "n *pixels"],
    mask: Float[Tensor, "n *pixels"] | Bool[Tensor, "n *pixels"],
    *,
    eps: float = 1.0,
) -> Float[Tensor, ""]:
    r"""One minus the soft Dice coefficient, averaged over images.

    .. math:: \frac1n \sum_i 1 - \frac{2 \sum_j p_{ij} m_{ij} + \varepsilon}{\sum_j p_{ij} + \sum_j m_{ij}
        + \varepsilon}, \qquad p = \mathrm{sigmoid}(z)

    Parameters
    ----------
    logits, mask
        Logits z, and the mask m with values in [0, 1], not empty in every image.
    eps
        :math:`\varepsilon > 0`, in pixels; an image with an empty mask has loss 0 where nothing is predicted.

    Returns
    -------
    Tensor
        A scalar in [0, 1).

    Raises
    ------
    ValueError
        When all masks are empty, which any network satisfies by predicting nothing, a mask leaves [0, 1], or eps is not
        positive.

    References
    ----------
    salt
    """
    validate.positive("eps", eps)
    p, m = logits.sigmoid().flatten(1), mask.flatten(1).to(logits.dtype)
    validate.in_range("mask", m, 0.0, 1.0)
    validate.in_range("pixels in all masks", m.sum(), torch.finfo(m.dtype).tiny, torch.inf)
    return (1 - (2 * (p * m).sum(1) + eps) / (p.sum(1) + m.sum(1) + eps)).mean()

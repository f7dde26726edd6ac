"""How many directions a spectrum uses."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def effective_rank(spectrum: Float[Tensor, "*batch k"], *, order: float = 1.0) -> Float[Tensor, "*batch"]:
    r"""Number of equal values that have the same entropy as a spectrum.

    .. math:: \operatorname{erank}_\alpha = \exp H_\alpha(p)
        = \Bigl( \sum_k p_k^\alpha \Bigr)^{\frac{1}{1 - \alpha}}, \qquad
        p_k = \frac{s_k}{\sum_l s_l}

    and :math:`\exp\bigl(-\sum_k p_k \log p_k\bigr)` for :math:`\alpha = 1`, the limit. Order 2 is the participation
    ratio :math:`(\sum_k s_k)^2 / \sum_k s_k^2`. Zeros in the spectrum change nothing.

    Parameters
    ----------
    spectrum
        Values :math:`s \ge 0`, such as singular values of a matrix or eigenvalues of a covariance.
    order
        Order :math:`\alpha > 0` of Rényi's entropy: the smaller, the more a small value counts.

    Returns
    -------
    Tensor
        ``(*batch)``, between 1 and k.

    Raises
    ------
    ValueError
        When a value is negative, a spectrum is all zero, or the order is not positive.
    """
    validate.positive("order", order)
    validate.in_range("spectrum", spectrum, 0, torch.inf)
    total = spectrum.sum(-1, keepdim=True)
    validate.in_range("sum of the spectrum", total, torch.finfo(spectrum.dtype).tiny, torch.inf)
    p = spectrum / total
    if order == 1:
        return torch.exp(-torch.xlogy(p, p).sum(-1))
    return p.pow(order).sum(-1).pow(1 / (1 - order))

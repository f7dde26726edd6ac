"""Frames: sets of vectors with a prescribed Gram matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def simplex_etf(
    K: int, d: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> Float[Tensor, "{K} {d}"]:
    r"""Simplex equiangular tight frame: K unit vectors with equal angles, as wide as they can be.

    .. math:: V V^\top = \frac{K}{K-1} \Bigl(I - \frac1K \mathbf 1 \mathbf 1^\top\Bigr)

    The rows of :math:`I - \frac1K \mathbf 1 \mathbf 1^\top` in an orthonormal basis of the hyperplane that they span,
    whose j-th vector is :math:`(1, \dots, 1, -j, 0, \dots, 0) / \sqrt{j (j + 1)}` with j ones. No argument is a
    tensor, so there is nothing for ``vmap`` to map over.

    Parameters
    ----------
    K, d
        Number of vectors, at least 2; dimension, at least K - 1.
    dtype, device
        Of the result; the defaults of torch when not given.

    Returns
    -------
    Tensor
        The vectors :math:`V` as rows; coordinates from the K-th on are zero.

    Raises
    ------
    ValueError
        When there are fewer than two vectors, or too few dimensions for them.

    References
    ----------
    deep-linear-neural-collapse
    """
    validate.at_least("K", K, 2)
    validate.at_least("d", d, K - 1)
    j = torch.arange(1, K, dtype=torch.float64, device=device)
    ones = torch.ones(K, K - 1, dtype=torch.float64, device=device).triu()
    basis = (ones - torch.diag(j, -1)[:, : K - 1]) / torch.sqrt(j * (j + 1))
    vectors = torch.nn.functional.pad(basis, (0, d - K + 1)) * (K / (K - 1)) ** 0.5
    return vectors.to(dtype or torch.get_default_dtype())


@typed
def orthogonal_frame(lengths: Float[Tensor, " K"], d: int) -> Float[Tensor, "K {d}"]:
    r"""Orthogonal vectors of given lengths along the first axes, :math:`V V^\top = \operatorname{diag}(\ell_k^2)`.

    Parameters
    ----------
    lengths
        :math:`\ell_k`, not negative; a length of zero is a vanished vector.
    d
        Dimension, at least K.

    Returns
    -------
    Tensor
        The vectors as rows.

    Raises
    ------
    ValueError
        When a length is negative, or there are too few dimensions.

    References
    ----------
    deep-linear-neural-collapse
    """
    validate.in_range("lengths", lengths, 0, torch.inf)
    validate.at_least("d", d, lengths.shape[0])
    return torch.nn.functional.pad(torch.diag(lengths), (0, d - lengths.shape[0]))

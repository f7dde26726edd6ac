"""Mixup: convex combinations of inputs and of their labels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def mixup_batch(
    x: Float[Tensor, "n *input"],
    y: Int[Tensor, " n"],
    K: int,
    alpha: float = 1.0,
    *,
    generator: torch.Generator | None = None,
) -> tuple[
    Float[Tensor, "n *input"], Float[Tensor, "n {K}"], Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]
]:
    r"""Mix every sample of a batch with a random partner of the same batch.

    .. math:: \tilde x = \lambda x_a + (1 - \lambda) x_b, \qquad t = \lambda e_{y_a} + (1 - \lambda) e_{y_b}, \qquad
        \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    One coefficient for every pair. Without a generator, ``vmap`` with ``randomness="different"`` maps over calls, and
    each draws for itself; it cannot map over a call with a generator.

    Parameters
    ----------
    x, y, K
        Inputs, labels from 0 to K - 1, and the number of classes.
    alpha
        Both parameters of the Beta distribution; 1 is uniform.
    generator
        Source of partners and coefficients, on the CPU; the default one of torch when not given.

    Returns
    -------
    tuple
        :math:`\tilde x` and t; the labels :math:`i = y_a` and :math:`j = y_b`; the coefficients :math:`\lambda`.

    Raises
    ------
    ValueError
        When alpha is not positive or a label is out of range.

    References
    ----------
    mixup-neural-collapse
    """
    validate.positive("alpha", alpha)
    validate.labels("y", y, K)
    n = x.shape[0]
    partner = torch.randperm(n, generator=generator).to(y.device)
    gammas = torch._standard_gamma(torch.full((2, n), alpha, dtype=torch.float64), generator=generator)
    lam = (gammas[0] / gammas.sum(0)).to(x)
    i, j = y, y[partner]
    weight = lam.view(-1, *[1] * (x.dim() - 1))
    targets = lam[:, None] * F.one_hot(i, K) + (1 - lam[:, None]) * F.one_hot(j, K)
    return weight * x + (1 - weight) * x[partner], targets, i, j, lam

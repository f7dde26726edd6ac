"""Linear regression on a power-law spectrum: a learner whose scaling exponents are known exactly."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


class PowerLawTask(NamedTuple):
    r"""Linear regression on infinitely many independent normal features, of which a learner sees the first N.

    ``eigenvalues`` are the variances :math:`\lambda_i = i^{-a}` of the features that the learner sees, (N,); ``power``
    is the variance :math:`i^{-b}` of the target that each of them carries, (N,); ``hidden`` is the variance of the
    target in all later features, :math:`\sum_{i>N} i^{-b}`, the smallest loss that N features reach.
    """

    eigenvalues: Tensor
    power: Tensor
    hidden: Tensor


@typed
def power_law_task(N: int, *, a: float = 1.5, b: float = 1.75, dtype: torch.dtype = torch.float64) -> PowerLawTask:
    r"""Give the spectrum and the target of a power-law regression.

    .. math:: y = \sum_{i=1}^\infty w_i x_i, \qquad x_i \sim \mathcal N(0, i^{-a}), \qquad w_i^2\, i^{-a} = i^{-b}

    The exponents of its scaling law are :math:`\alpha_N = b - 1` and :math:`\alpha_S = (b - 1)/a`.

    Parameters
    ----------
    N
        Number of features that the learner sees.
    a, b
        Exponents of the features and of the target, each greater than 1.
    dtype
        Of the result.

    Returns
    -------
    PowerLawTask
        What a learner of size N sees, and what it cannot see.

    Raises
    ------
    ValueError
        When N is below 1 or an exponent is not above 1, so that a sum diverges.

    References
    ----------
    scaling-laws-part-one
    """
    validate.at_least("N", N, 1)
    for name, exponent in (("a", a), ("b", b)):
        validate.positive(f"{name} - 1", exponent - 1)
    index = torch.arange(1, N + 1, dtype=torch.float64)
    hidden = torch.special.zeta(torch.tensor(b, dtype=torch.float64), torch.tensor(N + 1.0, dtype=torch.float64))
    return PowerLawTask((index**-a).to(dtype), (index**-b).to(dtype), hidden.to(dtype))


@typed
def stable_rate(eigenvalues: Float[Tensor, " N"], B: float) -> Float[Tensor, ""]:
    r"""Learning rate that is half of the largest stable one, or less, at every batch size.

    .. math:: \eta(B) = \frac{\eta(\infty)}{1 + B_0 / B}, \qquad \eta(\infty) = \frac{1}{\lambda_1}, \qquad
        B_0 = 1 + \frac{\sum_i \lambda_i}{\lambda_1}

    Parameters
    ----------
    eigenvalues
        Variances of the features, positive, the largest first.
    B
        Batch size, positive; may be infinite.

    Returns
    -------
    Tensor
        :math:`\eta(B)`, a scalar.

    Raises
    ------
    ValueError
        When the batch size is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    validate.positive("B", B)
    largest = eigenvalues.max()
    return 1 / (largest * (1 + 1 / B) + eigenvalues.sum() / B)


@typed
def sgd_risk(
    eigenvalues: Float[Tensor, " N"],
    power: Float[Tensor, " N"],
    hidden: Float[Tensor, ""],
    *,
    B: float,
    rate: float | Float[Tensor, ""],
    steps: int,
) -> Float[Tensor, " t"]:
    r"""Expected loss of one-pass SGD from zero on normal features, exactly, after 0, 1, ..., ``steps`` steps.

    .. math:: m_i \leftarrow \Bigl( 1 - 2 \eta \lambda_i + \eta^2 \lambda_i^2 \bigl(1 + \tfrac1B\bigr) \Bigr) m_i
        + \frac{\eta^2 \lambda_i^2}{B} \Bigl( \sum_j m_j + h \Bigr), \qquad L = \sum_i m_i + h

    Parameters
    ----------
    eigenvalues, power, hidden
        :math:`\lambda_i`, the initial :math:`m_i`, and the variance h of what the learner cannot see, as in
        `PowerLawTask`.
    B, rate
        Batch size, which may be infinite, and learning rate :math:`\eta`.
    steps
        Number of steps.

    Returns
    -------
    Tensor
        The loss :math:`\mathbb E (y - w^\top x)^2`, (steps + 1,).

    Raises
    ------
    ValueError
        When the batch size, the rate or the number of steps is not positive.

    References
    ----------
    scaling-laws-part-one
    """
    validate.positive("B", B)
    validate.at_least("steps", steps, 1)
    validate.in_range("rate", torch.as_tensor(rate), torch.finfo(eigenvalues.dtype).tiny, torch.inf)
    contraction = rate * eigenvalues
    kept = 1 - 2 * contraction + contraction.square() * (1 + 1 / B)
    noise = contraction.square() / B
    m, losses = power, [power.sum() + hidden]
    for _ in range(steps):
        m = kept * m + noise * losses[-1]
        losses.append(m.sum() + hidden)
    return torch.stack(losses)

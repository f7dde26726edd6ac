"""Linear self-attention under gradient flow: its forward pass, its population loss, and where the flow ends."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.theory.in_context_learning import step_risk
from dlatlas.typed import typed


@typed
def lsa_gamma(Lam: Float[Tensor, "d d"], N: int) -> Float[Tensor, "d d"]:
    r"""Matrix whose inverse trained linear self-attention puts in the place of the inverse covariance.

    .. math:: \Gamma = \Bigl( 1 + \frac1N \Bigr) \Lambda + \frac{\operatorname{tr} \Lambda}{N} I

    Parameters
    ----------
    Lam
        Covariance Λ of the inputs, positive definite.
    N
        Examples in a training prompt.

    Returns
    -------
    Tensor
        Γ (d, d).

    Raises
    ------
    ValueError
        When there is no example or the covariance is not positive definite.

    References
    ----------
    trained-linear-attention-icl
    """
    validate.at_least("N", N, 1)
    smallest = torch.linalg.eigvalsh(Lam)[..., 0]
    validate.in_range("smallest eigenvalue of Lam", smallest, torch.finfo(Lam.dtype).tiny, torch.inf)
    return ((N + 1) * Lam + torch.trace(Lam) * _identity(Lam)) / N


@typed
def lsa_forward(
    E: Float[Tensor, "*batch tokens columns"],
    W_PV: Float[Tensor, "tokens tokens"],
    W_KQ: Float[Tensor, "tokens tokens"],
    *,
    N: int,
) -> Float[Tensor, "*batch"]:
    r"""Prediction of linear self-attention: the lower right entry of its output.

    .. math:: f = \Bigl[ E + W^{PV} E\, \frac{E^\top W^{KQ} E}{N} \Bigr]_{d+1, N+1}

    Parameters
    ----------
    E
        Prompts as matrices, one column a token: see `dlatlas.data.in_context.prompt_tokens`.
    W_PV, W_KQ
        Product of projection and values, product of keys and queries.
    N
        What the sum over tokens is divided by. The theory divides by the number of examples in *this* prompt, also
        when the layer was trained on prompts of another length; it is an argument so that the choice is visible.

    Returns
    -------
    Tensor
        ``(*batch,)``.

    Raises
    ------
    ValueError
        When the label slot of a query is not zero, which would leak the answer, or N is not positive.

    References
    ----------
    trained-linear-attention-icl
    """
    validate.at_least("N", N, 1)
    query = E[..., -1]
    validate.in_range("label slot of the query", query[..., -1], 0, 0)
    scores = (E.mT @ (query @ W_KQ.mT)[..., None])[..., 0]
    return ((E.mT @ W_PV[-1]) * scores).sum(-1) / N


@typed
def lsa_population_loss(
    u: Float[Tensor, ""], U: Float[Tensor, "d d"], Lam: Float[Tensor, "d d"], N: int
) -> Float[Tensor, ""]:
    r"""Half the expected squared error of linear self-attention whose two matrices have one block each.

    .. math:: \frac12 \mathbb E \Bigl( u\, x_q^\top U \frac1N \sum_i y_i x_i - y_q \Bigr)^2
        = \frac12 \operatorname{tr} \Lambda - u \operatorname{tr} U \Lambda^2
        + \frac{u^2}{2} \operatorname{tr} \Lambda U \Lambda \Gamma U^\top

    Parameters
    ----------
    u
        Lower right entry of :math:`W^{PV}`, whose other entries are zero.
    U
        Upper left block (d, d) of the transpose of :math:`W^{KQ}`, whose other entries are zero.
    Lam, N
        Covariance of the inputs, examples in a prompt; :math:`w \sim \mathcal N(0, I)`, no noise.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When there is no example or the covariance is not positive definite.

    References
    ----------
    trained-linear-attention-icl
    """
    return step_risk(u * U / N, N, Lam, _identity(Lam), 0.0) / 2


@typed
def lsa_limit(
    Lam: Float[Tensor, "d d"], N: int, imbalance: float = 0.0
) -> tuple[Float[Tensor, "tokens tokens"], Float[Tensor, "tokens tokens"]]:
    r"""Weights to which the gradient flow of linear self-attention converges.

    .. math:: W^{PV} = \begin{pmatrix} 0 & 0 \\ 0 & u \end{pmatrix}, \quad
        W^{KQ} = \frac1u \begin{pmatrix} \Gamma^{-1} & 0 \\ 0 & 0 \end{pmatrix}, \quad
        u^2 = \frac{\kappa + \sqrt{\kappa^2 + 4 \operatorname{tr} \Gamma^{-2}}}{2}

    Parameters
    ----------
    Lam, N
        Covariance of the inputs, examples in a training prompt.
    imbalance
        What the flow conserves, :math:`\kappa = u^2 - \lVert W^{KQ} \rVert_F^2`. Zero for the initialisation of the
        theorem, where :math:`u = (\operatorname{tr} \Gamma^{-2})^{1/4}`.

    Returns
    -------
    tuple
        :math:`W^{PV}` and :math:`W^{KQ}`, each (d + 1, d + 1), with u > 0.

    Raises
    ------
    ValueError
        When there is no example or the covariance is not positive definite.

    References
    ----------
    trained-linear-attention-icl
    """
    inverse = torch.linalg.inv(lsa_gamma(Lam, N))
    u = ((imbalance + (imbalance**2 + 4 * inverse.square().sum()).sqrt()) / 2).sqrt()
    d = Lam.shape[-1]
    return F.pad(u[None, None], (d, 0, d, 0)), F.pad(inverse / u, (0, 1, 0, 1))


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)

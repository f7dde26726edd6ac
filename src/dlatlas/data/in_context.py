"""Prompts of regression tasks: every prompt is a data set of its own, with a query at its end."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.special import gammaincinv
from torch import Tensor

from dlatlas.ops.validate import at_least, positive
from dlatlas.typed import typed


@typed
def icl_regression_batch(
    B: int,
    n: int,
    d: int,
    *,
    noise: float,
    Sig_x: Float[Tensor, "d d"] | None = None,
    Sig_w: Float[Tensor, "d d"] | None = None,
    link: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "B n d"], Float[Tensor, "B n"], Float[Tensor, "B d"], Float[Tensor, "B"]]:
    r"""Draw prompts of (generalised) linear regression, each with a task of its own.

    .. math:: w \sim \mathcal N(0, \Sigma_w), \quad x_i \sim \mathcal N(0, \Sigma_x), \quad
        y_i = g(w^\top x_i) + e_i, \quad e_i \sim \mathcal N(0, \sigma^2)

    Parameters
    ----------
    B, n, d
        Number of prompts, examples in each, dimension of the inputs.
    noise
        Variance σ² of the label noise; the label of the query has noise as well.
    Sig_x, Sig_w
        Covariances (d, d) of inputs and tasks; the identity when not given.
    link
        The function g, elementwise; the identity when not given.
    generator
        Source of everything random.

    Returns
    -------
    tuple
        Examples X (B, n, d) and y (B, n), queries (B, d) and their labels (B,).

    Raises
    ------
    ValueError
        If a size is not positive or the variance negative.
    """
    for name, value in (("B", B), ("n", n), ("d", d)):
        at_least(name, value, 1)
    at_least("noise", noise, 0)
    X = _colour(torch.randn(B, n + 1, d, generator=generator), Sig_x)
    w = _colour(torch.randn(B, 1, d, generator=generator), Sig_w)
    response = (X * w).sum(-1)
    if link is not None:
        response = link(response)
    y = response + noise**0.5 * torch.randn(B, n + 1, generator=generator)
    return X[:, :-1], y[:, :-1], X[:, -1], y[:, -1]


@typed
def icl_unknown_noise_batch(
    B: int, T: int, d: int, *, k0: float, a0: float, b0: float, factor: float = 1.0, generator: torch.Generator
) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B T"], Float[Tensor, "B"]]:
    r"""Draw prompts of linear regression whose noise level is part of the task.

    .. math:: \sigma^2 \sim \mathrm{InverseGamma}(a_0, b_0), \quad w \mid \sigma^2 \sim \mathcal N(0, \sigma^2 I / k_0),
        \quad x_t \sim \mathcal N(0, I), \quad y_t = w^\top x_t + c\, \sigma\, e_t

    Parameters
    ----------
    B, T, d
        Number of prompts, examples in each, dimension of the inputs.
    k0, a0, b0
        Parameters of the prior.
    factor
        Factor c on the noise, which leaves w as it is; 1 for prompts from the prior.
    generator
        Source of everything random.

    Returns
    -------
    tuple
        X (B, T, d), y (B, T), and the standard deviation cσ of the noise (B,).

    Raises
    ------
    ValueError
        If a size or a parameter is not positive.
    """
    for name, value in (("B", B), ("T", T), ("d", d)):
        at_least(name, value, 1)
    for name, value in (("k0", k0), ("a0", a0), ("b0", b0), ("factor", factor)):
        positive(name, value)
    # By the inverse of the distribution function: torch's own gamma draws take no generator.
    quantiles = torch.rand(B, generator=generator, dtype=torch.float64)
    s = (b0 / torch.from_numpy(gammaincinv(a0, quantiles.numpy()))).sqrt().float()
    w = s[:, None, None] / k0**0.5 * torch.randn(B, 1, d, generator=generator)
    X = torch.randn(B, T, d, generator=generator)
    y = (X * w).sum(-1) + factor * s[:, None] * torch.randn(B, T, generator=generator)
    return X, y, factor * s


@typed
def prompt_tokens(
    X: Float[Tensor, "*batch n d"], y: Float[Tensor, "*batch n"], xq: Float[Tensor, "*batch d"]
) -> Float[Tensor, "*batch tokens columns"]:
    r"""Write a prompt as a matrix with one column a token; the label slot of the query is zero.

    .. math:: E = \begin{pmatrix} x_1 & \cdots & x_n & x_q \\ y_1 & \cdots & y_n & 0 \end{pmatrix}

    Parameters
    ----------
    X, y, xq
        Examples and query.

    Returns
    -------
    Tensor
        ``(*batch, d + 1, n + 1)``.
    """
    inputs = torch.cat([X, xq[..., None, :]], dim=-2)
    return torch.cat([inputs, F.pad(y, (0, 1))[..., None]], dim=-1).mT


def _colour(x: Tensor, covariance: Tensor | None) -> Tensor:
    return x if covariance is None else x @ torch.linalg.cholesky(covariance).to(x.dtype).mT

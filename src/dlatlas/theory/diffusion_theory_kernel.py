"""The kernel regression that a wide denoiser does: its path, its error along the path, and when to stop."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernels import arccos_k0
from dlatlas.typed import typed


@typed
def denoiser_ntk(z1: Float[Tensor, "n p"], z2: Float[Tensor, "m p"]) -> Float[Tensor, "n m"]:
    r"""Tangent kernel of an infinitely wide two-layer rectified denoiser whose first layer learns.

    .. math:: \Theta(z, z') = z^\top z'\; \mathbb E\bigl[ \mathbb 1\{w^\top z > 0\}\, \mathbb 1\{w^\top z' > 0\} \bigr]
        = \tfrac12\, z^\top z'\; k_0\!\left( \frac{z^\top z'}{\lVert z \rVert \lVert z' \rVert} \right)

    The kernel between two different outputs is zero, so each output regresses for itself.

    Parameters
    ----------
    z1, z2
        Inputs :math:`z = (t, x, 1)`, see `dlatlas.models.score.denoiser_input`; no zero rows.

    Returns
    -------
    Tensor
        The kernel matrix, (n, m).

    Raises
    ------
    ValueError
        For an input of norm zero.

    References
    ----------
    ntk-score-estimation
    """
    norms = []
    for name, z in (("z1", z1), ("z2", z2)):
        norms.append(z.norm(dim=1))
        validate.in_range(f"norm of the rows of {name}", norms[-1], torch.finfo(z.dtype).tiny, math.inf)
    product = z1 @ z2.mT
    return product * arccos_k0(product / (norms[0][:, None] * norms[1])) / 2


@typed
def weighted_descent(
    K_train: Float[Tensor, "n n"],
    K_test: Float[Tensor, "m n"],
    w: Float[Tensor, "n"],
    y: Float[Tensor, "n d"],
    *,
    eta: float,
    steps: Sequence[int],
) -> Float[Tensor, "k m d"]:
    r"""Predictions along gradient descent on a weighted squared loss in a kernel space, from zero.

    .. math:: f_{k+1} = f_k - \eta\, \Theta(\cdot, X)\, W (f_k(X) - y) \quad\Longrightarrow\quad
        f_k(x) = \Theta(x, X) W^{\frac12}\, V \operatorname{diag}\!\left( \frac{1 - (1 - \eta \lambda_i)^k}{\lambda_i}
        \right) V^\top W^{\frac12} y

    with :math:`W^{1/2} \Theta(X, X) W^{1/2} = V \operatorname{diag}(\lambda) V^\top`. For small :math:`\eta` this is
    `dlatlas.ops.kernels.kernel_flow` of the weighted problem, and for :math:`k \to \infty` interpolation.

    Parameters
    ----------
    K_train, K_test
        :math:`\Theta(X, X)`, symmetric and positive semi-definite, and :math:`\Theta(x, X)`.
    w
        Weights of the samples, positive.
    y
        Labels.
    eta
        Learning rate of the loss :math:`\frac12 \sum_j w_j (f(X_j) - y_j)^2`; stable below :math:`2 / \lambda_{\max}`.
    steps
        Numbers of steps k at which to stop, each at least 0.

    Returns
    -------
    Tensor
        Predictions, one matrix (m, d) a stop.

    Raises
    ------
    ValueError
        For a rate that is not positive or not stable, weights that are not positive, or negative steps.

    References
    ----------
    ntk-score-estimation, neural-tangent-kernel
    """
    projected, learnt, modes = _descent_modes(K_train, K_test, w, eta, steps)
    return torch.einsum("mi,kid->kmd", projected, learnt[:, :, None] * (modes.mT @ y))


@typed
def descent_smoother(
    K_train: Float[Tensor, "n n"],
    K_test: Float[Tensor, "m n"],
    w: Float[Tensor, "n"],
    *,
    eta: float,
    steps: Sequence[int],
) -> Float[Tensor, "k m n"]:
    r"""The linear map from labels to predictions that `weighted_descent` applies.

    .. math:: f_k(x) = A_k(x)\, y

    Parameters
    ----------
    K_train, K_test, w, eta, steps
        As for `weighted_descent`.

    Returns
    -------
    Tensor
        :math:`A_k`, one matrix (m, n) a stop.

    Raises
    ------
    ValueError
        As `weighted_descent`.

    References
    ----------
    ntk-score-estimation
    """
    projected, learnt, modes = _descent_modes(K_train, K_test, w, eta, steps)
    return torch.einsum("mi,ki,ni->kmn", projected, learnt, modes)


@typed
def predicted_risk(
    A: Float[Tensor, "k m n"],
    target: Float[Tensor, "n d"],
    target_test: Float[Tensor, "m d"],
    noise: Float[Tensor, "n"],
) -> tuple[Float[Tensor, "k m"], Float[Tensor, "k m"]]:
    r"""Squared bias and variance of a linear smoother over the label noise, given the inputs.

    .. math:: \mathbb E_\xi \lVert A (f^* + \xi) - f^*(x) \rVert^2 = \lVert A f^* - f^*(x) \rVert^2
        + \sum_j A_{xj}^2\, \mathbb E \lVert \xi_j \rVert^2

    Parameters
    ----------
    A
        Smoothers, such as those of `descent_smoother`.
    target, target_test
        :math:`f^*` at the training and at the test inputs.
    noise
        :math:`\mathbb E \lVert \xi_j \rVert^2 = \operatorname{tr} \operatorname{Cov}[X_0 \mid X_j]`, independent
        between samples.

    Returns
    -------
    tuple of Tensor
        Squared bias and variance at every test point, (k, m) each.

    References
    ----------
    ntk-score-estimation
    """
    return (A @ target - target_test).square().sum(-1), A.square() @ noise


@typed
def rademacher_stopping_step(
    eigenvalues: Float[Tensor, "n"], *, sigma: float, eta: float, largest: int
) -> Int[Tensor, ""]:
    r"""Last step before the local Rademacher complexity exceeds the noise budget.

    .. math:: \hat k = \max \Bigl\{ k : \mathcal R\bigl( (\eta n k)^{-1/2} \bigr) \le \frac{1}{2 e \sigma \eta n k}
        \Bigr\}, \qquad
        \mathcal R(\varepsilon) = \Bigl[ \frac1n \sum_i \min(\lambda_i / n,\, \varepsilon^2) \Bigr]^{1/2}

    Parameters
    ----------
    eigenvalues
        :math:`\lambda_i` of the kernel matrix of the (weighted) problem, at least 0.
    sigma
        Deviation :math:`\sigma` of the label noise of one output.
    eta
        Learning rate for the sum of squares, as in `weighted_descent`.
    largest
        Largest number of steps considered.

    Returns
    -------
    Tensor
        The number of steps, an integer between 1 and ``largest``.

    Raises
    ------
    ValueError
        For a noise or rate that is not positive.

    References
    ----------
    ntk-score-estimation
    """
    validate.positive("sigma", sigma)
    validate.positive("eta", eta)
    validate.at_least("largest", largest, 1)
    n = len(eigenvalues)
    time = eta * n * torch.arange(1, largest + 1, dtype=eigenvalues.dtype, device=eigenvalues.device)
    complexity = torch.minimum(eigenvalues.clamp_min(0) / n, 1 / time[:, None]).mean(1).sqrt()
    within = complexity <= 1 / (2 * math.e * sigma * time)
    return within.sum().clamp_min(1)


def _descent_modes(
    K_train: Tensor, K_test: Tensor, w: Tensor, eta: float, steps: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Test kernel in the modes of the weighted problem, how far each is learnt at each stop, and the modes."""
    validate.positive("eta", eta)
    validate.at_least("smallest of steps", min(steps), 0)
    validate.in_range("w", w, torch.finfo(w.dtype).tiny, math.inf)
    root = w.sqrt()
    eigenvalues, modes = torch.linalg.eigh(root[:, None] * K_train * root)
    validate.in_range("eta times the largest eigenvalue", eta * eigenvalues[-1], 0.0, 2.0)
    zero = eigenvalues <= len(w) * torch.finfo(w.dtype).eps * eigenvalues[-1]
    eigenvalues = torch.where(zero, 1.0, eigenvalues)
    stops = torch.as_tensor(steps, dtype=w.dtype, device=w.device)[:, None]
    learnt = torch.where(zero, 0.0, (1 - (1 - eta * eigenvalues) ** stops) / eigenvalues)
    return (K_test * root) @ modes, learnt, root[:, None] * modes

"""Supervised dictionary learning as a convex loss on matrices of low rank, and projected gradient for it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed

KINDS = ("feature", "filter")


@typed
def sdl_lifted_loss(
    A: Float[Tensor, " a"],
    B: Float[Tensor, "n p"],
    gamma: Float[Tensor, " q"],
    X: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    X_aux: Float[Tensor, "n q"],
    *,
    xi: float,
    nu: float,
    kind: str,
) -> Float[Tensor, ""]:
    r"""Objective of supervised dictionary learning in the product variables, where it is convex.

    .. math:: \sum_i \bigl( \log(1 + e^{a_i}) - y_i a_i \bigr) + \xi \lVert X - B \rVert_F^2
        + \nu \bigl( \lVert A \rVert^2 + \lVert \gamma \rVert^2 \bigr), \qquad
        a = \begin{cases} A + X_{\text{aux}} \gamma & \text{feature} \\
        X A + X_{\text{aux}} \gamma & \text{filter} \end{cases}

    Parameters
    ----------
    A
        :math:`H \beta` (n,) for ``"feature"``, :math:`W \beta` (p,) for ``"filter"``.
    B, gamma
        :math:`H W^\top`, and the coefficients of the covariates.
    X, y, X_aux
        Data, labels 0 or 1, and covariates, with a constant column where an intercept is wanted.
    xi, nu
        Weights of the reconstruction and of the penalty, not negative.
    kind
        ``"feature"`` or ``"filter"``.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When a label is not 0 or 1, there is one class only, a weight is negative, A does not fit the kind or the kind
        is not known.

    References
    ----------
    supervised-dictionary-learning
    """
    _check(X, y, xi, nu, kind)
    scores = _scores(A, gamma, X, X_aux, kind)
    fit = (F.softplus(scores) - y * scores).sum()
    return fit + xi * (X - B).square().sum() + nu * (A.square().sum() + gamma.square().sum())


@typed
def sdl_lifted_gradients(
    A: Float[Tensor, " a"],
    B: Float[Tensor, "n p"],
    gamma: Float[Tensor, " q"],
    X: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    X_aux: Float[Tensor, "n q"],
    *,
    xi: float,
    nu: float,
    kind: str,
) -> tuple[Float[Tensor, " a"], Float[Tensor, "n p"], Float[Tensor, " q"]]:
    r"""Gradients of `sdl_lifted_loss` for A, B and gamma.

    .. math:: \nabla_A = D^\top (\pi - y) + 2 \nu A, \qquad \nabla_B = 2 \xi (B - X), \qquad
        \nabla_\gamma = X_{\text{aux}}^\top (\pi - y) + 2 \nu \gamma

    with :math:`\pi = 1/(1 + e^{-a})`, and :math:`D = I` for ``"feature"``, :math:`D = X` for ``"filter"``.

    Parameters
    ----------
    A, B, gamma, X, y, X_aux, xi, nu, kind
        See `sdl_lifted_loss`.

    Returns
    -------
    tuple
        Tensors in the shapes of A, B and gamma.

    Raises
    ------
    ValueError
        As `sdl_lifted_loss`.

    References
    ----------
    supervised-dictionary-learning
    """
    _check(X, y, xi, nu, kind)
    errors = torch.sigmoid(_scores(A, gamma, X, X_aux, kind)) - y
    to_A = errors if kind == "feature" else errors @ X
    return to_A + 2 * nu * A, 2 * xi * (B - X), errors @ X_aux + 2 * nu * gamma


@typed
def rank_project(Z: Float[Tensor, "rows columns"], r: int) -> Float[Tensor, "rows columns"]:
    r"""Nearest matrix of rank r (Eckart and Young).

    .. math:: P_r(Z) = \sum_{i \le r} \sigma_i u_i v_i^\top

    Parameters
    ----------
    Z, r
        A matrix, and a rank of at least one.

    Returns
    -------
    Tensor
        In the shape of Z; Z itself where r is full.

    Raises
    ------
    ValueError
        When r is below one.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.at_least("r", r, 1)
    U, s, Vt = torch.linalg.svd(Z, full_matrices=False)
    return (U[:, :r] * s[:r]) @ Vt[:r]


@typed
def sdl_curvature(
    X: Float[Tensor, "n p"], X_aux: Float[Tensor, "n q"], *, xi: float, nu: float, kind: str
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Bounds on the curvature of `sdl_lifted_loss`.

    .. math:: \mu = 2 \min(\xi, \nu), \qquad L = \max\bigl( 2 \xi,\; 2 \nu + \tfrac14 \lVert J \rVert_2^2 \bigr),
        \qquad J = [D, X_{\text{aux}}]

    Parameters
    ----------
    X, X_aux, xi, nu, kind
        See `sdl_lifted_loss`.

    Returns
    -------
    mu, L
        Scalars with :math:`\mu I \preceq \nabla^2 F \preceq L I`.

    Raises
    ------
    ValueError
        When a weight is negative or the kind is not known.

    References
    ----------
    supervised-dictionary-learning
    """
    _check_weights(xi, nu, kind)
    # J J' is X_aux X_aux' plus the identity, or plus X X'.
    if kind == "feature":
        squared = 1 + torch.linalg.matrix_norm(X_aux, 2) ** 2
    else:
        squared = torch.linalg.matrix_norm(torch.cat([X, X_aux], dim=1), 2) ** 2
    return torch.full_like(squared, 2 * min(xi, nu)), (2 * nu + squared / 4).clamp(min=2 * xi)


@typed
def sdl_rate_bound(mu: Float[Tensor, ""], L: Float[Tensor, ""], *, tau: float) -> Float[Tensor, ""]:
    r"""Contraction factor that the theorem grants to a step of projected gradient.

    .. math:: 2 \max\bigl( |1 - \tau \mu|, |1 - \tau L| \bigr)

    Below one exactly for :math:`\tfrac{1}{2\mu} < \tau < \tfrac{3}{2L}`, an interval that is not empty for
    :math:`L < 3 \mu`.

    Parameters
    ----------
    mu, L, tau
        Bounds on the curvature, and the step size.

    Returns
    -------
    Tensor
        A scalar; at or above one the theorem promises nothing.

    Raises
    ------
    ValueError
        When tau is not positive.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.positive("tau", tau)
    return 2 * torch.maximum((1 - tau * mu).abs(), (1 - tau * L).abs())


@typed
def sdl_local_rate(
    Z: Float[Tensor, "rows columns"], gradient: Float[Tensor, "rows columns"], r: int, *, mu: float, tau: float
) -> Float[Tensor, ""]:
    r"""Contraction factor near a fixed point, for steps whose slowest directions have curvature mu.

    .. math:: \frac{1 - \tau \mu}{1 - \tau \lVert G \rVert_2 / \sigma_r(Z)}

    Parameters
    ----------
    Z, gradient, r
        The fixed point :math:`Z = P_r(Z - \tau G)`, the gradient G there, the rank.
    mu, tau
        Curvature, and step size with :math:`\tau \mu < 1`.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When :math:`\tau \mu` is not in (0, 1), or Z is no fixed point: :math:`\tau \lVert G \rVert_2 \ge \sigma_r`.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.positive("tau * mu", tau * mu)
    validate.in_range("tau * mu", tau * mu, 0, 1)
    smallest = torch.linalg.svdvals(Z)[r - 1]
    share = tau * torch.linalg.svdvals(gradient)[0] / smallest
    validate.in_range("tau |G| / sigma_r", share, 0, 1 - torch.finfo(Z.dtype).eps)
    return (1 - tau * mu) / (1 - share)


@typed
def sdl_projected_gradient(
    A: Float[Tensor, " a"],
    B: Float[Tensor, "n p"],
    gamma: Float[Tensor, " q"],
    X: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    X_aux: Float[Tensor, "n q"],
    r: int,
    *,
    xi: float,
    nu: float,
    tau: float,
    iters: int,
    kind: str,
) -> tuple[tuple[Float[Tensor, " a"], Float[Tensor, "n p"], Float[Tensor, " q"]], Float[Tensor, " times"]]:
    r"""Projected gradient on the product variables.

    .. math:: Z \leftarrow P_r\bigl( Z - \tau \nabla_Z F \bigr), \qquad
        \gamma \leftarrow \gamma - \tau \nabla_\gamma F, \qquad Z = [A, B]

    Parameters
    ----------
    A, B, gamma
        The start; it need not have rank r.
    X, y, X_aux, xi, nu, kind
        See `sdl_lifted_loss`.
    r, tau, iters
        Rank, step size, number of steps.

    Returns
    -------
    (A, B, gamma), losses
        The last variables, and the loss after 0, ..., iters steps.

    Raises
    ------
    ValueError
        As `sdl_lifted_loss`, and when :math:`\tau L > 2`, where gradient steps diverge (data that are not scaled).

    References
    ----------
    supervised-dictionary-learning
    """
    _check(X, y, xi, nu, kind)
    _, L = sdl_curvature(X, X_aux, xi=xi, nu=nu, kind=kind)
    validate.in_range("tau * L", tau * L, 0, 2)
    problem = {"X": X, "y": y, "X_aux": X_aux, "xi": xi, "nu": nu, "kind": kind}
    losses = [sdl_lifted_loss(A, B, gamma, **problem)]
    for _ in range(iters):
        to_A, to_B, to_gamma = sdl_lifted_gradients(A, B, gamma, **problem)
        A, B = sdl_unstack(rank_project(sdl_stack(A - tau * to_A, B - tau * to_B, kind=kind), r), kind=kind)
        gamma = gamma - tau * to_gamma
        losses.append(sdl_lifted_loss(A, B, gamma, **problem))
    return (A, B, gamma), torch.stack(losses)


@typed
def sdl_stack(A: Float[Tensor, " a"], B: Float[Tensor, "n p"], *, kind: str) -> Float[Tensor, "rows columns"]:
    r"""Write both product variables as one matrix of rank at most r.

    .. math:: Z = [H \beta, H W^\top] = H\, [\beta, W^\top] \quad \text{(feature)}, \qquad
        Z = [W \beta, W H^\top] = W\, [\beta, H^\top] \quad \text{(filter)}

    Parameters
    ----------
    A, B, kind
        See `sdl_lifted_loss`.

    Returns
    -------
    Tensor
        (n, 1 + p) or (p, 1 + n).

    Raises
    ------
    ValueError
        When the kind is not known.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.one_of("kind", kind, KINDS)
    return torch.cat([A[:, None], B if kind == "feature" else B.mT], dim=1)


@typed
def sdl_unstack(Z: Float[Tensor, "rows columns"], *, kind: str) -> tuple[Float[Tensor, " rows"], Float[Tensor, "n p"]]:
    """Undo `sdl_stack`.

    Parameters
    ----------
    Z, kind
        The matrix, and what it was stacked for.

    Returns
    -------
    A, B
        See `sdl_lifted_loss`.

    Raises
    ------
    ValueError
        When the kind is not known.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.one_of("kind", kind, KINDS)
    return Z[:, 0], Z[:, 1:] if kind == "feature" else Z[:, 1:].mT


def _scores(A: Tensor, gamma: Tensor, X: Tensor, X_aux: Tensor, kind: str) -> Tensor:
    expected = X.shape[0] if kind == "feature" else X.shape[1]
    if len(A) != expected:
        raise ValueError(f"A must have {expected} entries for {kind!r}, got {len(A)}")
    return (A if kind == "feature" else X @ A) + X_aux @ gamma


def _check_weights(xi: float, nu: float, kind: str) -> None:
    validate.at_least("xi", xi, 0)
    validate.at_least("nu", nu, 0)
    validate.one_of("kind", kind, KINDS)


def _check(X: Tensor, y: Tensor, xi: float, nu: float, kind: str) -> None:
    _check_weights(xi, nu, kind)
    validate.labels("y", y, 2)
    n = len(y)
    validate.in_range("samples of class 1", y.sum(), 1, n - 1)

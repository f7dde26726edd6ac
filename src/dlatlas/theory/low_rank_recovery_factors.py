"""Supervised dictionary learning on the factors: reading them off a solution, and block coordinate descent."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.theory.low_rank_recovery_dictionaries import KINDS, sdl_lifted_gradients, sdl_lifted_loss, sdl_stack
from dlatlas.typed import typed

Factors = tuple[Tensor, Tensor, Tensor, Tensor]


@typed
def sdl_factor(
    A: Float[Tensor, " a"], B: Float[Tensor, "n p"], r: int, *, kind: str
) -> tuple[Float[Tensor, "p r"], Float[Tensor, "n r"], Float[Tensor, " r"]]:
    r"""Dictionary, codes and coefficients of product variables of rank r, all dictionary columns of norm one.

    .. math:: Z = U S V^\top = (U S^{1/2}) (V S^{1/2})^\top

    Parameters
    ----------
    A, B, r, kind
        Product variables as in `sdl_lifted_loss`, and their rank.

    Returns
    -------
    W, H, beta
        With :math:`B = H W^\top`, and :math:`A = H \beta` for ``"feature"`` or :math:`A = W \beta` for ``"filter"``.

    Raises
    ------
    ValueError
        When r is below one or the kind is not known.

    References
    ----------
    supervised-dictionary-learning
    """
    validate.at_least("r", r, 1)
    U, s, Vt = torch.linalg.svd(sdl_stack(A, B, kind=kind), full_matrices=False)
    left, right = U[:, :r] * s[:r].sqrt(), Vt[:r].mT * s[:r].sqrt()
    W, H = (right[1:], left) if kind == "feature" else (left, right[1:])
    norms = W.norm(dim=0)
    # beta undoes the rescaling of the factor that it multiplies.
    beta = right[0] / norms if kind == "feature" else right[0] * norms
    return W / norms, H * norms, beta


@typed
def sdl_products(
    W: Float[Tensor, "p r"], H: Float[Tensor, "n r"], beta: Float[Tensor, " r"], *, kind: str
) -> tuple[Float[Tensor, " a"], Float[Tensor, "n p"]]:
    r"""Product variables of a dictionary, codes and coefficients.

    .. math:: A = H \beta \ \text{(feature)}, \quad A = W \beta \ \text{(filter)}, \qquad B = H W^\top

    Parameters
    ----------
    W, H, beta, kind
        See `sdl_factor`.

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
    return (H if kind == "feature" else W) @ beta, H @ W.mT


@typed
def sdl_bcd(
    W: Float[Tensor, "p r"],
    H: Float[Tensor, "n r"],
    beta: Float[Tensor, " r"],
    gamma: Float[Tensor, " q"],
    X: Float[Tensor, "n p"],
    y: Int[Tensor, " n"],
    X_aux: Float[Tensor, "n q"],
    *,
    xi: float,
    nu: float,
    nonneg: bool = False,
    iters: int,
    kind: str,
) -> tuple[
    tuple[Float[Tensor, "p r"], Float[Tensor, "n r"], Float[Tensor, " r"], Float[Tensor, " q"]], Float[Tensor, " times"]
]:
    r"""Block coordinate descent on the factors: in turn one projected gradient step on W, H, beta and gamma.

    .. math:: \theta_b \leftarrow \Pi_b\bigl( \theta_b - \tfrac{1}{L_b} \nabla_b F \bigr)

    with :math:`L_b` a bound on the curvature in the block while the others are fixed, so the loss never rises.

    Parameters
    ----------
    W, H, beta, gamma
        The start.
    X, y, X_aux, xi, nu, kind
        See `sdl_lifted_loss`.
    nonneg, iters
        Whether W and H are kept non-negative (:math:`\Pi` sets negative entries to zero); rounds.

    Returns
    -------
    (W, H, beta, gamma), losses
        The last factors, and the loss after 0, ..., iters rounds.

    Raises
    ------
    ValueError
        As `sdl_lifted_loss`.

    References
    ----------
    supervised-dictionary-learning
    """
    problem = {"X": X, "y": y, "X_aux": X_aux, "xi": xi, "nu": nu, "kind": kind}
    project = torch.relu if nonneg else torch.clone
    factors = (W, H, beta, gamma)
    losses = [_loss(factors, problem)]
    for _ in range(iters):
        factors = _round(factors, problem, project)
        losses.append(_loss(factors, problem))
    return factors, torch.stack(losses)


def _round(factors: Factors, problem: dict[str, Any], project: Callable[[Tensor], Tensor]) -> Factors:
    W, H, beta, gamma = factors
    X, X_aux, xi, nu = problem["X"], problem["X_aux"], problem["xi"], problem["nu"]
    feature = problem["kind"] == "feature"
    # Curvature of logistic loss and penalty in A; W or H sees it through beta.
    of_A = (0.25 if feature else _squared_norm(X) / 4) + 2 * nu
    through_beta = of_A * beta.square().sum()

    to_A, to_B, _ = _gradients((W, H, beta, gamma), problem)
    slope = to_B.mT @ H if feature else to_B.mT @ H + torch.outer(to_A, beta)
    W = project(W - slope / (2 * xi * _squared_norm(H) + (0 if feature else through_beta)))

    to_A, to_B, _ = _gradients((W, H, beta, gamma), problem)
    slope = to_B @ W + torch.outer(to_A, beta) if feature else to_B @ W
    H = project(H - slope / (2 * xi * _squared_norm(W) + (through_beta if feature else 0)))

    owner = H if feature else W
    to_A, _, _ = _gradients((W, H, beta, gamma), problem)
    beta = beta - owner.mT @ to_A / (of_A * _squared_norm(owner))

    _, _, to_gamma = _gradients((W, H, beta, gamma), problem)
    return W, H, beta, gamma - to_gamma / (_squared_norm(X_aux) / 4 + 2 * nu)


def _gradients(factors: Factors, problem: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    W, H, beta, gamma = factors
    return sdl_lifted_gradients(*sdl_products(W, H, beta, kind=problem["kind"]), gamma, **problem)


def _loss(factors: Factors, problem: dict[str, Any]) -> Tensor:
    W, H, beta, gamma = factors
    return sdl_lifted_loss(*sdl_products(W, H, beta, kind=problem["kind"]), gamma, **problem)


def _squared_norm(M: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(M, 2) ** 2

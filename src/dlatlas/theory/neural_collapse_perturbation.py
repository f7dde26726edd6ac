"""Neural collapse of features that are held near given ones: closed-form halves, their alternation, a gradient flow."""

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def ridge_classifier(H: Float[Tensor, "n d"], Y: Float[Tensor, "n K"], lam: float) -> Float[Tensor, "K d"]:
    r"""Best linear classifier of given features under the squared loss.

    .. math:: W^*(H) = Y^\top H\, (H^\top H + \lambda I)^{-1}
        = \arg\min_W \lVert H W^\top - Y \rVert_F^2 + \lambda \lVert W \rVert_F^2

    Parameters
    ----------
    H, Y, lam
        Features and targets as rows, and the penalty :math:`\lambda > 0`.

    Returns
    -------
    Tensor
        (K, d).

    Raises
    ------
    ValueError
        When the penalty is not positive.

    References
    ----------
    neural-collapse-perturbation
    """
    validate.positive("lam", lam)
    return torch.linalg.solve(_shifted(H.mT @ H, lam), H.mT @ Y).mT


@typed
def nearby_features(
    W: Float[Tensor, "K d"], Y: Float[Tensor, "n K"], H0: Float[Tensor, "n d"], lamH: float, beta: float
) -> Float[Tensor, "n d"]:
    r"""Best features for a given classifier that are held near given features.

    .. math:: H^*(W) = (Y W + \beta H_0)\, \bigl( W^\top W + (\lambda_H + \beta) I \bigr)^{-1}
        = \arg\min_H \lVert H W^\top - Y \rVert_F^2 + \lambda_H \lVert H \rVert_F^2 + \beta \lVert H - H_0 \rVert_F^2

    Parameters
    ----------
    W, Y, H0
        Classifier, targets, and the given features.
    lamH, beta
        Penalties of the features and of their distance to :math:`H_0`; not negative, and not both zero.

    Returns
    -------
    Tensor
        (n, d).

    Raises
    ------
    ValueError
        When a penalty is negative, or both are zero.

    References
    ----------
    neural-collapse-perturbation
    """
    validate.at_least("lamH", lamH, 0)
    validate.at_least("beta", beta, 0)
    validate.positive("lamH + beta", lamH + beta)
    pulled, strength = Y @ W + beta * H0, lamH + beta
    # Woodbury: a system of size K, with W W', in the place of one of size d, with W'W.
    seen = torch.linalg.solve(_shifted(W @ W.mT, strength), W)
    return (pulled - (pulled @ W.mT) @ seen) / strength


@typed
def alternate_ufm(
    H0: Float[Tensor, "n d"], Y: Float[Tensor, "n K"], lamW: float, lamH: float, beta: float, iters: int = 200
) -> tuple[Float[Tensor, "K d"], Float[Tensor, "n d"]]:
    r"""Minimise the model of features near :math:`H_0` by turns, each half-step in closed form.

    .. math:: f(W, H) = \frac{1}{2Kn} \Bigl( \lVert H W^\top - Y \rVert_F^2 + n \lambda_W \lVert W \rVert_F^2
        + \lambda_H \lVert H \rVert_F^2 + \beta \lVert H - H_0 \rVert_F^2 \Bigr)

    for K classes of n samples each, from :math:`H = H_0` on.

    Parameters
    ----------
    H0, Y
        Given features, class means not all equal; one-hot targets.
    lamW, lamH, beta
        Penalties :math:`\lambda_W, \lambda_H, \beta`.
    iters
        Rounds of `ridge_classifier` and `nearby_features`.

    Returns
    -------
    tuple
        W (K, d) and H (Kn, d).

    Raises
    ------
    ValueError
        When there is no round, a penalty makes no sense, or the class means of :math:`H_0` coincide.

    References
    ----------
    neural-collapse-perturbation
    """
    validate.at_least("iters", iters, 1)
    _require_class_means(H0, Y)
    n = H0.shape[0] / Y.shape[1]
    H = H0
    for _ in range(iters):
        W = ridge_classifier(H, Y, n * lamW)
        H = nearby_features(W, Y, H0, lamH, beta)
    return W, H


@typed
def central_path_flow(
    H0: Float[Tensor, "n d"],
    Y: Float[Tensor, "n K"],
    lamW: float,
    lamH: float,
    beta: float,
    dt: float,
    steps: int,
) -> Float[Tensor, "T n d"]:
    r"""Gradient flow of the features while the classifier stays optimal, by Euler steps.

    .. math:: \frac{dH}{d\tau} = -\bigl( (H W^\top - Y) W + \lambda_H H + \beta (H - H_0) \bigr), \qquad
        W = W^*(H), \quad H(0) = H_0

    The gradient of :math:`f` in `alternate_ufm`, with time in units of :math:`Kn`.

    Parameters
    ----------
    H0, Y, lamW, lamH, beta
        As in `alternate_ufm`.
    dt, steps
        Step of the time :math:`\tau`, and how many.

    Returns
    -------
    Tensor
        Features at the times 0, dt, ..., (steps + 1, n, d).

    Raises
    ------
    ValueError
        When dt or ``steps`` is not positive, a penalty makes no sense, or the class means of :math:`H_0` coincide.

    References
    ----------
    neural-collapse-perturbation
    """
    validate.positive("dt", dt)
    validate.at_least("steps", steps, 1)
    validate.at_least("lamH", lamH, 0)
    validate.at_least("beta", beta, 0)
    _require_class_means(H0, Y)
    n = H0.shape[0] / Y.shape[1]
    path = [H0]
    for _ in range(steps):
        H = path[-1]
        W = ridge_classifier(H, Y, n * lamW)
        path.append(H - dt * ((H @ W.mT - Y) @ W + lamH * H + beta * (H - H0)))
    return torch.stack(path)


def _shifted(A: Tensor, amount: float) -> Tensor:
    return A + amount * torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)


def _require_class_means(H: Tensor, Y: Tensor) -> None:
    means = (Y / Y.sum(0)).mT @ H
    spread = (means - means.mean(0)).norm()
    validate.in_range("spread of the class means of H0", spread, torch.finfo(H.dtype).eps * H.norm(), torch.inf)

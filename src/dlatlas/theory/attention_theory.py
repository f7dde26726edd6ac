"""Attention as a support vector machine: the gradient, the training paths and the max-margin problems they approach."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


class AttentionSVM(NamedTuple):
    """Solution W (d, e) of a max-margin problem, and its multipliers (n, T)."""

    W: Tensor
    multipliers: Tensor


class AttentionPath(NamedTuple):
    """Weights W (steps + 1, d, e) before each step and at the end, and log of the flow time after each (steps)."""

    W: Tensor
    log_time: Tensor


@typed
def attn_logits(X: Float[Tensor, "n T d"], z: Float[Tensor, "n e"], W: Float[Tensor, "d e"]) -> Float[Tensor, "n T"]:
    r"""Attention logits of one query for each sequence.

    .. math:: X_i W z_i

    Parameters
    ----------
    X
        Tokens :math:`x_{it}`, n sequences of T.
    z
        Queries :math:`z_i`.
    W
        Key-query weights, :math:`W = K Q^\top` where they are factorised.

    Returns
    -------
    Tensor
        (n, T).

    References
    ----------
    attention-svm
    """
    return torch.einsum("ntd,de,ne->nt", X, W, z)


@typed
def token_scores(X: Float[Tensor, "n T d"], y: Float[Tensor, " n"], v: Float[Tensor, " d"]) -> Float[Tensor, "n T"]:
    r"""What every token would contribute to the margin if it got all the attention.

    .. math:: \gamma_{it} = y_i\, v^\top x_{it}

    Parameters
    ----------
    X
        Tokens (n, T, d).
    y
        Labels, -1 or 1.
    v
        The fixed linear head.

    Returns
    -------
    Tensor
        (n, T); the optimal token of a sequence is the one with the largest score.

    References
    ----------
    attention-svm
    """
    return y[:, None] * (X @ v)


@typed
def attention_descent(
    X: Float[Tensor, "n T d"], z: Float[Tensor, "n e"], scores: Float[Tensor, "n T"], W: Float[Tensor, "d e"]
) -> tuple[Float[Tensor, "d e"], Float[Tensor, ""]]:
    r"""Negative gradient of the logistic loss of one attention head, as a matrix and the logarithm of its scale.

    .. math:: -\nabla_W L = \frac1n \sum_i \frac{1}{1 + e^{m_i}} \sum_{t < u} s_{it} s_{iu}
        (\gamma_{it} - \gamma_{iu}) (x_{it} - x_{iu})\, z_i^\top, \qquad
        L = \frac1n \sum_i \log(1 + e^{-m_i}), \quad m_i = \sum_t s_{it} \gamma_{it}

    with :math:`s_i = \mathrm{softmax}(X_i W z_i)`. The sum over pairs has no cancellation, and the largest weight is
    taken out, so that the direction is right where the gradient itself underflows.

    Parameters
    ----------
    X, z
        Tokens (n, T, d) and queries (n, e).
    scores
        Token scores :math:`\gamma_{it}`, different in one sequence at least.
    W
        Key-query weights.

    Returns
    -------
    tuple
        :math:`D` (d, e) and a scalar c with :math:`-\nabla_W L = e^c D`.

    Raises
    ------
    ValueError
        When the scores of every sequence are all equal: then the loss does not depend on W.

    References
    ----------
    attention-svm
    """
    spread = (scores.amax(-1) - scores.amin(-1)).amax()
    validate.in_range("spread of the scores", spread, torch.finfo(scores.dtype).tiny, torch.inf)
    log_s = attn_logits(X, z, W).log_softmax(-1)
    margins = (log_s.exp() * scores).sum(-1)
    log_weights = log_s[:, :, None] + log_s[:, None, :] + F.logsigmoid(-margins)[:, None, None]
    gaps = scores[:, :, None] - scores[:, None, :]
    # Pairs of equal score have no say in what the largest weight is.
    scale = torch.where(gaps != 0, log_weights, -torch.inf).amax()
    pull = (torch.exp((log_weights - scale).clamp(max=0)) * gaps).sum(-1)
    return torch.einsum("nt,ntd,ne->de", pull, X, z) / len(X), scale


@typed
def train_attention(
    X: Float[Tensor, "n T d"],
    z: Float[Tensor, "n e"],
    scores: Float[Tensor, "n T"],
    W: Float[Tensor, "d e"],
    *,
    eta: float,
    steps: int,
) -> AttentionPath:
    r"""Normalised gradient descent on the key-query weights.

    .. math:: W \leftarrow W - \eta\, \frac{\nabla L(W)}{\lVert \nabla L(W) \rVert_F}, \qquad
        \tau \leftarrow \tau + \frac{\eta}{\lVert \nabla L(W) \rVert_F}

    The normalised path is the gradient flow at another speed; :math:`\tau` is the time that the flow needs for it.

    Parameters
    ----------
    X, z, scores
        See `attention_descent`.
    W
        The start.
    eta, steps
        Length :math:`\eta` of a step in the Frobenius norm, number of steps.

    Returns
    -------
    AttentionPath
        Weights (steps + 1, d, e), and :math:`\log \tau` after each step, (steps).

    Raises
    ------
    ValueError
        When the length or the number of steps is not positive.

    References
    ----------
    attention-svm
    """
    _check_descent(eta, steps)
    path, times = [W], []
    for _ in range(steps):
        direction, scale = attention_descent(X, z, scores, W)
        length = direction.norm()
        W = W + eta * direction / length
        path.append(W)
        times.append(math.log(eta) - scale - length.log())
    return AttentionPath(torch.stack(path), torch.stack(times).logcumsumexp(0))


@typed
def train_key_query(
    X: Float[Tensor, "n T d"],
    z: Float[Tensor, "n e"],
    scores: Float[Tensor, "n T"],
    K: Float[Tensor, "d m"],
    Q: Float[Tensor, "e m"],
    *,
    eta: float,
    steps: int,
) -> Float[Tensor, "steps1 d e"]:
    r"""Normalised gradient descent on keys and queries, :math:`W = K Q^\top`.

    .. math:: (K, Q) \leftarrow (K, Q) - \eta\, \frac{(\nabla L\, Q, \nabla L^\top K)}
        {\lVert (\nabla L\, Q, \nabla L^\top K) \rVert_F}

    Parameters
    ----------
    X, z, scores
        See `attention_descent`.
    K, Q
        The start.
    eta, steps
        Length of a step of the pair, number of steps.

    Returns
    -------
    Tensor
        :math:`K Q^\top` before each step and at the end, (steps + 1, d, e).

    Raises
    ------
    ValueError
        When the length or the number of steps is not positive.

    References
    ----------
    attention-svm
    """
    _check_descent(eta, steps)
    path = [K @ Q.mT]
    for _ in range(steps):
        direction, _ = attention_descent(X, z, scores, path[-1])
        for_K, for_Q = direction @ Q, direction.mT @ K
        length = (for_K.square().sum() + for_Q.square().sum()).sqrt()
        K, Q = K + eta * for_K / length, Q + eta * for_Q / length
        path.append(K @ Q.mT)
    return torch.stack(path)


@typed
def att_svm(
    X: Float[Tensor, "n T d"],
    z: Float[Tensor, "n e"],
    selected: Bool[Tensor, "n T"],
    *,
    norm: str = "fro",
    iterations: int = 2000,
) -> AttentionSVM:
    r"""Weights of the smallest norm that separate the selected tokens of every sequence from the others.

    .. math:: \min_W \tfrac12 \lVert W \rVert_F^2 \;\text{ or }\; \min_W \lVert W \rVert_* \quad\text{s.t.}\quad
        (x_{ia} - x_{it})^\top W z_i \ge 1 \;(t \notin O_i), \qquad (x_{ia} - x_{it})^\top W z_i = 0 \;(t \in O_i)

    where :math:`O_i` are the selected tokens and a is one of them. Solved with the primal-dual method of Chambolle and
    Pock, whose multipliers give a lower bound on the norm (see `att_svm_lower_bound`).

    Parameters
    ----------
    X, z
        Tokens (n, T, d) and queries (n, e).
    selected
        Which tokens of each sequence are selected: at least one.
    norm
        ``"fro"`` for the Frobenius norm, ``"nuc"`` for the nuclear norm.
    iterations
        Number of primal-dual steps.

    Returns
    -------
    AttentionSVM
        W (d, e), and the multipliers (n, T) of the constraints, zero for the reference token a.

    Raises
    ------
    ValueError
        For an unknown norm, a sequence without a selected token, or tokens that cannot be separated (within the given
        number of iterations).

    References
    ----------
    attention-svm
    """
    validate.one_of("norm", norm, tuple(_PROXIMAL))
    validate.in_range("selected tokens of a sequence", selected.sum(-1), 1, selected.shape[-1])
    proximal = _PROXIMAL[norm]
    differences = _differences(X, selected)
    rows = torch.einsum("ntd,ne->ntde", differences, z)
    size = torch.linalg.matrix_norm(rows.flatten(2).flatten(0, 1), 2)
    rows = rows / size
    needed = (~selected).to(X.dtype)
    W, multipliers = torch.zeros_like(rows[0, 0]), torch.zeros_like(needed)
    ahead = W
    for _ in range(iterations):
        multipliers = multipliers + needed - torch.einsum("ntde,de->nt", rows, ahead)
        multipliers = torch.where(selected, multipliers, multipliers.clamp(min=0))
        before, W = W, proximal(W + torch.einsum("ntde,nt->de", rows, multipliers))
        ahead = 2 * W - before
    margins = torch.einsum("ntde,de->nt", rows, W)
    smallest = torch.where(selected, torch.inf, margins).amin()
    validate.in_range("smallest margin of the selected tokens (1 when they can be separated)", smallest, 0.9, torch.inf)
    # Scaled to exact feasibility, so that the norm is an upper bound on the smallest one.
    square = size.square() if norm == "fro" else size
    return AttentionSVM(W / (size * smallest), multipliers * (differences != 0).any(-1) / square)


@typed
def att_svm_lower_bound(
    X: Float[Tensor, "n T d"],
    z: Float[Tensor, "n e"],
    selected: Bool[Tensor, "n T"],
    multipliers: Float[Tensor, "n T"],
    *,
    norm: str = "fro",
) -> Float[Tensor, ""]:
    r"""Lower bound on the norm of all weights that separate the selected tokens, from multipliers.

    .. math:: \lVert W \rVert \ge \frac{\sum_{i, t \notin O_i} \mu_{it}}{\lVert M \rVert_\ast}, \qquad
        M = \sum_{it} \mu_{it} (x_{ia} - x_{it})\, z_i^\top

    with the dual norm of M: the Frobenius norm is its own, the operator norm is that of the nuclear norm.

    Parameters
    ----------
    X, z, selected
        See `att_svm`.
    multipliers
        Any numbers that are not negative for tokens that are not selected.
    norm
        ``"fro"`` or ``"nuc"``.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        For an unknown norm.

    References
    ----------
    attention-svm
    """
    validate.one_of("norm", norm, tuple(_PROXIMAL))
    M = torch.einsum("nt,ntd,ne->de", multipliers, _differences(X, selected), z)
    dual = torch.linalg.matrix_norm(M, "fro" if norm == "fro" else 2)
    return torch.where(selected, 0, multipliers).sum() / dual


def _differences(X: Tensor, selected: Tensor) -> Tensor:
    """Reference token minus every token; the reference is the first of the selected ones."""
    reference = selected.to(torch.int8).argmax(-1)
    return torch.take_along_dim(X, reference[:, None, None], dim=1) - X


def _shrink(W: Tensor) -> Tensor:
    return W / 2


def _shrink_singular_values(W: Tensor) -> Tensor:
    U, s, Vt = torch.linalg.svd(W, full_matrices=False)
    return U @ ((s - 1).clamp(min=0)[:, None] * Vt)


_PROXIMAL: dict[str, Callable[[Tensor], Tensor]] = {"fro": _shrink, "nuc": _shrink_singular_values}


def _check_descent(eta: float, steps: int) -> None:
    validate.positive("eta", eta)
    validate.at_least("steps", steps, 1)

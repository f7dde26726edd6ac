"""Degenerate directions of trained networks, and the basis of activations that does not see them."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.func import jacrev, vmap
from torch.utils import _pytree as pytree

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def behavioural_hessian_eigenvalues(
    f: Callable[..., Tensor], params: Any, x: Float[Tensor, "n *input"]
) -> Float[Tensor, " r"]:
    r"""Eigenvalues of the Hessian of the behavioural loss, at the network whose behaviour is to be kept.

    .. math:: L_B(\theta) = \frac1n \sum_x \lVert f_\theta(x) - f_{\theta^*}(x) \rVert^2, \qquad
        \nabla^2 L_B(\theta^*) = \frac2n \sum_x J_x^\top J_x

    Parameters
    ----------
    f
        ``f(params, x)`` maps (n, ...) to (n, outputs), each example by itself.
    params
        A tensor or a tree of tensors :math:`\theta^*` with p entries.
    x
        Inputs.

    Returns
    -------
    Tensor
        (r,), ascending, r the smaller of p and n · outputs. All others are zero.

    References
    ----------
    degeneracy-interaction-basis
    """
    one = vmap(jacrev(lambda p, row: f(p, row[None]).reshape(-1)), in_dims=(None, 0))(params, x)
    J = torch.cat([leaf.reshape(len(x) * leaf.shape[1], -1) for leaf in pytree.tree_leaves(one)], dim=1)
    gram = J @ J.mT if J.shape[0] < J.shape[1] else J.mT @ J
    return torch.linalg.eigvalsh(2 / len(x) * gram)


@typed
def behavioural_hessian_rank(
    f: Callable[..., Tensor], params: Any, x: Float[Tensor, "n *input"], *, tol: float = 1e-10
) -> Float[Tensor, ""]:
    r"""Effective number of parameters: the rank of the Hessian of the behavioural loss.

    .. math:: \#\{ i : \lambda_i > \mathrm{tol} \cdot \lambda_1 \}

    Parameters
    ----------
    f, params, x
        See `behavioural_hessian_eigenvalues`.
    tol
        Relative to the largest eigenvalue, at least ten times the rounding error of the dtype. A small one counts
        exact degeneracies; a larger one also counts directions that hardly matter.

    Returns
    -------
    Tensor
        The rank as a scalar of the dtype of x. The number of parameters less the rank is the number of free directions.

    Raises
    ------
    ValueError
        When ``tol`` is below what the dtype can tell from zero.

    References
    ----------
    degeneracy-interaction-basis
    """
    validate.at_least("tol", tol, 10 * torch.finfo(x.dtype).eps)
    values = behavioural_hessian_eigenvalues(f, params, x)
    return (values > tol * values[-1]).sum().to(x.dtype)


@typed
def two_layer_rank(width: int, inputs: int, outputs: int) -> int:
    r"""Effective parameters of two linear layers, on inputs that span a given number of dimensions.

    .. math:: k\, (r + o - k), \qquad k = \min(m, r, o)

    the dimension of the matrices (o, r) of rank k. The same holds for a group of rectified neurons that fire together.

    Parameters
    ----------
    width, inputs, outputs
        Hidden units m, dimension r of the span of the inputs, and outputs o.

    Returns
    -------
    int
        The rank of the behavioural Hessian where both layers have full rank. For m = k it is less than the
        number of parameters by :math:`k^2`.

    Raises
    ------
    ValueError
        When a size is not positive.

    References
    ----------
    degeneracy-interaction-basis
    """
    for name, size in (("width", width), ("inputs", inputs), ("outputs", outputs)):
        validate.at_least(name, size, 1)
    k = min(width, inputs, outputs)
    return k * (inputs + outputs - k)


@typed
def linear_layer_ranks(
    acts: Float[Tensor, "n d"], grads: Float[Tensor, "n out h"], *, tol: float = 1e-10
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Effective parameters of one linear map :math:`h = W a`, and their bound by the ranks of its two sides.

    .. math:: \operatorname{rank} \frac1n \sum_x (a_x a_x^\top) \otimes (p_x^\top p_x) \;\le\;
        \operatorname{rank}(G_a)\, \operatorname{rank}(G_p), \qquad
        G_a = \frac1n \sum_x a_x a_x^\top, \quad G_p = \frac1n \sum_x p_x^\top p_x

    Parameters
    ----------
    acts
        Inputs a of the map, with a constant 1 where it has a bias.
    grads
        Derivatives :math:`p_x = \partial f / \partial h` of the outputs.
    tol
        What counts as zero, relative to the largest eigenvalue.

    Returns
    -------
    tuple
        The rank, and the product of ranks; the same where activations and derivatives are independent.

    Raises
    ------
    ValueError
        When ``tol`` is below what the dtype can tell from zero.

    References
    ----------
    degeneracy-interaction-basis
    """
    validate.at_least("tol", tol, 10 * torch.finfo(acts.dtype).eps)
    rows = torch.einsum("noh,nd->nohd", grads, acts).flatten(0, 1).flatten(1)
    sides = (acts, grads.flatten(0, 1))
    exact, of_acts, of_grads = (_rank(side.mT @ side, tol) for side in (rows, *sides))
    return exact, of_acts * of_grads


@typed
def relu_sync_groups(masks: Bool[Tensor, "n m"]) -> Int[Tensor, " m"]:
    r"""Groups of rectified neurons that fire on the same inputs.

    .. math:: g_j = \min \{ i : 1[z_i(x) > 0] = 1[z_j(x) > 0] \text{ for all } x \}

    Parameters
    ----------
    masks
        Which of m neurons fire on which of n inputs.

    Returns
    -------
    Tensor
        For each neuron the first one of its group, (m,).

    References
    ----------
    degeneracy-interaction-basis
    """
    same = (masks[:, :, None] == masks[:, None, :]).all(0)
    return same.to(torch.uint8).argmax(0)


@typed
def interaction_basis(
    acts: Float[Tensor, "n d"], jac: Float[Tensor, "n out d"], *, tol: float = 1e-5
) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d d"], Float[Tensor, " d"]]:
    r"""Coordinates of a layer in which activations and derivatives are both uncorrelated.

    .. math:: G = \frac1n \sum_x a a^\top = U D U^\top, \quad M = D^{1/2} U^\top
        \Bigl( \frac1n \sum_x J_x^\top J_x \Bigr) U D^{1/2} = V \Lambda V^\top, \qquad
        C = U D^{-1/2} V \Lambda^{1/2}, \quad \hat a = C^\top a

    Parameters
    ----------
    acts
        Activations a, biases folded in: a constant must lie in their span.
    jac
        Derivatives :math:`J_x` of what follows with respect to them: the next layer in its own basis, or the outputs.
    tol
        Eigenvalues of G and M below this are dropped.

    Returns
    -------
    tuple
        C (d, d), its inverse from the left (d, d), so that :math:`a = (C^+)^\top \hat a` up to the dropped
        directions, and :math:`\Lambda` (d,), descending. Dropped directions are zeros at the end. The signs of the
        columns are arbitrary, and under ``torch.func.vmap`` may be others than in a loop.

    Raises
    ------
    ValueError
        When no constant is in the span of the activations, or ``tol`` is below what the dtype can tell from zero.

    References
    ----------
    degeneracy-interaction-basis
    """
    D, U = torch.linalg.eigh(acts.mT @ acts / len(acts))
    validate.in_range("tol / rounding error of G", tol / (torch.finfo(D.dtype).eps * D[-1]), 1, torch.inf)
    keep = tol < D
    root = torch.where(keep, D, torch.zeros_like(D)).sqrt()
    inverse_root = _reciprocal(root)
    mean = (acts @ (U * inverse_root)).mean(0)
    validate.in_range("share of the constant that lies in the span of acts", mean.square().sum(), 0.99, 1.01)
    scaled = jac @ (U * root)
    lam, V = torch.linalg.eigh(torch.einsum("noi,noj->ij", scaled, scaled) / len(acts))
    lam, V = lam.flip(0), V.flip(1)
    lam = torch.where(lam > tol, lam, torch.zeros_like(lam))
    C = U * inverse_root @ V * lam.sqrt()
    C_pinv = _reciprocal(lam.sqrt())[:, None] * (V.mT * root @ U.mT)
    return C, C_pinv, lam


@typed
def interaction_edges(
    acts: Float[Tensor, "n d"],
    jac: Float[Tensor, "n e d"],
    C_in: Float[Tensor, "d i"],
    C_in_pinv: Float[Tensor, "i d"],
    C_out: Float[Tensor, "e o"],
) -> Float[Tensor, "o i"]:
    r"""Strength of the interactions between two layers: gradient times activation, squared and averaged.

    .. math:: E_{ij} = \frac1n \sum_x \Bigl(
        \frac{\partial \hat a^{\mathrm{out}}_i}{\partial \hat a_j}\, \hat a_j \Bigr)^2

    Parameters
    ----------
    acts, jac
        Activations a of the layer, and derivatives of the next layer's activations with respect to them.
    C_in, C_in_pinv, C_out
        Bases of both layers: :math:`\hat a = C^\top a`, and the pseudo-inverse of the first.

    Returns
    -------
    Tensor
        E, one row for each coordinate of the next layer.

    References
    ----------
    degeneracy-interaction-basis
    """
    slopes = C_out.mT @ jac @ C_in_pinv.mT
    return (slopes * (acts @ C_in)[:, None, :]).square().mean(0)


@typed
def edges_needed(
    edges: Float[Tensor, "o i"], accuracy: Callable[[Tensor], Tensor], level: Float[Tensor, ""]
) -> Int[Tensor, ""]:
    r"""Smallest number of strongest edges that keep an accuracy, by bisection.

    .. math:: \min \{ k : \mathrm{accuracy}(\text{the k largest } E_{ij}) \ge \mathrm{level} \}

    Parameters
    ----------
    edges
        Strengths E.
    accuracy
        ``accuracy(kept)`` gives the accuracy with the edges where ``kept`` (o, i) is true, and all others cut.
    level
        The accuracy to keep.

    Returns
    -------
    Tensor
        k. Where more edges can mean less accuracy it is one of the crossings.

    References
    ----------
    degeneracy-interaction-basis
    """
    order = edges.flatten().argsort(descending=True).argsort().reshape(edges.shape)
    low, high = torch.zeros_like(order[0, 0]) - 1, torch.zeros_like(order[0, 0]) + edges.numel()
    for _ in range(edges.numel().bit_length()):
        middle = (low + high) // 2
        good = accuracy(order < middle) >= level
        # The interval (low, high] shrinks to one number; a closed one stays as it is.
        low, high = torch.where(good, low, middle), torch.where(good & (low < middle), middle, high)
    return high


def _rank(gram: Tensor, tol: float) -> Tensor:
    values = torch.linalg.eigvalsh(gram)
    return (values > tol * values[-1]).sum().to(gram.dtype)


def _reciprocal(values: Tensor) -> Tensor:
    positive = values > 0
    return torch.where(positive, 1 / torch.where(positive, values, torch.ones_like(values)), torch.zeros_like(values))

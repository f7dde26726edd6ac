"""Functions of functions: what chapters share about a network seen as ``f(parameters, x)``."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, vmap
from torch.utils import _pytree as pytree

from dlatlas.typed import typed


@typed
def linearised(f: Callable[..., Tensor], params0: Any) -> Callable[..., Tensor]:
    r"""First-order Taylor expansion of a network in its parameters.

    .. math:: f_{\mathrm{lin}}(\theta; x) = f(\theta_0; x) + \nabla_\theta f(\theta_0; x) \cdot (\theta - \theta_0)

    The product is one forward-mode derivative: the Jacobian is never formed, and a call costs about two calls of ``f``.

    Parameters
    ----------
    f
        ``f(params, *inputs)``, differentiable in ``params``, a tensor or a tree of tensors.
    params0
        The point of expansion :math:`\theta_0`.

    Returns
    -------
    Callable
        ``f_lin(params, *inputs)``, linear in ``params - params0``. It works under ``grad`` and ``vmap``; ``linearised``
        itself maps a function to a function, so there is nothing for ``vmap`` to map over.

    Raises
    ------
    ValueError
        When ``params`` given to ``f_lin`` are not a tree of the same structure and shapes as ``params0``.

    References
    ----------
    neural-tangent-kernel
    """
    leaves0, structure = pytree.tree_flatten(params0)

    def f_lin(params: Any, *inputs: Any) -> Tensor:
        leaves, given = pytree.tree_flatten(params)
        if given != structure:
            raise ValueError(f"params must have the structure of params0, {structure}, got {given}")
        for leaf, leaf0 in zip(leaves, leaves0, strict=True):
            if leaf.shape != leaf0.shape:
                expected, came = tuple(leaf0.shape), tuple(leaf.shape)
                raise ValueError(f"params must have the shape {expected} of params0, got {came}")
        displacement = tuple(leaf - leaf0 for leaf, leaf0 in zip(leaves, leaves0, strict=True))
        value, change = torch.func.jvp(
            lambda *at: f(pytree.tree_unflatten(at, structure), *inputs), tuple(leaves0), displacement
        )
        return value + change

    return f_lin


@typed
def empirical_ntk(
    f: Callable[..., Tensor],
    params: Any,
    x1: Float[Tensor, "n *input"],
    x2: Float[Tensor, "m *input"] | None = None,
    *,
    reduction: Literal["trace", "full"] | None = None,
    memory: int = 2**29,
) -> Float[Tensor, "n m *outputs"]:
    r"""Tangent kernel of any network, by contracting its Jacobian.

    .. math:: \hat\Theta(x, x') = \sum_p
        \frac{\partial f(x)}{\partial \theta_p} \frac{\partial f(x')}{\partial \theta_p}

    The whole Jacobian at once where it fits into ``memory``; else blocks of examples, of which two are alive.

    Parameters
    ----------
    f
        ``f(params, x)`` maps (n, ...) to (n,) or (n, outputs), each example by itself.
    params
        A tensor or a tree of tensors :math:`\theta`.
    x1, x2
        Inputs; ``x2=None`` means ``x1``, at half the cost.
    reduction
        What to do with several outputs: ``"trace"`` sums the kernel over equal outputs, ``"full"`` keeps all pairs.
    memory
        Bytes for the Jacobian (of one seed, under ``vmap``).

    Returns
    -------
    Tensor
        (n, m); with ``"full"`` (n, m, outputs, outputs).

    Raises
    ------
    ValueError
        For several outputs without a declared reduction.

    References
    ----------
    neural-tangent-kernel
    """
    outputs = f(params, x1[:1]).numel()
    if outputs > 1 and reduction is None:
        raise ValueError(f"reduction must be 'trace' or 'full' for a network with {outputs} outputs, got None")
    leaves = pytree.tree_leaves(params)
    rows_that_fit = memory // (outputs * sum(leaf.numel() * leaf.element_size() for leaf in leaves))
    examples = len(x1) + (0 if x2 is None else len(x2))
    size = examples if examples <= rows_that_fit else max(1, rows_that_fit // 2)
    contraction = "icp,jdp->ijcd" if reduction == "full" else "icp,jcp->ij"

    def jacobian(block: Tensor) -> list[Tensor]:
        one = vmap(jacrev(lambda p, x: f(p, x[None]).reshape(outputs)), in_dims=(None, 0))(params, block)
        return [leaf.reshape(len(block), outputs, -1) for leaf in pytree.tree_leaves(one)]

    def contracted(rows: list[Tensor], columns: list[Tensor]) -> Tensor:
        return sum(torch.einsum(contraction, r, c) for r, c in zip(rows, columns, strict=True))

    blocks1 = x1.split(size)
    blocks2 = blocks1 if x2 is None else x2.split(size)
    grid: list[list[Tensor]] = []
    for i, block1 in enumerate(blocks1):
        rows = jacobian(block1)
        grid.append([])
        for j, block2 in enumerate(blocks2):
            if x2 is None and j < i:
                transposed = grid[j][i].transpose(0, 1)
                grid[i].append(transposed.mT if reduction == "full" else transposed)
            else:
                same = x2 is None and i == j
                grid[i].append(contracted(rows, rows if same else jacobian(block2)))
    return torch.cat([torch.cat(row, dim=1) for row in grid])

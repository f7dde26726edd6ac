"""Curvature without matrices: Hessian- and Gauss-Newton-vector products, Lanczos, stochastic traces and spectra.

An operator is a function from a vector (dim,) to a vector (dim,), symmetric and the same at every call: fix dropout and
batch statistics before taking products. Random vectors are arguments, so a result can be repeated, and every function
works per seed under ``torch.func.vmap``.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp
from torch.utils import _pytree as pytree

from dlatlas.ops import validate
from dlatlas.typed import typed

Operator = Callable[[Tensor], Tensor]


@typed
def flatten(params: Any) -> Float[Tensor, " p"]:
    """All entries of a tree of tensors as one vector, leaf after leaf.

    Parameters
    ----------
    params
        A tensor or a tree of tensors.

    Returns
    -------
    Tensor
        (p,), p the number of entries.

    Raises
    ------
    ValueError
        When the tree has no tensors.
    """
    leaves = pytree.tree_leaves(params)
    validate.at_least("number of tensors in params", len(leaves), 1)
    return torch.cat([leaf.reshape(-1) for leaf in leaves])


@typed
def unflatten(vector: Float[Tensor, " p"], params: Any) -> Any:
    """Undo `flatten`: a tree of the structure and shapes of ``params`` with the entries of ``vector``.

    Parameters
    ----------
    vector
        (p,).
    params
        The tree to imitate; its values do not matter.

    Returns
    -------
    Any
        A tree like ``params``.

    Raises
    ------
    ValueError
        When the number of entries differs.
    """
    leaves, structure = pytree.tree_flatten(params)
    sizes = [leaf.numel() for leaf in leaves]
    if sum(sizes) != len(vector):
        raise ValueError(f"vector must have {sum(sizes)} entries like params, got {len(vector)}")
    parts = [part.reshape(leaf.shape) for part, leaf in zip(vector.split(sizes), leaves, strict=True)]
    return pytree.tree_unflatten(parts, structure)


@typed
def hvp(loss: Callable[[Any], Tensor], params: Any, v: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    r"""Hessian-vector product: the forward derivative of the gradient along v.

    .. math:: H v = \frac{\partial}{\partial \epsilon} \nabla \mathcal L(\theta + \epsilon v) \Big|_{\epsilon = 0}

    Parameters
    ----------
    loss
        ``loss(params)``, a scalar.
    params
        A tensor or a tree of tensors :math:`\theta` with p entries.
    v
        (p,), in the order of `flatten`.

    Returns
    -------
    Tensor
        (p,). Costs about four evaluations of the loss; H is never formed.

    Raises
    ------
    ValueError
        When v has another number of entries than the parameters.

    References
    ----------
    batch-hessian-learning-rates
    """
    return flatten(jvp(grad(loss), (params,), (unflatten(v, params),))[1])


@typed
def gauss_newton_vp(
    f: Callable[[Any], Tensor], loss: Callable[[Tensor], Tensor], params: Any, v: Float[Tensor, " p"]
) -> Float[Tensor, " p"]:
    r"""Product with the generalised Gauss-Newton matrix: the Hessian without the curvature of the network.

    .. math:: G v = J^\top \nabla_z^2 \ell(z)\, J v, \qquad z = f(\theta), \quad J = \partial f / \partial \theta

    Parameters
    ----------
    f, loss
        ``f(params)`` gives the outputs z, of any shape; ``loss(z)`` is a scalar.
    params
        A tensor or a tree of tensors :math:`\theta` with p entries.
    v
        (p,), in the order of `flatten`.

    Returns
    -------
    Tensor
        (p,). G is positive semi-definite where the loss is convex in z.

    Raises
    ------
    ValueError
        When v has another number of entries than the parameters.

    References
    ----------
    batch-hessian-learning-rates
    """
    z, change = jvp(f, (params,), (unflatten(v, params),))
    curved = jvp(grad(loss), (z,), (change,))[1]
    return flatten(vjp(f, params)[1](curved)[0])


@typed
def lanczos(
    matvec: Operator, start: Float[Tensor, " dim"], m: int, *, reorth: bool = True
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m-1"], Float[Tensor, "m dim"]]:
    r"""Tridiagonal compression of a symmetric operator to the Krylov space of a vector.

    .. math:: Q A Q^\top = T, \qquad \beta_j q_{j+1} = A q_j - \alpha_j q_j - \beta_{j-1} q_{j-1}, \qquad
        \alpha_j = q_j^\top A q_j

    Parameters
    ----------
    matvec
        The operator A.
    start
        Any vector but zero; :math:`q_1` points along it.
    m
        Number of products, at most dim.
    reorth
        Whether each new vector is made orthogonal to all earlier ones. Without it rounding brings copies of the
        eigenvalues that have converged.

    Returns
    -------
    tuple
        Diagonal :math:`\alpha` (m,) and off-diagonal :math:`\beta` (m - 1,) of T, and the rows :math:`q_j` (m, dim).
        Where the Krylov space is exhausted early, the remaining :math:`q_j` and :math:`\beta_j` are zero and
        :math:`\alpha_j = \alpha_1`, which adds no extreme eigenvalue and no weight.

    Raises
    ------
    ValueError
        When m is below 1 or above dim, or the start is zero.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.in_range("m", m, 1, len(start))
    validate.in_range("norm of start", start.norm(), torch.finfo(start.dtype).tiny, torch.inf)
    q = start / start.norm()
    basis, alphas, betas, scale = [q], [], [], torch.zeros_like(start[0])
    for step in range(m):
        w = matvec(q)
        alive = (q != 0).any()
        alpha = torch.where(alive, q @ w, alphas[0] if alphas else q @ w)
        alphas.append(alpha)
        if step == m - 1:
            break
        w = w - alpha * q - (betas[-1] * basis[-2] if betas else 0)
        if reorth:
            w = _orthogonal_to(_orthogonal_to(w, basis), basis)
        norm = w.norm()
        scale = torch.maximum(scale, torch.maximum(alpha.abs(), norm))
        # What is left of an exhausted space is rounding error; as a new direction it would be noise.
        fresh = alive & (norm > 64 * torch.finfo(w.dtype).eps * scale)
        q = torch.where(fresh, w / torch.where(fresh, norm, torch.ones_like(norm)), torch.zeros_like(w))
        betas.append(torch.where(fresh, norm, torch.zeros_like(norm)))
        basis.append(q)
    return torch.stack(alphas), torch.stack(betas) if betas else start[:0], torch.stack(basis)


@typed
def ritz(
    alpha: Float[Tensor, " m"], beta: Float[Tensor, " m-1"], basis: Float[Tensor, "m dim"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, "m dim"]]:
    r"""Approximate eigenvalues and eigenvectors from `lanczos`.

    .. math:: T = Y \operatorname{diag}(\theta)\, Y^\top, \qquad u_j = Q^\top y_j

    Parameters
    ----------
    alpha, beta, basis
        As `lanczos` returns them.

    Returns
    -------
    tuple
        :math:`\theta` (m,), ascending, and the vectors (m, dim) as rows. The outermost are the most accurate.

    References
    ----------
    batch-hessian-learning-rates
    """
    theta, Y = torch.linalg.eigh(_tridiagonal(alpha, beta))
    return theta, Y.mT @ basis


@typed
def slq_density(
    matvec: Operator, probes: Float[Tensor, "k dim"], m: int
) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    r"""Spectral density by stochastic Lanczos quadrature: weighted points whose moments are those of the spectrum.

    .. math:: \frac1{\mathrm{dim}} \sum_i \delta(\lambda - \lambda_i) \approx
        \frac1k \sum_{v} \sum_{j=1}^m \tau_{vj}^2\, \delta(\lambda - \theta_{vj})

    where :math:`\tau_{vj}` is the first entry of the j-th eigenvector of the tridiagonal matrix of probe v.

    Parameters
    ----------
    matvec
        The operator.
    probes
        k random vectors with independent entries of mean 0 and variance 1 (or any scale: they are normalised).
    m
        Lanczos steps for each probe; the moments of a probe are exact up to order 2 m - 1.

    Returns
    -------
    tuple
        Nodes and weights, (k m,) each; the weights sum to one.

    Raises
    ------
    ValueError
        When m is below 1 or above dim, or a probe is zero.

    References
    ----------
    batch-hessian-learning-rates
    """
    nodes, weights = [], []
    for probe in probes:
        alpha, beta, _ = lanczos(matvec, probe, m)
        theta, Y = torch.linalg.eigh(_tridiagonal(alpha, beta))
        nodes.append(theta)
        weights.append(Y[0].square() / len(probes))
    return torch.cat(nodes), torch.cat(weights)


@typed
def smooth_density(
    nodes: Float[Tensor, " nodes"], weights: Float[Tensor, " nodes"], grid: Float[Tensor, " g"], width: float
) -> Float[Tensor, " g"]:
    r"""Density on a grid, each node widened to a Gaussian.

    .. math:: \rho(\lambda) = \sum_j w_j\, \frac{1}{\sqrt{2 \pi} \sigma}
        e^{-(\lambda - \theta_j)^2 / 2 \sigma^2}

    Parameters
    ----------
    nodes, weights
        As `slq_density` returns them.
    grid
        Where to evaluate.
    width
        Standard deviation :math:`\sigma`, in the units of the eigenvalues.

    Returns
    -------
    Tensor
        (g,).

    Raises
    ------
    ValueError
        When the width is not positive.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.positive("width", width)
    distance = (grid[:, None] - nodes) / width
    return torch.exp(-distance.square() / 2) @ weights / (width * (2 * torch.pi) ** 0.5)


@typed
def hutchinson_trace(matvec: Operator, probes: Float[Tensor, "k dim"]) -> Float[Tensor, ""]:
    r"""Trace from random quadratic forms.

    .. math:: \operatorname{tr} A \approx \frac1k \sum_v v^\top A v

    Parameters
    ----------
    matvec
        The operator A.
    probes
        k random vectors with independent entries of mean 0 and variance 1. Signs have the smallest variance,
        :math:`\frac2k \sum_{i \ne j} A_{ij}^2`.

    Returns
    -------
    Tensor
        A scalar, unbiased.

    References
    ----------
    batch-hessian-learning-rates
    """
    return torch.stack([v @ matvec(v) for v in probes]).mean()


@typed
def hutchpp_trace(
    matvec: Operator, sketch: Float[Tensor, "r dim"], probes: Float[Tensor, "k dim"]
) -> Float[Tensor, ""]:
    r"""Trace, exact on the dominant directions and by `hutchinson_trace` on the rest (Hutch++).

    .. math:: \operatorname{tr} A \approx \operatorname{tr} Q^\top A Q
        + \frac1k \sum_v v^\top (I - Q Q^\top) A\, (I - Q Q^\top) v, \qquad Q = \mathrm{orth}(A S)

    Parameters
    ----------
    matvec
        The operator A.
    sketch
        r random vectors S, as rows; r at most dim.
    probes
        k random vectors with independent entries of mean 0 and variance 1, independent of the sketch.

    Returns
    -------
    Tensor
        A scalar, unbiased; exact for operators of rank r or less. Costs 2 r + k products.

    Raises
    ------
    ValueError
        When the sketch has more rows than columns.

    References
    ----------
    batch-hessian-learning-rates
    """
    validate.at_least("dim", sketch.shape[1], sketch.shape[0])
    Q = torch.linalg.qr(torch.stack([matvec(s) for s in sketch]).mT).Q
    captured = torch.stack([q @ matvec(q) for q in Q.mT]).sum()
    return captured + hutchinson_trace(matvec, probes - probes @ Q @ Q.mT)


def _orthogonal_to(w: Tensor, basis: list[Tensor]) -> Tensor:
    Q = torch.stack(basis)
    return w - Q.mT @ (Q @ w)


def _tridiagonal(alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.diag(alpha) + torch.diag(beta, 1) + torch.diag(beta, -1)

"""Deep kernel machines: Gram matrices of every layer, optimised instead of frozen."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernels import arccos_k1
from dlatlas.typed import typed

KERNELS = ("linear", "relu", "rbf")


@typed
def gram_kernel(G: Float[Tensor, "*batch P P"], kernel: str) -> Float[Tensor, "*batch P P"]:
    r"""Kernel of the next layer, as a function of the Gram matrix of this one.

    .. math:: K_{ij} = G_{ij}, \qquad
        K_{ij} = \sqrt{G_{ii} G_{jj}}\; k_1\!\Bigl(\frac{G_{ij}}{\sqrt{G_{ii} G_{jj}}}\Bigr), \qquad
        K_{ij} = e^{-(G_{ii} + G_{jj} - 2 G_{ij})/2}

    for ``"linear"``, ``"relu"`` (the rectifier with variance 2 a weight) and ``"rbf"``.

    Parameters
    ----------
    G
        Gram matrices, positive semi-definite with a positive diagonal.
    kernel
        ``"linear"``, ``"relu"`` or ``"rbf"``: kernels that need no more than the Gram matrix.

    Returns
    -------
    Tensor
        The kernel matrices.

    Raises
    ------
    ValueError
        For an unknown kernel, or a diagonal that is not positive.

    References
    ----------
    deep-kernel-machine
    """
    validate.one_of("kernel", kernel, KERNELS)
    diagonal = G.diagonal(dim1=-2, dim2=-1)
    validate.in_range("diagonal of G", diagonal, torch.finfo(G.dtype).tiny, math.inf)
    if kernel == "linear":
        return G
    if kernel == "rbf":
        return torch.exp(G - (diagonal[..., :, None] + diagonal[..., None, :]) / 2)
    scale = torch.sqrt(diagonal[..., :, None] * diagonal[..., None, :])
    return scale * arccos_k1(G / scale)


@typed
def gaussian_kl(G: Float[Tensor, "*batch P P"], K: Float[Tensor, "*batch P P"]) -> Float[Tensor, "*batch"]:
    r"""Divergence of two normal distributions with mean zero.

    .. math:: \mathrm{KL}\bigl(\mathcal N(0, G) \,\Vert\, \mathcal N(0, K)\bigr)
        = \tfrac12 \bigl[\operatorname{tr}(K^{-1} G) - \log\det(K^{-1} G) - P\bigr]

    Parameters
    ----------
    G, K
        Covariance matrices, positive definite.

    Returns
    -------
    Tensor
        The divergence in nats, at least 0.

    Raises
    ------
    ValueError
        For a matrix that is not positive definite.

    References
    ----------
    deep-kernel-machine
    """
    root_G, root_K = _cholesky("G", G), _cholesky("K", K)
    trace = torch.linalg.solve_triangular(root_K, root_G, upper=False).square().sum((-2, -1))
    return (trace + _log_det(root_K) - _log_det(root_G) - G.shape[-1]) / 2


@typed
def dkm_objective(
    grams: Sequence[Float[Tensor, "*batch P P"]],
    G0: Float[Tensor, "*batch P P"],
    Y: Float[Tensor, "*batch P outputs"],
    *,
    nus: Sequence[float],
    noise: float,
    kernel: str,
) -> Float[Tensor, "*batch"]:
    r"""Log posterior of the Gram matrices of a deep Gaussian process, per unit of width.

    .. math:: \mathcal L(G_1, \dots, G_L) = \sum_c \log \mathcal N\bigl(y_c;\, 0,\, K(G_L) + \sigma^2 I\bigr)
        - \sum_{\ell=1}^L \nu_\ell\, \mathrm{KL}\bigl(\mathcal N(0, G_\ell) \,\Vert\, \mathcal N(0, K(G_{\ell-1}))\bigr)

    Parameters
    ----------
    grams
        :math:`G_1, \dots, G_L`, positive definite.
    G0
        Gram matrix of the inputs.
    Y
        Outputs :math:`y_c`, one column an output.
    nus
        :math:`\nu_\ell`: layer :math:`\ell` has :math:`N\nu_\ell` units when each output has :math:`N` copies.
    noise
        Variance :math:`\sigma^2`.
    kernel
        As for `gram_kernel`.

    Returns
    -------
    Tensor
        The objective, to be maximised.

    Raises
    ------
    ValueError
        For Gram matrices that are not positive definite, other than one of ``nus`` a layer, or values not positive.

    References
    ----------
    deep-kernel-machine
    """
    _check_layers(nus, noise)
    if len(nus) != len(grams):
        raise ValueError(f"nus must hold one value for each of {len(grams)} Gram matrices, got {len(nus)}")
    inputs = [G0, *grams[:-1]]
    divergence = sum(
        nu * gaussian_kl(G, gram_kernel(below, kernel)) for nu, G, below in zip(nus, grams, inputs, strict=True)
    )
    return _log_likelihood(gram_kernel(grams[-1], kernel), Y, noise) - divergence


@typed
def optimise_grams(
    G0: Float[Tensor, "*batch P P"],
    Y: Float[Tensor, "*batch P outputs"],
    *,
    nus: Sequence[float],
    noise: float,
    kernel: str,
    steps: int = 300,
    rate: float = 0.05,
) -> list[Float[Tensor, "*batch P P"]]:
    r"""Maximise `dkm_objective` over all Gram matrices, by Adam on their Cholesky factors.

    .. math:: G_\ell = C_\ell A_\ell A_\ell^\top C_\ell^\top, \qquad C_\ell C_\ell^\top = K(G_{\ell-1})

    with :math:`A_\ell` lower triangular, :math:`A_\ell = I` at the start: then :math:`G_\ell` is the Gram matrix of an
    infinitely wide network that learns no features, and the divergence depends on :math:`A_\ell` alone. The rate falls
    to zero along a cosine. It runs its own optimiser, so it takes leading axes in place of ``torch.func.vmap``.

    Parameters
    ----------
    G0, Y, nus, noise, kernel
        As for `dkm_objective`; leading axes are independent problems.
    steps
        Steps of Adam.
    rate
        Learning rate at the start.

    Returns
    -------
    list of Tensor
        :math:`G_1, \dots, G_L`, detached.

    Raises
    ------
    ValueError
        As `dkm_objective`, and for a negative number of steps.

    References
    ----------
    deep-kernel-machine
    """
    _check_layers(nus, noise)
    validate.at_least("steps", steps, 0)
    validate.positive("rate", rate)
    G0, Y = G0.detach(), Y.detach()
    raw = torch.zeros(len(nus), *G0.shape, dtype=G0.dtype, device=G0.device, requires_grad=True)
    # Adam's floor on the step size: a gradient far below the largest one is at its optimum, not far from it.
    optimiser = torch.optim.Adam([raw], lr=rate, eps=1e-6)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(steps, 1))
    for _ in range(steps):
        optimiser.zero_grad()
        with torch.enable_grad():
            whitened = _positive_triangle(raw)
            divergence = sum(nu * _whitened_kl(A) for nu, A in zip(nus, whitened, strict=True))
            top = gram_kernel(_grams_of(whitened, G0, kernel)[-1], kernel)
            loss = (divergence - _log_likelihood(top, Y, noise)).sum() / max(1.0, *nus)
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return _grams_of(_positive_triangle(raw), G0, kernel)


@typed
def dkm_predict(
    G0: Float[Tensor, "*batch all all"],
    grams: Sequence[Float[Tensor, "*batch P P"]],
    Y: Float[Tensor, "*batch P outputs"],
    *,
    noise: float,
    kernel: str,
) -> tuple[Float[Tensor, "*batch T outputs"], Float[Tensor, "*batch T"]]:
    r"""Predict at new inputs: extend every Gram matrix by the prior, then regress.

    .. math:: G_{*f} = K_{*f} K_{ff}^{-1} G_{ff}, \qquad
        G_{**} = K_{**} - K_{*f} K_{ff}^{-1} K_{f*} + K_{*f} K_{ff}^{-1} G_{ff} K_{ff}^{-1} K_{f*}

    Parameters
    ----------
    G0
        Gram matrix of the P training inputs followed by the T test inputs.
    grams
        :math:`G_1, \dots, G_L` of the training inputs.
    Y
        Training outputs.
    noise, kernel
        As for `dkm_objective`.

    Returns
    -------
    tuple of Tensor
        Predictive means, and variances with the noise, the same for all outputs.

    Raises
    ------
    ValueError
        For Gram matrices whose kernels are not positive definite, or a noise that is not positive.

    References
    ----------
    deep-kernel-machine
    """
    validate.positive("noise", noise)
    P = Y.shape[-2]
    joint = G0
    for G in grams:
        joint = _extend(gram_kernel(joint, kernel), G)
    K = gram_kernel(joint, kernel)
    root = _cholesky("K + noise", K[..., :P, :P] + noise * _identity(K[..., :P, :P]))
    half = torch.linalg.solve_triangular(root, K[..., :P, P:], upper=False)
    mean = half.mT @ torch.linalg.solve_triangular(root, Y, upper=False)
    spread = K.diagonal(dim1=-2, dim2=-1)[..., P:] - half.square().sum(-2)
    return mean, spread + noise


@typed
def linear_grams(G0: Float[Tensor, "P P"], S: Float[Tensor, "P P"], *, depth: int) -> list[Float[Tensor, "P P"]]:
    r"""Optimal Gram matrices of a deep linear kernel machine without noise.

    .. math:: G_\ell = G_0^{1/2} \bigl(G_0^{-1/2}\, S\, G_0^{-1/2}\bigr)^{\ell/(L+1)} G_0^{1/2}

    for :math:`S = Y Y^\top / \nu` with as many outputs as each layer has :math:`\nu`: the geodesic from the Gram matrix
    of the inputs to that of the outputs, in equal steps.

    Parameters
    ----------
    G0, S
        Gram matrices of inputs and outputs, positive definite.
    depth
        Hidden layers :math:`L`.

    Returns
    -------
    list of Tensor
        :math:`G_1, \dots, G_L`.

    Raises
    ------
    ValueError
        For matrices that are not positive definite, or a depth below 1.

    References
    ----------
    deep-kernel-machine
    """
    validate.at_least("depth", depth, 1)
    root = _cholesky("G0", G0)
    _cholesky("S", S)
    # Any root does: a rotation between two roots of G0 cancels in the power.
    whitened = torch.linalg.solve_triangular(root, S, upper=False)
    whitened = torch.linalg.solve_triangular(root, whitened.mT, upper=False)
    values, vectors = torch.linalg.eigh((whitened + whitened.mT) / 2)
    steps = [layer / (depth + 1) for layer in range(1, depth + 1)]
    return [root @ (vectors * values**t) @ vectors.mT @ root.mT for t in steps]


def _check_layers(nus: Sequence[float], noise: float) -> None:
    validate.at_least("number of nus", len(nus), 1)
    validate.positive("smallest of nus", min(nus))
    validate.positive("noise", noise)


def _cholesky(name: str, matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    validate.in_range(f"first minor of {name} that is not positive (0: positive definite)", info, 0, 0)
    return factor


def _log_det(root: Tensor) -> Tensor:
    return 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _identity(matrix: Tensor) -> Tensor:
    return torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _log_likelihood(K: Tensor, Y: Tensor, noise: float) -> Tensor:
    root = _cholesky("K + noise", K + noise * _identity(K))
    fit = torch.linalg.solve_triangular(root, Y, upper=False).square().sum((-2, -1))
    return -(fit + Y.shape[-1] * (_log_det(root) + Y.shape[-2] * math.log(2 * math.pi))) / 2


def _positive_triangle(raw: Tensor) -> Tensor:
    return torch.tril(raw, -1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp())


def _whitened_kl(A: Tensor) -> Tensor:
    return (A.square().sum((-2, -1)) - _log_det(A) - A.shape[-1]) / 2


def _grams_of(whitened: Tensor, G0: Tensor, kernel: str) -> list[Tensor]:
    grams, below = [], G0
    for A in whitened:
        root = _cholesky("K", gram_kernel(below, kernel)) @ A
        below = root @ root.mT
        grams.append(below)
    return grams


def _extend(K: Tensor, G: Tensor) -> Tensor:
    """Gram matrix of all inputs, given that of the first ones and the prior covariance of all."""
    P = G.shape[-1]
    carry = torch.cholesky_solve(K[..., :P, P:], _cholesky("K", K[..., :P, :P]))
    cross = G @ carry
    rest = K[..., P:, P:] + carry.mT @ (cross - K[..., :P, P:])
    return torch.cat([torch.cat([G, cross], -1), torch.cat([cross.mT, rest], -1)], -2)

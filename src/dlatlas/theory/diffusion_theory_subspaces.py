"""Mixtures of low-rank Gaussians: their denoiser is a soft choice among projections, and learning it is clustering."""

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jacrev

from dlatlas.ops import validate
from dlatlas.typed import typed

MOST_SUBSPACES = 6


@typed
def molrg_data(
    N: int, n: int, d: int, K: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float64
) -> tuple[Float[Tensor, "samples n"], Float[Tensor, "K n d"], Int[Tensor, "samples"]]:
    r"""Draw equally many samples of each component of a mixture of low-rank Gaussians.

    .. math:: x_0 = U_k \zeta, \qquad \zeta \sim \mathcal N(0, I_d), \qquad U_k^\top U_l = I_d\, \mathbb 1\{k = l\}

    Random draws are made on the CPU in the order of a generator, so the function does not work under ``vmap``.

    Parameters
    ----------
    N
        Samples of each component, :math:`N_k`.
    n, d, K
        Ambient dimension, intrinsic dimension and number of components, :math:`K d \le n`.
    generator
        Source of the subspaces and the samples.
    dtype
        Of the result; drawn in double precision.

    Returns
    -------
    tuple of Tensor
        Samples (K N, n), bases :math:`U_k` of random subspaces, orthogonal to each other, and labels.

    Raises
    ------
    ValueError
        For sizes below 1, or more directions than there is room for.

    References
    ----------
    diffusion-subspace-clustering
    """
    for name, size in (("N", N), ("d", d), ("K", K)):
        validate.at_least(name, size, 1)
    validate.at_least("n", n, K * d)
    frame = torch.linalg.qr(torch.randn(n, K * d, generator=generator, dtype=torch.float64))[0]
    U = frame.reshape(n, K, d).transpose(0, 1)
    labels = torch.arange(K).repeat_interleave(N)
    zeta = torch.randn(K * N, d, generator=generator, dtype=torch.float64)
    return torch.einsum("ind,id->in", U[labels], zeta).to(dtype), U.to(dtype), labels


@typed
def molrg_denoiser(
    x: Float[Tensor, "m n"],
    s: Float[Tensor, "m"],
    g: Float[Tensor, "m"],
    U: Float[Tensor, "K n d"],
    pi: Float[Tensor, "K"],
    *,
    hard: bool = False,
) -> Float[Tensor, "m n"]:
    r"""Posterior mean of a mixture of low-rank Gaussians: a mixture of projections.

    .. math:: \mathbb E[x_0 \mid x] = \frac{s}{s^2 + g^2} \sum_k w_k(x)\, U_k U_k^\top x, \qquad
        w_k \propto \pi_k \exp\!\left( \frac{s^2\, \lVert U_k^\top x \rVert^2}{2 g^2 (s^2 + g^2)} \right)

    Parameters
    ----------
    x
        Noised samples :math:`s x_0 + g \epsilon`.
    s, g
        Scale and noise deviation of each; g greater than 0.
    U
        Orthonormal bases.
    pi
        Weights of the components.
    hard
        Take the most likely component alone instead of the mean.

    Returns
    -------
    Tensor
        Denoised samples (m, n).

    Raises
    ------
    ValueError
        For a noise that is not positive or bases that are not orthonormal.

    References
    ----------
    diffusion-subspace-clustering
    """
    validate.in_range("g", g, torch.finfo(g.dtype).tiny, math.inf)
    gram = U.mT @ U - torch.eye(U.shape[2], dtype=U.dtype, device=U.device)
    validate.in_range("U^T U - I", gram, -1e-3, 1e-3)
    coordinates = torch.einsum("knd,mn->mkd", U, x)
    sharpness = s.square() / (2 * g.square() * (s.square() + g.square()))
    logits = pi.log() + sharpness[:, None] * coordinates.square().sum(-1)
    w = F.one_hot(logits.argmax(1), len(pi)).to(x.dtype) if hard else logits.softmax(1)
    mixed = torch.einsum("mk,mkd,knd->mn", w, coordinates, U)
    return (s / (s.square() + g.square()))[:, None] * mixed


@typed
def molrg_loss(
    U: Float[Tensor, "K n d"],
    x0: Float[Tensor, "m n"],
    noise: Float[Tensor, "m n"],
    g: Float[Tensor, "m"],
) -> Float[Tensor, ""]:
    r"""Denoising loss of a low-rank denoiser with equal weights, at scale one.

    .. math:: \mathcal L(U) = \frac1m \sum_i \lVert \hat x_U(x_i + g_i \epsilon_i) - x_i \rVert^2

    Parameters
    ----------
    U
        Orthonormal bases, the parameters.
    x0, noise
        Clean samples, and standard normal draws for them.
    g
        Noise deviations, greater than 0.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        As `molrg_denoiser`.

    References
    ----------
    diffusion-subspace-clustering
    """
    pi = torch.full((len(U),), 1 / len(U), dtype=U.dtype, device=U.device)
    denoised = molrg_denoiser(x0 + g[:, None] * noise, torch.ones_like(g), g, U, pi)
    return (denoised - x0).square().sum(1).mean()


@typed
def k_subspaces(
    x: Float[Tensor, "m n"], starts: Float[Tensor, "r K n d"], *, iters: int = 30
) -> Float[Tensor, "K n d"]:
    r"""Cluster samples around subspaces through the origin, by turns, from several starts.

    .. math:: \max_{U, C} \sum_k \sum_{i \in C_k} \lVert U_k^\top x_i \rVert^2

    Assign each sample to the subspace that keeps most of it, then fit each subspace by principal components.

    Parameters
    ----------
    x
        Samples.
    starts
        Orthonormal bases to start from; the start with the highest objective wins.
    iters
        Turns, at least 1.

    Returns
    -------
    Tensor
        Bases (K, n, d), each vector with a sum that is not negative.

    Raises
    ------
    ValueError
        For no turns.

    References
    ----------
    diffusion-subspace-clustering
    """
    validate.at_least("iters", iters, 1)
    d = starts.shape[3]
    U = starts
    for _ in range(iters):
        kept = torch.einsum("rknd,mn->rmkd", U, x).square().sum(-1)
        member = F.one_hot(kept.argmax(-1), starts.shape[1]).to(x.dtype)
        scatter = torch.einsum("rmk,mn,mp->rknp", member, x, x)
        U = torch.linalg.eigh(scatter)[1][..., -d:]
    kept = torch.einsum("rknd,mn->rmkd", U, x).square().sum(-1).amax(-1).sum(-1)
    best = F.one_hot(kept.argmax(), len(starts)).to(x.dtype)
    chosen = torch.einsum("r,rknd->knd", best, U)
    # Eigenvectors have no sign of their own.
    return torch.where(chosen.sum(1, keepdim=True) < 0, -chosen, chosen)


@typed
def subspace_error(U: Float[Tensor, "K n d"], U_star: Float[Tensor, "K n d"]) -> Float[Tensor, ""]:
    r"""Distance between sets of subspaces, in the best order.

    .. math:: \min_\tau \Bigl( \frac1K \sum_k \lVert U_k U_k^\top - U^*_{\tau(k)} U^{*\top}_{\tau(k)} \rVert_F^2
        \Bigr)^{1/2}

    Parameters
    ----------
    U, U_star
        Orthonormal bases, K at most 6.

    Returns
    -------
    Tensor
        A scalar from 0 to :math:`\sqrt{2 \min(d, n - d)}`.

    Raises
    ------
    ValueError
        For more subspaces than orders can be tried for.

    References
    ----------
    diffusion-subspace-clustering
    """
    K, _, d = U.shape
    validate.in_range("K", K, 1, MOST_SUBSPACES)
    overlap = torch.einsum("kne,lnf->klef", U, U_star).square().sum((-2, -1))
    orders = torch.tensor(list(itertools.permutations(range(K))), device=U.device)
    total = overlap[torch.arange(K, device=U.device), orders].mean(1).amax(0)
    return (2 * (d - total)).clamp_min(0).sqrt()


@typed
def span_error(N: Float[Tensor, "*sizes"], *, n: int, d: int) -> Float[Tensor, "*sizes"]:
    r"""Root mean square `subspace_error` of PCA on few samples of one subspace, completed at random.

    .. math:: \sqrt{\mathbb E \lVert \hat P - P \rVert_F^2} = \sqrt{ \frac{2\, (d - N)_+ (n - d)}{n - N} }

    Parameters
    ----------
    N
        Samples, at least 0 and below n.
    n, d
        Ambient and intrinsic dimension, :math:`d < n`.

    Returns
    -------
    Tensor
        One error a size; zero from :math:`N = d` on.

    Raises
    ------
    ValueError
        For sizes out of range.

    References
    ----------
    diffusion-subspace-clustering
    """
    validate.in_range("d", d, 1, n - 1)
    validate.in_range("N", N, 0, n - 1)
    return (2 * (d - N).clamp_min(0) * (n - d) / (n - N)).sqrt()


@typed
def jacobian_rank(
    denoiser: Callable[[Tensor], Tensor], x: Float[Tensor, "n"], probes: Float[Tensor, "k m"], *, energy: float = 0.99
) -> Int[Tensor, ""]:
    r"""Numerical rank of the Jacobian of a denoiser, seen through linear readings of its output.

    .. math:: \min \Bigl\{ r : \sum_{i \le r} \sigma_i^2 \ge \rho \sum_i \sigma_i^2 \Bigr\}, \qquad
        \sigma_i \text{ the singular values of } \Omega\, \frac{\partial \hat x_0}{\partial x}

    Parameters
    ----------
    denoiser
        Maps a vector (n,) to a vector (m,).
    x
        Where to differentiate.
    probes
        :math:`\Omega`: the identity for all of the Jacobian, or k random rows, which cost k backward passes and see
        ranks up to k.
    energy
        :math:`\rho` in (0, 1].

    Returns
    -------
    Tensor
        The rank, an integer.

    Raises
    ------
    ValueError
        For an energy outside of its range.

    References
    ----------
    diffusion-subspace-clustering
    """
    validate.positive("energy", energy)
    validate.in_range("energy", energy, 0.0, 1.0)
    squares = torch.linalg.svdvals(jacrev(lambda v: probes @ denoiser(v))(x)).square()
    share = squares.cumsum(0) / squares.sum()
    # Rounding may keep the last share just below 1.
    return (share < energy - 8 * torch.finfo(share.dtype).eps).sum().clamp_max(len(share) - 1) + 1

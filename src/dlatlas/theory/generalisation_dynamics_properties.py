"""Properties of a data set that say how fast a network learns from it: label sharpness and intrinsic dimension."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlatlas.ops import validate
from dlatlas.typed import typed

CHUNK = 2**22
"""Entries of the distance matrix that are held at once."""


@typed
def label_sharpness(x: Float[Tensor, "n *d"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    r"""Largest change of a class label per distance: an empirical Lipschitz constant of the labels.

    .. math:: \hat K_F = \max_{j, k:\, x_j \ne x_k} \frac{1\{y_j \ne y_k\}}{\lVert x_j - x_k \rVert_2}

    Over all pairs, by blocks of the distance matrix. For labels 0 and 1 the numerator is :math:`|y_j - y_k|`.

    Parameters
    ----------
    x
        Samples with pixels in [0, 1]; images are flattened.
    y
        Class labels.

    Returns
    -------
    Tensor
        :math:`\hat K_F`, a scalar; 0 if all labels are equal.

    Raises
    ------
    ValueError
        Where two labels sit on one point: no function has them, and the constant would be infinite.

    References
    ----------
    intrinsic-dataset-properties
    """
    flat = x.flatten(1)
    rows = max(1, CHUNK // len(flat))
    blocks = zip(flat.split(rows), y.split(rows), strict=True)
    nearest = torch.cat([_nearest_other_label(a, b, flat, y) for a, b in blocks]).amin()
    validate.in_range("smallest distance of two labels", nearest, torch.finfo(x.dtype).tiny, math.inf)
    return 1 / nearest


@typed
def mle_dimension(x: Float[Tensor, "n *d"], k: int = 20) -> Float[Tensor, ""]:
    r"""Intrinsic dimension by maximum likelihood, from the distances to the nearest neighbours.

    .. math:: \frac{1}{m_k(x)} = \frac{1}{k - 1} \sum_{j=1}^{k-1} \log \frac{T_k(x)}{T_j(x)}, \qquad
        \hat d = \Bigl[ \frac1n \sum_x \frac{1}{m_k(x)} \Bigr]^{-1}

    where :math:`T_j(x)` is the distance to the j-th neighbour. The inverse is unbiased where the density is constant up
    to the k-th neighbour; this is why inverses are averaged.

    Parameters
    ----------
    x
        Samples, flattened.
    k
        Number of neighbours, from 2 to n - 1.

    Returns
    -------
    Tensor
        :math:`\hat d`, a scalar.

    Raises
    ------
    ValueError
        For k out of range, or samples that occur twice, which have no nearest distance.

    References
    ----------
    intrinsic-dataset-properties
    """
    validate.in_range("k", k, 2, len(x) - 1)
    log_distances = _neighbours(x, k).log()
    inverses = (log_distances[:, -1:] - log_distances[:, :-1]).mean(1)
    return 1 / inverses.mean()


@typed
def twonn_dimension(x: Float[Tensor, "n *d"]) -> Float[Tensor, ""]:
    r"""Intrinsic dimension by maximum likelihood from the two nearest neighbours.

    .. math:: \hat d = \frac{n}{\sum_x \log \bigl(T_2(x) / T_1(x)\bigr)}

    the case k = 2 of `mle_dimension`: it needs a constant density over the shortest distances only, and pays with a
    variance that is k - 1 times as large.

    Parameters
    ----------
    x
        At least three samples, flattened.

    Returns
    -------
    Tensor
        :math:`\hat d`, a scalar.

    Raises
    ------
    ValueError
        For fewer than three samples, or samples that occur twice.

    References
    ----------
    intrinsic-dataset-properties
    """
    return mle_dimension(x, k=2)


@typed
def nearest_neighbour_distance(n: Float[Tensor, "*#shape"], d: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
    r"""Mean distance from a point to the nearest of n uniform samples in d dimensions of volume 1, without a boundary.

    .. math:: \mathrm{E}\, T_1 = \Gamma\Bigl(1 + \frac1d\Bigr) (n V_d)^{-1/d}, \qquad
        V_d = \frac{\pi^{d/2}}{\Gamma(1 + d/2)}

    for many samples: :math:`n V_d T_1^d` has an exponential distribution then.

    Parameters
    ----------
    n, d
        Number of samples and dimension, greater than 0; they broadcast.

    Returns
    -------
    Tensor
        Distances.

    Raises
    ------
    ValueError
        For a number or a dimension that is not positive.

    References
    ----------
    intrinsic-dataset-properties
    """
    validate.in_range("n", n, torch.finfo(n.dtype).tiny, math.inf)
    validate.in_range("d", d, torch.finfo(d.dtype).tiny, math.inf)
    log_ball = d / 2 * math.log(math.pi) - torch.lgamma(1 + d / 2)
    return torch.exp(torch.lgamma(1 + 1 / d) - (n.log() + log_ball) / d)


@typed
def representation_dimension(model: nn.Module, layer: str, x: Float[Tensor, "n ..."], k: int = 20) -> Float[Tensor, ""]:
    r"""Intrinsic dimension of what a layer of a network makes of a data set.

    .. math:: d_{\mathrm{repr}} = \hat d\,\bigl(\{ h_\ell(x_1), \dots, h_\ell(x_n) \}\bigr)

    with the estimate of `mle_dimension`. Outputs that coincide count once; how many is not known before, so this does
    not work under ``torch.func.vmap`` and has no gradient.

    Parameters
    ----------
    model
        The network.
    layer
        Name of the layer, as in ``model.named_modules()``.
    x
        Inputs (n, ...).
    k
        Number of neighbours.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        For a layer that the network does not have, or k out of range for the number of different outputs.

    References
    ----------
    intrinsic-dataset-properties
    """
    validate.one_of("layer", layer, tuple(name for name, _ in model.named_modules()))
    outputs = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        model(x)
    finally:
        hook.remove()
    return mle_dimension(outputs[-1].flatten(1).unique(dim=0), k)


@typed
def fgsm(
    model: Callable[[Tensor], Tensor], x: Float[Tensor, "n *d"], y: Int[Tensor, " n"], eps: float
) -> Float[Tensor, "n *d"]:
    r"""Move every pixel by one step of the size eps in the direction in which the loss grows.

    .. math:: x' = \operatorname{clip}_{[0, 1]} \bigl( x + \epsilon \operatorname{sign} \nabla_x \ell(f(x), y) \bigr)

    with the cross-entropy :math:`\ell`.

    Parameters
    ----------
    model
        From inputs to logits (n, K); the logits of a sample depend on this sample alone.
    x
        Inputs with values in [0, 1].
    y
        Labels.
    eps
        Size of the step in the largest-entry norm, at least 0.

    Returns
    -------
    Tensor
        Inputs of the same shape, with values in [0, 1].

    Raises
    ------
    ValueError
        For a negative step, or inputs outside [0, 1].

    References
    ----------
    intrinsic-dataset-properties
    """
    validate.at_least("eps", eps, 0.0)
    validate.in_range("x", x, 0.0, 1.0)
    gradient = torch.func.grad(lambda x: F.cross_entropy(model(x), y, reduction="sum"))(x)
    return (x + eps * gradient.sign()).clamp(0, 1)


def _nearest_other_label(x: Tensor, y: Tensor, others: Tensor, other_y: Tensor) -> Tensor:
    """Distance from each sample to the nearest one with another label, infinite where there is none."""
    differ = y[:, None] != other_y
    nearest = torch.where(differ, _squared_distances(x, others), math.inf).argmin(1)
    distances = (x - others[nearest]).norm(dim=1)
    return torch.where(differ.any(1), distances, math.inf)


def _neighbours(x: Tensor, k: int) -> Tensor:
    """Distances to the k nearest neighbours, nearest first, (n, k)."""
    flat, index = x.flatten(1), torch.arange(len(x), device=x.device)
    rows = max(1, CHUNK // len(flat))
    others = [i[:, None] != index for i in index.split(rows)]
    blocks = [
        torch.where(o, _squared_distances(a, flat), math.inf) for a, o in zip(flat.split(rows), others, strict=True)
    ]
    near = torch.cat([block.topk(k, largest=False).indices for block in blocks])
    distances = (flat[:, None] - flat[near]).norm(dim=2).sort(1).values
    validate.in_range("distance to the nearest neighbour", distances, torch.finfo(x.dtype).tiny, math.inf)
    return distances


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances by a matrix product: fast, and good enough to tell who is near, but not how near."""
    a, b = a.detach().double(), b.detach().double()
    return a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.mT

"""Representations: how much of a layer's variance belongs to each of the features that it computes."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.class_moments import class_means
from dlatlas.ops.kernels import arccos_k1
from dlatlas.typed import typed


@typed
def boolean_feature_data(
    n: int, specs: Mapping[str, int], dim: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "n dim"], dict[str, Int[Tensor, " n"]]]:
    r"""Draw inputs of independent bits, and parities of some of them as features.

    .. math:: x \in \{-1, 1\}^d, \qquad F(x) = 1\Bigl\{ \prod_{j \in G_F} x_j > 0 \Bigr\}

    The groups :math:`G_F` are disjoint and the bits in them run through all combinations equally often, so features
    are exactly balanced and independent. The other bits are random and mean nothing.

    Parameters
    ----------
    n
        Number of inputs, a multiple of 2 to the number of bits that the features use.
    specs
        Name of each feature and the size of its group: 1 is a bit that can be read off, 2 an exclusive or.
    dim
        Number of bits :math:`d`, at least those that the features use.
    generator
        A CPU generator. There are no tensors to map over by vmap.
    dtype
        Of the inputs.

    Returns
    -------
    tuple
        Inputs (n, dim), and for each feature its labels 0 or 1 (n,).

    Raises
    ------
    ValueError
        For no features, an empty group, too few dimensions, or n that does not hold all combinations equally often.

    References
    ----------
    representation-bias-complexity
    """
    validate.at_least("number of features", len(specs), 1)
    validate.at_least("smallest group", min(specs.values()), 1)
    used = sum(specs.values())
    validate.at_least("dim", dim, used)
    if n < 1 or n % 2**used:
        raise ValueError(f"n must be a multiple of {2**used}, all combinations of {used} bits; got {n}")
    cells = torch.arange(2**used).repeat(n // 2**used)[torch.randperm(n, generator=generator)]
    meaning = 2 * (cells[:, None] >> torch.arange(used) & 1) - 1
    nuisance = 2 * torch.randint(2, (n, dim - used), generator=generator) - 1
    groups = meaning.split(list(specs.values()), dim=1)
    labels = {name: (group.prod(1) > 0).long() for name, group in zip(specs, groups, strict=True)}
    return torch.cat([meaning, nuisance], dim=1).to(dtype), labels


@typed
def variance_explained(R: Float[Tensor, "n u"], labels: Int[Tensor, " n"], classes: int) -> Float[Tensor, ""]:
    r"""Share of a layer's variance that the best prediction from a label explains.

    .. math:: r^2(F) = 1 - \frac{\sum_u \sum_n (R_{nu} - \hat R_{nu})^2}{\sum_u \sum_n (R_{nu} - \bar R_u)^2}, \qquad
        \hat R_n = \text{mean of } R \text{ over the samples with the label of } n

    Ratio of sums over all units, so that a unit counts by its variance. Class means are the least-squares fit on
    one-hot labels.

    Parameters
    ----------
    R
        Activations, one row a sample.
    labels, classes
        Value of the feature, from 0 to ``classes`` - 1.

    Returns
    -------
    Tensor
        A scalar between 0 and 1.

    Raises
    ------
    ValueError
        When the activations do not vary, a class has no samples or a label is out of range.

    References
    ----------
    representation-bias-complexity
    """
    centred = R - R.mean(0)
    total = centred.square().sum()
    validate.in_range("variance of R", total, torch.finfo(R.dtype).tiny, math.inf)
    return class_means(centred, labels, classes)[labels].square().sum() / total


@typed
def variance_shares(
    R: Float[Tensor, "n u"], a: Int[Tensor, " n"], b: Int[Tensor, " n"]
) -> dict[str, Float[Tensor, ""]]:
    r"""Split a layer's variance between two binary features, their interaction, and the rest.

    .. math:: 1 = r^2(A) + r^2(B) + r^2(A \times B) + \text{rest}, \qquad
        r^2(A \times B) = r^2(A, B) - r^2(A) - r^2(B)

    Parameters
    ----------
    R
        Activations, one row a sample.
    a, b
        Labels 0 or 1 of two features that are balanced and independent in the sample: all four combinations equally
        often.

    Returns
    -------
    dict
        ``a``, ``b``, ``interaction``, ``rest``: scalars that sum to one, none of them negative.

    Raises
    ------
    ValueError
        When the four combinations are not equally frequent, so that shares would overlap; as `variance_explained`.

    References
    ----------
    representation-bias-complexity
    """
    for name, labels in (("a", a), ("b", b)):
        validate.labels(name, labels, 2)
    cell = 2 * a + b
    counts = (cell[:, None] == torch.arange(4, device=cell.device)).sum(0)
    unevenness = counts.max() - counts.min()
    validate.in_range("difference between counts of the combinations", unevenness, 0, 0)
    share_a, share_b, both = (variance_explained(R, labels, classes) for labels, classes in ((a, 2), (b, 2), (cell, 4)))
    return {"a": share_a, "b": share_b, "interaction": both - share_a - share_b, "rest": 1 - both}


@typed
def parity_shares(
    dim: int, degrees: Int[Tensor, " degrees"], depth: int, *, dtype: torch.dtype = torch.float64
) -> Float[Tensor, " degrees"]:
    r"""Share of the variance of a random wide rectified layer that belongs to one parity of :math:`k` input bits.

    .. math:: \frac{\lambda_k}{\sum_{j \ge 1} \binom dj \lambda_j}, \qquad
        \lambda_k = 2^{-d} \sum_{h=0}^d \kappa_\ell\bigl(1 - \tfrac{2h}{d}\bigr)
        \sum_i (-1)^i \binom ki \binom{d-k}{h-i}

    with :math:`\kappa_\ell` the arc-cosine kernel of order one composed :math:`\ell` times.

    Parameters
    ----------
    dim
        Number of input bits :math:`d`, all of them uniform and independent.
    degrees
        Sizes :math:`k` of the parities, from 1 to d. They are counted with, so vmap cannot map over them.
    depth
        Hidden layers :math:`\ell` up to the one that is looked at, without biases.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        One share a degree.

    Raises
    ------
    ValueError
        For a degree outside 1 to d, or a depth below 1.

    References
    ----------
    representation-bias-complexity
    """
    validate.at_least("depth", depth, 1)
    validate.in_range("degrees", degrees, 1, dim)
    overlap = 1 - 2 * torch.arange(dim + 1, dtype=torch.float64, device=degrees.device) / dim
    for _ in range(depth):
        overlap = arccos_k1(overlap)
    characters = torch.tensor(
        [[_mean_character(dim, int(k), h) for h in range(dim + 1)] for k in [0, *degrees.tolist()]],
        dtype=torch.float64,
        device=degrees.device,
    )
    constant, *parities = (characters @ overlap).unbind()
    return (torch.stack(parities) / (overlap[0] - constant)).to(dtype)


def _mean_character(dim: int, k: int, h: int) -> float:
    """Sum of the parity of the first k bits over all inputs with h bits flipped, divided by the number of inputs."""
    signed = sum((-1) ** i * math.comb(k, i) * math.comb(dim - k, h - i) for i in range(min(k, h) + 1))
    return signed / 2**dim

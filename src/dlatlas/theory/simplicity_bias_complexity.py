"""Complexity of a feature: how deep in the network a linear reader has to look to find it."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def v_information(
    features: Float[Tensor, "n d"], z: Float[Tensor, "n k"], *, ridge: float = 1e-3, split: float = 0.5
) -> Float[Tensor, " k"]:
    r"""What a linear reader can tell about a feature from a layer: predictive V-information of standardised targets.

    .. math:: I_V(f \to z) = \frac{\inf_c E(z - c)^2 - \inf_{w, b} E(z - w \cdot f - b)^2}{\operatorname{Var} z}

    that is :math:`R^2` of ridge regression, fitted on the first part of the sample, measured on the rest, and clipped
    to [0, 1].

    Parameters
    ----------
    features
        Layer :math:`f(x)`, one row a sample.
    z
        Targets, one a column.
    ridge
        Penalty in units of the mean variance of the features, at least 0. Without one the shortest solution is taken.
    split
        Share of the sample for the fit, between 0 and 1.

    Returns
    -------
    Tensor
        One number a target, between 0 and 1.

    Raises
    ------
    ValueError
        When a part has fewer than two samples, a target does not vary in one of them, or the ridge is negative.

    References
    ----------
    feature-complexity-v-information
    """
    validate.at_least("ridge", ridge, 0.0)
    validate.in_range("split", split, 0.0, 1.0)
    fitted = round(split * len(features))
    validate.in_range("samples for the fit", fitted, 2, len(features) - 2)
    centre, mean = features[:fitted].mean(0), z[:fitted].mean(0)
    X, target = features - centre, z - mean
    for part in (target[:fitted], target[fitted:]):
        spread = (part - part.mean(0)).square().mean(0)
        validate.in_range("variance of z", spread, torch.finfo(z.dtype).tiny, math.inf)
    covariance = X[:fitted].mT @ X[:fitted] / fitted
    penalty = ridge * covariance.diagonal().mean() * torch.eye(X.shape[1], dtype=X.dtype, device=X.device)
    inverse = torch.linalg.pinv(covariance + penalty, hermitian=True)
    weights = inverse @ (X[:fitted].mT @ target[:fitted]) / fitted
    left = (target[fitted:] - X[fitted:] @ weights).square().mean(0)
    return (1 - left / spread).clamp(0.0, 1.0)


@typed
def expected_r_squared(r_squared: float, n: int, d: int) -> tuple[float, float]:
    r"""What least squares on :math:`d` normal features and :math:`n` samples reports: on its own data, and on new data.

    .. math:: R^2_{\text{fit}} = 1 - (1 - R^2)\, \frac{n - d - 1}{n - 1}, \qquad
        R^2_{\text{new}} = 1 - (1 - R^2)\, \frac{n + 1}{n} \cdot \frac{n - 2}{n - d - 2}

    Ratios of expectations: of the residual and of the total sum of squares.

    Parameters
    ----------
    r_squared
        :math:`R^2` of the best linear reader, between 0 and 1.
    n, d
        Samples and features; n is at least d + 3.

    Returns
    -------
    tuple of float
        :math:`R^2` on the data of the fit, and on new data, where it may be negative.

    Raises
    ------
    ValueError
        For a share outside [0, 1] or too few samples.

    References
    ----------
    feature-complexity-v-information
    """
    validate.in_range("r_squared", r_squared, 0.0, 1.0)
    validate.at_least("d", d, 1)
    validate.at_least("n", n, d + 3)
    unexplained = 1 - r_squared
    on_fit = 1 - unexplained * (n - d - 1) / (n - 1)
    return on_fit, 1 - unexplained * (n + 1) / n * (n - 2) / (n - d - 2)


@typed
def feature_complexity(
    layers: Sequence[Float[Tensor, "n _"]], z: Float[Tensor, "n k"], *, ridge: float = 1e-3, split: float = 0.5
) -> Float[Tensor, " k"]:
    r"""Complexity of features: one minus what linear readers find, averaged over depth.

    .. math:: K(z) = 1 - \frac1L \sum_{\ell=1}^L I_V(f_\ell \to z)

    Parameters
    ----------
    layers
        Activations of the layers from the input side to the penultimate one, each with one row a sample.
    z
        Features, one a column.
    ridge, split
        As for `v_information`.

    Returns
    -------
    Tensor
        One number a feature: 0 where every layer shows it, 1 where none does.

    Raises
    ------
    ValueError
        Without layers, and as `v_information`.

    References
    ----------
    feature-complexity-v-information
    """
    validate.at_least("number of layers", len(layers), 1)
    return 1 - torch.stack([v_information(layer, z, ridge=ridge, split=split) for layer in layers]).mean(0)


@typed
def nmf_dictionary(
    A: Float[Tensor, "n d"], start: Float[Tensor, "k d"], *, iterations: int = 100
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "k d"]]:
    r"""Non-negative codes and atoms of activations, by multiplicative updates.

    .. math:: \min_{Z, V \ge 0} \lVert A - Z V \rVert_F^2, \qquad
        Z \leftarrow Z \odot \frac{A V^\top}{Z V V^\top}, \quad V \leftarrow V \odot \frac{Z^\top A}{Z^\top Z V}

    Neither update ever increases the error. Atoms have unit length in the result.

    Parameters
    ----------
    A
        Activations, at least 0.
    start
        Initial atoms, greater than zero; more than d of them make the dictionary over-complete.
    iterations
        How often both updates are made.

    Returns
    -------
    tuple of Tensor
        Codes Z (n, k) and atoms V (k, d).

    Raises
    ------
    ValueError
        For negative activations, initial atoms that are not positive, or a negative number of iterations.

    References
    ----------
    feature-complexity-v-information
    """
    tiny = torch.finfo(A.dtype).tiny
    validate.in_range("A", A, 0.0, math.inf)
    validate.in_range("start", start, tiny, math.inf)
    validate.at_least("iterations", iterations, 0)
    atoms = start
    codes = (A @ atoms.mT + torch.finfo(A.dtype).eps) / atoms.square().sum()
    for _ in range(iterations):
        codes = codes * (A @ atoms.mT) / (codes @ (atoms @ atoms.mT)).clamp(min=tiny)
        atoms = atoms * (codes.mT @ A) / ((codes.mT @ codes) @ atoms).clamp(min=tiny)
    lengths = atoms.norm(dim=1).clamp(min=tiny)
    return codes * lengths, atoms / lengths[:, None]


@typed
def linear_attribution(
    codes: Float[Tensor, "n k"], atoms: Float[Tensor, "k d"], W: Float[Tensor, "c d"]
) -> Float[Tensor, " k"]:
    r"""Importance of atoms for a linear head: gradient times input, in absolute value, averaged.

    .. math:: \Gamma_i = \frac{1}{nc} \sum_{x, c} \bigl| z_i(x)\, \langle v_i, w_c \rangle \bigr|

    Parameters
    ----------
    codes, atoms
        As of `nmf_dictionary`.
    W
        Weights of the head, one row a class.

    Returns
    -------
    Tensor
        One number an atom.

    References
    ----------
    feature-complexity-v-information
    """
    return codes.abs().mean(0) * (atoms @ W.mT).abs().mean(1)

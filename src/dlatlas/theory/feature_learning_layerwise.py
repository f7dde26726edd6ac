"""Training three layers one by one: recovering the inner polynomial, fitting the outer one, and predicted errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.ops.kernel_ridge import effective_ridge, predicted_error
from dlatlas.theory.feature_learning_polynomials import hermite_kernel
from dlatlas.typed import typed

STAGES = ("one_step", "lsq")


@typed
def stage_one(
    features: Float[Tensor, "n modes"], y: Float[Tensor, " n"], *, stage1: str, ridge: float = 0.0
) -> Float[Tensor, " modes"]:
    r"""Train the middle layer on features of the frozen first one.

    .. math:: \hat c = \frac1n \Phi^\top y \quad\text{(one step)}, \qquad
        \hat c = \bigl( \Phi^\top \Phi + \lambda I \bigr)^{-1} \Phi^\top y \quad\text{(least squares)}

    Parameters
    ----------
    features, y
        :math:`\Phi` and the targets.
    stage1
        ``"one_step"`` of gradient descent from zero, or ``"lsq"``, many steps.
    ridge
        :math:`\lambda \ge 0`; greater than 0 where there are fewer samples than features.

    Returns
    -------
    Tensor
        Coefficients of the learnt feature.

    Raises
    ------
    ValueError
        For an unknown stage or a negative ridge.

    References
    ----------
    hierarchical-polynomials
    """
    validate.one_of("stage1", stage1, STAGES)
    validate.at_least("ridge", ridge, 0.0)
    correlation = features.mT @ y
    if stage1 == "one_step":
        return correlation / len(y)
    identity = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    return torch.linalg.solve(features.mT @ features + ridge * identity, correlation)


@dataclass(frozen=True)
class ThreeLayer:
    r"""A trained three-layer network, :math:`f(x) = \sum_i a_i\, \mathrm{relu}(w_i\, \phi(x)/s + b_i)`.

    Parameters
    ----------
    support, dual
        Samples of the first stage and their weights: :math:`\phi(x) = \sum_j \alpha_j \mathcal K_k(x, x_j)`.
    k
        Degree of the feature.
    scale
        Standard deviation s of the feature on the samples of the second stage.
    w, b, a
        Weights of the outer units.
    """

    support: Tensor
    dual: Tensor
    k: int
    scale: Tensor
    w: Tensor
    b: Tensor
    a: Tensor

    def feature(self, x: Tensor) -> Tensor:
        """The learnt feature at rows of x."""
        return hermite_kernel(x, self.support, self.k) @ self.dual

    def __call__(self, x: Tensor) -> Tensor:
        """The prediction at rows of x."""
        return _outer_units(self.feature(x) / self.scale, self.w, self.b) @ self.a


@typed
def three_layer_layerwise(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    *,
    k: int,
    width: int,
    ridge: float,
    stage1: str = "lsq",
    share: float = 0.75,
    outer_ridge: float = 1e-3,
    generator: torch.Generator,
) -> ThreeLayer:
    r"""Train a three-layer network layer by layer: first its feature, then a function of one variable.

    .. math:: \phi = \operatorname*{argmin}_{\phi \in \mathcal H_k} \sum_{i \in D_1} (\phi(x_i) - y_i)^2
        + \lambda \lVert \phi \rVert^2, \qquad
        a = \operatorname*{argmin}_a \frac{1}{|D_2|} \sum_{i \in D_2} (f(x_i) - y_i)^2 + \lambda_2 \lVert a \rVert^2

    The frozen first layer enters through the kernel of its degree-k part, as it would at infinite width.
    The stages use different samples, so that the second sees honest errors of the first. A call draws from a generator,
    so that ``vmap`` cannot map over it.

    Parameters
    ----------
    x, y
        Samples and targets.
    k
        Degree of the feature, 1 to 3.
    width
        Outer units, with random signs :math:`w_i = \pm 1` and :math:`b_i` uniform on [-3, 3].
    ridge
        :math:`\lambda`, greater than 0 for ``"lsq"`` with fewer samples than features.
    stage1
        ``"lsq"`` as above, or ``"one_step"``: :math:`\phi(x) = \frac{1}{|D_1|} \sum_i y_i \mathcal K_k(x, x_i)`.
    share
        Part of the samples that the first stage gets.
    outer_ridge
        :math:`\lambda_2`.
    generator
        Source of the outer units.

    Returns
    -------
    ThreeLayer
        A predictor, with the learnt feature as ``.feature``.

    Raises
    ------
    ValueError
        For an unknown stage, a share outside (0, 1), ridges that are not positive, or a degree that has no kernel here.

    References
    ----------
    hierarchical-polynomials
    """
    validate.one_of("stage1", stage1, STAGES)
    validate.in_range("share", share, 1 / len(x), 1 - 1 / len(x))
    validate.positive("ridge", ridge)
    validate.positive("outer_ridge", outer_ridge)
    validate.at_least("width", width, 1)
    first = round(share * len(x))
    support, y1, x2, y2 = x[:first], y[:first], x[first:], y[first:]
    dual = y1 / first
    if stage1 == "lsq":
        K = hermite_kernel(support, support, k)
        factor = torch.linalg.cholesky(K + ridge * torch.eye(first, dtype=x.dtype, device=x.device))
        dual = torch.cholesky_solve(y1[:, None], factor)[:, 0]
    phi = hermite_kernel(x2, support, k) @ dual
    scale = phi.square().mean().sqrt()
    w = (torch.randint(2, (width,), generator=generator) * 2 - 1).to(x)
    b = (6 * torch.rand(width, generator=generator, dtype=torch.float64) - 3).to(x)
    units = _outer_units(phi / scale, w, b)
    penalty = outer_ridge * len(y2) * torch.eye(width, dtype=x.dtype, device=x.device)
    a = torch.linalg.solve(units.mT @ units + penalty, units.mT @ y2)
    return ThreeLayer(support, dual, k, scale, w, b, a)


class QuadraticMoments(NamedTuple):
    """What the quadratic part of a target holds; see `quadratic_moments`."""

    signal: float
    leakage: float
    energy: float


@typed
def quadratic_moments(weights: Float[Tensor, " r"], g1: float, g2: float) -> QuadraticMoments:
    r"""Decompose :math:`h = g_1 p + g_2 h_2(p)` for a quadratic form p in d variables, exactly.

    .. math:: P_2 h = m\, p + p_\perp: \qquad
        m = g_1 + 2 g_2\, \tau_3, \qquad
        \mathrm E\, p_\perp^2 = 4 g_2^2 (\tau_4 - \tau_3^2), \qquad
        \mathrm E\, h^2 = g_1^2 + 4 g_1 g_2\, \tau_3 + g_2^2 (1 + 6 \tau_4)

    with :math:`\tau_j = \operatorname{tr} A^j` for :math:`p = (x^\top A x - \operatorname{tr} A) / \sqrt2` and
    :math:`\lVert A \rVert_F = 1`. Were p Gaussian, both :math:`\tau` would vanish.

    Parameters
    ----------
    weights
        Eigenvalues of A.
    g1, g2
        Coefficients of g.

    Returns
    -------
    QuadraticMoments
        ``signal`` m, ``leakage`` :math:`\mathrm E\, p_\perp^2`, and ``energy`` :math:`\mathrm E\, h^2`: plain numbers,
        which ``vmap`` cannot map over.

    Raises
    ------
    ValueError
        When the weights are not of norm 1.

    References
    ----------
    hierarchical-polynomials
    """
    validate.in_range("norm of weights", weights.norm(), 1 - 1e-5, 1 + 1e-5)
    tau3, tau4 = (weights.pow(k).sum().item() for k in (3, 4))
    return QuadraticMoments(
        signal=g1 + 2 * g2 * tau3,
        leakage=4 * g2**2 * (tau4 - tau3**2),
        energy=g1**2 + 4 * g1 * g2 * tau3 + g2**2 * (1 + 6 * tau4),
    )


@typed
def stage_one_correlation(n: int, modes: int, *, moments: QuadraticMoments, stage1: str, ridge: float = 0.0) -> float:
    r"""Predicted correlation of the learnt feature with the inner polynomial.

    .. math:: \rho = \frac{m}{\sqrt{m^2 + \mathrm E\, p_\perp^2 + v}}, \qquad
        v_{\text{one step}} = \frac{N}{n}\, \mathrm E\, h^2, \qquad
        v_{\text{lsq}} = \frac{N}{n - N}\, \bigl( \mathrm E\, h^2 - m^2 - \mathrm E\, p_\perp^2 \bigr)
        \quad (n > N, \lambda \to 0)

    What the features cannot express acts as noise that is independent of them. With a ridge, or fewer samples than
    features, the shrinkage and the variance come from the learning curve of kernel ridge regression,
    `dlatlas.ops.kernel_ridge.predicted_error`.

    Parameters
    ----------
    n, modes
        Samples, and number N of features: :math:`d(d+1)/2` for k = 2.
    moments
        From `quadratic_moments`.
    stage1, ridge
        As for `stage_one`.

    Returns
    -------
    float
        :math:`\rho`, at most 1.

    Raises
    ------
    ValueError
        For an unknown stage, a negative ridge, or fewer than one sample or feature.

    References
    ----------
    hierarchical-polynomials
    """
    validate.one_of("stage1", stage1, STAGES)
    validate.at_least("n", n, 1)
    validate.at_least("modes", modes, 1)
    signal, leakage, energy = moments
    power = signal**2 + leakage
    if stage1 == "one_step":
        return signal / math.sqrt(power + modes * energy / n)
    spectrum = [torch.tensor([value], dtype=torch.float64) for value in (1.0, modes, power)]
    kappa = effective_ridge(*spectrum[:2], n=n, ridge=ridge).item()
    kept, noise = 1 / (1 + kappa), energy - power
    error = predicted_error(*spectrum, n=n, ridge=ridge, noise=noise).item()
    variance = max(error - noise - power * (1 - kept) ** 2, 0.0)
    return kept * signal / math.sqrt(kept**2 * power + variance)


@typed
def composition_error(link: Sequence[float], correlation: float) -> float:
    r"""Least error of any function of a feature that has the given correlation with the inner polynomial.

    .. math:: \frac{\mathrm E\,\bigl( g(p) - \mathrm E[g(p) \mid \phi] \bigr)^2}{\mathrm E\, g(p)^2}
        = 1 - \frac{\sum_j g_j^2\, \rho^{2j}}{\sum_j g_j^2}

    for jointly normal :math:`p, \phi`, because :math:`\mathrm E[h_j(p) \mid \phi] = \rho^j h_j(\phi)`.

    Parameters
    ----------
    link
        :math:`g_1, \dots, g_q`.
    correlation
        :math:`\rho`.

    Returns
    -------
    float
        Relative to the variance of the target, between 0 and 1.

    Raises
    ------
    ValueError
        For a correlation outside [-1, 1], or a link that is all zero.

    References
    ----------
    hierarchical-polynomials
    """
    validate.in_range("correlation", correlation, -1.0, 1.0)
    energy = sum(g**2 for g in link)
    validate.positive("sum of squares of link", energy)
    return 1 - sum(g**2 * correlation ** (2 * j) for j, g in enumerate(link, start=1)) / energy


def _outer_units(z: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.relu(z[:, None] * w + b)

"""Robust low-rank recovery: sub-gradient descent on the mean absolute residual, and what it follows as samples grow."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from dlatlas.ops import validate
from dlatlas.typed import typed


@typed
def measurements(A: Float[Tensor, "m d d"], X: Float[Tensor, "d d"], s: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    r"""Linear measurements of a positive semidefinite matrix, with noise.

    .. math:: y_i = \langle A_i, X \rangle + s_i

    Parameters
    ----------
    A, X, s
        Measurement matrices :math:`A_i`, the matrix :math:`X^*`, and noise; a clean entry has :math:`s_i = 0`.

    Returns
    -------
    Tensor
        (m,).

    Raises
    ------
    ValueError
        When X is not symmetric or has a negative eigenvalue, since no :math:`U U^\top` equals it then.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    tolerance = torch.finfo(X.dtype).eps ** 0.5
    validate.in_range("asymmetry of X", (X - X.mT).abs().max() / _length(X), 0, tolerance)
    validate.in_range("smallest eigenvalue of X", torch.linalg.eigvalsh(X).min() / _length(X), -tolerance, torch.inf)
    return torch.einsum("ide,de->i", A, X) + s


@typed
def subgradient(A: Float[Tensor, "m d d"], y: Float[Tensor, " m"], Z: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    r"""Symmetric sub-gradient of the mean absolute residual at a symmetric matrix.

    .. math:: M = \frac1m \sum_i \operatorname{sign}(\langle A_i, Z \rangle - y_i)\, \frac{A_i + A_i^\top}{2}

    The sub-gradient of :math:`f(U) = \frac1m \sum_i |y_i - \langle A_i, U U^\top \rangle|` is :math:`2 M U`.

    Parameters
    ----------
    A, y, Z
        Measurement matrices, measurements, and the estimate :math:`U U^\top`.

    Returns
    -------
    Tensor
        (d, d). An entry with no residual counts as zero.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    return _signed_mean(A, torch.einsum("ide,de->i", A, Z) - y)


@typed
def small_spectral_init(
    A: Float[Tensor, "m d d"], y: Float[Tensor, " m"], k: int, *, alpha: float
) -> Float[Tensor, "d k"]:
    r"""Small start in the directions that the signs of the measurements point to.

    .. math:: U_0 = \alpha B, \qquad B B^\top = \frac{C_{k+}}{\lVert C_{k+} \rVert_F}, \qquad
        C = \frac1m \sum_i \operatorname{sign}(y_i)\, \frac{A_i + A_i^\top}{2}

    with :math:`C_{k+}` the part of C that belongs to its k largest eigenvalues, as far as they are positive.

    Parameters
    ----------
    A, y, k
        Measurement matrices, measurements, columns of U, at most d.
    alpha
        Scale :math:`\alpha`.

    Returns
    -------
    Tensor
        (d, k); a column of zeros for each eigenvalue that is not positive. Not differentiable there.

    Raises
    ------
    ValueError
        When alpha is not positive, or k is not in 1 to d.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    validate.positive("alpha", alpha)
    validate.in_range("k", k, 1, A.shape[-1])
    values, vectors = torch.linalg.eigh(_signed_mean(A, y))
    kept = values.flip(-1)[:k].clamp(min=0)
    return alpha * vectors.flip(-1)[:, :k] * (kept / kept.norm()).sqrt()


@typed
def subgm(
    A: Float[Tensor, "m d d"],
    y: Float[Tensor, "*batch m"],
    U: Float[Tensor, "*batch d k"],
    X: Float[Tensor, "d d"],
    *,
    eta0: float = 0.25,
    rho: float = 0.99,
    steps: int,
    rule: str = "residual",
) -> tuple[Float[Tensor, "*batch d k"], Float[Tensor, "*batch times"]]:
    r"""Sub-gradient method (SubGM) for the factor of a low-rank matrix.

    .. math:: U_{t+1} = U_t - \eta_t M_t U_t, \qquad \eta_t = \begin{cases}
        \dfrac{\eta_0}{m} \sum_i |y_i - \langle A_i, U_t U_t^\top \rangle| & \text{residual} \\[1ex]
        \eta_0\, \rho^t / \lVert M_t \rVert_F & \text{geometric} \end{cases}

    Parameters
    ----------
    A, y, U
        Measurement matrices, measurements, and the start :math:`U_0`; k may exceed the rank of X. Leading dimensions
        hold separate problems with the same measurement matrices.
    X
        The matrix that errors are measured against; the method itself does not see it.
    eta0, rho
        Step size, and its decay under ``"geometric"``.
    steps, rule
        Number of steps; ``"residual"`` for clean measurements, ``"geometric"`` with outliers or noise.

    Returns
    -------
    U, errors
        The last U ``(*batch, d, k)``, and :math:`\lVert U_t U_t^\top - X \rVert_F / \lVert X \rVert_F`
        for t = 0, ..., steps, ``(*batch, steps + 1)``.

    Raises
    ------
    ValueError
        When the rule is not known, the step size is not positive or the decay is not in (0, 1].

    References
    ----------
    subgm-robust-matrix-recovery
    """
    _check_schedule(eta0, rho, rule)
    # Symmetric matrices hold each pair of indices twice; half of them are half of the work.
    i, j = torch.triu_indices(*X.shape, device=X.device)
    weights = torch.where(i == j, 1.0, 2.0).to(X)
    rows = (A[:, i, j] + A[:, j, i]) / 2
    position = i.new_zeros(X.shape)
    position[i, j] = position[j, i] = torch.arange(len(i), device=i.device)
    Z = U @ U.mT
    errors = [_lengths(Z - X)]
    for t in range(steps):
        residuals = (weights * Z[..., i, j]) @ rows.mT - y
        M = (residuals.sign() @ rows / len(rows))[..., position]
        eta = eta0 * residuals.abs().mean(-1) if rule == "residual" else eta0 * rho**t / _lengths(M)
        U = U - eta[..., None, None] * M @ U
        Z = U @ U.mT
        errors.append(_lengths(Z - X))
    return U, torch.stack(errors, -1) / _length(X)


@typed
def subgm_population(
    eigenvalues: Float[Tensor, " d"],
    u: Float[Tensor, " d"],
    *,
    eta0: float = 0.25,
    rho: float = 0.99,
    steps: int,
    rule: str = "residual",
) -> Float[Tensor, "times d"]:
    r"""Scalar recursions that `subgm` follows with infinitely many Gaussian measurements and no noise.

    .. math:: u_j \leftarrow u_j - \eta_t\, (u_j^2 - \sigma_j)\, u_j, \qquad \eta_t = \begin{cases}
        \frac2\pi\, \eta_0 & \text{residual} \\
        \eta_0\, \rho^t / \lVert u^2 - \sigma \rVert & \text{geometric} \end{cases}

    for a start :math:`U_0` whose left singular vectors are eigenvectors of :math:`X^*`, such as :math:`\alpha I`.
    The geometric rule does not depend on the outliers.

    Parameters
    ----------
    eigenvalues, u
        Eigenvalues :math:`\sigma_j` of :math:`X^*` with its zeros, and the singular values of :math:`U_0`.
    eta0, rho, steps, rule
        See `subgm`.

    Returns
    -------
    Tensor
        Singular values of :math:`U_t` for t = 0, ..., steps, one row a time.

    Raises
    ------
    ValueError
        As `subgm`, and for a negative eigenvalue.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    _check_schedule(eta0, rho, rule)
    validate.in_range("eigenvalues", eigenvalues, 0, torch.inf)
    path = [u]
    for t in range(steps):
        gap = u**2 - eigenvalues
        eta = 2 / math.pi * eta0 if rule == "residual" else eta0 * rho**t / _length(gap)
        u = u - eta * gap * u
        path.append(u)
    return torch.stack(path)


@typed
def sign_rip_factor(norm: Float[Tensor, ""], s: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    r"""Share of the direction X that is left in the mean of signed measurements.

    .. math:: \varphi = \sqrt{\tfrac2\pi}\; \frac1m \sum_i e^{-s_i^2 / (2 \lVert X \rVert_F^2)}, \qquad
        \mathbb E \operatorname{sign}(\langle A, X \rangle - s)\, A = \varphi\, X / \lVert X \rVert_F

    Parameters
    ----------
    norm, s
        :math:`\lVert X \rVert_F`, positive, and noise samples; clean entries are zeros.

    Returns
    -------
    Tensor
        A scalar between 0 and :math:`\sqrt{2/\pi}`.

    Raises
    ------
    ValueError
        When the norm is not positive.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    validate.in_range("norm", norm, torch.finfo(norm.dtype).tiny, torch.inf)
    return math.sqrt(2 / math.pi) * (-((s / norm) ** 2) / 2).exp().mean()


@typed
def sign_rip_deviation(A: Float[Tensor, "m d d"], X: Float[Tensor, "d d"], s: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    r"""How far signed measurements are from pointing along X, in the worst direction of rank one.

    .. math:: \delta = \Bigl\lVert \frac{1}{\varphi m} \sum_i \operatorname{sign}(\langle A_i, X \rangle - s_i)\,
        \frac{A_i + A_i^\top}{2} - \frac{X}{\lVert X \rVert_F} \Bigr\rVert_2

    Parameters
    ----------
    A, X, s
        Measurement matrices, a symmetric matrix that is not zero, and noise.

    Returns
    -------
    Tensor
        A scalar; `sign_rip_prediction` is its limit.

    Raises
    ------
    ValueError
        When X is zero.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    length = _length(X)
    factor = sign_rip_factor(length, s)
    signed = _signed_mean(A, torch.einsum("ide,de->i", A, X) - s)
    return torch.linalg.eigvalsh(signed / factor - X / length).abs().max()


@typed
def sign_rip_prediction(d: int, m: int, factor: Float[Tensor, ""]) -> Float[Tensor, ""]:
    r"""Limit of `sign_rip_deviation` for large d and m at fixed d / m.

    .. math:: \delta = \frac1\varphi \sqrt{\frac{2 d}{m}}

    Parameters
    ----------
    d, m
        Side of the matrices, number of measurements.
    factor
        :math:`\varphi`, `sign_rip_factor`.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    ValueError
        When d or m is below one or the factor not positive.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    validate.at_least("d", d, 1)
    validate.at_least("m", m, 1)
    validate.in_range("factor", factor, torch.finfo(factor.dtype).tiny, torch.inf)
    return math.sqrt(2 * d / m) / factor


@typed
def floor_exponent(eigenvalues: Float[Tensor, " r"], delta: Float[Tensor, ""]) -> Float[Tensor, ""]:
    r"""Exponent of the error floor in the scale of the start, to first order in the deviation.

    .. math:: \lVert U U^\top - X^* \rVert_F \propto \alpha^{a}, \qquad
        a = 2 - 2 \delta\, \lVert X^* \rVert_F / \sigma_r

    Parameters
    ----------
    eigenvalues, delta
        The eigenvalues of :math:`X^*` that are not zero, and `sign_rip_deviation`.

    Returns
    -------
    Tensor
        A scalar, 2 with infinitely many measurements; at or below zero the estimate promises nothing.

    Raises
    ------
    ValueError
        When an eigenvalue is not positive.

    References
    ----------
    subgm-robust-matrix-recovery
    """
    validate.in_range("eigenvalues", eigenvalues, torch.finfo(eigenvalues.dtype).tiny, torch.inf)
    return 2 - 2 * delta * _length(eigenvalues) / eigenvalues.min()


def _check_schedule(eta0: float, rho: float, rule: str) -> None:
    validate.positive("eta0", eta0)
    validate.in_range("rho", rho, 1e-9, 1)
    validate.one_of("rule", rule, ("residual", "geometric"))


def _signed_mean(A: Tensor, residuals: Tensor) -> Tensor:
    mean = torch.einsum("i,ide->de", residuals.sign(), A) / len(residuals)
    return (mean + mean.mT) / 2


def _length(X: Tensor) -> Tensor:
    return X.square().sum().sqrt()


def _lengths(matrices: Tensor) -> Tensor:
    """Frobenius norm of each matrix."""
    return matrices.square().sum((-2, -1)).sqrt()
